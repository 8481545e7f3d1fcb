//! How often something may be said.

use std::time::{Duration, Instant};

/// How many times in a row.
const MOST: u32 = 20;
/// What it takes until once more is allowed.
const AGAIN: Duration = Duration::from_millis(50);

/// A budget that fills up again as time goes by.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    filled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: MOST, filled: now }
    }

    /// Tells whether once more is allowed, and counts it.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_millis() / AGAIN.as_millis();
        let more = u32::try_from(since).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(MOST);
            self.filled = now;
        }
        self.left.checked_sub(1).map(|left| self.left = left).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!((0..100).filter(|_| budget.spend(now)).count(), 20);
        assert_eq!((0..100).filter(|_| budget.spend(now + 3 * AGAIN)).count(), 3);
        assert_eq!((0..100).filter(|_| budget.spend(now + 1000 * AGAIN)).count(), 20);
    }
}
