//! A read-only disk out of a map from its bytes to bytes of files.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::ZlibDecoder;
use vm_memory::VolatileSlice;

use super::fields::{cut_off, read_exact_at};
use crate::disk::{Disk, check_range, file_io, format};

/// Where the bytes of a disk are.
pub(super) trait Layout: Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// What is at `offset`, which lies inside the disk, and for how many bytes, at least one.
    ///
    /// # Errors
    /// What the host said, and `InvalidData` where the map says what cannot be.
    fn run(&self, offset: u64) -> io::Result<(Run<'_>, u64)>;
}

/// Bytes of a disk that lie together.
pub(super) enum Run<'a> {
    /// Zeroes, which lie nowhere.
    Zeroes,
    /// Bytes in a file, from `offset` on.
    Stored { file: &'a File, offset: u64 },
    /// Part of a grain that is compressed.
    Packed { grain: Grain<'a>, skip: u64 },
}

/// Bytes that were compressed together.
pub(super) struct Grain<'a> {
    pub file: &'a File,
    /// Where the compressed bytes begin.
    pub offset: u64,
    /// How many they are; checked.
    pub packed: usize,
    /// Bytes that come out at least, and at most: the last grain of a disk may be cut.
    pub least: u64,
    pub most: u64,
}

impl Grain<'_> {
    /// What makes it another than all others of open files.
    fn identity(&self) -> (i32, u64) {
        (self.file.as_raw_fd(), self.offset)
    }

    fn unpack(&self) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; self.packed];
        read_exact_at(self.file, &mut packed, self.offset)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.most).unwrap_or_default());
        let damaged = |what: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the compressed grain at byte {} {what}", self.offset))
        };
        let unpacked = ZlibDecoder::new(&packed[..]).take(self.most + 1).read_to_end(&mut bytes);
        unpacked.map_err(|error| damaged(format!("is damaged: {error}")))?;
        if !(self.least..=self.most).contains(&(bytes.len() as u64)) {
            return Err(damaged(format!("gives other than {} bytes", self.most)));
        }
        Ok(bytes)
    }
}

/// The grain that was unpacked last, since requests are seldom for whole ones.
type Kept = ((i32, u64), Arc<Vec<u8>>);

/// A disk laid out by `L`.
pub(super) struct Laid<L> {
    layout: L,
    kept: Mutex<Option<Kept>>,
}

impl<L: Layout> Laid<L> {
    pub fn new(layout: L) -> Self {
        Self { layout, kept: Mutex::new(None) }
    }

    fn unpacked(&self, grain: &Grain<'_>) -> io::Result<Arc<Vec<u8>>> {
        let identity = grain.identity();
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = kept().as_ref().filter(|(of, _)| *of == identity) {
            return Ok(Arc::clone(bytes));
        }
        // Not under the lock: others may unpack theirs meanwhile.
        let bytes = Arc::new(grain.unpack()?);
        *kept() = Some((identity, Arc::clone(&bytes)));
        Ok(bytes)
    }

    /// The run at `offset`, cut at `end`.
    fn run(&self, offset: u64, end: u64) -> io::Result<(Run<'_>, u64)> {
        let (run, len) = self.layout.run(offset)?;
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("nothing is known of byte {offset}")));
        }
        Ok((run, len.min(end - offset)))
    }
}

impl<L: Layout> Disk for Laid<L> {
    fn size(&self) -> u64 {
        self.layout.size()
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        let total = file_io::total_len(bufs)?;
        check_range(self.size(), offset, total)?;
        let mut done = 0;
        while done < total {
            let (run, len) = self.run(offset + done, offset + total)?;
            let part = file_io::window(bufs, done, len);
            match run {
                Run::Zeroes => file_io::fill_zero(&part)?,
                Run::Stored { file, offset } => {
                    file_io::read_exact(file, offset, &part).map_err(|error| cut_off(error, file, offset))?;
                }
                Run::Packed { grain, skip } => {
                    let bytes = self.unpacked(&grain)?;
                    let mut rest = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..)).unwrap_or_default();
                    for buf in &part {
                        let (now, later) = rest.split_at_checked(buf.len()).ok_or(io::ErrorKind::InvalidData)?;
                        buf.copy_from(now);
                        rest = later;
                    }
                }
            }
            done += len;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size();
        let mut at = offset;
        while at < size {
            let (run, mut len) = self.run(at, size)?;
            let data = match run {
                Run::Zeroes => None,
                Run::Packed { .. } => Some(at..at + len),
                Run::Stored { file, offset } => {
                    let inside = format::file_len(file)?.saturating_sub(offset);
                    if inside == 0 {
                        // It was cut off: reading it says so.
                        Some(at..at + len)
                    } else {
                        // The file may have holes of its own.
                        len = len.min(inside);
                        let found = file_io::next_data(file, offset, offset + len)?;
                        found.map(|found| at + (found.start - offset)..at + (found.end - offset))
                    }
                }
            };
            if data.is_some() {
                return Ok(data);
            }
            at += len;
        }
        Ok(None)
    }
}
