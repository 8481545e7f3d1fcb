//! What the person types, on its way to the guest.

use std::os::fd::BorrowedFd;

use super::console::escape::{EscapeFilter, Typed};
use super::console::terminal::is_anothers;
use crate::vmm::running::Machine;

/// How much may wait for the guest, in bytes. Beyond it no more is read; but of a terminal, where the monitor's keys come
/// from, the rest is lost, as it is on a serial line whose other side does not read.
const PENDING_MAX: usize = 4 << 10;

/// Standard input. Its end does not end the run.
pub struct Stdin {
    /// Filters the monitor's keys out, where a terminal is typed on.
    filter: Option<EscapeFilter>,
    pending: Vec<u8>,
    at_end: bool,
}

impl Stdin {
    /// With `terminal`, Ctrl-a is the monitor's. What is typed for another job is not read.
    #[must_use]
    pub fn new(terminal: bool) -> Self {
        Self { filter: terminal.then(EscapeFilter::default), pending: Vec::new(), at_end: is_anothers() }
    }

    /// The descriptor to poll, while more can be taken.
    #[must_use]
    pub fn wanted(&self) -> Option<BorrowedFd<'static>> {
        (!self.at_end && (self.filter.is_some() || self.pending.len() < PENDING_MAX)).then(rustix::stdio::stdin)
    }

    /// Reads what is there; gives the keys for the monitor.
    pub fn read(&mut self) -> Vec<Typed> {
        let mut buf = [0; 1024];
        match rustix::io::read(rustix::stdio::stdin(), &mut buf) {
            Ok(0) => self.at_end = true,
            Ok(len) => return self.split(buf.get(..len).unwrap_or_default()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // A terminal that went away.
            Err(_) => self.at_end = true,
        }
        Vec::new()
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let Some(filter) = &mut self.filter else {
            self.pending.extend_from_slice(bytes);
            return Vec::new();
        };
        let mut keys = Vec::new();
        for typed in filter.feed(bytes) {
            match typed {
                Typed::Input(bytes) => {
                    let room = PENDING_MAX.saturating_sub(self.pending.len()).min(bytes.len());
                    self.pending.extend_from_slice(bytes.get(..room).unwrap_or_default());
                }
                key => keys.push(key),
            }
        }
        keys
    }

    /// Whether something waits for the guest to take it.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives the guest what it has room for.
    pub fn give(&mut self, machine: &Machine) {
        while !self.pending.is_empty() {
            let taken = machine.input(&self.pending);
            if taken == 0 {
                break;
            }
            self.pending.drain(..taken);
        }
    }

    /// Forgets what an ended machine has not taken.
    pub fn clear(&mut self) {
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdin(terminal: bool) -> Stdin {
        Stdin { filter: terminal.then(EscapeFilter::default), pending: Vec::new(), at_end: false }
    }

    #[test]
    fn the_monitors_keys_work_though_the_guest_takes_nothing() {
        let mut stdin = stdin(true);
        for _ in 0..100 {
            assert!(stdin.split(&[b'x'; 1000]).is_empty());
        }
        assert_eq!(stdin.pending.len(), PENDING_MAX);
        assert!(stdin.wanted().is_some());
        assert_eq!(stdin.split(b"\x01x"), vec![Typed::Quit]);
    }

    #[test]
    fn a_pipe_is_not_read_faster_than_the_guest_takes_it() {
        let mut stdin = stdin(false);
        stdin.split(&[1; PENDING_MAX - 1]);
        assert!(stdin.wanted().is_some());
        stdin.split(b"\x01x");
        assert!(stdin.wanted().is_none() && stdin.pending.ends_with(b"\x01x"));
    }
}
