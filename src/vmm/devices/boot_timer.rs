//! The boot timer: one port to which a guest writes a byte when it has come to a point of its boot. Nothing else can tell
//! that as exactly.
//!
//! What is written is the guest's to choose, but for [`DONE`]. The first write of each value counts. Reading gives
//! [`PRESENT`], so that a guest can tell whether the port is there: an empty bus reads as all ones.

use std::sync::Arc;

use crate::vmm::bus::BusDevice;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::timeline::Timeline;

/// The boot is done.
pub const DONE: u8 = 123;
/// What reading the port gives.
pub const PRESENT: u8 = 0xb7;

/// The port.
pub struct BootTimer {
    timeline: Arc<Timeline>,
    console: Arc<ConsoleBuffer>,
}

impl BootTimer {
    /// Records instants in `timeline`, and tells `console` that the boot is done.
    #[must_use]
    pub fn new(timeline: Arc<Timeline>, console: Arc<ConsoleBuffer>) -> Self {
        Self { timeline, console }
    }
}

impl BusDevice for BootTimer {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(PRESENT);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let Some(value) = data.first() else { return };
        self.timeline.boot_timer(*value);
        if *value == DONE {
            self.console.boot_done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_recorded_and_one_of_them_ends_the_boot() {
        let (timeline, console) = (Arc::new(Timeline::from_process_start()), Arc::new(ConsoleBuffer::default()));
        let timer = BootTimer::new(timeline.clone(), console.clone());
        timer.write(0, &[]);
        timer.write(0, &[7, 123]);
        timer.write(0, &[7]);
        assert!(!console.is_boot_done());
        timer.write(0, &[DONE]);
        assert!(console.is_boot_done());
        let values: Vec<_> = timeline.instants().iter().map(|instant| instant.value).collect();
        assert_eq!(values, [Some(7), Some(DONE)]);
        let mut byte = [0];
        timer.read(0, &mut byte);
        assert_eq!(byte, [PRESENT]);
    }
}
