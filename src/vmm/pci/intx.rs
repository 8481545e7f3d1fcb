//! INTx# (PCI 3.0, section 2.2.6): interrupt pins of functions, level-triggered, several on one line.

use std::sync::{Arc, Mutex, PoisonError};

/// An input of the interrupt controller that several pins hang on: it is asserted while any of them is.
pub struct SharedLine {
    set: Box<dyn Fn(bool) + Send + Sync>,
    asserting: Mutex<usize>,
}

impl SharedLine {
    /// `set` puts the level on the interrupt controller's input (`KVM_IRQ_LINE`); it is called with changes only.
    #[must_use]
    pub fn new(set: Box<dyn Fn(bool) + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { set, asserting: Mutex::new(0) })
    }

    fn change(&self, asserted: bool) {
        let mut asserting = self.asserting.lock().unwrap_or_else(PoisonError::into_inner);
        let was = *asserting;
        *asserting = if asserted { was.saturating_add(1) } else { was.saturating_sub(1) };
        if (was == 0) != (*asserting == 0) {
            (self.set)(asserted);
        }
    }
}

#[derive(Default)]
struct Pin {
    /// The function has something to say.
    pending: bool,
    /// `Interrupt Disable` is set, or MSI-X is in use.
    blocked: bool,
    /// What the line was told.
    asserted: bool,
}

/// The interrupt pin of one function.
pub struct Intx {
    line: Arc<SharedLine>,
    pin: Mutex<Pin>,
}

impl Intx {
    /// A pin on a line.
    #[must_use]
    pub fn new(line: Arc<SharedLine>) -> Arc<Self> {
        Arc::new(Self { line, pin: Mutex::default() })
    }

    /// Asserts or deasserts the pin as `pending` says, which is asked with the pin locked: of two threads that changed
    /// their state and then came here, the one that comes last sees both changes.
    pub fn update(&self, pending: impl FnOnce() -> bool) {
        self.change(|pin| pin.pending = pending());
    }

    /// Whether the function has an interrupt pending, for `Status`; the line may be blocked nevertheless.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner).pending
    }

    /// Keeps the pin from the line, or lets it.
    pub fn block(&self, blocked: bool) {
        self.change(|pin| pin.blocked = blocked);
    }

    fn change(&self, change: impl FnOnce(&mut Pin)) {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pin);
        let asserted = pin.pending && !pin.blocked;
        if asserted != pin.asserted {
            pin.asserted = asserted;
            self.line.change(asserted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (Arc<SharedLine>, Arc<Mutex<Vec<bool>>>) {
        let levels = Arc::new(Mutex::new(Vec::new()));
        let seen = levels.clone();
        (SharedLine::new(Box::new(move |level| seen.lock().unwrap().push(level))), levels)
    }

    #[test]
    fn a_line_is_asserted_while_any_pin_is() {
        let (line, levels) = line();
        let (a, b) = (Intx::new(line.clone()), Intx::new(line));
        a.update(|| true);
        a.update(|| true);
        b.update(|| true);
        a.update(|| false);
        assert_eq!(*levels.lock().unwrap(), [true]);
        b.update(|| false);
        b.update(|| false);
        assert_eq!(*levels.lock().unwrap(), [true, false]);
    }

    #[test]
    fn a_blocked_pin_stays_pending_and_speaks_when_it_may() {
        let (line, levels) = line();
        let pin = Intx::new(line);
        pin.block(true);
        pin.update(|| true);
        assert!(pin.is_pending());
        assert!(levels.lock().unwrap().is_empty());
        pin.block(false);
        assert_eq!(*levels.lock().unwrap(), [true]);
        pin.block(true);
        assert_eq!(*levels.lock().unwrap(), [true, false]);
        pin.update(|| false);
        pin.block(false);
        assert_eq!(*levels.lock().unwrap(), [true, false]);
    }
}
