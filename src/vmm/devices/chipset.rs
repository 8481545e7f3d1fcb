//! One-port devices of a PC: debug console, POST codes, and the fast reset.

use std::sync::{Arc, Mutex, PoisonError};

use crate::vmm::bus::BusDevice;
use crate::vmm::stop::{StopReason, Stopper};

/// Where firmware's debug text goes, some bytes at a time.
pub type TextSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The debug console of Bochs and QEMU: what a firmware with it built in says of its work.
pub struct DebugConsole {
    sink: TextSink,
    line: Mutex<Vec<u8>>,
}

/// What reading the port gives, so that firmware knows that it is there.
const DEBUG_CONSOLE: u8 = 0xe9;
/// A line that is longer is handed on in pieces of this size, in bytes.
const LINE_MAX: usize = 256;

impl DebugConsole {
    /// Text goes to `sink` line by line.
    #[must_use]
    pub fn new(sink: TextSink) -> Self {
        Self { sink, line: Mutex::default() }
    }
}

impl BusDevice for DebugConsole {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(DEBUG_CONSOLE);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in data {
            line.push(*byte);
            if *byte == b'\n' || line.len() >= LINE_MAX {
                (self.sink)(&line);
                line.clear();
            }
        }
    }
}

/// The port of power-on self-test codes, which also serves as a delay: keeps the last code.
#[derive(Default)]
pub struct PostPort(Mutex<u8>);

impl BusDevice for PostPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(*self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(code) = data.first() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *code;
        }
    }
}

/// Port 0x92 (Intel 82371AB, section 4.2.5.4): fast reset, and the gate of address line 20, which is always open.
pub struct Port92 {
    stopper: Stopper,
    value: Mutex<u8>,
}

/// `FAST_INIT`: resets when it becomes one.
const FAST_INIT: u8 = 1;
/// `ALT_A20_GATE`.
const A20: u8 = 1 << 1;

impl Port92 {
    /// Resets through `stopper`.
    #[must_use]
    pub fn new(stopper: Stopper) -> Self {
        Self { stopper, value: Mutex::new(A20) }
    }
}

impl BusDevice for Port92 {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(*self.value.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let Some(new) = data.first().map(|value| value & (FAST_INIT | A20)) else { return };
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if new & !*value & FAST_INIT != 0 {
            self.stopper.stop(StopReason::Reset);
        }
        *value = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_text_comes_out_line_by_line_and_in_bounded_pieces() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let console = DebugConsole::new(Arc::new(move |text| sink.lock().unwrap().push(text.to_vec())));
        let mut byte = [0];
        console.read(0, &mut byte);
        assert_eq!(byte, [0xe9]);
        console.write(0, b"Sea");
        console.write(0, b"BIOS\n\xff");
        assert_eq!(*seen.lock().unwrap(), vec![b"SeaBIOS\n".to_vec()]);
        console.write(0, &[b'x'; 600]);
        assert!(seen.lock().unwrap().iter().all(|piece| piece.len() <= LINE_MAX));
        assert_eq!(seen.lock().unwrap().len(), 3);
    }

    #[test]
    fn only_a_rising_reset_bit_resets() {
        let stopper = Stopper::new().unwrap();
        let port = Port92::new(stopper.clone());
        let mut byte = [0];
        port.read(0, &mut byte);
        assert_eq!(byte, [2], "line 20 is open");
        port.write(0, &[0xfe]);
        port.write(0, &[]);
        assert!(!stopper.is_stopped());
        port.write(0, &[3]);
        assert_eq!(stopper.reason(), Some(&StopReason::Reset));
    }
}
