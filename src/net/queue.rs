//! Frames that wait between two threads.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// A sign that a thread can wait for, until it is taken back.
#[derive(Debug)]
pub(super) struct Sign {
    event: OwnedFd,
}

impl Sign {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Gives it. The count of an eventfd cannot run over here, and nothing else can go wrong.
    pub(super) fn give(&self) {
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Takes it back, if it was given.
    pub(super) fn take(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl AsFd for Sign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Frames in their order, bounded in number and bytes, with a sign that is up while there are some.
#[derive(Debug)]
pub(super) struct FrameQueue {
    waiting: Mutex<Waiting>,
    sign: Sign,
    frames_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl FrameQueue {
    pub(super) fn new(frames_max: usize, bytes_max: usize) -> io::Result<Self> {
        Ok(Self { waiting: Mutex::default(), sign: Sign::new()?, frames_max, bytes_max })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame; tells whether there was room for it.
    pub(super) fn push(&self, frame: Vec<u8>) -> bool {
        let mut waiting = self.waiting();
        let bytes = waiting.bytes.saturating_add(frame.len());
        if waiting.frames.len() >= self.frames_max || bytes > self.bytes_max {
            return false;
        }
        waiting.bytes = bytes;
        if waiting.frames.is_empty() {
            self.sign.give();
        }
        waiting.frames.push_back(frame);
        true
    }

    /// Takes the oldest frame.
    pub(super) fn pop(&self) -> Option<Vec<u8>> {
        let mut waiting = self.waiting();
        let frame = waiting.frames.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(frame.len());
        if waiting.frames.is_empty() {
            self.sign.take();
        }
        Some(frame)
    }

    /// Drops all frames.
    pub(super) fn clear(&self) {
        // The sign is taken back while nothing can come: what comes after it raises it again.
        let mut waiting = self.waiting();
        *waiting = Waiting::default();
        self.sign.take();
    }
}

impl AsFd for FrameQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sign.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::is_readable;

    #[test]
    fn the_sign_is_up_while_frames_wait() {
        let queue = FrameQueue::new(2, 100).unwrap();
        assert!(!is_readable(queue.as_fd()));
        assert!(queue.push(vec![1]) && queue.push(vec![2; 99]) && !queue.push(vec![3]));
        assert!(is_readable(queue.as_fd()));
        assert_eq!(queue.pop(), Some(vec![1]));
        assert!(!queue.push(vec![4; 2]), "more bytes than it may have");
        assert!(is_readable(queue.as_fd()));
        assert!(queue.pop().is_some() && !is_readable(queue.as_fd()) && queue.pop().is_none());
        assert!(queue.push(vec![5]));
        queue.clear();
        assert!(!is_readable(queue.as_fd()) && queue.pop().is_none());
    }
}
