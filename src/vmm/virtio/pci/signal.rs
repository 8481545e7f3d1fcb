//! How a device on PCI calls its driver (virtio 1.2, sections 4.1.5.1.2, 4.1.5.3 and 4.1.5.4): by the MSI-X vector that the
//! driver gave to the queue or to configuration changes, or by the interrupt status and INTx#.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::super::interrupt::{Cause, STATUS_CONFIG, STATUS_QUEUE, Signal, TransportInterrupt};
use crate::vmm::pci::intx::Intx;
use crate::vmm::pci::msix::Msix;

/// `VIRTIO_MSI_NO_VECTOR`.
const NO_VECTOR: u16 = 0xffff;

/// The vectors, and the pin for drivers that use none.
pub struct PciSignal {
    msix: Arc<Msix>,
    intx: Option<Arc<Intx>>,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

impl PciSignal {
    pub fn new(queues: usize, msix: Arc<Msix>, intx: Option<Arc<Intx>>) -> Self {
        let queues = (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect();
        Self { msix, intx, config: AtomicU16::new(NO_VECTOR), queues }
    }

    /// `config_msix_vector`.
    pub fn config_vector(&self) -> u16 {
        self.config.load(Ordering::SeqCst)
    }

    pub fn set_config_vector(&self, vector: u16) {
        self.config.store(self.existing(vector), Ordering::SeqCst);
    }

    /// `queue_msix_vector` of all queues.
    pub fn queue_vectors(&self) -> Vec<u16> {
        self.queues.iter().map(|vector| vector.load(Ordering::SeqCst)).collect()
    }

    /// `queue_msix_vector`; of a queue that does not exist, none.
    pub fn queue_vector(&self, index: u32) -> u16 {
        self.queue(index).map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    pub fn set_queue_vector(&self, index: u32, vector: u16) {
        if let Some(queue) = self.queue(index) {
            queue.store(self.existing(vector), Ordering::SeqCst);
        }
    }

    /// The driver has read, and thereby cleared, the interrupt status.
    pub fn acknowledged(&self, interrupt: &TransportInterrupt) {
        if let Some(intx) = &self.intx {
            intx.update(|| interrupt.status() != 0);
        }
    }

    fn queue(&self, index: u32) -> Option<&AtomicU16> {
        usize::try_from(index).ok().and_then(|index| self.queues.get(index))
    }

    /// A vector that the device does not have reads back as none: so the driver learns of it (section 4.1.5.1.2.1).
    fn existing(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() { vector } else { NO_VECTOR }
    }
}

impl Signal for Arc<PciSignal> {
    fn call(&self, cause: Cause, status: &AtomicU32) {
        let msix = self.msix.is_enabled();
        let (bit, vector) = match cause {
            Cause::Queue(index) => (STATUS_QUEUE, self.queue_vector(index.into())),
            Cause::Config => (STATUS_CONFIG, self.config_vector()),
        };
        // A driver with MSI-X does not look for used buffers in the status, but may for changes of the configuration
        // (section 4.1.4.5.1).
        if !msix || cause == Cause::Config {
            status.fetch_or(bit, Ordering::SeqCst);
            if let Some(intx) = &self.intx {
                intx.update(|| status.load(Ordering::SeqCst) != 0);
            }
        }
        if msix {
            // No vector is beyond the table, where nothing happens.
            self.msix.trigger(vector);
        }
    }

    fn reset(&self) {
        self.config.store(NO_VECTOR, Ordering::SeqCst);
        self.queues.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::SeqCst));
        if let Some(intx) = &self.intx {
            intx.update(|| false);
        }
    }
}
