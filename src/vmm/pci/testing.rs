//! A bus without a machine: who would be called is written down.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::bus::{PciBus, PciWindows};
use super::msix::{MsiController, MsiMessage, MsiRoute};
use super::ports::ConfigPorts;
use super::{DevFn, IoEvents, Space};
use crate::vmm::bus::BusDevice;

pub const WINDOW: std::ops::Range<u64> = 0xc000_0000..0xd000_0000;
pub const HIGH_WINDOW: std::ops::Range<u64> = 0x10_0000_0000..0x20_0000_0000;
pub const IO_WINDOW: std::ops::Range<u64> = 0xc000..0x1_0000;

/// Which doorbells are listened to: address, datum, descriptor of the event.
#[derive(Default)]
pub struct FakeIoEvents(pub Mutex<Vec<(u64, Option<u32>, i32)>>);

impl IoEvents for FakeIoEvents {
    fn register(&self, addr: u64, datum: Option<u32>, event: &EventFd) -> io::Result<()> {
        let mut registered = self.0.lock().unwrap();
        // As KVM does.
        if registered.iter().any(|&(at, with, _)| at == addr && (with == datum || with.is_none() || datum.is_none())) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        registered.push((addr, datum, event.as_raw_fd()));
        Ok(())
    }

    fn unregister(&self, addr: u64, datum: Option<u32>, event: &EventFd) -> io::Result<()> {
        let mut registered = self.0.lock().unwrap();
        let at = registered.iter().position(|bell| *bell == (addr, datum, event.as_raw_fd()));
        registered.swap_remove(at.expect("what is taken back was registered"));
        Ok(())
    }
}

/// What became of the vectors of a function.
#[derive(Default)]
pub struct FakeRoute {
    pub programmed: Mutex<Vec<(u16, MsiMessage)>>,
    pub sent: Mutex<Vec<u16>>,
    /// Written with each message that is sent.
    pub irq: Option<EventFd>,
    /// An address that is refused.
    pub refuse: Option<u64>,
}

impl MsiRoute for FakeRoute {
    fn program(&self, vector: u16, message: MsiMessage) -> io::Result<()> {
        if self.refuse == Some(message.address) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.programmed.lock().unwrap().push((vector, message));
        Ok(())
    }

    fn send(&self, vector: u16) {
        assert!(self.programmed.lock().unwrap().iter().any(|(of, _)| *of == vector), "sent before it was programmed");
        self.sent.lock().unwrap().push(vector);
        if let Some(irq) = &self.irq {
            irq.write(1).unwrap();
        }
    }
}

/// Gives every function the same route.
pub struct FakeController(pub Arc<FakeRoute>);

impl MsiController for FakeController {
    fn allocate(&self, _vectors: u16) -> io::Result<Arc<dyn MsiRoute>> {
        Ok(self.0.clone())
    }
}

/// A bus and its ports.
pub struct TestBus {
    pub bus: Arc<PciBus>,
    pub io_events: Arc<FakeIoEvents>,
    pub ports: ConfigPorts,
    pub resets: Arc<Mutex<usize>>,
}

impl TestBus {
    pub fn new() -> Self {
        let io_events = Arc::new(FakeIoEvents::default());
        let windows = PciWindows { memory: vec![WINDOW, HIGH_WINDOW], io: vec![0x600..0x640, IO_WINDOW] };
        let bus = Arc::new(PciBus::new(windows, io_events.clone()));
        let resets = Arc::new(Mutex::new(0));
        let counter = resets.clone();
        let ports = ConfigPorts::new(bus.clone(), Box::new(move || *counter.lock().unwrap() += 1));
        Self { bus, io_events, ports, resets }
    }

    pub fn select(&self, slot: DevFn, register: u8) {
        let address =
            1 << 31 | u32::from(slot.device()) << 11 | u32::from(slot.function()) << 8 | u32::from(register & 0xfc);
        self.ports.write(0, &address.to_le_bytes());
    }

    /// Reads a register of 1, 2 or 4 bytes through the ports.
    pub fn get(&self, slot: DevFn, register: u8, len: usize) -> u32 {
        self.select(slot, register);
        let mut data = [0; 4];
        self.ports.read(4 + u64::from(register & 3), &mut data[..len]);
        u32::from_le_bytes(data)
    }

    /// Writes a register of 1, 2 or 4 bytes through the ports.
    pub fn set(&self, slot: DevFn, register: u8, len: usize, value: u32) {
        self.select(slot, register);
        self.ports.write(4 + u64::from(register & 3), &value.to_le_bytes()[..len]);
    }

    /// Offsets of the capabilities, and their IDs.
    pub fn capabilities(&self, slot: DevFn) -> Vec<(u8, u8)> {
        assert_eq!(self.get(slot, 6, 2) & 0x10, 0x10);
        let mut found = Vec::new();
        let mut at = u8::try_from(self.get(slot, 0x34, 1)).unwrap();
        while at != 0 {
            assert!(at >= 0x40 && at.is_multiple_of(4) && found.len() < 48);
            found.push((at, u8::try_from(self.get(slot, at, 1)).unwrap()));
            at = u8::try_from(self.get(slot, at + 1, 1)).unwrap();
        }
        found
    }
}

/// Reads as its tag, and notes offsets and lengths of all accesses.
pub struct Tagged(u8, pub Mutex<Vec<(u64, usize)>>);

impl Tagged {
    pub fn new(tag: u8) -> Arc<Self> {
        Arc::new(Self(tag, Mutex::default()))
    }
}

impl BusDevice for Tagged {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(self.0);
        self.1.lock().unwrap().push((offset, data.len()));
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.1.lock().unwrap().push((offset, data.len()));
    }
}

/// The byte read at an address.
pub fn tag_at(bus: &TestBus, space: Space, addr: u64) -> u8 {
    let mut data = [0];
    bus.bus.read(space, addr, &mut data);
    data[0]
}
