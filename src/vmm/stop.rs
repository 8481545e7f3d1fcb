//! How a machine ends: the first reason counts.

use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;
use vmm_sys_util::eventfd::EventFd;

/// Why a machine stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked; how it was seen.
    Panic(String),
    /// A fault while handling a double fault: the processor gave up.
    TripleFault,
    /// The host ended it.
    Ended,
    /// The hypervisor or the monitor could not go on; why.
    Internal(String),
}

struct State {
    reason: OnceLock<StopReason>,
    event: EventFd,
    /// Called once at the stop: what must be woken to see it.
    wakers: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

/// Stops a machine; shared by all that can.
#[derive(Clone)]
pub struct Stopper(Arc<State>);

impl Stopper {
    /// A machine that has not stopped.
    ///
    /// # Errors
    /// Where the host has no event for it.
    pub fn new() -> std::io::Result<Self> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(State { reason: OnceLock::new(), event, wakers: Mutex::new(Vec::new()) })))
    }

    /// Stops the machine; a second reason is dropped.
    pub fn stop(&self, reason: StopReason) {
        if self.0.reason.set(reason).is_ok() {
            // An eventfd that is full is readable already.
            let _ = self.0.event.write(1);
            for wake in self.0.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
                wake();
            }
        }
    }

    /// Whether it has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.reason.get().is_some()
    }

    /// Why it stopped.
    #[must_use]
    pub fn reason(&self) -> Option<&StopReason> {
        self.0.reason.get()
    }

    /// Readable once the machine has stopped.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }

    /// Calls `wake` when the machine stops, or now where it has.
    pub fn on_stop(&self, wake: impl Fn() + Send + 'static) {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.is_stopped() {
            wake();
        } else {
            wakers.push(Box::new(wake));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_first_reason_counts_and_wakes_once() {
        let stopper = Stopper::new().unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        stopper.on_stop(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        assert!(!stopper.is_stopped());
        stopper.stop(StopReason::Reset);
        stopper.stop(StopReason::PowerOff);
        assert_eq!(stopper.reason(), Some(&StopReason::Reset));
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert_eq!(stopper.event().read().unwrap(), 1);
    }

    #[test]
    fn who_comes_late_is_woken_at_once() {
        let stopper = Stopper::new().unwrap();
        stopper.stop(StopReason::Ended);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        stopper.on_stop(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(woken.load(Ordering::SeqCst), 1);
    }
}
