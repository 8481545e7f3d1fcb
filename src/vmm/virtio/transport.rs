//! What every transport does alike: it joins a device to its state, to guest memory and to the event descriptors.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use super::interrupt::{Signal, TransportInterrupt};
use super::state::{DeviceState, StatusChange};
use super::{Activation, ActiveQueue, Interrupt, VirtioDevice};
use crate::vmm::memory::GuestMemory;

/// Bytes of configuration space that a transport shows of a device.
pub const CONFIG_SIZE: u64 = 0x100;

/// A device, and all that does not depend on where its registers are.
pub struct TransportCore {
    inner: Mutex<Inner>,
    /// Beside the lock, because workers use it while a reset, which holds the lock, waits for them.
    interrupt: Arc<TransportInterrupt>,
    kicks: Vec<Arc<EventFd>>,
    memory: GuestMemory,
}

/// What is changed under the lock.
pub struct Inner {
    /// The device.
    pub device: Box<dyn VirtioDevice>,
    /// What the driver wrote.
    pub registers: DeviceState,
}

impl TransportCore {
    /// A device after a reset.
    ///
    /// # Errors
    /// `InvalidInput` for a device with impossible queue sizes, else what the host said when it could not make an event
    /// descriptor.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, signal: Box<dyn Signal>) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        if sizes.iter().any(|&size| Queue::new(size).is_err()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a queue size is not a power of two up to 32768"));
        }
        let kicks = sizes.iter().map(|_| EventFd::new(EFD_CLOEXEC).map(Arc::new)).collect::<io::Result<_>>()?;
        let registers = DeviceState::new(device.device_type(), device.features(), sizes);
        Ok(Self {
            inner: Mutex::new(Inner { device, registers }),
            interrupt: Arc::new(TransportInterrupt::new(signal)),
            kicks,
            memory,
        })
    }

    /// The event of each queue, in order.
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// What the device changes on its own.
    pub fn interrupt(&self) -> &TransportInterrupt {
        &self.interrupt
    }

    /// Device and state.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device status, both parts of it.
    pub fn status(&self) -> u32 {
        self.lock().registers.status() | self.interrupt.device_status()
    }

    /// Writes the device status, with what follows: reset or activation.
    pub fn write_status(&self, value: u32) {
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

    /// Resets device and state. When it returns, no request is in flight.
    pub fn reset(&self) {
        self.reset_locked(&mut self.lock());
    }

    /// The driver's notification, where no ioeventfd took it; of a queue that does not exist it is lost.
    pub fn kick(&self, index: u64) {
        if let Some(kick) = usize::try_from(index).ok().and_then(|index| self.kicks.get(index)) {
            // Fails only where the counter is full, and then the worker is awake.
            let _ = kick.write(1);
        }
    }

    /// The device's configuration space has changed by itself: calls a driver that is at work. One that is not reads it yet.
    pub fn config_changed(&self) {
        let inner = self.lock();
        if inner.registers.status() & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.interrupt.config();
        }
    }

    /// Lets go of what of the host is behind the device; false where it cannot.
    pub fn withdraw(&self) -> bool {
        self.lock().device.withdraw()
    }

    /// Reads the device's configuration space in 1, 2, 4 or 8 bytes; anything else reads as zero.
    pub fn read_config(&self, at: u64, data: &mut [u8]) {
        data.fill(0);
        if config_access(at, data.len()) {
            self.lock().device.read_config(at, data);
        }
    }

    /// Writes the device's configuration space in 1, 2, 4 or 8 bytes; anything else is lost.
    pub fn write_config(&self, at: u64, data: &[u8]) {
        if config_access(at, data.len()) {
            self.lock().device.write_config(at, data);
        }
    }

    fn reset_locked(&self, inner: &mut Inner) {
        // The device first: once its workers are gone, nobody can raise an interrupt into the fresh registers.
        inner.device.reset();
        inner.registers.reset();
        self.interrupt.reset();
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

fn config_access(at: u64, len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8) && at.checked_add(len as u64).is_some_and(|end| end <= CONFIG_SIZE)
}
