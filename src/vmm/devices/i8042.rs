//! The keyboard controller, as far as kernels without ACPI use it: its reset line.

use std::sync::Mutex;

use vm_superio::{I8042Device, Trigger};

use crate::vmm::bus::BusDevice;
use crate::vmm::stop::{StopReason, Stopper};

/// The command port's place among the controller's five.
const COMMAND: u8 = 4;

struct ResetLine(Stopper);

impl Trigger for ResetLine {
    type E = std::convert::Infallible;
    fn trigger(&self) -> Result<(), Self::E> {
        self.0.stop(StopReason::Reset);
        Ok(())
    }
}

/// The controller's command port; there is no keyboard behind it.
pub struct KeyboardController(Mutex<I8042Device<ResetLine>>);

impl KeyboardController {
    /// Resets the machine through `stopper`.
    #[must_use]
    pub fn new(stopper: Stopper) -> Self {
        Self(Mutex::new(I8042Device::new(ResetLine(stopper))))
    }
}

impl BusDevice for KeyboardController {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(COMMAND);
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(first) = data.first() {
            let Ok(()) = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write(COMMAND, *first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_command_resets() {
        let stopper = Stopper::new().unwrap();
        let controller = KeyboardController::new(stopper.clone());
        controller.write(0, &[0xae]);
        assert!(!stopper.is_stopped());
        controller.write(0, &[0xfe]);
        assert_eq!(stopper.reason(), Some(&StopReason::Reset));
    }
}
