//! A controller as a PCI function (section 2): its registers and its MSI-X table in BAR 0, one vector for each queue.

use std::io;
use std::sync::Arc;

use super::{Identity, Interrupts, Log, MAX_QUEUES, Nvme, REGISTERS_LEN, Setup};
use crate::disk::{Disk, Engine};
use crate::vmm::bus::Bus;
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::config::{self, BarKind};
use crate::vmm::pci::endpoint::{Endpoint, MsixPlace};
use crate::vmm::pci::msix::{MsiController, Msix};
use crate::vmm::pci::{PciError, PciFunction, Region};

/// Mass storage, non-volatile memory, NVMe I/O controller (section 2.1.5).
const CLASS: u32 = 0x01_08_02;
const BAR: u8 = 0;
const BAR_SIZE: u64 = 0x4000;
const MSIX: MsixPlace = MsixPlace { bar: BAR, table: 0x2000, pba: 0x3000 };

impl Interrupts for Msix {
    fn raise(&self, vector: u16) {
        self.trigger(vector);
    }
}

/// An NVMe controller in a slot of the PCI bus. A driver that does not use MSI-X has to poll.
pub struct NvmeFunction {
    controller: Arc<Nvme>,
    endpoint: Endpoint,
}

impl NvmeFunction {
    /// A controller over `disk` with `queues` pairs of I/O queues (brought into 1 to [`MAX_QUEUES`]), not enabled.
    ///
    /// # Errors
    /// What the host said when it could not make an event or the vectors.
    pub fn new(
        disk: Arc<dyn Disk>,
        identity: Identity,
        memory: GuestMemory,
        queues: u16,
        msi: &dyn MsiController,
        log: Log,
    ) -> io::Result<Self> {
        let queues = queues.clamp(1, MAX_QUEUES);
        let vectors = queues + 1;
        let (vendor, device) = identity.pci_ids();
        let msix = Msix::new(vectors, msi.allocate(vectors)?);
        let interrupts = msix.clone();
        let engine = Engine::of_host();
        let controller =
            Arc::new(Nvme::new(Setup { disk, engine, identity, memory, interrupts, vectors, queues, log })?);
        let identity =
            config::Identity { vendor, device, revision: 0, class: CLASS, subsystem_vendor: vendor, subsystem: device };
        let endpoint = endpoint(identity, &controller, msix).map_err(io::Error::other)?;
        Ok(Self { controller, endpoint })
    }

    /// The disk has another size: a driver that wants to know of such changes is told.
    pub fn resized(&self) {
        self.controller.resized();
    }

    /// What is behind BAR 0.
    #[must_use]
    pub fn controller(&self) -> &Nvme {
        &self.controller
    }
}

fn endpoint(identity: config::Identity, controller: &Arc<Nvme>, msix: Arc<Msix>) -> Result<Endpoint, PciError> {
    let mut contents = Bus::default();
    let place = contents.claim(0, REGISTERS_LEN, controller.clone());
    place.map_err(|cause| PciError::BarContents { index: BAR.into(), cause })?;
    Endpoint::builder(identity).bar(BAR, BarKind::Memory64, BAR_SIZE, contents)?.msix(msix, MSIX)?.build()
}

impl PciFunction for NvmeFunction {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        self.endpoint.read_config(offset, data);
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        self.endpoint.write_config(offset, data);
    }

    fn regions(&self) -> Vec<Region> {
        self.endpoint.regions()
    }

    fn reset(&self) {
        self.controller.reset();
        self.endpoint.reset();
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::EventFd;

    use super::super::testing::*;
    use super::*;
    use crate::vmm::pci::testing::{FakeController, FakeRoute, TestBus, WINDOW};
    use crate::vmm::pci::{DevFn, Space};

    const SLOT: DevFn = DevFn::new(5, 0);

    struct Machine {
        bus: TestBus,
        memory: GuestMemory,
        route: Arc<FakeRoute>,
    }

    impl Machine {
        fn new(queues: u16) -> Self {
            let (bus, memory) = (TestBus::new(), memory());
            let route = Arc::new(FakeRoute { irq: Some(EventFd::new(0).unwrap()), ..FakeRoute::default() });
            let controller = FakeController(route.clone());
            let disk = Arc::new(MemDisk::patterned(8));
            let identity = Identity::ebs("vol-0123456789abcdef0", "sdf");
            let function = NvmeFunction::new(disk, identity, memory.clone(), queues, &controller, no_log()).unwrap();
            bus.bus.add(SLOT, Arc::new(function)).unwrap();
            Self { bus, memory, route }
        }

        fn read(&self, offset: u64) -> u32 {
            let mut data = [0; 4];
            self.bus.bus.read(Space::Memory, WINDOW.start + offset, &mut data);
            u32::from_le_bytes(data)
        }

        fn write(&self, offset: u64, value: u32) {
            self.bus.bus.write(Space::Memory, WINDOW.start + offset, &value.to_le_bytes());
        }

        /// Puts BAR 0 at the start of the window.
        fn place(&self) {
            self.bus.set(SLOT, 0x10, 4, u32::try_from(WINDOW.start).unwrap());
            self.bus.set(SLOT, 0x14, 4, 0);
            self.bus.set(SLOT, 4, 2, 6);
        }
    }

    #[test]
    fn it_is_found_as_an_nvme_controller_of_ec2() {
        let machine = Machine::new(MAX_QUEUES);
        let get = |register, len| machine.bus.get(SLOT, register, len);
        assert_eq!((get(0, 4), get(8, 4) >> 8, get(0x2c, 4)), (0x8061_1d0f, CLASS, 0x8061_1d0f));
        machine.bus.set(SLOT, 0x10, 4, u32::MAX);
        assert_eq!(get(0x10, 4), 0xffff_c004);
        let (at, _) = *machine.bus.capabilities(SLOT).iter().find(|(_, id)| *id == 0x11).unwrap();
        assert_eq!(get(at + 2, 2), u32::from(MAX_QUEUES));
        assert_eq!((get(at + 4, 4), get(at + 8, 4)), (0x2000, 0x3000));
        machine.place();
        assert_eq!(machine.read(8), super::super::VERSION);
        machine.bus.bus.reset();
        assert_eq!(machine.read(8), u32::MAX);
    }

    #[test]
    fn its_interrupts_are_messages() {
        let machine = Machine::new(2);
        machine.place();
        // Vector 0: address, data, unmasked; then MSI-X on.
        for (at, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x41), (12, 0)] {
            machine.write(0x2000 + at, value);
        }
        let (at, _) = *machine.bus.capabilities(SLOT).iter().find(|(_, id)| *id == 0x11).unwrap();
        machine.bus.set(SLOT, at + 2, 2, 0x8000);
        for (register, value) in [(AQA, 0x3_0003), (ASQ, 0x1000), (ACQ, 0x2000), (CC, ENABLED)] {
            machine.write(register, value);
        }
        assert_eq!(machine.read(CSTS), 1);
        let identify = Cmd::new(admin_op::IDENTIFY, 0, DATA, &[1]).bytes(7);
        machine.memory.write_slice(&identify, GuestAddress(0x1000)).unwrap();
        machine.write(0x1000, 1);
        machine.route.irq.as_ref().unwrap().read().unwrap();
        assert_eq!(*machine.route.sent.lock().unwrap(), [0]);
        assert_eq!(machine.memory.read_obj::<u32>(GuestAddress(0x200c)).unwrap(), 0x1_0007);
        // A reset of the machine takes the controller along.
        machine.bus.bus.reset();
        machine.place();
        assert_eq!((machine.read(CSTS), machine.read(CC), machine.read(AQA)), (0, 0, 0));
    }
}
