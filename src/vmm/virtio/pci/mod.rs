//! The virtio-pci transport, modern devices only (virtio 1.2, section 4.1).
//!
//! One BAR of memory holds all structures, each on pages of its own; BAR 0, so that firmware finds it below 4 GiB:
//!
//! ```text
//!   0x0000 common configuration   0x2000 device configuration   0x4000 MSI-X table
//!   0x1000 interrupt status       0x3000 notifications          0x6000 MSI-X pending bits
//! ```

mod common;
mod signal;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use serde::Serialize;
use virtio_bindings::virtio_ids::{VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET};
use vmm_sys_util::eventfd::EventFd;

use self::signal::PciSignal;
use super::VirtioDevice;
use super::state::DeviceState;
use super::transport::{CONFIG_SIZE, TransportCore};
use crate::vmm::bus::{Bus, BusDevice};
use crate::vmm::memory::GuestMemory;
use crate::vmm::pci::config::{BarKind, ConfigSpace, Identity};
use crate::vmm::pci::endpoint::{Endpoint, EndpointBuilder, MsixPlace};
use crate::vmm::pci::intx::Intx;
use crate::vmm::pci::msix::{MsiController, Msix};
use crate::vmm::pci::{Doorbell, PciError, PciFunction, Region};

/// PCI vendor of all virtio devices (section 4.1.2).
const VENDOR: u16 = 0x1af4;
/// Device IDs of modern devices begin here.
const DEVICE_BASE: u16 = 0x1040;
/// Modern devices have a revision of at least 1.
const REVISION: u8 = 1;
/// The least subsystem ID that tells a modern device.
const SUBSYSTEM: u16 = 0x40;

const BAR: u8 = 0;
const BAR_SIZE: u64 = 0x8000;
const COMMON: u32 = 0;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PBA: u32 = 0x6000;
/// Queues notify at `queue_notify_off` times this; so each has an address, and an ioeventfd, of its own.
const NOTIFY_MULTIPLIER: u32 = 4;
/// As many queues as the notification page and the MSI-X table have room for, with one vector for the configuration.
const MAX_QUEUES: usize = 511;

/// Capability ID: specific to the vendor.
const VENDOR_CAPABILITY: u8 = 9;
const CFG_TYPE_COMMON: u8 = 1;
const CFG_TYPE_NOTIFY: u8 = 2;
const CFG_TYPE_ISR: u8 = 3;
const CFG_TYPE_DEVICE: u8 = 4;
const CFG_TYPE_PCI: u8 = 5;

/// What the guest sees of a transport at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PciState {
    /// Everything the driver wrote, but for vectors.
    pub registers: DeviceState,
    /// MSI-X vector of configuration changes; 0xffff for none.
    pub config_vector: u16,
    /// MSI-X vector of each queue; 0xffff for none.
    pub queue_vectors: Vec<u16>,
    /// Interrupt status: what the driver has not read.
    pub interrupt_status: u32,
    /// How often the configuration space changed.
    pub config_generation: u32,
    /// Why the device asks for a reset, if it does (`DEVICE_NEEDS_RESET`).
    pub failure: Option<String>,
}

/// The device with its registers, shared by the parts of the BAR.
struct Shared {
    core: TransportCore,
    signal: Arc<PciSignal>,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    /// Offset of the capability through which BARs are reached without mapping them (section 4.1.4.9).
    window: usize,
}

impl VirtioPci {
    /// Makes a device a function, with one MSI-X vector for each queue and one for the configuration. Without `intx` a
    /// driver that does not use MSI-X has to poll.
    ///
    /// # Errors
    /// `InvalidInput` for a device with impossible queues, else what the host said when it could not make an event
    /// descriptor or a vector.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        msi: &dyn MsiController,
        intx: Option<Arc<Intx>>,
    ) -> io::Result<Self> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let queues = device.queue_sizes().len();
        let vectors = u16::try_from(queues + 1).ok().filter(|_| queues <= MAX_QUEUES);
        let vectors = vectors.ok_or_else(|| invalid("a PCI device cannot have so many queues"))?;
        let identity = identity(device.device_type()).ok_or_else(|| invalid("no such type of virtio device"))?;
        let msix = Msix::new(vectors, msi.allocate(vectors)?);
        let signal = Arc::new(PciSignal::new(queues, msix.clone(), intx.clone()));
        let core = TransportCore::new(device, memory, Box::new(signal.clone()))?;
        let shared = Arc::new(Shared { core, signal });
        let (endpoint, window) = function(&shared, identity, msix, intx).map_err(io::Error::other)?;
        Ok(Self { shared, endpoint, window })
    }

    /// The device's configuration space has changed by itself: calls the driver.
    pub fn config_changed(&self) {
        self.shared.core.config_changed();
    }

    /// Lets go of what of the host is behind the device, whose requests fail from now on; false where it cannot.
    pub fn withdraw(&self) -> bool {
        self.shared.core.withdraw()
    }

    /// What the guest sees now.
    #[must_use]
    pub fn state(&self) -> PciState {
        let Shared { core, signal } = &*self.shared;
        PciState {
            registers: core.lock().registers.clone(),
            config_vector: signal.config_vector(),
            queue_vectors: signal.queue_vectors(),
            interrupt_status: core.interrupt().status(),
            config_generation: core.interrupt().generation(),
            failure: core.interrupt().failure(),
        }
    }

    /// The part of the capability's window that an access to configuration space is for: at most its four bytes of data,
    /// if they are touched at all, and where in the BAR they are.
    fn window_access(&self, config: &ConfigSpace, offset: u8, len: usize) -> Option<(u8, u64, usize)> {
        let data = self.window + 16;
        // Accesses are within one dword, and the data are one.
        let within = usize::from(offset).checked_sub(data).is_some_and(|at| at + len <= 4);
        let (bar, at, length) =
            (config.byte(self.window + 4), config.dword(self.window + 8), config.dword(self.window + 12));
        let length = usize::try_from(length).ok().filter(|length| matches!(length, 1 | 2 | 4))?;
        let legal = within && usize::from(offset) == data && u64::from(at).is_multiple_of(length as u64);
        (legal && bar == BAR && u64::from(at) + length as u64 <= BAR_SIZE).then_some((bar, at.into(), length.min(len)))
    }
}

/// What a type of device is on PCI.
fn identity(device_type: u32) -> Option<Identity> {
    let class = match device_type {
        VIRTIO_ID_NET => 0x02_00_00,
        VIRTIO_ID_BLOCK => 0x01_00_00,
        VIRTIO_ID_CONSOLE => 0x07_80_00,
        _ => 0xff_00_00,
    };
    let device = u16::try_from(device_type).ok().filter(|device_type| *device_type < 0x40)? + DEVICE_BASE;
    let (subsystem_vendor, subsystem) = (VENDOR, SUBSYSTEM);
    Some(Identity { vendor: VENDOR, device, revision: REVISION, class, subsystem_vendor, subsystem })
}

fn function(
    shared: &Arc<Shared>,
    identity: Identity,
    msix: Arc<Msix>,
    intx: Option<Arc<Intx>>,
) -> Result<(Endpoint, usize), PciError> {
    let queues = shared.core.kicks().len() as u64;
    let notify_len = queues.max(1) * u64::from(NOTIFY_MULTIPLIER);
    let mut parts = Bus::default();
    let contents = |cause| PciError::BarContents { index: BAR.into(), cause };
    parts.claim(COMMON.into(), common::LEN, Arc::new(Common(shared.clone()))).map_err(contents)?;
    parts.claim(ISR.into(), 1, Arc::new(Isr(shared.clone()))).map_err(contents)?;
    parts.claim(DEVICE.into(), CONFIG_SIZE, Arc::new(DeviceConfig(shared.clone()))).map_err(contents)?;
    parts.claim(NOTIFY.into(), notify_len, Arc::new(Notify(shared.clone()))).map_err(contents)?;

    let bell = |(index, event): (u64, &Arc<EventFd>)| Doorbell {
        offset: u64::from(NOTIFY) + index * u64::from(NOTIFY_MULTIPLIER),
        datum: None,
        event: event.clone(),
    };
    let mut function = Endpoint::builder(identity)
        .bar(BAR, BarKind::Memory32, BAR_SIZE, parts)?
        .doorbells(BAR, (0..).zip(shared.core.kicks()).map(bell).collect())
        .msix(msix, MsixPlace { bar: BAR, table: MSIX_TABLE, pba: MSIX_PBA })?
        .intx(intx);
    add(&mut function, CFG_TYPE_COMMON, (COMMON, common::LEN), &[], &[])?;
    add(&mut function, CFG_TYPE_NOTIFY, (NOTIFY, notify_len), &NOTIFY_MULTIPLIER.to_le_bytes(), &[])?;
    add(&mut function, CFG_TYPE_ISR, (ISR, 1), &[], &[])?;
    add(&mut function, CFG_TYPE_DEVICE, (DEVICE, CONFIG_SIZE), &[], &[])?;
    // The driver writes BAR, offset and length of what it wants to reach, and then reads or writes the data.
    let mut writable = [0xff; 18];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    let window = add(&mut function, CFG_TYPE_PCI, (0, 0), &[0; 4], &writable)?;
    Ok((function.build()?, window))
}

/// Adds a `virtio_pci_cap` (section 4.1.4).
fn add(
    function: &mut EndpointBuilder,
    cfg_type: u8,
    (offset, len): (u32, u64),
    extra: &[u8],
    writable: &[u8],
) -> Result<usize, PciError> {
    let cap_len = u8::try_from(16 + extra.len()).unwrap_or(u8::MAX);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let head = [cap_len, cfg_type, BAR, 0, 0, 0];
    let body = [&head[..], &offset.to_le_bytes(), &len.to_le_bytes(), extra].concat();
    function.capability(VENDOR_CAPABILITY, &body, writable)
}

impl PciFunction for VirtioPci {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        self.endpoint.read_config(offset, data);
        if let Some((bar, at, len)) = self.window_access(&self.endpoint.config(), offset, data.len()) {
            self.endpoint.read_bar(bar, at, data.get_mut(..len).unwrap_or_default());
        }
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        self.endpoint.write_config(offset, data);
        if let Some((bar, at, len)) = self.window_access(&self.endpoint.config(), offset, data.len()) {
            self.endpoint.write_bar(bar, at, data.get(..len).unwrap_or_default());
        }
    }

    fn regions(&self) -> Vec<Region> {
        self.endpoint.regions()
    }

    fn reset(&self) {
        self.shared.core.reset();
        self.endpoint.reset();
    }
}

/// Common configuration (section 4.1.4.3).
struct Common(Arc<Shared>);

impl BusDevice for Common {
    fn read(&self, offset: u64, data: &mut [u8]) {
        common::read(&self.0, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        common::write(&self.0, offset, data);
    }
}

/// Interrupt status (section 4.1.4.5): reading acknowledges.
struct Isr(Arc<Shared>);

impl BusDevice for Isr {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        let interrupt = self.0.core.interrupt();
        let status = interrupt.acknowledge(u32::MAX);
        self.0.signal.acknowledged(interrupt);
        if let (Some(byte), Ok(status)) = (data.first_mut(), u8::try_from(status)) {
            *byte = status;
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

/// Configuration of the device (section 4.1.4.6).
struct DeviceConfig(Arc<Shared>);

impl BusDevice for DeviceConfig {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.core.read_config(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.core.write_config(offset, data);
    }
}

/// Notifications (section 4.1.4.4): the address says which queue, whatever is written.
struct Notify(Arc<Shared>);

impl BusDevice for Notify {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, _data: &[u8]) {
        if offset.is_multiple_of(NOTIFY_MULTIPLIER.into()) {
            self.0.core.kick(offset / u64::from(NOTIFY_MULTIPLIER));
        }
    }
}
