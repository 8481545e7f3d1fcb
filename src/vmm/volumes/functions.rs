//! What is in the slots of a PCI bus: disks as virtio-blk devices or as NVMe controllers, and other virtio devices.

use std::io;
use std::sync::Arc;

use super::DiskConfig;
use crate::vmm::memory::GuestMemory;
use crate::vmm::nvme::{self, NvmeFunction};
use crate::vmm::pci::PciFunction;
use crate::vmm::pci::intx::{Intx, SharedLine};
use crate::vmm::pci::msix::MsiController;
use crate::vmm::virtio::block::Block;
use crate::vmm::virtio::pci::VirtioPci;
use crate::vmm::virtio::{Log, VirtioDevice};

/// How a guest with a PCI bus sees its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskInterface {
    /// virtio-blk.
    Virtio,
    /// NVMe controllers that look like those of EC2.
    Nvme,
}

/// A disk in its slot.
pub trait DiskFunction: PciFunction {
    /// Tells the driver that the disk has another size.
    fn resized(&self);

    /// Lets go of the disk: when it returns, nothing of it is in flight, and requests fail from now on. False where the
    /// function has to be taken off the bus instead.
    fn withdraw(&self) -> bool;
}

impl DiskFunction for VirtioPci {
    fn resized(&self) {
        self.config_changed();
    }

    /// Linux' driver waits without end for a device to answer that is not there any more, and with it all hot-plug.
    fn withdraw(&self) -> bool {
        VirtioPci::withdraw(self)
    }
}

impl DiskFunction for NvmeFunction {
    fn resized(&self) {
        NvmeFunction::resized(self);
    }

    /// Drivers know ones in CSTS for what they are.
    fn withdraw(&self) -> bool {
        false
    }
}

/// Makes functions for the slots of a machine.
pub struct Functions {
    /// How the guest sees its disks.
    pub interface: DiskInterface,
    /// Guest memory.
    pub memory: GuestMemory,
    /// Where they have their vectors from.
    pub msi: Box<dyn MsiController + Send + Sync>,
    /// The line that pin INTA# of a slot hangs on, if it does.
    pub line: Box<dyn Fn(u8) -> Option<Arc<SharedLine>> + Send + Sync>,
    /// Processors of the machine.
    pub cpus: u8,
    /// Where a device's trouble with the host is told.
    pub log: Log,
}

impl Functions {
    /// A disk in a slot.
    ///
    /// # Errors
    /// What the host said when it could not make events or vectors.
    pub fn disk(&self, slot: u8, disk: &DiskConfig) -> io::Result<Arc<dyn DiskFunction>> {
        Ok(match self.interface {
            DiskInterface::Virtio => {
                let block = Block::new(disk.disk.clone(), &disk.serial, 1, self.log.clone());
                Arc::new(self.virtio(slot, Box::new(block))?)
            }
            DiskInterface::Nvme => Arc::new(self.nvme(disk)?),
        })
    }

    /// A virtio device in a slot.
    ///
    /// # Errors
    /// As [`Functions::disk`].
    pub fn virtio(&self, slot: u8, device: Box<dyn VirtioDevice>) -> io::Result<VirtioPci> {
        let intx = (self.line)(slot).map(Intx::new);
        VirtioPci::new(device, self.memory.clone(), self.msi.as_ref(), intx)
    }

    /// With a pair of queues for each processor, and two at least: OVMF's driver takes two, or none.
    fn nvme(&self, disk: &DiskConfig) -> io::Result<NvmeFunction> {
        let identity = match disk.ephemeral {
            Some(number) => nvme::Identity::instance_store(number, &disk.serial, &disk.device),
            None => nvme::Identity::ebs(&disk.serial, &disk.device),
        };
        let queues = self.cpus.max(2).into();
        NvmeFunction::new(disk.disk.clone(), identity, self.memory.clone(), queues, self.msi.as_ref(), self.log.clone())
    }
}
