//! What is behind a device whose disk was taken away.

use std::io;

use vm_memory::VolatileSlice;

use crate::disk::Disk;

/// A disk that does nothing any more.
pub struct Gone {
    /// As large as it was, in bytes.
    pub size: u64,
    /// What it was.
    pub is_read_only: bool,
}

fn gone() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENODEV))
}

impl Disk for Gone {
    fn size(&self) -> u64 {
        self.size
    }
    fn is_read_only(&self) -> bool {
        self.is_read_only
    }
    fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        gone()
    }
    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        gone()
    }
    fn flush(&self) -> io::Result<()> {
        gone()
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        gone()
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        gone()
    }
}
