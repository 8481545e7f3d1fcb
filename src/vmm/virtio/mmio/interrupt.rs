//! How a device behind virtio-mmio calls its driver (virtio 1.2, section 4.2.3.4).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::virtio::Interrupt;

/// The registers that devices change on their own, and the line to the interrupt controller.
///
/// Every notification sets its bit and then raises an edge, even where the bit was set already: the driver reads the
/// status, acknowledges it and only then looks at its queues, so that no order of these steps loses a buffer.
pub struct MmioInterrupt {
    status: AtomicU32,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    failure: Mutex<Option<String>>,
    irq: EventFd,
}

impl MmioInterrupt {
    pub fn new(irq: EventFd) -> Self {
        Self {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            failure: Mutex::new(None),
            irq,
        }
    }

    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The bits of `Status` that belong to the device.
    pub fn device_status(&self) -> u32 {
        if self.needs_reset.load(Ordering::SeqCst) { VIRTIO_CONFIG_S_NEEDS_RESET } else { 0 }
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // Fails only where the counter is full, and then an edge is on its way already.
        let _ = self.irq.write(1);
    }
}

impl Interrupt for MmioInterrupt {
    fn queue(&self, _index: u16) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn config(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn needs_reset(&self, reason: &str) {
        // The first failure is the one that tells; what follows may be its consequence.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.needs_reset.store(true, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }
}
