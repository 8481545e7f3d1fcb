//! A disk in units of which only those with data are given out.

use std::io;
use std::ops::Range;

use super::ExportError;
use crate::disk::Disk;
use crate::disk::foreign::Progress;

/// What units are compared with.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// Whether there is nothing but zeroes.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROES.len()).all(|piece| ZEROES.get(..piece.len()) == Some(piece))
}

/// Bytes of a disk that may be something else than zeroes: what a copy of it takes at most.
///
/// # Errors
/// What the disk says.
pub fn data_len(disk: &dyn Disk) -> io::Result<u64> {
    let (mut at, mut sum) = (0, 0u64);
    while let Some(data) = disk.next_data(at)? {
        sum = sum.saturating_add(data.end - data.start);
        at = data.end;
    }
    Ok(sum)
}

/// Reads a disk from its beginning to its end.
pub(in crate::disk::foreign) struct Units<'a> {
    disk: &'a dyn Disk,
    progress: &'a mut dyn FnMut(Progress),
    told: Progress,
    /// Where the next unit may begin.
    at: u64,
    /// The run of data that was found last.
    data: Range<u64>,
}

impl<'a> Units<'a> {
    pub fn new(disk: &'a dyn Disk, total: u64, progress: &'a mut dyn FnMut(Progress)) -> Self {
        let told = Progress { done: 0, total };
        progress(told);
        Self { disk, progress, told, at: 0, data: 0..0 }
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// The next unit of `len` bytes that has data: where it begins, a multiple of `len`, and its bytes in `buf`, fewer at
    /// the end of the disk.
    ///
    /// # Errors
    /// [`ExportError::Disk`].
    pub fn next(&mut self, len: u64, buf: &mut Vec<u8>) -> Result<Option<u64>, ExportError> {
        loop {
            if self.at >= self.data.end {
                match self.disk.next_data(self.at).map_err(ExportError::Disk)? {
                    Some(data) => self.data = data,
                    None => return Ok(None),
                }
            }
            let found = self.at.max(self.data.start);
            let start = found - found % len;
            let end = start.saturating_add(len).min(self.size());
            let read = usize::try_from(end - start).map_err(|error| ExportError::Disk(io::Error::other(error)))?;
            buf.resize(read, 0);
            self.disk.read_exact_at(start, buf).map_err(ExportError::Disk)?;
            self.at = end;
            self.told.done = self.told.done.saturating_add(end - found).min(self.told.total);
            (self.progress)(self.told);
            if !is_zero(buf) {
                return Ok(Some(start));
            }
        }
    }

    /// Says that all was read: the units had more in them than data, or less.
    pub fn finish(&mut self) {
        self.told.done = self.told.total;
        (self.progress)(self.told);
    }
}
