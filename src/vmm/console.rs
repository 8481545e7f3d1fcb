//! The guest's console output on its way out: a bounded buffer between the processors and whoever shows it.
//!
//! A guest that writes faster than its output is taken is held back, so that nothing is lost and nothing grows; the
//! monitor itself never waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::timeline::{Mark, Timeline};

/// How many bytes may wait, apart from those a processor is just writing.
const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
    /// The machine has stopped: no processor is held.
    released: bool,
    /// All output has been taken and dealt with, and more is waited for.
    waited_for: bool,
    /// The guest panicked or is done with its boot, and [`ConsoleBuffer::take`] has not returned for it yet.
    news: bool,
}

/// The buffer.
#[derive(Default)]
pub struct ConsoleBuffer {
    state: Mutex<State>,
    /// There are bytes, news, or the end.
    something: Condvar,
    /// There is room again.
    room: Condvar,
    written: AtomicBool,
    panicked: AtomicBool,
    boot_done: AtomicBool,
    timeline: Option<Arc<Timeline>>,
}

impl ConsoleBuffer {
    /// A buffer that records its first byte.
    #[must_use]
    pub fn new(timeline: Arc<Timeline>) -> Self {
        Self { timeline: Some(timeline), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds output. Never waits; see [`Self::wait_for_room`].
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let was_empty = state.bytes.is_empty();
        state.bytes.extend_from_slice(bytes);
        drop(state);
        if was_empty {
            self.something.notify_one();
            if !self.written.swap(true, Ordering::Relaxed)
                && let Some(timeline) = &self.timeline
            {
                timeline.mark(Mark::FirstConsoleByte);
            }
        }
    }

    /// Holds the calling processor while the buffer is full.
    pub fn wait_for_room(&self) {
        let mut state = self.state();
        while state.bytes.len() >= CAPACITY && !state.closed && !state.released {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for output, a panic, or the end of the boot, and moves all output to the end of `into`. False at the end, when nothing will come
    /// any more. `on_drained` is called when there is nothing left of a machine that has stopped.
    pub fn take(&self, into: &mut Vec<u8>, on_drained: impl Fn()) -> bool {
        let mut state = self.state();
        while state.bytes.is_empty() && !state.closed && !state.news {
            state.waited_for = true;
            if state.released {
                on_drained();
            }
            state = self.something.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waited_for = false;
        state.news = false;
        let open = !(state.closed && state.bytes.is_empty());
        into.append(&mut state.bytes);
        drop(state);
        self.room.notify_all();
        open
    }

    /// Lets held processors go, or, for a machine that starts anew, holds them again.
    pub fn release(&self, released: bool) {
        self.state().released = released;
        self.room.notify_all();
    }

    /// Whether all output has been taken and dealt with. Where not, and the buffer is [released](Self::release),
    /// [`Self::take`] tells when it is so.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let state = self.state();
        state.waited_for && state.bytes.is_empty() && !state.news
    }

    /// Ends it: what is there can still be taken, nothing comes after it, and no processor is held any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.something.notify_all();
        self.room.notify_all();
    }

    /// Notes that the guest's kernel said, by other means than text, that it panicked.
    pub fn guest_panicked(&self) {
        self.panicked.store(true, Ordering::Release);
        self.tell_news();
    }

    /// Notes that the guest said, by other means than text, that its boot is done.
    pub fn boot_done(&self) {
        self.boot_done.store(true, Ordering::Release);
        self.tell_news();
    }

    fn tell_news(&self) {
        self.state().news = true;
        self.something.notify_all();
    }

    /// Whether it said so.
    #[must_use]
    pub fn has_guest_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// Whether the guest said that its boot is done.
    #[must_use]
    pub fn is_boot_done(&self) -> bool {
        self.boot_done.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_nothing_is_lost() {
        const TOTAL: usize = CAPACITY * 5 + 7;
        let console = Arc::new(ConsoleBuffer::default());
        let guest = {
            let console = console.clone();
            std::thread::spawn(move || {
                for i in 0..TOTAL {
                    console.push(&[u8::try_from(i % 251).unwrap()]);
                    console.wait_for_room();
                }
                console.close();
            })
        };
        let (mut all, mut batch) = (Vec::new(), Vec::new());
        while console.take(&mut batch, || {}) {
            assert!(batch.len() <= CAPACITY);
            all.append(&mut batch);
        }
        guest.join().unwrap();
        assert_eq!(all.len(), TOTAL);
        assert!(all.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
    }

    #[test]
    fn closing_frees_a_held_processor_and_swallows_what_comes_later() {
        let console = Arc::new(ConsoleBuffer::default());
        console.push(&vec![0; CAPACITY]);
        let held = {
            let console = console.clone();
            std::thread::spawn(move || console.wait_for_room())
        };
        console.close();
        held.join().unwrap();
        console.push(b"late");
        let mut out = Vec::new();
        assert!(console.take(&mut out, || {}));
        assert_eq!(out.len(), CAPACITY);
        assert!(!console.take(&mut out, || {}));
    }
}
