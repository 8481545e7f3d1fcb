//! How a transport calls the driver: what is common to all of them (virtio 1.2, sections 2.3 and 2.5).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;

use super::Interrupt;

/// Interrupt status, bit 0: buffers were used.
pub const STATUS_QUEUE: u32 = 1 << 0;
/// Interrupt status, bit 1: the configuration, or the device's part of the status, has changed.
pub const STATUS_CONFIG: u32 = 1 << 1;

/// Why the driver is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Buffers of this queue were used.
    Queue(u16),
    /// Configuration or status have changed.
    Config,
}

/// The way to the driver; each transport has its own.
pub trait Signal: Send + Sync {
    /// Calls the driver. `status` is the transport's interrupt status, for it to set a bit in.
    fn call(&self, cause: Cause, status: &AtomicU32);

    /// Forgets what the driver set up, and is silent. The status is zero by now.
    fn reset(&self);
}

/// The registers that devices change on their own.
pub struct TransportInterrupt {
    status: AtomicU32,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    failure: Mutex<Option<String>>,
    signal: Box<dyn Signal>,
}

impl TransportInterrupt {
    /// Nothing has happened yet.
    pub fn new(signal: Box<dyn Signal>) -> Self {
        Self {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            failure: Mutex::new(None),
            signal,
        }
    }

    /// What the driver has not acknowledged.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// Clears bits of the interrupt status, and gives what it was.
    pub fn acknowledge(&self, bits: u32) -> u32 {
        self.status.fetch_and(!bits, Ordering::SeqCst)
    }

    /// How often the configuration space changed.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The bits of the device status that belong to the device.
    pub fn device_status(&self) -> u32 {
        if self.needs_reset.load(Ordering::SeqCst) { VIRTIO_CONFIG_S_NEEDS_RESET } else { 0 }
    }

    /// Why the device asks for a reset, if it does.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As new, but for the generation: it goes on.
    pub fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.signal.reset();
    }
}

impl Interrupt for TransportInterrupt {
    fn queue(&self, index: u16) {
        self.signal.call(Cause::Queue(index), &self.status);
    }

    fn config(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.signal.call(Cause::Config, &self.status);
    }

    fn needs_reset(&self, reason: &str) {
        // The first failure is the one that tells; what follows may be its consequence.
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.needs_reset.store(true, Ordering::SeqCst);
        self.signal.call(Cause::Config, &self.status);
    }
}
