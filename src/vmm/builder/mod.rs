//! Building a machine, step by step: what both kinds have in common. [`pv`] and [`hvm`] are the recipes.

mod hvm;
mod pv;
mod rom;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use kvm_bindings::{CpuId, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::boot::{BootError, BootSource};
use super::bus::BusError;
use super::config::{ConfigError, MachineConfig};
use super::console::ConsoleBuffer;
use super::devices::chipset::TextSink;
use super::devices::flash::Contents;
use super::devices::fw_cfg::FwCfgError;
use super::firmware::FirmwareImage;
use super::memory::{GuestMemory, MemoryError};
use super::pci::PciError;
use super::running::Machine;
use super::smbios::Identity;
use super::stop::StopReason;
use super::timeline::Timeline;
use super::vcpu::cpuid::CpuidTemplate;
use super::vcpu::{Shared, VcpuError, VcpuThread};
use super::virtio::console::channel::Channel;
use super::virtio::console::{AGENT_PORT, Console};
use super::virtio::net::Net;
pub use super::virtio::net::NetworkConfig;
use super::virtio::{ActivateError, Log};
use super::volumes::PlugError;
pub use super::volumes::{DiskConfig, functions::DiskInterface};

/// What a machine starts with.
pub enum Boot {
    /// A kernel: the machine is paravirtual.
    Kernel {
        /// The kernel, and what it is told.
        source: BootSource,
        /// Who the instance is.
        identity: Identity,
    },
    /// Firmware, which finds a boot loader on the first disk: a whole PC.
    Firmware(Firmware),
}

/// Firmware, and what it is told.
#[derive(Clone)]
pub struct Firmware {
    /// The ROM.
    pub image: FirmwareImage,
    /// Its variables, in a flash chip below the ROM; nothing where it has none, or none that can be written to.
    pub variables: Option<Contents>,
    /// How the guest sees its disks.
    pub interface: DiskInterface,
    /// Who the instance is.
    pub identity: Identity,
    /// Where its debug text goes.
    pub debug: TextSink,
}

/// All that a machine is made of, opened and ready.
pub struct Parts<'a> {
    /// KVM.
    pub kvm: &'a Kvm,
    /// What to boot, which says what kind of machine it is.
    pub boot: Boot,
    /// Disks, in the order in which the guest sees them.
    pub disks: Vec<DiskConfig>,
    /// Its network card, if it has one.
    pub network: Option<NetworkConfig>,
    /// The host's end of the port that the guest's agent has, if there is to be one.
    pub agent: Option<Arc<Channel>>,
    /// Where console output goes.
    pub console: Arc<ConsoleBuffer>,
    /// Where instants are recorded.
    pub timeline: Arc<Timeline>,
    /// Where a device's trouble with the host is told.
    pub log: Log,
}

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It cannot have this size.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM refused.
    #[error("KVM could not {what}: {cause}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        cause: io::Error,
    },
    /// No event.
    #[error("the host has no event for the {what}: {cause}")]
    Event {
        /// What it is for.
        what: &'static str,
        /// What the host said.
        cause: io::Error,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Names of an instance that no table has room for.
    #[error("the instance's type and id need {0} bytes in its SMBIOS tables, which have {max}; choose shorter names", max = super::machine::pv::SMBIOS_TABLES_MAX)]
    IdentityTooLarge(usize),
    /// A processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// A PCI function, or two at one slot: a fault of the address map.
    #[error("the machine's PCI bus: {0}")]
    Pci(#[from] PciError),
    /// A file for the firmware: a fault of the address map.
    #[error(transparent)]
    FwCfg(#[from] FwCfgError),
    /// Two devices at one address: a fault of the address map.
    #[error("the machine's address map: {0}")]
    Bus(#[from] BusError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] PlugError),
    /// A device.
    #[error(transparent)]
    Device(#[from] ActivateError),
}

impl BuildError {
    fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |e| Self::Kvm { what, cause: io::Error::from_raw_os_error(e.errno()) }
    }
}

/// Builds a machine and starts it.
///
/// # Errors
/// [`BuildError`]; nothing of the machine is left then.
pub fn build(config: MachineConfig, parts: Parts<'_>) -> Result<Machine, BuildError> {
    let kvm_max = u32::try_from(parts.kvm.get_max_vcpus()).unwrap_or(u32::MAX);
    config.check(crate::host::memory::HostMemory::read(), kvm_max)?;
    let cpus = u8::try_from(config.cpus).map_err(|_| ConfigError::TooManyCpus { asked: config.cpus, max: kvm_max })?;
    let Parts { kvm, boot, disks, network, agent, console, timeline, log } = parts;
    let common = Common { kvm, memory: config.memory, cpus, disks, network, agent, console, timeline, log };
    match boot {
        Boot::Kernel { source, identity } => pv::build(&common, source, &identity),
        Boot::Firmware(firmware) => hvm::build(&common, firmware),
    }
}

/// What both recipes get.
struct Common<'a> {
    kvm: &'a Kvm,
    /// In bytes.
    memory: u64,
    cpus: u8,
    disks: Vec<DiskConfig>,
    network: Option<NetworkConfig>,
    agent: Option<Arc<Channel>>,
    console: Arc<ConsoleBuffer>,
    timeline: Arc<Timeline>,
    log: Log,
}

impl Common<'_> {
    /// The network card, if there is to be one. It has no more pairs of queues than there are processors: Linux uses no more.
    fn network_card(&self) -> Option<Net> {
        self.network.as_ref().map(|config| Net::new(config, self.cpus.into(), self.log.clone()))
    }

    /// The port of the guest's agent, if there is to be one.
    fn agent_port(&self) -> Option<Console> {
        self.agent.as_ref().map(|channel| Console::new(AGENT_PORT, channel.clone()))
    }
}

fn event(what: &'static str) -> Result<EventFd, BuildError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(|cause| BuildError::Event { what, cause })
}

fn clone_event(event: &EventFd, what: &'static str) -> Result<EventFd, BuildError> {
    event.try_clone().map_err(|cause| BuildError::Event { what, cause })
}

/// A virtual machine with its interrupt controllers. The two addresses are KVM's own pages.
fn create_vm(kvm: &Kvm, identity_map: u64, tss: usize) -> Result<VmFd, BuildError> {
    let vm = loop {
        match kvm.create_vm() {
            Ok(vm) => break vm,
            // A signal may come while the host is setting it up.
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(BuildError::kvm("create a virtual machine")(e)),
        }
    };
    vm.set_identity_map_address(identity_map).map_err(BuildError::kvm("place its identity map"))?;
    vm.set_tss_address(tss).map_err(BuildError::kvm("place its task state"))?;
    Ok(vm)
}

fn create_irq_chip(vm: &VmFd) -> Result<(), BuildError> {
    vm.create_irq_chip().map_err(BuildError::kvm("create the interrupt controllers"))
}

/// Gives memory to the guest; its regions take slots from `first_slot` on.
fn give_memory(vm: &VmFd, memory: &GuestMemory, first_slot: u32, flags: u32) -> Result<(), BuildError> {
    for (slot, region) in (first_slot..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags,
        };
        // SAFETY: the range is a mapping that `memory` owns; the Machine drops it only after every processor thread has
        // ended, after which nothing of the guest runs, and no two slots overlap since the regions do not.
        unsafe { vm.set_user_memory_region(region) }.map_err(BuildError::kvm("take the guest's memory"))?;
    }
    Ok(())
}

fn supported_cpuid(kvm: &Kvm) -> Result<CpuId, BuildError> {
    kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(BuildError::kvm("say what its processors can do"))
}

/// Processors in their state after power-on.
fn create_vcpus(kvm: &Kvm, vm: &VmFd, supported: CpuId, cpus: u8) -> Result<Vec<VcpuFd>, BuildError> {
    let template = CpuidTemplate::new(supported, cpus, kvm.check_extension(Cap::TscDeadlineTimer));
    (0..cpus)
        .map(|id| {
            let vcpu = vm.create_vcpu(u64::from(id)).map_err(BuildError::kvm("create a processor"))?;
            // Without it the guest measures its clock itself.
            let tsc_khz = vcpu.get_tsc_khz().ok();
            let cpuid = template.for_vcpu(id, tsc_khz)?;
            vcpu.set_cpuid2(&cpuid).map_err(BuildError::kvm("set what a processor says of itself"))?;
            Ok(vcpu)
        })
        .collect()
}

/// Starts all threads and lets them go together; where one cannot be had, those that stand end without having run.
fn start_vcpus(vcpus: Vec<VcpuFd>, shared: &Arc<Shared>) -> Result<Vec<VcpuThread>, BuildError> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let mut threads = Vec::with_capacity(vcpus.len());
    for (id, vcpu) in (0u8..).zip(vcpus) {
        match VcpuThread::spawn(id, vcpu, shared.clone(), gate.clone()) {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                shared.stopper.stop(StopReason::Ended);
                drop(closed);
                threads.into_iter().for_each(VcpuThread::join);
                return Err(e.into());
            }
        }
    }
    drop(closed);
    Ok(threads)
}
