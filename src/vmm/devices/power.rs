//! Sleep control, sleep status and reset registers of hardware-reduced ACPI (ACPI 6.5, sections 4.8.3.7 and 4.8.3.6).

use std::sync::Arc;

use crate::vmm::bus::BusDevice;
use crate::vmm::machine::pv::{RESET_VALUE, SLEEP_TYPE_S5};
use crate::vmm::stop::{StopReason, Stopper};
use crate::vmm::timeline::{Mark, Timeline};

const SLEEP_CONTROL: u64 = 0;
const RESET: u64 = 2;
/// How many bytes of registers there are.
pub const REGISTERS: u64 = 3;
/// `SLP_EN`.
const SLEEP_ENABLE: u8 = 1 << 5;
/// `SLP_TYP` begins at bit 2.
const SLEEP_TYPE_SHIFT: u8 = 2;

/// The three registers.
pub struct PowerRegisters {
    stopper: Stopper,
    timeline: Arc<Timeline>,
}

impl PowerRegisters {
    /// Stops the machine through `stopper`.
    #[must_use]
    pub fn new(stopper: Stopper, timeline: Arc<Timeline>) -> Self {
        Self { stopper, timeline }
    }
}

impl BusDevice for PowerRegisters {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        // The wake status never stands: this machine does not sleep.
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data.first()) {
            (SLEEP_CONTROL, Some(value)) if *value == SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE => {
                self.timeline.mark(Mark::PowerOff);
                self.stopper.stop(StopReason::PowerOff);
            }
            (RESET, Some(&RESET_VALUE)) => self.stopper.stop(StopReason::Reset),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(offset: u64, value: u8) -> Option<StopReason> {
        let stopper = Stopper::new().unwrap();
        PowerRegisters::new(stopper.clone(), Arc::new(Timeline::from_process_start())).write(offset, &[value]);
        stopper.reason().cloned()
    }

    #[test]
    fn only_the_right_value_in_the_right_register_does_something() {
        for offset in 0..4 {
            for value in 0..=255 {
                let expected = match (offset, value) {
                    (0, 0x34) => Some(StopReason::PowerOff),
                    (2, 1) => Some(StopReason::Reset),
                    _ => None,
                };
                assert_eq!(after(offset, value), expected, "{offset} {value:#x}");
            }
        }
    }
}
