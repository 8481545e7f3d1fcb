//! PCI: one bus with its functions, found by ports 0xcf8 and 0xcfc (PCI Local Bus Specification 3.0, "PCI 3.0" below).
//! Knows nothing of KVM; what it needs of the machine are three small traits.
//!
//! * [`config`]: the 256 bytes of a function's configuration space: what is writable, BARs, capabilities;
//! * [`bus`]: [`PciBus`](bus::PciBus): which function answers at which slot, and which BAR at which address at this moment;
//! * [`ports`]: the configuration ports, and the reset register at 0xcf9 between them;
//! * [`endpoint`]: a function made of BARs, MSI-X and capabilities: what virtio-pci and NVMe are built on;
//! * [`msix`], [`intx`]: its interrupts;
//! * [`chipset`]: host bridge, ISA bridge and power management as firmware expects them;
//! * [`hotplug`]: slots that are filled and emptied while the machine runs.
//!
//! # How a machine puts it together
//!
//! ```text
//! let vm: Arc<VmFd> = ...;                                      // the interrupt controllers are made already
//! let routing = IrqRouting::new(vm.clone(), timer_pin);         // vmm::irq_routing; implements MsiController
//! let pci = Arc::new(PciBus::new(PciWindows {
//!     // From the end of low memory: with less than 2 GiB of it, firmware puts BARs from 0x8000_0000 on.
//!     memory: vec![low_memory_end..0xfec0_0000, high_memory_end..1 << 40],
//!     io: vec![0x600..0x640, 0xb000..0xb040, 0xc000..0x1_0000], // SeaBIOS and OVMF put PMBASE at 0x600 and 0xb000
//! }, vm.clone()));                                              // VmFd implements IoEvents (vmm::io_events)
//! pci.add(DevFn::new(0, 0), Arc::new(HostBridge::new(Box::new(|segment| shadow(segment)))))?;
//! pci.add(DevFn::new(1, 0), Arc::new(IsaBridge::new()))?;
//! pci.add(DevFn::new(1, 3), Arc::new(PowerManagement::new(pm_registers)))?;   // any BusDevice of 64 bytes
//! let intx = Intx::new(shared_lines[n].clone());                // or none: firmware polls, Linux takes MSI-X
//! let block = Arc::new(VirtioPci::new(Box::new(Block::new(..)), memory.clone(), &routing, Some(intx))?);
//! pci.add(DevFn::new(4, 0), block.clone())?;
//! pci.claim(&mut mmio_bus, &mut port_bus)?;                     // claims every window
//! port_bus.claim(CONFIG_PORTS, CONFIG_PORTS_LEN, Arc::new(ConfigPorts::new(pci.clone(), on_reset)))?;
//! ```
//!
//! An NVMe controller is an [`Endpoint`](endpoint::Endpoint) of its own:
//!
//! ```text
//! let msix = Arc::new(Msix::new(vectors, routing.allocate(vectors)?));
//! let mut bar0 = Bus::default();
//! bar0.claim(0, 0x2000, controller.clone())?;                   // a BusDevice
//! let function = Endpoint::builder(Identity { vendor: 0x1d0f, device: 0x8061, class: 0x01_08_02, .. })
//!     .bar(0, BarKind::Memory64, 0x4000, bar0)?
//!     .msix(msix.clone(), MsixPlace { bar: 0, table: 0x2000, pba: 0x3000 })?
//!     .intx(intx.clone())
//!     .build()?;                                                // a PciFunction
//! ```
//!
//! A function with state of its own wraps the endpoint in a [`PciFunction`], so that a reset reaches that state too:
//! [`VirtioPci`](super::virtio::pci::VirtioPci) shows how. It interrupts by `msix.trigger(vector)` while
//! `msix.is_enabled()`, else by `intx.update(|| pending)`.
//!
//! A machine that restarts calls [`PciBus::reset`](bus::PciBus::reset).

pub mod bus;
#[cfg(test)]
mod bus_tests;
pub mod chipset;
pub mod config;
pub mod endpoint;
pub mod hotplug;
pub mod intx;
pub mod msix;
pub mod ports;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::bus::{BusDevice, BusError};

/// Device and function number on bus 0 (PCI 3.0, section 3.2.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DevFn(u8);

impl DevFn {
    /// `device` is 0 to 31, `function` 0 to 7.
    ///
    /// # Panics
    /// Where they are not: the numbers are constants of a machine.
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Self {
        assert!(device < 32 && function < 8, "no such slot on a PCI bus");
        Self(device << 3 | function)
    }

    /// 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

impl std::fmt::Display for DevFn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00:{:02x}.{}", self.device(), self.function())
    }
}

/// Why a bus or function cannot be made: a fault of the machine's own tables, never of the guest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PciError {
    /// Two functions at one slot.
    #[error("there are two PCI functions at {0}")]
    SlotTaken(DevFn),
    /// A base address register that cannot be.
    #[error("BAR {index} cannot be of {size:#x} bytes: {why}")]
    BadBar {
        /// 0 to 5.
        index: usize,
        /// Bytes.
        size: u64,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// 192 bytes of capabilities are all that there is.
    #[error("there is no room in configuration space for capability {id:#x} of {len} bytes")]
    CapabilityTooLong {
        /// Capability ID.
        id: u8,
        /// Bytes.
        len: usize,
    },
    /// A BAR's contents overlap, or leave it.
    #[error("the contents of BAR {index}: {cause}")]
    BarContents {
        /// 0 to 5.
        index: usize,
        /// What is wrong.
        cause: BusError,
    },
}

/// An address space that functions answer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory addresses.
    Memory,
    /// Ports.
    Io,
}

/// A write that is better taken by an event than by [`BusDevice::write`], which must do the same.
#[derive(Clone)]
pub struct Doorbell {
    /// Offset in its [`Region`].
    pub offset: u64,
    /// Only writes of this datum, 4 bytes wide; or any write, whatever its width.
    pub datum: Option<u32>,
    /// The event.
    pub event: Arc<EventFd>,
}

/// A range of addresses that a function claims at this moment.
#[derive(Clone)]
pub struct Region {
    /// Of which space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Who answers; offsets count from `base`.
    pub device: Arc<dyn BusDevice>,
    /// Of memory regions only.
    pub doorbells: Arc<[Doorbell]>,
}

/// One function of a device.
///
/// Called from any vCPU thread; writes of configuration registers come one at a time for the whole bus.
pub trait PciFunction: Send + Sync {
    /// Reads 1, 2 or 4 bytes within one dword of configuration space.
    fn read_config(&self, offset: u8, data: &mut [u8]);

    /// Writes 1, 2 or 4 bytes within one dword of configuration space; what is read-only stays as it is.
    fn write_config(&self, offset: u8, data: &[u8]);

    /// What it decodes now, in a fixed order. Asked after every configuration write.
    fn regions(&self) -> Vec<Region>;

    /// Back to the state after power-on. When it returns, nothing is in flight.
    fn reset(&self);
}

/// Catches writes in the kernel; the machine implements it.
pub trait IoEvents: Send + Sync {
    /// From now on a write to memory address `addr` (of `datum` in 4 bytes, or any) makes `event` readable.
    ///
    /// # Errors
    /// What the host says; the write then reaches the device by its [`BusDevice::write`].
    fn register(&self, addr: u64, datum: Option<u32>, event: &EventFd) -> io::Result<()>;

    /// Takes one back that was registered with the same arguments.
    ///
    /// # Errors
    /// What the host says.
    fn unregister(&self, addr: u64, datum: Option<u32>, event: &EventFd) -> io::Result<()>;
}
