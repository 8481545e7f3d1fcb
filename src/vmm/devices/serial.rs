//! The first serial port: an 8250 whose output goes to the console buffer.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::bus::BusDevice;
use crate::vmm::console::ConsoleBuffer;

struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells the host's side when the guest has taken all its input.
struct InputTaken(EventFd);

impl SerialEvents for InputTaken {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // An eventfd that is full is readable already.
        let _ = self.0.write(1);
    }
}

struct Output(Arc<ConsoleBuffer>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial port.
pub struct SerialPort {
    uart: Mutex<Serial<Line, InputTaken, Output>>,
    console: Arc<ConsoleBuffer>,
}

impl SerialPort {
    /// `line` raises the port's interrupt; `input_taken` is written when the guest has read all its input.
    #[must_use]
    pub fn new(line: EventFd, input_taken: EventFd, console: Arc<ConsoleBuffer>) -> Self {
        let uart = Serial::with_events(Line(line), InputTaken(input_taken), Output(console.clone()));
        Self { uart: Mutex::new(uart), console }
    }

    fn uart(&self) -> MutexGuard<'_, Serial<Line, InputTaken, Output>> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the guest input; returns how many bytes there was room for.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut uart = self.uart();
        let room = uart.fifo_capacity().min(bytes.len());
        // In loop-back mode the port takes no input from outside.
        uart.enqueue_raw_bytes(&bytes[..room]).unwrap_or(0)
    }
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (Ok(offset), Some(first)) = (u8::try_from(offset), data.first_mut()) {
            *first = self.uart().read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (Ok(offset), Some(first)) = (u8::try_from(offset), data.first()) {
            // An interrupt that cannot be raised is one that is pending already.
            let _ = self.uart().write(offset, *first);
        }
        // Outside the lock: the host may still give input while a guest that writes too much is held here.
        self.console.wait_for_room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> (SerialPort, Arc<ConsoleBuffer>, EventFd) {
        let event = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let console = Arc::new(ConsoleBuffer::default());
        let taken = event();
        (SerialPort::new(event(), taken.try_clone().unwrap(), console.clone()), console, taken)
    }

    #[test]
    fn output_goes_to_the_console() {
        let (port, console, _) = port();
        for byte in b"amiboot" {
            port.write(0, &[*byte]);
        }
        let mut out = Vec::new();
        assert!(console.take(&mut out, || {}));
        assert_eq!(out, b"amiboot");
    }

    #[test]
    fn input_is_bounded_and_its_end_is_told() {
        let (port, _, taken) = port();
        let given = port.input(&[b'x'; 1000]);
        assert!(given > 0 && given < 1000);
        let mut byte = [0];
        for _ in 0..given {
            port.read(0, &mut byte);
            assert_eq!(byte, *b"x");
        }
        assert_eq!(taken.read().unwrap(), 1);
    }

    #[test]
    fn wide_and_strange_accesses_do_no_harm() {
        let (port, _, _) = port();
        let mut data = [0xaa; 4];
        for offset in 0..8 {
            port.read(offset, &mut data);
            port.write(offset, &[0xff; 4]);
        }
        port.write(300, &[1]);
        port.read(300, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
