//! The volumes of a running machine: which there are, and how they come, grow and go while it runs.
//!
//! * [`slots`]: those of a machine with a PCI bus, each in a slot, put in and taken out as ACPI describes it;
//! * [`functions`]: what a disk is in its slot: virtio-blk or NVMe;
//! * [`fixed`]: those of a paravirtual machine, which has what it was started with.

pub mod fixed;
pub mod functions;
pub mod slots;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::disk::Disk;

/// A disk and its serial number.
#[derive(Clone)]
pub struct DiskConfig {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Serial number: at most 20 bytes.
    pub serial: String,
    /// Name of its device in the mapping, such as `/dev/sdf`: what rules of stock images make links of.
    pub device: String,
    /// The number of the instance store volume that it is, if it is one: NVMe controllers of EC2 tell these apart.
    pub ephemeral: Option<u8>,
}

/// Why a volume cannot be attached, detached or told to have grown.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// It has no bus for that.
    #[error(
        "volume {0}: a paravirtual machine keeps the volumes that it was started with; stop it first, or start it as an HVM \
         machine"
    )]
    Paravirtual(String),
    /// Every slot is taken.
    #[error("volume {serial}: the machine has its {most} volumes already; detach one of them first")]
    NoSlot {
        /// Which was to be attached.
        serial: String,
        /// How many it can have.
        most: usize,
    },
    /// Another volume has the same serial number or device name.
    #[error(
        "volume {serial}: the machine has volume {other} as {device} already; detach it first, or choose another device"
    )]
    Taken {
        /// Which was to be attached.
        serial: String,
        /// Which is there.
        other: String,
        /// Its device.
        device: String,
    },
    /// A volume with the same serial number or device name has been let go by the guest, and its last writes are being kept.
    #[error("volume {0}: it is being detached; wait until it is")]
    Leaving(String),
    /// No such volume.
    #[error("volume {0}: the machine has no such volume")]
    None(String),
    /// The guest's root.
    #[error("volume {0}: the machine runs from it; stop the machine before you detach it")]
    Root(String),
    /// The host.
    #[error("volume {serial}: it cannot be attached: {cause}")]
    Host {
        /// Which was to be attached.
        serial: String,
        /// What the host said.
        cause: io::Error,
    },
    /// It is detached, but not everything is durable.
    #[error("volume {serial}: it is detached, but its last writes could not be made durable: {cause}")]
    Flush {
        /// Which.
        serial: String,
        /// What the host said.
        cause: io::Error,
    },
}

/// A volume that the guest has let go: its disk is released.
#[derive(Debug)]
pub struct Ejected {
    /// Serial number.
    pub serial: String,
    /// Name of its device in the mapping.
    pub device: String,
    /// It had been asked for; else the guest did so on its own.
    pub asked: bool,
    /// Whether all that was written to it could be made durable.
    pub flushed: io::Result<()>,
}

/// Volumes that the guest has let go and that nobody has looked at yet.
pub struct Ejections {
    event: EventFd,
    list: Mutex<Vec<Ejected>>,
}

impl Ejections {
    /// None.
    ///
    /// # Errors
    /// What the host said when it could not make an event.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?, list: Mutex::default() })
    }

    /// Readable while there are any.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Those that there are, the first one first; does not wait.
    #[must_use]
    pub fn take(&self) -> Vec<Ejected> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that what comes next is told again.
        let _ = self.event.read();
        std::mem::take(&mut list)
    }

    fn add(&self, ejected: Ejected) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(ejected);
        // Fails only where the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }
}

/// The volumes of a machine. A volume is named by its serial number or by its device.
pub trait Volumes: Send + Sync {
    /// Those that there are, in the order in which a machine that is built anew should have them.
    fn disks(&self) -> Vec<DiskConfig>;

    /// Whether none can come or go, whichever it is.
    fn is_fixed(&self) -> bool {
        false
    }

    /// Puts one more in.
    ///
    /// # Errors
    /// [`PlugError`]; the disk is released then.
    fn plug(&self, disk: DiskConfig) -> Result<(), PlugError>;

    /// Asks the guest for one. When it has let it go, [`Volumes::ejections`] tells.
    ///
    /// # Errors
    /// [`PlugError`].
    fn unplug(&self, name: &str) -> Result<(), PlugError>;

    /// Takes one away, whatever the guest does with it. When this returns, nothing of it is in flight and the disk is
    /// released.
    ///
    /// # Errors
    /// [`PlugError`].
    fn remove(&self, name: &str) -> Result<(), PlugError>;

    /// Tells the guest that the disk of one has another size, which is given in bytes.
    ///
    /// # Errors
    /// [`PlugError`].
    fn resized(&self, name: &str) -> Result<u64, PlugError>;

    /// Those that the guest has let go.
    fn ejections(&self) -> &Ejections;

    /// Waits for what goes on after the guest let volumes go.
    fn settle(&self);
}

impl DiskConfig {
    fn is_named(&self, name: &str) -> bool {
        self.serial == name || self.device == name
    }
}
