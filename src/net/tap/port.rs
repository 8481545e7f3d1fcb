//! Both directions of a pair of a tap's queues.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::filter::{Filter, TOLD_BY, Way};
use super::sys;
use crate::net::counters::NetCounters;
use crate::net::offload;
use crate::net::pieces::{gather, scatter};
use crate::net::{HEADER_SIZE, LARGE_FRAME_MAX, Receiver, Sender};

/// How many frames are dropped in a row.
const DROPPED_MAX: usize = 256;

/// Takes the guest's frames.
pub(super) struct TapSender {
    queue: Arc<File>,
    filter: Option<Arc<Filter>>,
    counters: Arc<NetCounters>,
    buffer: Vec<u8>,
}

impl TapSender {
    pub(super) fn new(queue: Arc<File>, filter: Option<Arc<Filter>>, counters: Arc<NetCounters>) -> Self {
        Self { queue, filter, counters, buffer: Vec::new() }
    }

    /// Gives the services a frame, its checksum filled in.
    fn serve(&mut self, filter: &Filter, frame: &[VolatileSlice<'_>]) {
        let total = gather(frame, HEADER_SIZE + LARGE_FRAME_MAX, &mut self.buffer);
        let is_whole = total == self.buffer.len();
        let frame = offload::complete(&mut self.buffer).filter(|_| is_whole).map(|frame| frame.to_vec());
        let counter = match frame.map(|frame| filter.desk.to_services.push(frame)) {
            Some(true) => &self.counters.to_services,
            Some(false) => &self.counters.dropped_full,
            None => &self.counters.dropped_malformed,
        };
        NetCounters::count(counter);
    }
}

impl Sender for TapSender {
    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let len = frame.iter().map(VolatileSlice::len).fold(0usize, usize::saturating_add);
        self.counters.count_sent(len.saturating_sub(HEADER_SIZE));
        if let Some(filter) = self.filter.clone() {
            gather(frame, HEADER_SIZE + TOLD_BY, &mut self.buffer);
            let way = filter.way(self.buffer.get(HEADER_SIZE..).unwrap_or_default());
            if way != Way::Tap {
                self.serve(&filter, frame);
            }
            if way == Way::Services {
                return Ok(());
            }
        }
        loop {
            match sys::write(&self.queue, frame) {
                Ok(_) => NetCounters::count(&self.counters.to_outside),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    // The tap is gone.
                    Some(libc::EBADFD | libc::ENODEV) => return Err(error),
                    // No room, or the tap is down.
                    Some(libc::EAGAIN | libc::EIO | libc::ENOMEM | libc::ENOBUFS) => {
                        NetCounters::count(&self.counters.dropped_full);
                    }
                    // What the kernel makes no sense of: the guest's fault.
                    _ => NetCounters::count(&self.counters.dropped_malformed),
                },
            }
            return Ok(());
        }
    }
}

/// Gives frames to the guest.
pub(super) struct TapReceiver {
    queue: Arc<File>,
    filter: Option<Arc<Filter>>,
    /// The services' frames come by this one.
    has_services: bool,
    counters: Arc<NetCounters>,
    buffer: Vec<u8>,
}

impl TapReceiver {
    pub(super) fn new(
        queue: Arc<File>,
        filter: Option<Arc<Filter>>,
        is_first: bool,
        counters: Arc<NetCounters>,
    ) -> Self {
        let has_services = is_first && filter.is_some();
        Self { queue, filter, has_services, counters, buffer: Vec::new() }
    }

    /// The next frame of the services.
    fn next_of_services(&mut self, to: &[VolatileSlice<'_>]) -> Option<usize> {
        let filter = self.filter.as_ref().filter(|_| self.has_services)?;
        while let Some(frame) = filter.desk.to_guest.pop() {
            match scatter(&frame, to) {
                Some(len) => return Some(len),
                None => NetCounters::count(&self.counters.dropped_incoming),
            }
        }
        None
    }

    /// Whether the frame that was put into `pieces` may stay there.
    fn may_stay(&mut self, len: usize, pieces: &[VolatileSlice<'_>]) -> bool {
        let Some(filter) = &self.filter else { return true };
        gather(pieces, len.min(HEADER_SIZE + TOLD_BY), &mut self.buffer);
        filter.may_come_in(self.buffer.get(HEADER_SIZE..).unwrap_or_default())
    }

    fn next_of_tap(&mut self, to: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        for _ in 0..DROPPED_MAX {
            match sys::read(&self.queue, to) {
                Ok(Some(len)) if self.may_stay(len, to) => return Ok(Some(len)),
                Ok(_) => NetCounters::count(&self.counters.dropped_incoming),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EBADFD | libc::ENODEV) => return Err(error),
                    // None waits; or there was no room even for the header, and the frame is lost.
                    _ => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}

impl Receiver for TapReceiver {
    fn receive(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        let len = match self.next_of_services(frame) {
            Some(len) => Some(len),
            None => self.next_of_tap(frame)?,
        };
        if let Some(len) = len {
            self.counters.count_received(len.saturating_sub(HEADER_SIZE));
        }
        Ok(len)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        match self.filter.as_ref().filter(|_| self.has_services) {
            Some(filter) => filter.as_fd(),
            None => self.queue.as_fd(),
        }
    }
}
