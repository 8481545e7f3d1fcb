//! What an entry may say, in whichever form it was written.

use super::{BdmEntry, BdmError, BdmSource, DeviceName};
use crate::disk::MAX_SIZE;

/// Highest number of an instance-store volume.
const MAX_EPHEMERAL: u8 = 23;

/// The number of an instance-store volume.
pub(super) fn ephemeral(device: &DeviceName, field: &'static str, number: &str) -> Result<u8, BdmError> {
    let canonical = number == "0" || !number.starts_with('0');
    match number.parse::<u8>() {
        Ok(number) if number <= MAX_EPHEMERAL && canonical => Ok(number),
        _ => Err(BdmError::Field {
            device: device.clone(),
            field,
            why: format!("{number:?} is no number of one; possible are ephemeral0 to ephemeral{MAX_EPHEMERAL}"),
        }),
    }
}

/// Refuses fields that do not go together, whichever device is the root.
pub(super) fn check(entry: &BdmEntry) -> Result<(), BdmError> {
    let fail = |field, why: &str| Err(BdmError::Field { device: entry.device.clone(), field, why: why.to_owned() });
    if let Some(size) = entry.size
        && !(size > 0 && size <= MAX_SIZE && size.is_multiple_of(crate::disk::SECTOR_SIZE))
    {
        return fail("size", "a volume has a multiple of 512 bytes, at least 512 and at most 64T");
    }
    let is_file = matches!(entry.source, BdmSource::File(_));
    if entry.persist && !is_file {
        return fail("persist", "only what is written to a file can be kept; give a file");
    }
    if entry.format.is_some() && !is_file {
        return fail("format", "only files have a format");
    }
    if entry.persist && entry.read_only {
        return fail("persist", "nothing is written to a read-only volume; leave out one of the two");
    }
    if entry.read_only && matches!(entry.source, BdmSource::Blank | BdmSource::Ephemeral(_)) {
        return fail(
            "read-only",
            "an empty volume that cannot be written to is of no use; give a file, or leave it out",
        );
    }
    match (&entry.source, entry.delete_on_termination) {
        (BdmSource::Nothing, on_termination) if entry.size.is_some() || entry.read_only || on_termination.is_some() => {
            fail("none", "there is nothing that options could be for; leave them out")
        }
        (BdmSource::Ephemeral(_), Some(_)) => {
            fail("delete-on-termination", "an instance-store volume always goes with its machine; leave it out")
        }
        (BdmSource::File(_), Some(true)) if entry.persist => {
            fail("delete-on-termination", "a file that was given is never deleted; leave out it or persist")
        }
        (BdmSource::File(_), Some(false)) if !entry.persist && !entry.read_only => fail(
            "delete-on-termination",
            "a run keeps nothing of what is written to a file, unless persist is given too; add it, or say true",
        ),
        _ => Ok(()),
    }
}
