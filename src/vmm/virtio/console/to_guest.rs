//! Bytes for the guest, into the room that its driver makes for them.
//!
//! A buffer for which there is nothing yet is kept until something comes; no second one is taken meanwhile.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::{Permissions, VolatileSlice};

use super::super::chain::{Buffers, Segment, slices, total};
use super::super::worker::{QueueHandler, Used};
use super::channel::Channel;
use super::{ConsoleCounters, count};
use crate::vmm::memory::GuestMemory;

/// The most bytes that are put into one buffer.
const PIECE_MAX: usize = 4096;

/// Where bytes for the guest come from.
pub trait Source: Send + 'static {
    /// Readable when there may be some.
    fn event(&self) -> BorrowedFd<'_>;

    /// [`Self::event`] is not readable any more, until more come. Called before it is looked.
    fn has_looked(&self);

    /// How many bytes a buffer must have room for.
    fn least_room(&self) -> usize {
        1
    }

    /// Some, `room` of them at the most.
    fn take(&mut self, room: usize) -> Option<Vec<u8>>;
}

impl Source for Arc<Channel> {
    fn event(&self) -> BorrowedFd<'_> {
        self.for_guest()
    }

    fn has_looked(&self) {
        Channel::has_looked(self);
    }

    fn take(&mut self, room: usize) -> Option<Vec<u8>> {
        Some(Channel::take(self, room)).filter(|bytes| !bytes.is_empty())
    }
}

/// Serves a receive queue.
pub struct ToGuest<S> {
    source: S,
    counters: Arc<ConsoleCounters>,
    /// The buffer that waits.
    kept: Option<(u16, Vec<Segment>)>,
}

impl<S: Source> ToGuest<S> {
    /// Of bytes from `source`.
    pub fn new(source: S, counters: Arc<ConsoleCounters>) -> Self {
        Self { source, counters, kept: None }
    }

    /// Fills a buffer; gives it back where there is nothing for it yet.
    fn fill(&mut self, memory: &GuestMemory, segments: Vec<Segment>) -> Result<u32, Vec<Segment>> {
        let room = usize::try_from(total(&segments)).unwrap_or(usize::MAX).min(PIECE_MAX);
        // Before anything is taken: what has no place to go to is kept for the next buffer.
        let places = slices(memory, &segments, Permissions::Write).filter(|_| room >= self.source.least_room());
        let Some(places) = places else {
            count(&self.counters.malformed, 1);
            return Ok(0);
        };
        let Some(bytes) = self.source.take(room) else {
            drop(places);
            return Err(segments);
        };
        let len = copy(&places, &bytes);
        count(&self.counters.to_guest_bytes, len.into());
        Ok(len)
    }
}

/// Copies bytes that have room.
fn copy(places: &[VolatileSlice<'_>], bytes: &[u8]) -> u32 {
    let mut rest = bytes;
    for place in places {
        let (now, later) = rest.split_at(rest.len().min(place.len()));
        place.copy_from(now);
        rest = later;
    }
    u32::try_from(bytes.len() - rest.len()).unwrap_or(0)
}

impl<S: Source> QueueHandler for ToGuest<S> {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let head = chain.head_index();
        let Some(buffers) = Buffers::collect(chain).ok().filter(|buffers| buffers.readable.is_empty()) else {
            count(&self.counters.malformed, 1);
            return Some(0);
        };
        match self.fill(memory, buffers.writable) {
            Ok(len) => Some(len),
            Err(segments) => {
                self.kept = Some((head, segments));
                None
            }
        }
    }

    fn is_full(&self) -> bool {
        self.kept.is_some()
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.kept.is_some().then(|| self.source.event())
    }

    fn finish(&mut self, memory: &GuestMemory, all: bool, used: &mut Vec<Used>) -> io::Result<()> {
        let Some((head, segments)) = self.kept.take() else { return Ok(()) };
        if all {
            // The driver has it back by its reset.
            return Ok(());
        }
        self.source.has_looked();
        match self.fill(memory, segments) {
            Ok(len) => used.push((head, len)),
            Err(segments) => self.kept = Some((head, segments)),
        }
        Ok(())
    }
}
