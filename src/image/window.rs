//! A range of a disk, as the file-system crates want to read it.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, SECTOR_SIZE};

/// A read-only window on a range of a disk: a partition, or the whole of it.
///
/// Clones share a *budget* of bytes that may be read. The caller grants one for each thing it asks of a file system, so
/// that damaged metadata which leads a reader round in circles ends in an error instead of never. All windows on a disk may
/// share a second one, so that a disk made of many such circles ends, too.
#[derive(Clone)]
pub(super) struct Window {
    disk: Arc<dyn Disk>,
    start: u64,
    len: u64,
    position: u64,
    budget: Budget,
    shared: Budget,
}

/// Bytes that may still be read.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    /// `bytes` that may be read.
    pub fn of(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Takes `bytes`; false where there are not so many.
    fn spend(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

impl Window {
    /// The `len` bytes of `disk` from `start` on, cut at the end of the disk.
    pub fn new(disk: Arc<dyn Disk>, start: u64, len: u64) -> Self {
        let len = len.min(disk.size().saturating_sub(start));
        Self { disk, start, len, position: 0, budget: Budget::of(u64::MAX), shared: Budget::of(u64::MAX) }
    }

    /// The same, where what is read counts for `shared`, too.
    pub fn sharing(self, shared: &Budget) -> Self {
        Self { shared: shared.clone(), ..self }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Allows `bytes` to be read until the next call.
    pub fn grant(&self, bytes: u64) {
        self.budget.0.store(bytes, Ordering::Relaxed);
    }

    /// Fills `buf` from the bytes at `offset`.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let wanted = u64::try_from(buf.len()).map_err(io::Error::other)?;
        let end = offset.checked_add(wanted).filter(|&end| end <= self.len);
        if end.is_none() {
            let what = format!("read of {wanted} bytes at byte {offset} of a volume of {} bytes", self.len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        if !self.budget.spend(wanted) {
            return Err(io::Error::other("the file system's metadata leads round in circles"));
        }
        // Small reads take their time, too: some readers fetch numbers one by one.
        if !self.shared.spend(wanted.max(SECTOR_SIZE)) {
            return Err(io::Error::other("looking through this disk takes more reading than any real one"));
        }
        self.disk.read_exact_at(self.start + offset, buf)
    }

    /// The first `len` bytes from `offset` on, or fewer where the window ends.
    pub fn read_up_to(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = len.min(self.len.saturating_sub(offset));
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut buf = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.read_exact_at(offset, &mut buf)?;
        Ok(buf)
    }
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let (buf, _) = buf.split_at_mut(len);
        self.read_exact_at(self.position, buf)?;
        self.position += u64::try_from(len).map_err(io::Error::other)?;
        Ok(len)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.len.checked_add_signed(n),
            SeekFrom::Current(n) => self.position.checked_add_signed(n),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// Some crates ask for `Write` even where they only read.
impl Write for Window {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl lamxfs::BlockRead for Window {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(offset, buf)
    }
}

impl lambutter::BlockRead for Window {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(offset, buf)
    }
}

impl ext4_view::Ext4Read for Window {
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read_exact_at(offset, buf)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::TestDisk;

    #[test]
    fn windows_share_a_budget_in_which_small_reads_count_as_sectors() {
        let disk = TestDisk::memory(vec![7; 8192]).shared();
        let budget = Budget::of(4 * SECTOR_SIZE);
        let one = Window::new(Arc::clone(&disk), 0, 4096).sharing(&budget);
        let mut other = Window::new(disk, 4096, 4096).sharing(&budget).clone();
        assert_eq!(one.read_up_to(0, 1).unwrap(), [7]);
        assert_eq!(other.read(&mut [0; 1024]).unwrap(), 1024);
        // A read that is refused costs nothing, and neither does one beyond the end.
        assert!(one.read_exact_at(0, &mut [0; 513]).is_err());
        assert!(one.read_exact_at(4096, &mut [0]).is_err());
        assert_eq!(one.read_up_to(4095, 2).unwrap(), [7]);
        let error = other.read(&mut [0]).unwrap_err().to_string();
        assert!(error.contains("more reading than any real one"), "{error}");
    }
}
