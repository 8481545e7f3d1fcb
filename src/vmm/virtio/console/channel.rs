//! The bytes between the host and a port of the guest: a bounded buffer each way.
//!
//! The host's side outlasts machines: each one's device has the same channel. A guest that opens its port begins anew, and what
//! was under way between the host and whoever had it open before has ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The most bytes that wait in one direction. What a guest sends beyond them is lost.
pub const BUFFER_MAX: usize = 64 << 10;

/// The two buffers.
pub struct Channel {
    state: Mutex<State>,
    /// Something has changed that the host may wait for.
    changed: Condvar,
    /// Readable when something waits for the guest.
    for_guest: EventFd,
}

#[derive(Default)]
struct State {
    /// Whether a process of the guest has the port open.
    is_open: bool,
    /// How often it was opened.
    openings: u64,
    /// Whether somebody of the host listens.
    has_listener: bool,
    /// The host's side is over.
    has_hung_up: bool,
    to_guest: VecDeque<u8>,
    to_host: VecDeque<u8>,
}

/// Why a conversation cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The guest has closed its port, perhaps to open it anew, or its machine has ended.
    #[error("the guest has closed its port")]
    Closed,
    /// It reads nothing.
    #[error("the guest reads nothing")]
    Full,
    /// Nothing came in time.
    #[error("the guest does not answer")]
    TimedOut,
    /// The host's side is over.
    #[error("the instance ends")]
    HungUp,
}

impl Channel {
    /// A channel whose port nobody has opened.
    ///
    /// # Errors
    /// Where the host has no event for it.
    pub fn new() -> io::Result<Arc<Self>> {
        let for_guest = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), for_guest }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process of the guest has the port open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// Begins a conversation with whoever has the port open; nothing that came before is heard. There is one at a time.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] where nobody has, or another conversation is under way; [`ChannelError::HungUp`].
    pub fn converse(self: &Arc<Self>) -> Result<Conversation, ChannelError> {
        let mut state = self.lock();
        if state.has_hung_up {
            return Err(ChannelError::HungUp);
        }
        if !state.is_open || state.has_listener {
            return Err(ChannelError::Closed);
        }
        state.has_listener = true;
        state.to_host.clear();
        Ok(Conversation { channel: self.clone(), opening: state.openings })
    }

    /// Waits until the guest opens its port anew after `opening`, or for ever.
    ///
    /// # Errors
    /// [`ChannelError::HungUp`].
    pub fn wait_for_opening(&self, after: u64) -> Result<(), ChannelError> {
        let mut state = self.lock();
        while !(state.has_hung_up || state.is_open && state.openings > after) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.has_hung_up { Err(ChannelError::HungUp) } else { Ok(()) }
    }

    /// Sleeps until an instant.
    ///
    /// # Errors
    /// [`ChannelError::HungUp`], then at once.
    pub fn pause(&self, until: Instant) -> Result<(), ChannelError> {
        let mut state = self.lock();
        while !state.has_hung_up {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(ChannelError::HungUp)
    }

    /// The host's side is over: who waits is told, and there is no further conversation.
    pub fn hang_up(&self) {
        self.lock().has_hung_up = true;
        self.changed.notify_all();
    }

    /// Of the device: a process of the guest has opened the port or closed it. What was under way is lost.
    pub fn set_open(&self, is_open: bool) {
        let mut state = self.lock();
        if state.is_open == is_open {
            return;
        }
        state.is_open = is_open;
        state.openings += u64::from(is_open);
        state.to_guest.clear();
        state.to_host.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Of the device: takes bytes from the guest, and tells how many were not lost. All are where nobody listens.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        if !state.is_open || !state.has_listener {
            return 0;
        }
        let kept = bytes.len().min(BUFFER_MAX.saturating_sub(state.to_host.len()));
        state.to_host.extend(bytes.iter().take(kept));
        drop(state);
        self.changed.notify_all();
        kept
    }

    /// Of the device: gives at most `room` bytes for the guest.
    pub fn take(&self, room: usize) -> Vec<u8> {
        let mut state = self.lock();
        let len = room.min(state.to_guest.len());
        state.to_guest.drain(..len).collect()
    }

    /// Of the device: readable when something may wait for the guest.
    pub fn for_guest(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the channel is, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.for_guest.as_raw_fd()) }
    }

    /// Of the device: [`Self::for_guest`] is not readable any more, until more comes. Called before it is looked.
    pub fn has_looked(&self) {
        // It fails where it is not readable.
        let _ = self.for_guest.read();
    }
}

/// The host's side of what is said through an open port.
pub struct Conversation {
    channel: Arc<Channel>,
    opening: u64,
}

impl Conversation {
    /// Which of the port's openings it belongs to: later ones have larger numbers.
    #[must_use]
    pub fn opening(&self) -> u64 {
        self.opening
    }

    /// Sends all of it, or nothing. Does not wait for the guest to read it.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send(&self, bytes: &[u8]) -> Result<(), ChannelError> {
        let mut state = self.channel.lock();
        self.check(&state)?;
        if bytes.len() > BUFFER_MAX.saturating_sub(state.to_guest.len()) {
            return Err(ChannelError::Full);
        }
        state.to_guest.extend(bytes);
        drop(state);
        // It fails only where it is full, and readable anyway.
        let _ = self.channel.for_guest.write(1);
        Ok(())
    }

    /// Waits for bytes until `deadline`, and gives all that have come.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn receive(&self, deadline: Instant) -> Result<Vec<u8>, ChannelError> {
        let mut state = self.channel.lock();
        loop {
            self.check(&state)?;
            let left = deadline.saturating_duration_since(Instant::now());
            // Looked at first: a guest that never stops to talk has no more time than others.
            if left.is_zero() {
                return Err(ChannelError::TimedOut);
            }
            if !state.to_host.is_empty() {
                return Ok(state.to_host.drain(..).collect());
            }
            state = self.channel.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn check(&self, state: &State) -> Result<(), ChannelError> {
        match state {
            State { has_hung_up: true, .. } => Err(ChannelError::HungUp),
            State { is_open: true, openings, .. } if *openings == self.opening => Ok(()),
            _ => Err(ChannelError::Closed),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let mut state = self.channel.lock();
        state.has_listener = false;
        state.to_host.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn opened() -> Arc<Channel> {
        let channel = Channel::new().unwrap();
        channel.set_open(true);
        channel
    }

    #[test]
    fn bytes_go_both_ways_while_somebody_listens() {
        let channel = opened();
        assert_eq!(channel.put(b"nobody hears this"), 0);
        let talk = channel.converse().unwrap();
        assert!(matches!(channel.converse(), Err(ChannelError::Closed)));
        talk.send(b"hello").unwrap();
        assert_eq!((channel.take(3), channel.take(30), channel.take(30)), (b"hel".to_vec(), b"lo".to_vec(), vec![]));
        assert_eq!(channel.put(b"good"), 4);
        assert_eq!(channel.put(b" day"), 4);
        assert_eq!(talk.receive(later()).unwrap(), b"good day");
        assert_eq!(talk.receive(Instant::now()), Err(ChannelError::TimedOut));
        channel.put(b"left over");
        drop(talk);
        let talk = channel.converse().unwrap();
        assert_eq!(talk.receive(Instant::now() + Duration::from_millis(1)), Err(ChannelError::TimedOut));
    }

    #[test]
    fn neither_side_makes_it_grow() {
        let channel = opened();
        let talk = channel.converse().unwrap();
        let much = vec![1; BUFFER_MAX];
        assert_eq!((channel.put(&much[1..]), channel.put(&much), channel.put(&much)), (BUFFER_MAX - 1, 1, 0));
        assert_eq!(talk.receive(later()).unwrap().len(), BUFFER_MAX);
        talk.send(&much[1..]).unwrap();
        assert_eq!(talk.send(b"xx"), Err(ChannelError::Full));
        talk.send(b"x").unwrap();
        assert_eq!(channel.take(usize::MAX).len(), BUFFER_MAX);
    }

    #[test]
    fn a_port_that_is_opened_anew_is_not_the_one_that_was_talked_to() {
        let channel = opened();
        let talk = channel.converse().unwrap();
        talk.send(b"old").unwrap();
        channel.set_open(false);
        assert!(!channel.is_open());
        channel.set_open(true);
        assert_eq!(talk.send(b"x"), Err(ChannelError::Closed));
        assert_eq!(talk.receive(later()), Err(ChannelError::Closed));
        assert_eq!(channel.take(10), b"");
        let opening = talk.opening();
        drop(talk);
        assert!(channel.converse().unwrap().opening() > opening);
        assert_eq!(channel.wait_for_opening(opening), Ok(()));
    }

    #[test]
    fn all_who_wait_are_told_that_it_is_over() {
        let channel = opened();
        let waiting = [0, 1, 2].map(|which| {
            let channel = channel.clone();
            thread::spawn(move || match which {
                0 => channel.converse().unwrap().receive(later()).map(drop),
                1 => channel.wait_for_opening(1),
                _ => channel.pause(later()),
            })
        });
        while !channel.lock().has_listener {
            thread::yield_now();
        }
        channel.hang_up();
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(ChannelError::HungUp));
        }
        assert!(matches!(channel.converse(), Err(ChannelError::HungUp)));
    }
}
