//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2).

mod registers;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_STATUS,
};
use vmm_sys_util::eventfd::EventFd;

use super::VirtioDevice;
use super::interrupt::{Cause, STATUS_CONFIG, STATUS_QUEUE, Signal};
use super::state::DeviceState;
use super::transport::{CONFIG_SIZE, TransportCore};
use crate::vmm::bus::BusDevice;
use crate::vmm::memory::GuestMemory;

/// Bytes of address space that a transport answers: its registers and 256 bytes of configuration space.
pub const REGION_SIZE: u64 = CONFIG + CONFIG_SIZE;
/// Offset of the register that takes notifications, for ioeventfds; the datum is the queue's index, 4 bytes wide.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// What the guest sees of a transport at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MmioState {
    /// Everything the driver wrote.
    pub registers: DeviceState,
    /// `InterruptStatus`: what the driver has not acknowledged.
    pub interrupt_status: u32,
    /// How often the configuration space changed.
    pub config_generation: u32,
    /// Why the device asks for a reset, if it does (`DEVICE_NEEDS_RESET`).
    pub failure: Option<String>,
}

/// The line to the interrupt controller.
///
/// Every notification sets its bit and then raises an edge, even where the bit was set already: the driver reads the
/// status, acknowledges it and only then looks at its queues, so that no order of these steps loses a buffer
/// (section 4.2.3.4).
struct Line(EventFd);

impl Signal for Line {
    fn call(&self, cause: Cause, status: &AtomicU32) {
        let bit = if cause == Cause::Config { STATUS_CONFIG } else { STATUS_QUEUE };
        status.fetch_or(bit, Ordering::SeqCst);
        // Fails only where the counter is full, and then an edge is on its way already.
        let _ = self.0.write(1);
    }

    fn reset(&self) {}
}

/// A device behind virtio-mmio registers.
pub struct MmioTransport {
    core: TransportCore,
}

impl MmioTransport {
    /// Puts a device behind registers. `irq` is written once for every notification: the interrupt is to be announced to
    /// the guest as edge-triggered.
    ///
    /// # Errors
    /// `InvalidInput` for a device with impossible queue sizes, else what the host said when it could not make an event
    /// descriptor.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> io::Result<Self> {
        Ok(Self { core: TransportCore::new(device, memory, Box::new(Line(irq)))? })
    }

    /// The event of each queue, in order: an ioeventfd at [`QUEUE_NOTIFY`] with the queue's index as datum saves the trip
    /// through [`BusDevice::write`], which does the same.
    #[must_use]
    pub fn queue_kicks(&self) -> &[Arc<EventFd>] {
        self.core.kicks()
    }

    /// What the guest sees now.
    #[must_use]
    pub fn state(&self) -> MmioState {
        let interrupt = self.core.interrupt();
        MmioState {
            registers: self.core.lock().registers.clone(),
            interrupt_status: interrupt.status(),
            config_generation: interrupt.generation(),
            failure: interrupt.failure(),
        }
    }

    /// The device's configuration space has changed by itself: calls the driver.
    pub fn config_changed(&self) {
        self.core.config_changed();
    }

    /// Lets go of what of the host is behind the device, whose requests fail from now on; false where it cannot.
    #[cfg(test)]
    pub fn withdraw(&self) -> bool {
        self.core.withdraw()
    }

    /// Resets device and registers as a write of zero to `Status` does; for a machine that restarts. When it returns, no
    /// request is in flight.
    pub fn reset(&self) {
        self.core.reset();
    }

    fn read_register(&self, offset: u32) -> u32 {
        // These are atomics; a driver reads them in its interrupt handler and need not wait for another vCPU.
        match offset {
            VIRTIO_MMIO_INTERRUPT_STATUS => self.core.interrupt().status(),
            VIRTIO_MMIO_CONFIG_GENERATION => self.core.interrupt().generation(),
            VIRTIO_MMIO_STATUS => self.core.status(),
            _ => registers::read(&self.core.lock().registers, offset),
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        match offset {
            VIRTIO_MMIO_INTERRUPT_ACK => {
                self.core.interrupt().acknowledge(value);
            }
            VIRTIO_MMIO_QUEUE_NOTIFY => self.core.kick(value.into()),
            VIRTIO_MMIO_STATUS => self.core.write_status(value),
            _ => registers::write(&mut self.core.lock().registers, offset, value),
        }
    }
}

impl BusDevice for MmioTransport {
    /// Registers take only aligned accesses of 4 bytes (section 4.2.2.2); any other reads as zero.
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            self.core.read_config(at, data);
        } else if let (Some(register), Ok(data)) = (register(offset), <&mut [u8; 4]>::try_from(data)) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            self.core.write_config(at, data);
        } else if let (Some(register), Ok(data)) = (register(offset), <[u8; 4]>::try_from(data)) {
            self.write_register(register, u32::from_le_bytes(data));
        }
    }
}

fn register(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|offset| offset.is_multiple_of(4))
}
