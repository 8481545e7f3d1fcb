//! A gate that changes of a disk go through, so that a moment can be found at which none is under way.
//!
//! It stands open nearly always: to pass costs two atomic operations. Who needs such a moment closes it, waits until
//! those inside have left, and opens it again; who comes meanwhile waits before it.
//!
//! Changes that were begun and end later (by io_uring) are inside until whoever began them has seen their end. So a
//! thread that has begun some must not wait before the gate: it waits for its own first, or goes on with the pass
//! ([`Hold`]) that it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Set in `state` while the gate is closed; the rest of it counts those inside.
const CLOSED: u64 = 1 << 63;

/// The gate of one disk.
#[derive(Debug, Default)]
pub(super) struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    state: AtomicU64,
    /// Held by whoever waits for the gate or those inside, between the look and the wait.
    waiting: Mutex<()>,
    changed: Condvar,
}

/// A change that is under way inside the gate of a disk: as long as this lasts, the disk keeps what the change is made to.
#[derive(Debug)]
pub struct Hold(Arc<State>);

/// The gate, closed, with nobody inside. Dropping it opens the gate.
pub(super) struct Closed<'a>(&'a State);

impl State {
    fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, ()>) -> MutexGuard<'a, ()> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    fn try_enter(&self) -> bool {
        let enter = |state: u64| (state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_ok()
    }
}

impl Gate {
    /// Goes in, if the gate is open.
    pub(super) fn try_enter(&self) -> Option<Hold> {
        self.0.try_enter().then(|| Hold(self.0.clone()))
    }

    /// Goes in, once the gate is open. Not for who is inside already.
    pub(super) fn enter(&self) -> Hold {
        while !self.0.try_enter() {
            let mut guard = self.0.lock();
            while self.is_closed() {
                guard = self.0.wait(guard);
            }
        }
        Hold(self.0.clone())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Closes the gate and waits until nobody is inside. One at a time may do so: the caller sees to that.
    pub(super) fn close(&self) -> Closed<'_> {
        self.0.state.fetch_or(CLOSED, Ordering::AcqRel);
        let closed = Closed(&self.0);
        let mut guard = self.0.lock();
        while self.0.state.load(Ordering::Acquire) != CLOSED {
            guard = self.0.wait(guard);
        }
        closed
    }
}

impl Clone for Hold {
    /// One more change of who is inside already: closed or not, the gate has to wait for them.
    fn clone(&self) -> Self {
        self.0.state.fetch_add(1, Ordering::AcqRel);
        Self(self.0.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
            let _guard = self.0.lock();
            self.0.changed.notify_all();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!CLOSED, Ordering::AcqRel);
        let _guard = self.0.lock();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn closing_waits_for_those_inside_and_those_outside_wait_for_it() {
        let gate = Gate::default();
        let first = gate.enter();
        let closed = AtomicBool::new(false);
        thread::scope(|scope| {
            let closer = scope.spawn(|| {
                let guard = gate.close();
                closed.store(true, Ordering::SeqCst);
                assert!(gate.try_enter().is_none());
                drop(guard);
            });
            while !gate.is_closed() {
                thread::yield_now();
            }
            assert!(gate.try_enter().is_none());
            let second = first.clone();
            drop(first);
            for _ in 0..1000 {
                thread::yield_now();
            }
            assert!(!closed.load(Ordering::SeqCst), "one is still inside");
            drop(second);
            drop(gate.enter());
            closer.join().unwrap();
        });
        assert!(gate.try_enter().is_some());
    }

    #[test]
    fn nobody_is_inside_a_closed_gate() {
        let (gate, inside) = (Gate::default(), AtomicU64::new(0));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        let hold = gate.enter();
                        inside.fetch_add(1, Ordering::SeqCst);
                        let more = hold.clone();
                        drop(hold);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(more);
                    }
                });
            }
            for _ in 0..300 {
                let closed = gate.close();
                assert_eq!(inside.load(Ordering::SeqCst), 0);
                drop(closed);
            }
            done.store(true, Ordering::SeqCst);
        });
    }
}
