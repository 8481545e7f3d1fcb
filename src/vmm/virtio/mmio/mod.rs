//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2).
//!
//! [`registers`] holds what the guest can see and the rules of the status machine, free of host handles; this file joins
//! it to a device, to guest memory and to the event descriptors.

mod interrupt;
pub mod registers;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_STATUS,
};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use self::interrupt::MmioInterrupt;
use self::registers::{Registers, StatusChange};
use super::{Activation, ActiveQueue, Interrupt, VirtioDevice};
use crate::vmm::bus::BusDevice;
use crate::vmm::memory::GuestMemory;

/// Bytes of address space that a transport answers: its registers and 256 bytes of configuration space.
pub const REGION_SIZE: u64 = 0x200;
/// Offset of the register that takes notifications, for ioeventfds; the datum is the queue's index, 4 bytes wide.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// What the guest sees of a transport at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MmioState {
    /// Everything the driver wrote.
    pub registers: Registers,
    /// `InterruptStatus`: what the driver has not acknowledged.
    pub interrupt_status: u32,
    /// How often the configuration space changed.
    pub config_generation: u32,
    /// Why the device asks for a reset, if it does (`DEVICE_NEEDS_RESET`).
    pub failure: Option<String>,
}

/// A device behind virtio-mmio registers.
pub struct MmioTransport {
    inner: Mutex<Inner>,
    /// Beside the lock, because workers use it while a reset, which holds the lock, waits for them.
    interrupt: Arc<MmioInterrupt>,
    kicks: Vec<Arc<EventFd>>,
    memory: GuestMemory,
}

struct Inner {
    device: Box<dyn VirtioDevice>,
    registers: Registers,
}

impl MmioTransport {
    /// Puts a device behind registers. `irq` is written once for every notification: the interrupt is to be announced to
    /// the guest as edge-triggered.
    ///
    /// # Errors
    /// `InvalidInput` for a device with impossible queue sizes, else what the host said when it could not make an event
    /// descriptor.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, irq: EventFd) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        if sizes.iter().any(|&size| Queue::new(size).is_err()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a queue size is not a power of two up to 32768"));
        }
        let kicks = sizes.iter().map(|_| EventFd::new(EFD_CLOEXEC).map(Arc::new)).collect::<io::Result<_>>()?;
        let registers = Registers::new(device.device_type(), device.features(), sizes);
        Ok(Self {
            inner: Mutex::new(Inner { device, registers }),
            interrupt: Arc::new(MmioInterrupt::new(irq)),
            kicks,
            memory,
        })
    }

    /// The event of each queue, in order: an ioeventfd at [`QUEUE_NOTIFY`] with the queue's index as datum saves the trip
    /// through [`BusDevice::write`], which does the same.
    #[must_use]
    pub fn queue_kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// What the guest sees now.
    #[must_use]
    pub fn state(&self) -> MmioState {
        let inner = self.lock();
        MmioState {
            registers: inner.registers.clone(),
            interrupt_status: self.interrupt.status(),
            config_generation: self.interrupt.generation(),
            failure: self.interrupt.failure(),
        }
    }

    /// Resets device and registers as a write of zero to `Status` does; for a machine that restarts. When it returns, no
    /// request is in flight.
    pub fn reset(&self) {
        self.reset_locked(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset_locked(&self, inner: &mut Inner) {
        // The device first: once its workers are gone, nobody can raise an interrupt into the fresh registers.
        inner.device.reset();
        inner.registers.reset();
        self.interrupt.reset();
    }

    fn read_register(&self, offset: u32) -> u32 {
        // These three are atomics; a driver reads them in its interrupt handler and need not wait for another vCPU.
        match offset {
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status(),
            VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.generation(),
            VIRTIO_MMIO_STATUS => self.lock().registers.status() | self.interrupt.device_status(),
            _ => self.lock().registers.read(offset),
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        match offset {
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                if let Some(kick) = usize::try_from(value).ok().and_then(|index| self.kicks.get(index)) {
                    // Fails only where the counter is full, and then the worker is awake.
                    let _ = kick.write(1);
                }
            }
            VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.lock().registers.write(offset, value),
        }
    }

    fn write_status(&self, value: u32) {
        let mut inner = self.lock();
        match inner.registers.write_status(value) {
            StatusChange::Reset => self.reset_locked(&mut inner),
            StatusChange::None => {}
            StatusChange::DriverOk => {
                if let Err(reason) = self.activate(&mut inner) {
                    self.interrupt.needs_reset(&reason);
                }
            }
        }
    }

    fn activate(&self, inner: &mut Inner) -> Result<(), String> {
        let queues = inner
            .registers
            .build_queues(&self.memory)?
            .into_iter()
            .zip(&self.kicks)
            .map(|(queue, kick)| queue.map(|queue| ActiveQueue { queue, kick: kick.clone() }))
            .collect();
        let activation = Activation {
            memory: self.memory.clone(),
            queues,
            interrupt: self.interrupt.clone(),
            features: inner.registers.driver_features(),
        };
        inner.device.activate(activation).map_err(|error| error.to_string())
    }
}

impl BusDevice for MmioTransport {
    /// Registers take only aligned accesses of 4 bytes (section 4.2.2.2); any other reads as zero.
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            if config_access(at, data.len()) {
                self.lock().device.read_config(at, data);
            }
        } else if let (Some(register), Ok(data)) = (register(offset), <&mut [u8; 4]>::try_from(data)) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            if config_access(at, data.len()) {
                self.lock().device.write_config(at, data);
            }
        } else if let (Some(register), Ok(data)) = (register(offset), <[u8; 4]>::try_from(data)) {
            self.write_register(register, u32::from_le_bytes(data));
        }
    }
}

fn register(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|offset| offset.is_multiple_of(4))
}

fn config_access(at: u64, len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8) && at.checked_add(len as u64).is_some_and(|end| end <= REGION_SIZE - CONFIG)
}
