//! The formats that machines use too.

use std::os::unix::fs::FileExt;

use imago::file::File as Storage;
use imago::{FormatCreateBuilder, qcow2};
use vm_memory::VolatileSlice;

use super::{ExportError, Units, is_zero};
use crate::disk::output::Output;
use crate::disk::{Disk, Qcow2, Qcow2Error};

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;
/// Bytes that are a hole, in raw disks, or no cluster, in qcow2, where they are zero.
const RAW_UNIT: usize = 4096;
const CLUSTER: usize = 64 * 1024;

/// The parts of `bytes` that are not zero, as runs of whole units: where each begins, and its bytes.
fn data_in(bytes: &[u8], unit: usize) -> Vec<(u64, &[u8])> {
    let mut runs = Vec::new();
    let mut begin = None;
    let mut at = 0;
    let mut close = |begin: &mut Option<usize>, end| {
        if let Some(from) = begin.take() {
            runs.push((from as u64, bytes.get(from..end).unwrap_or_default()));
        }
    };
    for piece in bytes.chunks(unit) {
        if is_zero(piece) {
            close(&mut begin, at);
        } else {
            begin.get_or_insert(at);
        }
        at += piece.len();
    }
    close(&mut begin, at);
    runs
}

/// Writes a raw disk with holes; gives the bytes of it that are in the file.
///
/// # Errors
/// See [`ExportError`].
pub(super) fn raw(source: &mut Units<'_>, output: &Output) -> Result<u64, ExportError> {
    let file = output.file();
    file.set_len(source.size()).map_err(|error| output.failed("give it its size", error))?;
    let (mut buf, mut data) = (Vec::new(), 0);
    while let Some(start) = source.next(PIECE, &mut buf)? {
        for (at, bytes) in data_in(&buf, RAW_UNIT) {
            file.write_all_at(bytes, start + at).map_err(|error| output.failed("write to it", error))?;
            data += bytes.len() as u64;
        }
    }
    Ok(data)
}

/// Writes a qcow2; gives the bytes of it that are in the file.
///
/// # Errors
/// See [`ExportError`].
pub(super) fn qcow2(source: &mut Units<'_>, output: &Output) -> Result<u64, ExportError> {
    let failed = |error| output.failed("write to it", error);
    let file = || output.file().try_clone().map_err(failed);
    let storage = Storage::try_from(file()?).map_err(failed)?;
    let builder = qcow2::Qcow2::<Storage>::create_builder(storage).size(source.size()).cluster_size(CLUSTER);
    builder.create().map_err(failed)?;
    let disk = Qcow2::new(file()?, false).map_err(|error| match error {
        Qcow2Error::Host(error) => failed(error),
        Qcow2Error::Header(error) => failed(std::io::Error::other(error)),
    })?;
    let (mut buf, mut data) = (Vec::new(), 0);
    while let Some(start) = source.next(PIECE, &mut buf)? {
        let runs: Vec<_> = data_in(&buf, CLUSTER).iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        for (at, len) in runs {
            let from = usize::try_from(at).unwrap_or_default();
            let bytes = buf.get_mut(from..from + len).unwrap_or_default();
            disk.write_at(start + at, &[VolatileSlice::from(bytes)]).map_err(failed)?;
            data += len as u64;
        }
    }
    disk.flush().map_err(failed)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_whole_units() {
        let mut bytes = vec![0; 1000];
        assert_eq!(data_in(&bytes, 100), []);
        bytes[150] = 1;
        bytes[299] = 1;
        bytes[999] = 1;
        let runs: Vec<_> = data_in(&bytes, 100).iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        assert_eq!(runs, [(100, 200), (900, 100)]);
        assert_eq!(data_in(&bytes[..950], 300).iter().map(|(at, b)| (*at, b.len())).collect::<Vec<_>>(), [(0, 300)]);
    }
}
