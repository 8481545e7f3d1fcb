//! A driver of a port.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::super::testing::attachment::Attachment;
use super::super::testing::*;
use super::*;

/// Longer than anything takes on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// From here on memory is free: behind the rings.
pub const ROOM: u64 = 0x2_0000;
/// What is put into the control transmit queue.
const SPOKEN: u64 = 0x1_f000;
/// The driver's room in the control receive queue.
const HEARD: u64 = 0x1_e000;

pub const CONTROL_IN: u16 = 2;
pub const CONTROL_OUT: u16 = 3;
pub const IN: u16 = 4;
pub const OUT: u16 = 5;

#[derive(Clone, Copy, Default)]
struct Indices {
    avail: u16,
    used: u16,
}

/// A driver with all six queues.
pub struct PortDriver<T> {
    pub on: DriverOn<T>,
    indices: [Indices; 6],
}

impl<T: Attachment> PortDriver<T> {
    pub fn started(device: Console, features: u64) -> Self {
        let mut driver = Self { on: DriverOn::new(Box::new(device)), indices: Default::default() };
        driver.start(features);
        driver
    }

    pub fn start(&mut self, features: u64) {
        self.on.negotiate(features | VERSION_1);
        assert_eq!(self.on.status(), 0xb, "features refused");
        self.indices = Default::default();
        for index in 0..6 {
            let at = Self::ring(index);
            self.on.put(at, &[0; 0x3000]);
            self.on.transport.set_up_queue(index, 16, [at, at + 0x1000, at + 0x2000]);
        }
        self.on.set_status(0xf);
        assert_eq!(self.on.status(), 0xf);
    }

    /// Where the rings of a queue are.
    pub fn ring(index: u16) -> u64 {
        DESC + 0x3000 * u64::from(index)
    }

    /// Lays a chain out from entry `head` on, makes it available, and kicks.
    pub fn offer(&mut self, queue: u16, head: u16, buffers: &[Buffer]) {
        let at = Self::ring(queue);
        self.on.describe_chain(at, head, buffers);
        let indices = &mut self.indices[usize::from(queue)];
        let slot = at + 0x1000 + 4 + 2 * u64::from(indices.avail % 16);
        indices.avail = indices.avail.wrapping_add(1);
        let memory = &self.on.memory;
        memory.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        memory.store(indices.avail.to_le(), GuestAddress(at + 0x1002), Ordering::SeqCst).unwrap();
        self.on.transport.notify(queue);
    }

    pub fn used(&self, queue: u16) -> u16 {
        u16::from_le(self.on.memory.load(GuestAddress(Self::ring(queue) + 0x2002), Ordering::SeqCst).unwrap())
    }

    /// Waits for the next used element: head and length.
    #[track_caller]
    pub fn next_used(&mut self, queue: u16) -> (u32, u32) {
        let began = Instant::now();
        while self.used(queue) == self.indices[usize::from(queue)].used {
            assert!(began.elapsed() < PATIENCE, "nothing is used of queue {queue}");
            thread::yield_now();
        }
        let indices = &mut self.indices[usize::from(queue)];
        let at = Self::ring(queue) + 0x2004 + 8 * u64::from(indices.used % 16);
        indices.used = indices.used.wrapping_add(1);
        let element = |at| u32::from_le(self.on.memory.read_obj(GuestAddress(at)).unwrap());
        (element(at), element(at + 4))
    }

    /// Sends bytes through a transmit queue.
    pub fn send(&mut self, queue: u16, bytes: &[u8]) {
        self.on.put(SPOKEN, bytes);
        self.offer(queue, 0, &[(SPOKEN, u32::try_from(bytes.len()).unwrap(), false)]);
        assert_eq!(self.next_used(queue), (0, 0));
    }

    /// Sends a control message.
    pub fn say(&mut self, port: u32, event: u16, value: u16) {
        let bytes = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        self.send(CONTROL_OUT, &bytes);
    }

    /// Waits for bytes of a receive queue.
    #[track_caller]
    pub fn receive(&mut self, queue: u16) -> Vec<u8> {
        self.offer(queue, 0, &[(HEARD, 64, true)]);
        let (head, len) = self.next_used(queue);
        assert_eq!(head, 0);
        self.on.take(HEARD, usize::try_from(len).unwrap())
    }

    /// As Linux does: learns of the port, and a process opens it.
    pub fn open(&mut self) {
        self.say(u32::MAX, 0, 1);
        assert_eq!(self.receive(CONTROL_IN), [1, 0, 0, 0, 1, 0, 1, 0]);
        self.say(1, 3, 1);
        let name = self.receive(CONTROL_IN);
        assert_eq!((&name[..8], &name[8..]), (&[1, 0, 0, 0, 7, 0, 1, 0][..], AGENT_PORT.as_bytes()));
        assert_eq!(self.receive(CONTROL_IN), [1, 0, 0, 0, 6, 0, 1, 0]);
        self.say(1, 6, 1);
    }
}
