//! The panic notifier (QEMU, `docs/specs/pvpanic.rst`): one port that a panicking kernel writes to.

use std::sync::Arc;

use crate::vmm::bus::BusDevice;
use crate::vmm::console::ConsoleBuffer;

/// `PVPANIC_PANICKED`: the guest has panicked.
const PANICKED: u8 = 1;

/// The port. It does not stop the machine: the kernel is just about to print why.
pub struct PanicNotifier {
    console: Arc<ConsoleBuffer>,
}

impl PanicNotifier {
    /// Tells `console` of a panic.
    #[must_use]
    pub fn new(console: Arc<ConsoleBuffer>) -> Self {
        Self { console }
    }
}

impl BusDevice for PanicNotifier {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = PANICKED;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first().is_some_and(|events| events & PANICKED != 0) {
            self.console.guest_panicked();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_and_nothing_else_is() {
        let console = Arc::new(ConsoleBuffer::default());
        let notifier = PanicNotifier::new(console.clone());
        notifier.write(0, &[0xfe]);
        assert!(!console.has_guest_panicked());
        notifier.write(0, &[1]);
        assert!(console.has_guest_panicked());
        let mut data = [0xff; 1];
        notifier.read(0, &mut data);
        assert_eq!(data, [1]);
    }
}
