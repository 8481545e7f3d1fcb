//! A disk as one thread uses it for many requests at once: what has to wait for the host's disk is begun, and its end
//! is told later, in whatever order things end.
//!
//! Where the host has io_uring(7) and the disk lies in a plain file, reads and flushes are begun, and writes past the page
//! cache. Everything else is done at once; so are writes to the page cache: to copy them there costs less than to have
//! another thread of the kernel do so, as many file systems would.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use serde::Serialize;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

pub use super::uring::Ended;
use super::uring::Uring;
use super::{Disk, Transfer};
use crate::host::io_uring;

/// Bytes that are handed to the kernel at once: those that come from the page cache are copied meanwhile, and the guest
/// can already work on the ones before.
const HAND_OVER: u64 = 256 * 1024;

/// How requests of disks are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Many at a time for each queue, by io_uring(7).
    #[serde(rename = "io_uring")]
    IoUring,
    /// One after the other for each queue.
    Synchronous,
}

impl Engine {
    /// The best that this host has; looked at once.
    #[must_use]
    pub fn of_host() -> Self {
        if io_uring::refusal().is_none() { Self::IoUring } else { Self::Synchronous }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Synchronous => "synchronous",
        })
    }
}

/// A disk and what of it is under way for one thread. `T` is what an operation is known by.
///
/// Dropping it waits for all that is under way; memory is not touched afterwards.
pub struct DiskQueue<T> {
    disk: Arc<dyn Disk>,
    uring: Option<Uring<T>>,
    /// Bytes that were begun and not handed to the kernel.
    held: u64,
    /// What has ended while something else was waited for.
    early: Vec<Ended<T>>,
}

impl<T> DiskQueue<T> {
    /// What is between the disk and `memory` is done in the background where `engine` can; where the host refuses one
    /// more ring, nothing is.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, memory: &GuestMemoryMmap<()>, engine: Engine) -> Self {
        let uring = match engine {
            Engine::IoUring => Uring::new(disk.clone(), memory.clone()).ok(),
            Engine::Synchronous => None,
        };
        Self { disk, uring, held: 0, early: Vec::new() }
    }

    /// Reads as [`Disk::read_at`] does. What was begun and not done yet gives nothing now, but later from
    /// [`DiskQueue::reap`].
    #[must_use]
    pub fn read(&mut self, ticket: T, offset: u64, bufs: &[VolatileSlice<'_>]) -> Option<Ended<T>> {
        let ticket = self.begin(ticket, Transfer::Read, offset, bufs)?;
        let result = self.disk.read_at(offset, bufs);
        Some((ticket, result))
    }

    /// Writes as [`Disk::write_at`] does, else as [`DiskQueue::read`].
    #[must_use]
    pub fn write(&mut self, ticket: T, offset: u64, bufs: &[VolatileSlice<'_>]) -> Option<Ended<T>> {
        let ticket = self.begin(ticket, Transfer::Write, offset, bufs)?;
        let hold = self.uring.as_ref().and_then(Uring::hold).filter(|_| !self.disk.keeps_waiting());
        let result = match hold {
            Some(hold) => self.disk.write_holding(&hold, offset, bufs),
            None => self.at_once().and_then(|disk| disk.write_at(offset, bufs)),
        };
        Some((ticket, result))
    }

    /// The disk, to be changed at once: with the changes that were begun before and that could keep it waiting seen to
    /// their end, which is told by the next [`DiskQueue::reap`]. Who has begun changes here must not ask the disk for more
    /// in another way.
    ///
    /// # Errors
    /// As [`DiskQueue::reap`].
    pub fn at_once(&mut self) -> io::Result<&dyn Disk> {
        if let Some(uring) = &mut self.uring {
            uring.settle_holds(&mut self.early)?;
        }
        Ok(&*self.disk)
    }

    /// Gives the ticket back where it is to be done at once.
    fn begin(&mut self, ticket: T, transfer: Transfer, offset: u64, bufs: &[VolatileSlice<'_>]) -> Option<T> {
        let Some(uring) = &mut self.uring else { return Some(ticket) };
        if let Err(ticket) = uring.transfer(ticket, transfer, offset, bufs) {
            return Some(ticket);
        }
        self.held = bufs.iter().fold(self.held, |sum, buf| sum.saturating_add(buf.len() as u64));
        if self.held >= HAND_OVER {
            self.held = 0;
            // A failure is met again, and told, by `reap`.
            let _ = uring.submit();
        }
        None
    }

    /// Flushes as [`Disk::flush`] does: all writes that ended before this call are durable when it ends. Else as
    /// [`DiskQueue::read`].
    #[must_use]
    pub fn flush(&mut self, ticket: T) -> Option<Ended<T>> {
        let ticket = match (&mut self.uring, self.disk.durable_file()) {
            (Some(uring), Some(file)) => match uring.flush(ticket, file) {
                Ok(()) => return None,
                Err(ticket) => ticket,
            },
            _ => ticket,
        };
        let result = self.disk.flush();
        Some((ticket, result))
    }

    /// How many operations are under way, or have ended and were not told yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.uring.as_ref().map_or(0, Uring::in_flight) + self.early.len()
    }

    /// Whether another operation should wait until one has ended. (One that is begun all the same is done at once.)
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.uring.as_ref().is_some_and(|uring| !uring.has_room())
    }

    /// Readable when something has ended since the last [`DiskQueue::reap`]; nothing where nothing is under way.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.uring.as_ref().filter(|uring| uring.in_flight() > 0).map(Uring::event)
    }

    /// Hands over what was begun, and adds what has ended to `ended`. Does not wait.
    ///
    /// # Errors
    /// Where the host's kernel does not take or give anything any more: what is under way is lost.
    pub fn reap(&mut self, ended: &mut Vec<Ended<T>>) -> io::Result<()> {
        self.held = 0;
        ended.append(&mut self.early);
        let Some(uring) = self.uring.as_mut().filter(|uring| uring.in_flight() > 0) else { return Ok(()) };
        uring.submit()?;
        uring.reap(ended)
    }

    /// Waits for all that is under way, and adds it to `ended`.
    ///
    /// # Errors
    /// As [`DiskQueue::reap`].
    pub fn settle(&mut self, ended: &mut Vec<Ended<T>>) -> io::Result<()> {
        self.held = 0;
        ended.append(&mut self.early);
        let Some(uring) = &mut self.uring else { return Ok(()) };
        while uring.in_flight() > 0 {
            uring.wait()?;
            uring.reap(ended)?;
        }
        Ok(())
    }
}
