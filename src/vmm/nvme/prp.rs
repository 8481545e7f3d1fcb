//! Physical Region Pages (section 4.3): where in guest memory the data of a command is.
//!
//! A list may lead anywhere, also back to itself: only as many entries are followed as the length of the transfer needs.

use vm_memory::{Bytes, GuestAddress, Permissions, VolatileSlice};

use super::PAGE;
use super::command::{Command, Status};
use crate::vmm::memory::GuestMemory;

/// Bytes of an entry.
const ENTRY: u64 = 8;

/// Pieces of guest memory, those that touch made one.
#[derive(Debug, Default)]
struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn push(&mut self, addr: u64, len: u64) {
        match self.0.last_mut() {
            Some((start, run)) if start.checked_add(*run) == Some(addr) => *run += len,
            _ => self.0.push((addr, len)),
        }
    }

    fn push_page(&mut self, addr: u64, rest: &mut u64) -> Result<(), Status> {
        if !addr.is_multiple_of(PAGE) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        let len = PAGE.min(*rest);
        self.push(addr, len);
        *rest -= len;
        Ok(())
    }
}

/// The runs of `len` bytes, not yet known to be memory.
fn runs(memory: &GuestMemory, prp1: u64, prp2: u64, len: u64) -> Result<Runs, Status> {
    if !prp1.is_multiple_of(4) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let mut runs = Runs::default();
    let first = len.min(PAGE - prp1 % PAGE);
    runs.push(prp1, first);
    let mut rest = len - first;
    if rest > PAGE {
        follow_list(memory, prp2, rest, &mut runs)?;
    } else if rest > 0 {
        runs.push_page(prp2, &mut rest)?;
    }
    Ok(runs)
}

/// Each turn but the first uses up at least 511 pages of what is left.
fn follow_list(memory: &GuestMemory, mut list: u64, mut rest: u64, runs: &mut Runs) -> Result<(), Status> {
    if !list.is_multiple_of(ENTRY) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let mut raw = [0; 4096];
    loop {
        let pages = rest.div_ceil(PAGE);
        let room = (PAGE - list % PAGE) / ENTRY;
        let count = usize::try_from(pages.min(room) * ENTRY).unwrap_or(usize::MAX);
        let raw = raw.get_mut(..count).ok_or(Status::INVALID_FIELD)?;
        memory.read_slice(raw, GuestAddress(list)).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let mut entries = raw.as_chunks::<8>().0.iter().copied().map(u64::from_le_bytes);
        // The last entry of a page that is not the last leads on to the next one.
        let chain = if pages > room { entries.next_back() } else { None };
        for page in entries {
            runs.push_page(page, &mut rest)?;
        }
        let Some(next) = chain else { return Ok(()) };
        if !next.is_multiple_of(PAGE) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        list = next;
    }
}

/// The `len` bytes of guest memory that a command names, in order. `len` is at most
/// [`MAX_TRANSFER`](super::MAX_TRANSFER).
///
/// # Errors
/// [`Status::PRP_OFFSET_INVALID`] for entries that are not aligned, [`Status::DATA_TRANSFER_ERROR`] for what is not memory.
pub fn slices<'m>(
    memory: &'m GuestMemory,
    command: &Command,
    len: u64,
    access: Permissions,
) -> Result<Vec<VolatileSlice<'m>>, Status> {
    let Runs(runs) = runs(memory, command.prp1, command.prp2, len)?;
    let mut slices = Vec::with_capacity(runs.len());
    for (addr, len) in runs {
        let len = usize::try_from(len).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let parts = vm_memory::GuestMemory::get_slices(memory, GuestAddress(addr), len, access);
        for part in parts.map_err(|_| Status::DATA_TRANSFER_ERROR)? {
            slices.push(part.map_err(|_| Status::DATA_TRANSFER_ERROR)?);
        }
    }
    Ok(slices)
}

/// Gives bytes to the driver.
///
/// # Errors
/// As [`slices`].
pub fn give(memory: &GuestMemory, command: &Command, mut bytes: &[u8]) -> Result<(), Status> {
    for slice in slices(memory, command, bytes.len() as u64, Permissions::Write)? {
        let (now, later) = bytes.split_at(bytes.len().min(slice.len()));
        slice.copy_from(now);
        bytes = later;
    }
    Ok(())
}

/// Takes bytes from the driver.
///
/// # Errors
/// As [`slices`].
pub fn take(memory: &GuestMemory, command: &Command, mut bytes: &mut [u8]) -> Result<(), Status> {
    for slice in slices(memory, command, bytes.len() as u64, Permissions::Read)? {
        let (now, later) = bytes.split_at_mut(slice.len().min(bytes.len()));
        slice.copy_to(now);
        bytes = later;
    }
    Ok(())
}
