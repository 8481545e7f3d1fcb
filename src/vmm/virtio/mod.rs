//! Virtio devices, apart from how they are attached (virtio 1.2).
//!
//! A device implements [`VirtioDevice`] and knows neither KVM nor its transport. Its life:
//!
//! ```text
//!   new ──► idle ──activate(queues, memory, interrupt)──► active
//!             ▲                                              │
//!             └──────────────── reset ───────────────────────┘
//! ```
//!
//! `activate` moves the queues into the device and `reset` gives them up, so that an idle device has no queue to misuse.
//!
//! * [`state`]: what the driver wrote, and when it may write what: status, features, queue addresses;
//! * [`transport`], [`interrupt`]: what the transports have in common;
//! * [`mmio`], [`pci`]: the transports: where all this is in the guest's address space, and how the driver is called;
//! * [`worker`]: the thread that serves a queue, and the order of its steps;
//! * [`chain`]: what a descriptor chain says, checked;
//! * [`block`], [`console`], [`net`], [`rng`]: the devices.

pub mod block;
pub mod chain;
pub mod console;
pub mod interrupt;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod rng;
pub mod state;
pub mod transport;
pub mod worker;

#[cfg(test)]
pub(in crate::vmm) mod testing;

use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::memory::GuestMemory;

/// Where a device says, seldom and in one line each, what a person should know (a failing host disk, a broken ring).
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How a device calls its driver; the transport implements it.
pub trait Interrupt: Send + Sync {
    /// Buffers of this queue were used (virtio 1.2, section 2.3).
    fn queue(&self, index: u16);
    /// The configuration space has changed.
    fn config(&self);
    /// The device met something it cannot recover from: sets `DEVICE_NEEDS_RESET` (section 2.1.2) and calls the driver.
    /// The reason is kept for people who look at the device.
    fn needs_reset(&self, reason: &str);
}

/// One queue that the driver has set up, and the event that its kicks arrive on.
pub struct ActiveQueue {
    /// Checked by the transport: ready, a size within its maximum, rings inside guest memory.
    pub queue: Queue,
    /// Readable after the driver's notification; reading blocks until then. The transport made it before the guest ran,
    /// so that nothing need be opened at activation.
    pub kick: Arc<EventFd>,
}

/// All that a device gets at `DRIVER_OK`.
pub struct Activation {
    /// Guest memory.
    pub memory: GuestMemory,
    /// One for each of [`VirtioDevice::queue_sizes`], in order. `None` where the driver left a queue unused.
    pub queues: Vec<Option<ActiveQueue>>,
    /// How to call the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// Features that both sides agreed on.
    pub features: u64,
}

/// Why a device could not start; the transport answers with `DEVICE_NEEDS_RESET`.
#[derive(Debug, thiserror::Error)]
#[error("a {device} device could not start: {reason}")]
pub struct ActivateError {
    /// What device.
    pub device: &'static str,
    /// What went wrong.
    pub reason: String,
}

/// A virtio device.
pub trait VirtioDevice: Send {
    /// Device type (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// The largest size of each queue; a power of two, at most 32768.
    fn queue_sizes(&self) -> &[u16];

    /// Device features offered; the transport adds `VIRTIO_F_VERSION_1`.
    fn features(&self) -> u64;

    /// Reads the configuration space; bytes beyond its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the configuration space; what is not writable is ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts work. Called once between resets.
    ///
    /// # Errors
    /// [`ActivateError`] where the device cannot work with what it was given.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Lets go of what of the host is behind the device, for good: when it returns, no request to the host is in flight.
    /// The driver may go on with the device, whose requests fail. False where the device can do nothing of the kind.
    fn withdraw(&mut self) -> bool {
        false
    }

    /// Stops work and gives up the queues. When it returns, no request is in flight and guest memory is not touched any
    /// more. Idle devices stay idle.
    fn reset(&mut self);
}
