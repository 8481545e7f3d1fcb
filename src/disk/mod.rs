//! Disks: a sequence of bytes that can be read, written, flushed and freed, whatever holds it.
//!
//! [`Disk`] is the one interface that everything above uses: the image reader, the virtio devices, the layers
//! themselves. Disks compose: a throw-away layer is a disk over another disk.
//!
//! [`open()`] makes one from what the person asked for ([`Source`]), with its format, its lock and its layer; [`blank`]
//! makes an empty one that is gone afterwards.

mod error;
mod file_io;
pub mod foreign;
mod format;
mod gate;
mod host_file;
pub mod layered;
mod lock;
mod open;
pub(crate) mod output;
mod overlay;
mod qcow2;
mod qcow2_header;
mod queue;
#[cfg(test)]
mod queue_tests;
mod raw;
mod scratch;
pub mod size;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod uring;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::VolatileSlice;

pub use error::Error;
pub use format::{Format, detect};
pub use gate::Hold;
pub use lock::{Conflict, Holder};
pub use open::{Access, Opened, Source, blank, claim_for_writing, open};
pub use overlay::Overlay;
pub use qcow2::{OpenError as Qcow2Error, Qcow2};
pub use qcow2_header::HeaderError;
pub use queue::{DiskQueue, Ended, Engine};
pub use raw::Raw;
pub(crate) use scratch::random_bytes;

/// The unit in which guests address a disk, in bytes (virtio 1.2, section 5.2.4).
pub const SECTOR_SIZE: u64 = 512;

/// The largest disk, in bytes: the 64 TiB that EC2 gives its largest volumes.
pub const MAX_SIZE: u64 = 64 << 40;

/// A disk: bytes `0..size()`, shared by any number of threads.
///
/// Buffers are [`VolatileSlice`]s because they are guest memory, which the guest may change while it is read; plain
/// memory becomes one by `VolatileSlice::from(&mut [u8])`.
///
/// Errors are the host's own (`EIO`, `ENOSPC`, ...): the device above turns them into what its guest should see. A range
/// that does not lie wholly inside the disk is refused with `InvalidInput` before anything is touched. A short read or
/// write of the host is never a success: it is completed or an error.
pub trait Disk: Send + Sync {
    /// Size in bytes, a multiple of [`SECTOR_SIZE`].
    fn size(&self) -> u64;

    /// Whether writes, discards and zeroing are refused (with `ReadOnlyFilesystem`).
    fn is_read_only(&self) -> bool;

    /// Fills `bufs`, one after the other, from the bytes at `offset`.
    ///
    /// # Errors
    /// `InvalidInput` for a range beyond the end, `UnexpectedEof` where the file underneath has become shorter, else
    /// what the host said.
    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Writes `bufs`, one after the other, to the bytes at `offset`. Durable only after [`Disk::flush`].
    ///
    /// # Errors
    /// As [`Disk::read_at`]; `StorageFull` when there is no room, and then what was there stays whole outside the range.
    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes every write that was answered before this call durable (data and the metadata needed to find it).
    ///
    /// # Errors
    /// What the host said; nothing may then be assumed durable.
    fn flush(&self) -> io::Result<()>;

    /// Says that the bytes are not needed: they read as zero afterwards, and their room is given back where the host can.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the bytes read as zero; with `unmap` their room may be given back, without it stays allocated.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// The first run of bytes at or after `offset` that may hold something else than zeroes: `None` if there is none up
    /// to the end. A disk that cannot tell says that all of it may.
    ///
    /// # Errors
    /// What the host said.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size()).then(|| offset..self.size()))
    }

    /// Where bytes can be transferred without asking this disk again, if they lie together in one file. What is written
    /// to the disk meanwhile may be read or not, as with [`Disk::read_at`]. Never waits.
    fn place(&self, _transfer: Transfer, _offset: u64, _len: u64) -> Option<Place> {
        None
    }

    /// The file whose data being durable is all that a [`Disk::flush`] would be about just now, if there is one.
    fn durable_file(&self) -> Option<Arc<File>> {
        None
    }

    /// Whether changes have to wait just now until those that were begun in a [`Place`] with a [`Hold`] have ended. Who
    /// has begun some and asks for more should first see to their end.
    fn keeps_waiting(&self) -> bool {
        false
    }

    /// [`Disk::write_at`] for one who holds an earlier change of this disk: it does not wait for that to end.
    ///
    /// # Errors
    /// As [`Disk::write_at`].
    fn write_holding(&self, _hold: &Hold, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.write_at(offset, bufs)
    }

    /// Fills a plain buffer from the bytes at `offset`.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, &[VolatileSlice::from(buf)])
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// Bytes of a disk in a file.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file.
    pub file: Arc<File>,
    /// The same file past the page cache, where that is wanted.
    pub direct: Option<Arc<File>>,
    /// Where in it they begin.
    pub offset: u64,
    /// To be kept until the transfer has ended.
    pub hold: Option<Hold>,
}

/// What disks do with the host's page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostCache {
    /// Read and write through it: what was read once, by this or another machine, is read from memory.
    #[default]
    Used,
    /// Go past it (`O_DIRECT`), but for requests that are not of whole sectors in memory: nothing is kept twice, and every
    /// request is the host's disk's.
    Bypassed,
}

/// Refuses a range that does not lie wholly inside a disk of `size` bytes.
fn check_range(size: u64, offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at {offset} do not lie inside a disk of {size} bytes"),
        )),
    }
}

/// Refuses changes to a read-only disk.
fn check_writable(read_only: bool) -> io::Result<()> {
    if read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
}
