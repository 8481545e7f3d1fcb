//! A disk whose bytes are those of a file or a block device, in order.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::host_file::HostFile;
use super::{Disk, HostCache, Place, SECTOR_SIZE, Transfer, check_range, check_writable, file_io};

/// A raw disk over a regular file or a block device.
///
/// A file that does not end on a whole sector has its last sector padded with zeroes, as other machines do: read-only in
/// memory, writable by making the file that much longer when it is opened.
#[derive(Debug)]
pub struct Raw {
    file: HostFile,
    /// Bytes that the file has; at most `size`, and less only where it is read-only.
    len: u64,
    size: u64,
    read_only: bool,
}

impl Raw {
    /// The disk that `file` holds. A file that is to be written must be open for reading and writing.
    ///
    /// # Errors
    /// What the host said, when asked for the size of the file or to pad it.
    pub fn new(file: File, read_only: bool) -> io::Result<Self> {
        // Seeking tells the size of block devices too, for which metadata say zero.
        let mut len = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        let size = len.checked_next_multiple_of(SECTOR_SIZE).ok_or(io::ErrorKind::FileTooLarge)?;
        if !read_only && len < size {
            file.set_len(size)?;
            len = size;
        }
        Ok(Self { file: HostFile::new(file), len, size, read_only })
    }

    /// The same with another use of the page cache.
    ///
    /// # Errors
    /// `InvalidInput` where the file system cannot go past the page cache; else what the host said.
    pub fn with_cache(self, cache: HostCache) -> io::Result<Self> {
        Ok(Self { file: self.file.with_cache(cache, !self.read_only)?, ..self })
    }
}

impl Disk for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        let len = file_io::total_len(bufs)?;
        check_range(self.size, offset, len)?;
        if offset + len <= self.len {
            return self.file.read(offset, bufs);
        }
        let from_file = self.len.saturating_sub(offset);
        file_io::read_exact(self.file.file(), offset, &file_io::window(bufs, 0, from_file))?;
        file_io::fill_zero(&file_io::window(bufs, from_file, len - from_file))
    }

    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(self.size, offset, file_io::total_len(bufs)?)?;
        self.file.write(offset, bufs)
    }

    fn flush(&self) -> io::Result<()> {
        // fdatasync covers the metadata that the data are found by: length and extents (fdatasync(2)).
        if self.read_only { Ok(()) } else { self.file.file().sync_data() }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        file_io::next_data(self.file.file(), offset, self.len)
    }

    fn place(&self, transfer: Transfer, offset: u64, len: u64) -> Option<Place> {
        let possible = transfer == Transfer::Read || !self.read_only;
        let end = offset.checked_add(len).filter(|&end| possible && end <= self.len);
        end.map(|_| self.file.place(offset))
    }

    fn durable_file(&self) -> Option<Arc<File>> {
        (!self.read_only).then(|| self.file.file().clone())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        check_writable(self.read_only)?;
        check_range(self.size, offset, len)?;
        file_io::zero_range(self.file.file(), offset, len, unmap)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn data_is_found_between_holes() {
        const MIB: u64 = 1 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB).unwrap();
        let disk = Raw::new(file, false).unwrap();
        assert_eq!(disk.next_data(0).unwrap(), None);
        disk.write_at(2 * MIB, &[VolatileSlice::from(&mut vec![7; 1 << 20][..])]).unwrap();
        disk.write_at(8 * MIB - 512, &[VolatileSlice::from(&mut [7; 512][..])]).unwrap();
        let first = disk.next_data(0).unwrap().unwrap();
        assert!(first.start <= 2 * MIB && first.end >= 3 * MIB && first.end < 8 * MIB - 512, "{first:?}");
        assert_eq!(disk.next_data(2 * MIB + 512).unwrap().unwrap().start, 2 * MIB + 512);
        let last = disk.next_data(first.end).unwrap().unwrap();
        assert!(last.start <= 8 * MIB - 512 && last.end == 8 * MIB, "{last:?}");
        assert_eq!(disk.next_data(8 * MIB).unwrap(), None);
        assert_eq!(disk.next_data(u64::MAX).unwrap(), None);
    }

    #[test]
    fn a_ragged_tail_reads_as_zero_and_the_file_stays() {
        let file = file_of(&[7; 700]);
        let disk = Raw::new(file.try_clone().unwrap(), true).unwrap();
        assert_eq!(disk.size(), 1024);
        let mut buf = [1; 1024];
        disk.read_exact_at(0, &mut buf).unwrap();
        assert!(buf[..700].iter().all(|b| *b == 7) && buf[700..].iter().all(|b| *b == 0));
        let mut tail = [1; 24];
        disk.read_exact_at(1000, &mut tail).unwrap();
        assert_eq!(tail, [0; 24]);
        assert_eq!(file.metadata().unwrap().len(), 700);
    }

    #[test]
    fn a_ragged_tail_is_written_into_the_file() {
        let file = file_of(&[7; 700]);
        let disk = Raw::new(file.try_clone().unwrap(), false).unwrap();
        disk.write_at(512, &[VolatileSlice::from(&mut [9u8; 512][..])]).unwrap();
        let mut buf = [1; 1024];
        disk.read_exact_at(0, &mut buf).unwrap();
        assert!(buf[..512].iter().all(|b| *b == 7) && buf[512..].iter().all(|b| *b == 9));
        assert_eq!(file.metadata().unwrap().len(), 1024);
    }

    #[test]
    fn ranges_beyond_the_end_are_refused_before_anything_is_touched() {
        let disk = Raw::new(file_of(&[7; 1024]), false).unwrap();
        for (offset, len) in [(1024, 1), (512, 513), (u64::MAX, 1), (u64::MAX - 511, 512), (1025, 0)] {
            let kind = |result: io::Result<()>| result.unwrap_err().kind();
            let mut buf = vec![1; usize::try_from(len).unwrap()];
            assert_eq!(kind(disk.read_exact_at(offset, &mut buf)), io::ErrorKind::InvalidInput);
            assert_eq!(kind(disk.write_at(offset, &[(&mut buf[..]).into()])), io::ErrorKind::InvalidInput);
            assert_eq!(kind(disk.discard(offset, len)), io::ErrorKind::InvalidInput);
            assert_eq!(kind(disk.write_zeroes(offset, len, false)), io::ErrorKind::InvalidInput);
        }
        let mut all = [0; 1024];
        disk.read_exact_at(0, &mut all).unwrap();
        assert_eq!(all, [7; 1024]);
    }

    #[test]
    fn a_read_only_disk_refuses_every_change() {
        let disk = Raw::new(file_of(&[7; 1024]), true).unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(disk.write_at(0, &[(&mut [1u8; 512][..]).into()])), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(kind(disk.discard(0, 512)), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(kind(disk.write_zeroes(0, 512, true)), io::ErrorKind::ReadOnlyFilesystem);
        disk.flush().unwrap();
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let file = file_of(&[7; 4096]);
        let disk = Raw::new(file.try_clone().unwrap(), true).unwrap();
        file.set_len(1000).unwrap();
        assert_eq!(disk.read_exact_at(512, &mut [0; 1024]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn discards_free_blocks_and_zeroes_without_unmap_keep_them() {
        const MIB: usize = 1 << 20;
        let file = file_of(&vec![7; 4 * MIB]);
        file.sync_all().unwrap();
        let blocks = || file.metadata().unwrap().blocks() * 512;
        let disk = Raw::new(file.try_clone().unwrap(), false).unwrap();
        let before = blocks();
        disk.write_zeroes(0, MIB as u64, false).unwrap();
        assert!(blocks() >= before, "zeroing without unmap must not free");
        disk.write_zeroes(MIB as u64, MIB as u64, true).unwrap();
        disk.discard(2 * MIB as u64, MIB as u64).unwrap();
        assert!(blocks() <= before - 2 * MIB as u64, "{} of {before} still held", blocks());
        let mut all = vec![1; 4 * MIB];
        disk.read_exact_at(0, &mut all).unwrap();
        assert!(all[..3 * MIB].iter().all(|b| *b == 0) && all[3 * MIB..].iter().all(|b| *b == 7));
    }
}
