//! Work that goes on after its request was answered.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::ApiError;

/// Most at once.
const MAX: usize = 256;

/// Threads that do it.
#[derive(Default)]
pub struct Background {
    state: Arc<(Mutex<usize>, Condvar)>,
}

/// One thread less, however it ends.
struct Turn(Arc<(Mutex<usize>, Condvar)>);

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_all();
    }
}

impl Background {
    /// Starts some.
    ///
    /// # Errors
    /// `RequestLimitExceeded` where too much is under way, or the host has no thread.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
        let limit = || ApiError::new("RequestLimitExceeded", "Request limit exceeded: too much is under way.");
        {
            let mut running = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
            if *running >= MAX {
                return Err(limit());
            }
            *running += 1;
        }
        let turn = Turn(self.state.clone());
        let work = move || {
            let _turn = turn;
            work();
        };
        thread::Builder::new().name("background".into()).spawn(work).map(drop).map_err(|_| limit())
    }

    /// Waits until all is done, or for so long; tells how much is not.
    #[must_use]
    pub fn wait(&self, most: Duration) -> usize {
        let deadline = Instant::now() + most;
        let mut running = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            running = self.state.1.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_done_too() {
        let background = Background::default();
        background.spawn(|| panic!("as it should")).unwrap();
        background.spawn(|| {}).unwrap();
        assert_eq!(background.wait(Duration::from_secs(60)), 0);
    }
}
