//! What a driver does to each transport, so that one test runs over all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::super::VirtioDevice;
use super::super::mmio::MmioTransport;
use super::super::pci::VirtioPci;
use crate::vmm::bus::BusDevice;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::intx::{Intx, SharedLine};
use crate::vmm::pci::testing::{FakeController, FakeRoute, TestBus, WINDOW};
use crate::vmm::pci::{DevFn, Space};

/// A transport with a device.
pub trait Attachment: Send + Sync {
    /// `irq` becomes readable with each interrupt.
    fn attach(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> Self;
    fn status(&self) -> u32;
    fn set_status(&self, status: u32);
    fn accept_features(&self, features: u64);
    /// Descriptor table, available and used ring.
    fn set_up_queue(&self, index: u16, size: u16, rings: [u64; 3]);
    fn notify(&self, index: u16);
    /// Reads and acknowledges the interrupt status.
    fn take_interrupt(&self) -> u32;
    /// Why the device asks for a reset.
    fn failure(&self) -> Option<String>;
    /// The device's configuration has changed by itself.
    fn config_changed(&self);
    /// The device lets go of what is behind it; false where it cannot.
    fn withdraw(&self) -> bool;
    /// As a machine does that restarts.
    fn reset(&self);
}

/// Makes a test of each generic function, for every transport.
macro_rules! on_every_transport {
    ($($test:ident),* $(,)?) => {
        mod on_mmio { $(#[test] fn $test() { super::$test::<crate::vmm::virtio::mmio::MmioTransport>(); })* }
        mod on_pci_with_msix { $(#[test] fn $test() { super::$test::<crate::vmm::virtio::testing::attachment::OnPci<true>>(); })* }
        mod on_pci_with_intx { $(#[test] fn $test() { super::$test::<crate::vmm::virtio::testing::attachment::OnPci<false>>(); })* }
    };
}
pub(crate) use on_every_transport;

fn halves(value: u64) -> [u32; 2] {
    [u32::try_from(value & 0xffff_ffff).unwrap(), u32::try_from(value >> 32).unwrap()]
}

fn set(mmio: &MmioTransport, offset: u64, value: u32) {
    mmio.write(offset, &value.to_le_bytes());
}

fn get(mmio: &MmioTransport, offset: u64) -> u32 {
    let mut data = [0xaa; 4];
    mmio.read(offset, &mut data);
    u32::from_le_bytes(data)
}

impl Attachment for MmioTransport {
    fn attach(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> Self {
        Self::new(device, memory, irq).unwrap()
    }

    fn status(&self) -> u32 {
        get(self, 0x70)
    }

    fn set_status(&self, status: u32) {
        set(self, 0x70, status);
    }

    fn accept_features(&self, features: u64) {
        for (sel, half) in (0..).zip(halves(features)) {
            set(self, 0x24, sel);
            set(self, 0x20, half);
        }
    }

    fn set_up_queue(&self, index: u16, size: u16, rings: [u64; 3]) {
        set(self, 0x30, index.into());
        set(self, 0x38, size.into());
        for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(rings) {
            let [low, high] = halves(address);
            set(self, register, low);
            set(self, register + 4, high);
        }
        set(self, 0x44, 1);
    }

    fn notify(&self, index: u16) {
        set(self, 0x50, index.into());
    }

    fn take_interrupt(&self) -> u32 {
        let bits = get(self, 0x60);
        set(self, 0x64, bits);
        bits
    }

    fn failure(&self) -> Option<String> {
        self.state().failure
    }

    fn config_changed(&self) {
        MmioTransport::config_changed(self);
    }

    fn withdraw(&self) -> bool {
        MmioTransport::withdraw(self)
    }

    fn reset(&self) {
        MmioTransport::reset(self);
    }
}

/// A device on a PCI bus, whose driver uses MSI-X, or else INTx#.
pub struct OnPci<const MSIX: bool> {
    pub test_bus: TestBus,
    pub function: Arc<VirtioPci>,
    pub route: Arc<FakeRoute>,
    level: Arc<AtomicBool>,
    intx_irq: Option<EventFd>,
}

pub const SLOT: DevFn = DevFn::new(3, 0);
pub const BAR: u64 = WINDOW.start + 0x8000;

impl<const MSIX: bool> OnPci<MSIX> {
    pub fn read(&self, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        self.test_bus.bus.read(Space::Memory, BAR + offset, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    pub fn write(&self, offset: u64, len: usize, value: u64) {
        self.test_bus.bus.write(Space::Memory, BAR + offset, &value.to_le_bytes()[..len]);
    }

    /// As firmware and driver do before they touch the device: BAR, decoding, and the MSI-X table.
    fn set_up_function(&self) {
        self.test_bus.set(SLOT, 0x10, 4, u32::try_from(BAR).unwrap());
        self.test_bus.set(SLOT, 4, 2, 6);
        if MSIX {
            let at = self.msix();
            let vectors = u64::from(self.test_bus.get(SLOT, at + 2, 2) & 0x7ff) + 1;
            self.test_bus.set(SLOT, at + 2, 2, 0x8000);
            for vector in 0..vectors {
                self.write(0x4000 + 16 * vector, 8, 0xfee0_0000);
                self.write(0x4008 + 16 * vector, 8, 0x30 + vector);
            }
        }
    }

    /// Offset of the MSI-X capability.
    pub fn msix(&self) -> u8 {
        self.test_bus.capabilities(SLOT).into_iter().find(|(_, id)| *id == 0x11).unwrap().0
    }
}

impl<const MSIX: bool> Attachment for OnPci<MSIX> {
    fn attach(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> Self {
        let (msi_irq, intx_irq) = if MSIX { (Some(irq), None) } else { (None, Some(irq)) };
        let route = Arc::new(FakeRoute { irq: msi_irq, ..FakeRoute::default() });
        let (level, of_line) =
            (Arc::new(AtomicBool::new(false)), intx_irq.as_ref().map(|irq| irq.try_clone().unwrap()));
        let asserted = level.clone();
        let line = SharedLine::new(Box::new(move |level| {
            let irq = of_line.as_ref().expect("INTx# is silent while MSI-X is in use");
            asserted.store(level, Ordering::SeqCst);
            if level {
                irq.write(1).unwrap();
            }
        }));
        let intx = Some(Intx::new(line));
        let function = VirtioPci::new(device, memory, &FakeController(route.clone()), intx).unwrap();
        let (function, test_bus) = (Arc::new(function), TestBus::new());
        test_bus.bus.add(SLOT, function.clone()).unwrap();
        let attached = Self { test_bus, function, route, level, intx_irq };
        attached.set_up_function();
        attached
    }

    fn status(&self) -> u32 {
        u32::try_from(self.read(20, 1)).unwrap()
    }

    fn set_status(&self, status: u32) {
        self.write(20, 1, status.into());
    }

    fn accept_features(&self, features: u64) {
        for (sel, half) in (0..).zip(halves(features)) {
            self.write(8, 4, sel);
            self.write(12, 4, half.into());
        }
    }

    fn set_up_queue(&self, index: u16, size: u16, rings: [u64; 3]) {
        if MSIX {
            self.write(16, 2, 0);
            assert_eq!(self.read(16, 2), 0);
        }
        self.write(22, 2, index.into());
        self.write(24, 2, size.into());
        for (field, address) in [32, 40, 48].into_iter().zip(rings) {
            let [low, high] = halves(address);
            self.write(field, 4, low.into());
            self.write(field + 4, 4, high.into());
        }
        if MSIX {
            self.write(26, 2, u64::from(index) + 1);
            assert_eq!(self.read(26, 2), u64::from(index) + 1);
        }
        self.write(28, 2, 1);
    }

    fn notify(&self, index: u16) {
        self.write(0x3000 + 4 * u64::from(index), 2, index.into());
    }

    fn take_interrupt(&self) -> u32 {
        let status = u32::try_from(self.read(0x1000, 1)).unwrap();
        // A level that is still asserted at the end of the interrupt interrupts again.
        if let Some(irq) = self.intx_irq.as_ref().filter(|_| self.level.load(Ordering::SeqCst)) {
            irq.write(1).unwrap();
        }
        status
    }

    fn failure(&self) -> Option<String> {
        self.function.state().failure
    }

    fn config_changed(&self) {
        self.function.config_changed();
    }

    fn withdraw(&self) -> bool {
        self.function.withdraw()
    }

    fn reset(&self) {
        self.test_bus.bus.reset();
        self.set_up_function();
    }
}
