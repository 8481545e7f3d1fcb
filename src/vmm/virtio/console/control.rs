//! What device and driver tell each other of ports (virtio 1.2, sections 5.3.6.2 and 5.3.6.3).
//!
//! The driver says that it is ready, and is told of the port; it has made the port, and is told its name and that the host has
//! its end open; a process of the guest opens and closes the port. What the device has to tell is three facts, so that a driver
//! that asks again and again makes nothing grow.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::DescriptorChain;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::super::chain::{Buffers, take_front, total};
use super::super::worker::QueueHandler;
use super::channel::Channel;
use super::to_guest::Source;
use super::{ConsoleCounters, PORT, count};
use crate::vmm::memory::GuestMemory;

/// The driver has set the device up; `value` is 1 where that went well.
const DEVICE_READY: u16 = 0;
/// There is a port.
const PORT_ADD: u16 = 1;
/// The driver has set a port up; `value` is 1 where that went well.
const PORT_READY: u16 = 3;
/// The sender's end of the port is open (`value` 1) or closed (0).
const PORT_OPEN: u16 = 6;
/// The name of the port follows the message.
const PORT_NAME: u16 = 7;

/// Bytes of a message: port, event and value, little endian.
const MESSAGE_SIZE: usize = 8;

/// A message, without a name that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    port: u32,
    event: u16,
    value: u16,
}

impl Message {
    fn parse(bytes: [u8; MESSAGE_SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self {
            port: u32::from_le_bytes([a, b, c, d]),
            event: u16::from_le_bytes([e, f]),
            value: u16::from_le_bytes([g, h]),
        }
    }

    fn bytes(self) -> [u8; MESSAGE_SIZE] {
        let ([a, b, c, d], [e, f], [g, h]) =
            (self.port.to_le_bytes(), self.event.to_le_bytes(), self.value.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

/// What the driver has yet to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    added: bool,
    name: bool,
    open: bool,
}

/// What is known of the port, by both control queues.
pub struct Ports {
    name: &'static str,
    channel: Arc<Channel>,
    untold: Mutex<Facts>,
    /// Readable when there is something to tell.
    event: EventFd,
}

impl Ports {
    /// Of a driver that has said nothing yet.
    ///
    /// # Errors
    /// Where the host has no event for it.
    pub fn new(name: &'static str, channel: Arc<Channel>) -> io::Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self { name, channel, untold: Mutex::default(), event })
    }

    fn untold(&self) -> MutexGuard<'_, Facts> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Heeds a message of the driver; false where it makes no sense.
    fn heed(&self, message: Message) -> bool {
        match message {
            Message { event: DEVICE_READY, value: 1, .. } => self.tell(Facts { added: true, ..Facts::default() }),
            Message { event: PORT_READY, port: PORT, value: 1 } => {
                self.tell(Facts { name: true, open: true, ..Facts::default() });
            }
            // The driver could not: there is nothing to be done about it.
            Message { event: DEVICE_READY, .. } | Message { event: PORT_READY, port: PORT, .. } => {}
            Message { event: PORT_OPEN, port: PORT, value } => self.channel.set_open(value != 0),
            _ => return false,
        }
        true
    }

    fn tell(&self, facts: Facts) {
        let mut untold = self.untold();
        untold.added |= facts.added;
        untold.name |= facts.name;
        untold.open |= facts.open;
        drop(untold);
        // It fails only where it is full, and readable anyway.
        let _ = self.event.write(1);
    }

    /// The next message for the driver, if it has at most `room` bytes.
    fn next(&self, room: usize) -> Option<Vec<u8>> {
        let mut untold = self.untold();
        let (fact, event, name) = match &mut *untold {
            Facts { added: added @ true, .. } => (added, PORT_ADD, ""),
            Facts { name: name @ true, .. } => (name, PORT_NAME, self.name),
            Facts { open: open @ true, .. } => (open, PORT_OPEN, ""),
            Facts { .. } => return None,
        };
        let message = Message { port: PORT, event, value: 1 };
        let bytes = [&message.bytes(), name.as_bytes()].concat();
        if bytes.len() > room {
            return None;
        }
        *fact = false;
        Some(bytes)
    }
}

/// Gives the driver what it is told: the control receive queue.
pub struct Told(pub Arc<Ports>);

impl Source for Told {
    fn event(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as what is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.event.as_raw_fd()) }
    }

    fn has_looked(&self) {
        // It fails where it is not readable.
        let _ = self.0.event.read();
    }

    /// A message is never cut.
    fn least_room(&self) -> usize {
        MESSAGE_SIZE + self.0.name.len()
    }

    fn take(&mut self, room: usize) -> Option<Vec<u8>> {
        self.0.next(room)
    }
}

/// Listens to the driver: the control transmit queue.
pub struct Listening {
    /// What is known.
    pub ports: Arc<Ports>,
    /// What is counted.
    pub counters: Arc<ConsoleCounters>,
}

impl QueueHandler for Listening {
    fn serve(&mut self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> Option<u32> {
        let mut bytes = [0; MESSAGE_SIZE];
        let message = Buffers::collect(chain).ok().and_then(|Buffers { mut readable, writable }| {
            // A name may follow in messages of the device only.
            let is_one = writable.is_empty() && total(&readable) == MESSAGE_SIZE as u64;
            is_one.then(|| take_front(memory, &mut readable, &mut bytes))?
        });
        let counters = &self.counters;
        match message.map(|()| self.ports.heed(Message::parse(bytes))) {
            Some(true) => count(&counters.messages, 1),
            Some(false) => count(&counters.messages_refused, 1),
            None => count(&counters.malformed, 1),
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        Ports::new("a.name", Channel::new().unwrap()).unwrap()
    }

    fn all_told(ports: &Ports) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| ports.next(100)).collect()
    }

    fn message(port: u32, event: u16, value: u16) -> Message {
        let message = Message { port, event, value };
        assert_eq!(Message::parse(message.bytes()), message);
        message
    }

    #[test]
    fn a_driver_is_told_of_the_port_then_its_name_and_that_it_is_open() {
        let ports = ports();
        assert_eq!(all_told(&ports), Vec::<Vec<u8>>::new());
        assert!(ports.heed(message(u32::MAX, DEVICE_READY, 1)));
        assert_eq!(all_told(&ports), [[1, 0, 0, 0, 1, 0, 1, 0]]);
        assert!(ports.heed(message(PORT, PORT_READY, 1)));
        assert_eq!(all_told(&ports), [b"\x01\0\0\0\x07\0\x01\0a.name".to_vec(), vec![1, 0, 0, 0, 6, 0, 1, 0]]);
        for is_open in [true, false] {
            assert!(ports.heed(message(PORT, PORT_OPEN, is_open.into())));
            assert_eq!(ports.channel.is_open(), is_open);
        }
        assert_eq!(all_told(&ports), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn who_asks_without_end_gets_one_answer() {
        let ports = ports();
        for _ in 0..1000 {
            ports.heed(message(0, DEVICE_READY, 1));
            ports.heed(message(PORT, PORT_READY, 1));
        }
        assert_eq!(all_told(&ports).len(), 3);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let ports = ports();
        for (port, event, value) in
            [(0, PORT_READY, 1), (2, PORT_READY, 1), (0, PORT_OPEN, 1), (1, PORT_ADD, 1), (1, 8, 1), (1, u16::MAX, 1)]
        {
            assert!(!ports.heed(message(port, event, value)), "{port} {event} {value}");
        }
        for (port, event) in [(0, DEVICE_READY), (1, PORT_READY)] {
            assert!(ports.heed(message(port, event, 0)));
        }
        assert!(all_told(&ports).is_empty() && !ports.channel.is_open());
    }

    #[test]
    fn a_message_that_has_no_room_is_kept() {
        let ports = ports();
        ports.heed(message(PORT, PORT_READY, 1));
        assert_eq!(ports.next(13), None);
        assert_eq!(ports.next(14).unwrap().len(), 14);
    }
}
