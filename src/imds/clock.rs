//! What time it is, for those who must not look themselves.

use std::time::{Duration, Instant, SystemTime};

/// A clock.
pub trait Clock: Send + Sync {
    /// How long it has run. It never goes back, whatever is done to the time of day.
    fn elapsed(&self) -> Duration;

    /// The time of day.
    fn wall(&self) -> SystemTime;
}

/// The host's clock.
#[derive(Debug, Clone, Copy)]
pub struct HostClock(Instant);

impl HostClock {
    /// It runs from now on.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for HostClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
