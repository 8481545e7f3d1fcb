//! A small driver as the specification describes it, a disk in memory, and devices that only watch.

pub mod attachment;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::attachment::Attachment;
use super::mmio::MmioTransport;
use super::{Interrupt, Log, VirtioDevice};
use crate::disk::Disk;
use crate::vmm::bus::BusDevice;
use crate::vmm::memory::GuestMemory;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT_DESC: u64 = 1 << 28;

pub const DESC: u64 = 0x1000;
pub const AVAIL: u64 = 0x2000;
pub const USED: u64 = 0x3000;
/// An indirect table of up to 256 descriptors.
pub const TABLE: u64 = 0x4000;
/// From here on memory is free, up to [`SEAM`] and, in the next region, up to [`HOLE`].
pub const DATA: u64 = 0x10000;
/// Two regions touch here.
pub const SEAM: u64 = 0x10_0000;
/// No memory from here up to 4 MiB, where another 64 KiB lie.
pub const HOLE: u64 = 0x20_0000;
pub const ISLAND: u64 = 0x40_0000;
pub const ISLAND_LEN: usize = 0x1_0000;

/// How long a test waits before it calls a wake-up lost.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[
        (GuestAddress(0), 0x10_0000),
        (GuestAddress(SEAM), 0x10_0000),
        (GuestAddress(ISLAND), ISLAND_LEN),
    ])
    .unwrap()
}

pub fn no_log() -> Log {
    Arc::new(|_| {})
}

/// Counts how often the driver is called.
#[derive(Default)]
pub struct CountInterrupts {
    pub queue: AtomicU64,
    pub needs_reset: AtomicU64,
}

impl Interrupt for CountInterrupts {
    fn queue(&self, _index: u16) {
        self.queue.fetch_add(1, Ordering::SeqCst);
    }
    fn config(&self) {}
    fn needs_reset(&self, _reason: &str) {
        self.needs_reset.fetch_add(1, Ordering::SeqCst);
    }
}

/// One buffer of a chain: address, length, whether the device writes it.
pub type Buffer = (u64, u32, bool);

/// Drives queue 0 of a device through whatever it is attached to.
pub struct DriverOn<T> {
    pub transport: Arc<T>,
    pub memory: GuestMemory,
    pub irq: EventFd,
    size: u16,
    event_idx: bool,
    avail_idx: u16,
    used_idx: u16,
}

/// Where it does not matter, a device is on mmio.
pub type Driver = DriverOn<MmioTransport>;

impl Driver {
    pub fn get(&self, offset: u64) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn set(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }
}

impl<T: Attachment> DriverOn<T> {
    /// A driver that has not touched the device yet.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let irq = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).unwrap();
        let memory = memory();
        let transport = Arc::new(T::attach(device, memory.clone(), irq.try_clone().unwrap()));
        Self { transport, memory, irq, size: 0, event_idx: false, avail_idx: 0, used_idx: 0 }
    }

    /// A driver with the device working, queue 0 of `size` entries.
    pub fn started(device: Box<dyn VirtioDevice>, features: u64, size: u16) -> Self {
        let mut driver = Self::new(device);
        driver.start(features, size);
        driver
    }

    pub fn status(&self) -> u32 {
        self.transport.status()
    }

    pub fn set_status(&self, status: u32) {
        self.transport.set_status(status);
    }

    /// Takes the device up to `FEATURES_OK`.
    pub fn negotiate(&mut self, features: u64) {
        self.set_status(1);
        self.set_status(3);
        self.transport.accept_features(features);
        self.set_status(0xb);
        self.event_idx = features & EVENT_IDX != 0;
    }

    /// Lays queue 0 out and makes it ready.
    pub fn set_up_queue(&mut self, size: u16) {
        for address in [DESC, AVAIL, USED] {
            self.memory.write_slice(&[0; 0x1000], GuestAddress(address)).unwrap();
        }
        self.transport.set_up_queue(0, size, [DESC, AVAIL, USED]);
        self.size = size;
        (self.avail_idx, self.used_idx) = (0, 0);
    }

    pub fn start(&mut self, features: u64, size: u16) {
        self.negotiate(features);
        assert_eq!(self.status(), 0xb, "features refused");
        self.set_up_queue(size);
        self.set_status(0xf);
        assert_eq!(self.status(), 0xf);
    }

    pub fn describe(&self, table: u64, index: u16, (addr, len, flags, next): (u64, u32, u16, u16)) {
        let at = table + 16 * u64::from(index);
        self.memory.write_obj(addr.to_le(), GuestAddress(at)).unwrap();
        self.memory.write_obj(len.to_le(), GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags.to_le(), GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next.to_le(), GuestAddress(at + 14)).unwrap();
    }

    /// Lays a chain out in a table, from entry `first` on.
    pub fn describe_chain(&self, table: u64, first: u16, buffers: &[Buffer]) {
        for (index, &(addr, len, write)) in (first..).zip(buffers) {
            let last = usize::from(index - first) + 1 == buffers.len();
            let flags = if write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.describe(table, index, (addr, len, flags, if last { 0 } else { index + 1 }));
        }
    }

    /// Makes a head available without a kick.
    pub fn offer(&mut self, head: u16) {
        let slot = AVAIL + 4 + 2 * u64::from(self.avail_idx % self.size);
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.publish(self.avail_idx);
    }

    pub fn publish(&self, avail_idx: u16) {
        self.memory.store(avail_idx.to_le(), GuestAddress(AVAIL + 2), Ordering::SeqCst).unwrap();
    }

    pub fn kick(&self) {
        self.transport.notify(0);
    }

    /// Kicks only if the device asked for it since the available index was `old` (section 2.7.10); gives whether it did.
    pub fn kick_if_wanted(&self, old: u16) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        let load = |at| u16::from_le(self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap());
        let wanted = if self.event_idx {
            let avail_event = load(USED + 4 + 8 * u64::from(self.size));
            self.avail_idx.wrapping_sub(avail_event).wrapping_sub(1) < self.avail_idx.wrapping_sub(old)
        } else {
            load(USED) & 1 == 0
        };
        if wanted {
            self.kick();
        }
        wanted
    }

    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }

    pub fn device_used_idx(&self) -> u16 {
        u16::from_le(self.memory.load(GuestAddress(USED + 2), Ordering::SeqCst).unwrap())
    }

    /// Waits for an interrupt, acknowledges it, and gives its bits.
    pub fn wait_interrupt(&self) -> u32 {
        assert!(self.interrupt_within(PATIENCE), "an interrupt was lost");
        self.irq.read().unwrap();
        self.transport.take_interrupt()
    }

    pub fn interrupt_within(&self, time: Duration) -> bool {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, self.irq.as_raw_fd(), event).unwrap();
        let millis = i32::try_from(time.as_millis()).unwrap();
        loop {
            match epoll.wait(millis, &mut [EpollEvent::default()]) {
                Ok(ready) => return ready == 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next used element: head and length.
    pub fn next_used(&mut self) -> (u32, u32) {
        if self.event_idx {
            let used_event = AVAIL + 4 + 2 * u64::from(self.size);
            self.memory.store(self.used_idx.to_le(), GuestAddress(used_event), Ordering::SeqCst).unwrap();
            std::sync::atomic::fence(Ordering::SeqCst);
        }
        while self.device_used_idx() == self.used_idx {
            self.wait_interrupt();
        }
        let at = USED + 4 + 8 * u64::from(self.used_idx % self.size);
        self.used_idx = self.used_idx.wrapping_add(1);
        let element = |at| u32::from_le(self.memory.read_obj(GuestAddress(at)).unwrap());
        (element(at), element(at + 4))
    }

    /// One request from entry 0 on, to its end; gives the used length.
    pub fn submit(&mut self, buffers: &[Buffer]) -> u32 {
        self.describe_chain(DESC, 0, buffers);
        self.run(0)
    }

    /// One request through an indirect table.
    pub fn submit_indirect(&mut self, buffers: &[Buffer]) -> u32 {
        self.describe_chain(TABLE, 0, buffers);
        let len = 16 * u32::try_from(buffers.len()).unwrap();
        self.describe(DESC, 0, (TABLE, len, INDIRECT, 0));
        self.run(0)
    }

    pub fn run(&mut self, head: u16) -> u32 {
        self.offer(head);
        self.kick();
        let (used, len) = self.next_used();
        assert_eq!(used, u32::from(head));
        len
    }

    pub fn put(&self, addr: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    pub fn take(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }
}

/// A disk in memory that fails when told to.
pub struct MemDisk {
    pub data: Mutex<Vec<u8>>,
    pub read_only: bool,
    /// What every operation answers instead of doing anything.
    pub fault: Mutex<Option<Box<dyn Fn() -> io::Error + Send>>>,
    pub flushes: AtomicU64,
    /// A read or write waits here; for tests that look at what happens meanwhile.
    pub gate: Mutex<()>,
    /// Reads and writes that have begun.
    pub begun: AtomicU64,
}

impl MemDisk {
    pub fn new(data: Vec<u8>) -> Self {
        Self {
            data: Mutex::new(data),
            read_only: false,
            fault: Mutex::new(None),
            flushes: AtomicU64::new(0),
            gate: Mutex::new(()),
            begun: AtomicU64::new(0),
        }
    }

    /// Every byte tells where it is.
    pub fn patterned(sectors: usize) -> Self {
        Self::new((0..sectors * 512).map(|at| u8::try_from((at / 512 + at) % 251).unwrap()).collect())
    }

    /// Grows or shrinks; what is new is zero.
    pub fn resize(&self, sectors: usize) {
        self.data.lock().unwrap().resize(sectors * 512, 0);
    }

    pub fn fail(&self, fault: impl Fn() -> io::Error + Send + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }

    fn check(&self, write: bool, offset: u64, len: u64) -> io::Result<std::ops::Range<usize>> {
        if let Some(fault) = &*self.fault.lock().unwrap() {
            return Err(fault());
        }
        if write && self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let end = offset.checked_add(len).filter(|&end| end <= self.size()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(usize::try_from(offset).unwrap()..usize::try_from(end).unwrap())
    }

    fn total(bufs: &[VolatileSlice<'_>]) -> u64 {
        bufs.iter().map(|buf| buf.len() as u64).sum()
    }
}

impl Disk for MemDisk {
    fn size(&self) -> u64 {
        self.data.lock().unwrap().len() as u64
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().unwrap());
        let mut at = self.check(false, offset, Self::total(bufs))?.start;
        for buf in bufs {
            buf.copy_from(&self.data.lock().unwrap()[at..at + buf.len()]);
            at += buf.len();
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().unwrap());
        let mut at = self.check(true, offset, Self::total(bufs))?.start;
        for buf in bufs {
            buf.copy_to(&mut self.data.lock().unwrap()[at..at + buf.len()]);
            at += buf.len();
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.check(false, 0, 0)?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        let range = self.check(true, offset, len)?;
        self.data.lock().unwrap()[range].fill(0);
        Ok(())
    }
}
