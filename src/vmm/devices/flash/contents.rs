//! What a flash chip holds: in memory that a guest can read, and in a file where it is to be kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_memory::{Bytes, GuestAddress};

use super::BLOCK_SIZE;
use crate::vmm::memory::{self, GuestMemory, MemoryError};

/// Why there can be no contents.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// A chip has whole blocks, one at least.
    #[error("{0} bytes are no whole number of blocks of 4 KiB")]
    Size(u64),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The contents of a chip, shared by handle: they outlast the machine that the chip is in.
///
/// Every change goes to the file first, as one write, and only then to memory: a process that is killed has kept what its
/// guest was told is written. [`Contents::sync`] makes it outlast the host's end too.
#[derive(Clone)]
pub struct Contents(Arc<Inner>);

struct Inner {
    /// One region from address 0.
    memory: GuestMemory,
    len: u64,
    file: Option<File>,
    /// Whether something was written that is not durable yet.
    dirty: AtomicBool,
}

impl Contents {
    /// Contents that begin as `bytes`, which is also what `file` holds, where there is one.
    ///
    /// # Errors
    /// [`ContentsError`].
    pub fn new(bytes: &[u8], file: Option<File>) -> Result<Self, ContentsError> {
        let len = bytes.len() as u64;
        if len == 0 || !len.is_multiple_of(BLOCK_SIZE) {
            return Err(ContentsError::Size(len));
        }
        let memory = memory::allocate(&[(GuestAddress(0), bytes.len())])?;
        memory.write_slice(bytes, GuestAddress(0)).map_err(MemoryError::from)?;
        Ok(Self(Arc::new(Inner { memory, len, file, dirty: AtomicBool::new(false) })))
    }

    /// Bytes that it has: a multiple of [`BLOCK_SIZE`].
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The memory that holds them, one region.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.0.memory
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the host says; it is tried again the next time.
    pub fn sync(&self) -> io::Result<()> {
        if let Some(file) = &self.0.file
            && self.0.dirty.swap(false, Ordering::AcqRel)
        {
            file.sync_data().inspect_err(|_| self.0.dirty.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// The byte at `offset`; all ones beyond the end, as of what is not there.
    pub(super) fn byte(&self, offset: u64) -> u8 {
        self.0.memory.read_obj(GuestAddress(offset)).unwrap_or(0xff)
    }

    /// Writes to the bytes from `offset` on.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.0.len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(file) = &self.0.file {
            self.0.dirty.store(true, Ordering::Release);
            file.write_all_at(bytes, offset)?;
        }
        self.0.memory.write_slice(bytes, GuestAddress(offset)).map_err(io::Error::other)
    }

    /// Sets `len` bytes, a block at the most.
    pub(super) fn fill(&self, offset: u64, len: u64, value: u8) -> io::Result<()> {
        let len = usize::try_from(len.min(BLOCK_SIZE)).unwrap_or(0);
        self.write(offset, &vec![value; len])
    }

    /// Writes bytes of one block, each to its place and the later over the earlier, as one write.
    pub(super) fn write_all(&self, bytes: &[(u64, u8)]) -> io::Result<()> {
        let offsets = || bytes.iter().map(|(offset, _)| *offset);
        let (Some(first), Some(last)) = (offsets().min(), offsets().max()) else { return Ok(()) };
        if last - first >= BLOCK_SIZE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut range: Vec<u8> = (first..=last).map(|offset| self.byte(offset)).collect();
        for (offset, value) in bytes {
            let place = usize::try_from(offset - first).ok().and_then(|at| range.get_mut(at));
            *place.ok_or(io::ErrorKind::InvalidInput)? = *value;
        }
        self.write(first, &range)
    }
}
