//! Building a paravirtual machine, step by step.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::boot::{self, BootError, BootSource};
use super::bus::{Bus, BusError};
use super::config::{ConfigError, MachineConfig};
use super::console::ConsoleBuffer;
use super::devices::i8042::KeyboardController;
use super::devices::power::{self, PowerRegisters};
use super::devices::pvpanic::PanicNotifier;
use super::devices::serial::SerialPort;
use super::machine::{pv, pv_acpi};
use super::memory::{self, GuestMemory, MemoryError};
use super::running::Machine;
use super::stop::{StopReason, Stopper};
use super::timeline::{Mark, Timeline};
use super::vcpu::cpuid::CpuidTemplate;
use super::vcpu::{Shared, VcpuError, VcpuThread, registers};
use super::virtio::block::Block;
use super::virtio::mmio::{self, MmioTransport};
use super::virtio::rng::Rng;
use super::virtio::{ActivateError, Log, VirtioDevice};
use crate::disk::Disk;

/// A disk and its serial number.
#[derive(Clone)]
pub struct DiskConfig {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Serial number: at most 20 bytes.
    pub serial: String,
}

/// All that a machine is made of, opened and ready.
pub struct Parts<'a> {
    /// KVM.
    pub kvm: &'a Kvm,
    /// What to boot.
    pub boot: BootSource,
    /// Disks, in the order in which the guest sees them.
    pub disks: Vec<DiskConfig>,
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
    /// A processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// Two devices at one address: a fault of the address map.
    #[error("the machine's address map: {0}")]
    Bus(#[from] BusError),
    /// A device.
    #[error(transparent)]
    Device(#[from] ActivateError),
}

impl BuildError {
    fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |e| Self::Kvm { what, cause: io::Error::from_raw_os_error(e.errno()) }
    }
}

fn event(what: &'static str) -> Result<EventFd, BuildError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(|cause| BuildError::Event { what, cause })
}

fn clone_event(event: &EventFd, what: &'static str) -> Result<EventFd, BuildError> {
    event.try_clone().map_err(|cause| BuildError::Event { what, cause })
}

/// Builds a paravirtual machine and starts it.
///
/// # Errors
/// [`BuildError`]; nothing of the machine is left then.
pub fn build_pv(config: MachineConfig, parts: Parts<'_>) -> Result<Machine, BuildError> {
    let kvm_max = u32::try_from(parts.kvm.get_max_vcpus()).unwrap_or(u32::MAX);
    config.check(crate::host::memory::HostMemory::read(), kvm_max)?;
    MachineConfig::check_disks(parts.disks.len())?;
    let cpus = u8::try_from(config.cpus).map_err(|_| ConfigError::TooManyCpus { asked: config.cpus, max: kvm_max })?;

    let vm = create_vm(parts.kvm)?;
    parts.timeline.mark(Mark::VmCreated);

    // Before the interrupt controllers: after them KVM takes some milliseconds to see that nobody uses the old map.
    let guest_memory = create_memory(&vm, config.memory)?;
    vm.create_irq_chip().map_err(BuildError::kvm("create the interrupt controllers"))?;
    let virtio_devices = parts.disks.len() + 1;
    write_tables(&guest_memory, cpus, virtio_devices)?;
    let mut boot_source = parts.boot;
    announce_on_cmdline(&mut boot_source, virtio_devices);
    let entry = boot::load(&guest_memory, config.memory, &boot_source, pv::ACPI_TABLES)?;
    parts.timeline.mark(Mark::MemoryReady);

    let stopper = Stopper::new().map_err(|cause| BuildError::Event { what: "machine", cause })?;
    let mut devices =
        Devices { vm: &vm, memory: &guest_memory, ports: Bus::default(), mmio: Bus::default(), transports: Vec::new() };
    let input_taken = event("console input")?;
    let serial = devices.add_serial(clone_event(&input_taken, "console input")?, parts.console.clone())?;
    devices.add_power(&stopper, &parts.timeline, &parts.console)?;
    for disk in &parts.disks {
        devices.add_virtio(Box::new(Block::new(disk.disk.clone(), &disk.serial, 1, parts.log.clone())))?;
    }
    devices.add_virtio(Box::new(Rng::new()))?;
    let power_button = devices.irq("power button", pv::POWER_BUTTON_GSI)?;
    let Devices { ports, mmio, transports, .. } = devices;

    let shared = Arc::new(Shared { ports, mmio, stopper: stopper.clone(), timeline: parts.timeline.clone() });
    let vcpus = create_vcpus(parts.kvm, &vm, cpus)?;
    registers::set_entry(&vcpus[0], entry)?;
    parts.timeline.mark(Mark::DevicesReady);

    let threads = start_vcpus(vcpus, &shared)?;
    Ok(Machine::new(vm, guest_memory, threads, stopper, serial, input_taken, power_button, transports, &parts.console))
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, BuildError> {
    let vm = loop {
        match kvm.create_vm() {
            Ok(vm) => break vm,
            // A signal may come while the host is setting it up.
            Err(e) if e.errno() == libc::EINTR => {}
            Err(e) => return Err(BuildError::kvm("create a virtual machine")(e)),
        }
    };
    vm.set_identity_map_address(pv::KVM_IDENTITY_MAP).map_err(BuildError::kvm("place its identity map"))?;
    vm.set_tss_address(pv::KVM_TSS).map_err(BuildError::kvm("place its task state"))?;
    Ok(vm)
}

fn create_memory(vm: &VmFd, size: u64) -> Result<GuestMemory, BuildError> {
    let memory = memory::allocate(&pv::memory_ranges(size))?;
    for (slot, region) in memory.iter().enumerate() {
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the range is a mapping that `memory` owns; the Machine drops it only after every processor thread has
        // ended and together with the VM, and no two slots overlap since the regions do not.
        unsafe { vm.set_user_memory_region(region) }.map_err(BuildError::kvm("take the guest's memory"))?;
    }
    Ok(memory)
}

fn write_tables(memory: &GuestMemory, cpus: u8, virtio_devices: usize) -> Result<(), BuildError> {
    let tables = pv_acpi::tables(pv::ACPI_TABLES, cpus, virtio_devices).map_err(BootError::TablesTooLarge)?;
    memory.write_slice(&tables, GuestAddress(pv::ACPI_TABLES)).map_err(MemoryError::from)?;
    memory.write_slice(&pv::RESET_CODE, GuestAddress(pv::RESET_VECTOR)).map_err(MemoryError::from)?;
    Ok(())
}

/// For kernels that take it, names the virtio devices on the command line as well as in ACPI, where there is room.
fn announce_on_cmdline(boot: &mut BootSource, virtio_devices: usize) {
    use std::fmt::Write;
    if !boot.takes_mmio_devices {
        return;
    }
    let mut words = String::new();
    for index in 0..virtio_devices {
        let (size, base, gsi) = (pv::VIRTIO_MMIO_SIZE >> 10, pv::virtio_mmio_base(index), pv::virtio_gsi(index));
        // Writing to a String does not fail.
        let _ = write!(words, "virtio_mmio.device={size}K@{base:#x}:{gsi} ");
    }
    // In front, where no "--" makes them the init's. The kernel finds the devices through ACPI as well.
    if boot.cmdline.len() + words.len() <= boot.cmdline_limit as usize {
        boot.cmdline.insert_str(0, &words);
    }
}

fn create_vcpus(kvm: &Kvm, vm: &VmFd, cpus: u8) -> Result<Vec<VcpuFd>, BuildError> {
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(BuildError::kvm("say what its processors can do"))?;
    let template = CpuidTemplate::new(supported, cpus, kvm.check_extension(Cap::TscDeadlineTimer));
    (0..cpus)
        .map(|id| {
            let vcpu = vm.create_vcpu(u64::from(id)).map_err(BuildError::kvm("create a processor"))?;
            // Without it the guest measures its clock itself.
            let tsc_khz = vcpu.get_tsc_khz().ok();
            let cpuid = template.for_vcpu(id, tsc_khz)?;
            vcpu.set_cpuid2(&cpuid).map_err(BuildError::kvm("set what a processor says of itself"))?;
            registers::set_msrs(&vcpu)?;
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

/// Adds devices to the address map.
struct Devices<'a> {
    vm: &'a VmFd,
    memory: &'a GuestMemory,
    ports: Bus,
    mmio: Bus,
    transports: Vec<Arc<MmioTransport>>,
}

impl Devices<'_> {
    /// An event that raises an interrupt line.
    fn irq(&self, what: &'static str, gsi: u32) -> Result<EventFd, BuildError> {
        let irq = event(what)?;
        self.vm.register_irqfd(&irq, gsi).map_err(BuildError::kvm("connect an interrupt"))?;
        Ok(irq)
    }

    fn add_serial(&mut self, input_taken: EventFd, console: Arc<ConsoleBuffer>) -> Result<Arc<SerialPort>, BuildError> {
        let irq = self.irq("serial port", pv::COM1_GSI)?;
        let serial = Arc::new(SerialPort::new(irq, input_taken, console));
        self.ports.claim(pv::COM1, 8, serial.clone())?;
        Ok(serial)
    }

    fn add_power(
        &mut self,
        stopper: &Stopper,
        timeline: &Arc<Timeline>,
        console: &Arc<ConsoleBuffer>,
    ) -> Result<(), BuildError> {
        let registers = PowerRegisters::new(stopper.clone(), timeline.clone());
        self.ports.claim(pv::POWER_PORTS, power::REGISTERS, Arc::new(registers))?;
        self.ports.claim(pv::PVPANIC, 1, Arc::new(PanicNotifier::new(console.clone())))?;
        self.ports.claim(pv::I8042_COMMAND, 1, Arc::new(KeyboardController::new(stopper.clone())))?;
        Ok(())
    }

    fn add_virtio(&mut self, device: Box<dyn VirtioDevice>) -> Result<(), BuildError> {
        let index = self.transports.len();
        let base = pv::virtio_mmio_base(index);
        let irq = self.irq("virtio device", pv::virtio_gsi(index))?;
        let transport = MmioTransport::new(device, self.memory.clone(), irq)
            .map_err(|cause| BuildError::Event { what: "virtio device", cause })?;
        for (queue, kick) in (0u32..).zip(transport.queue_kicks()) {
            let notify = IoEventAddress::Mmio(base + mmio::QUEUE_NOTIFY);
            self.vm
                .register_ioevent(kick, &notify, queue)
                .map_err(BuildError::kvm("connect a queue's notification"))?;
        }
        let transport = Arc::new(transport);
        self.mmio.claim(base, pv::VIRTIO_MMIO_SIZE, transport.clone())?;
        self.transports.push(transport);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::boot::KernelImage;

    fn announced(cmdline: &str, cmdline_limit: u32, takes_mmio_devices: bool) -> String {
        let mut boot = BootSource {
            kernel: tempfile::tempfile().unwrap(),
            image: KernelImage::BzImage { is_64_bit: true },
            initrd: None,
            cmdline: cmdline.into(),
            cmdline_limit,
            takes_mmio_devices,
        };
        announce_on_cmdline(&mut boot, 2);
        boot.cmdline
    }

    #[test]
    fn devices_are_named_for_kernels_that_take_it_and_where_there_is_room() {
        let named = "virtio_mmio.device=4K@0xd0000000:6 virtio_mmio.device=4K@0xd0001000:7 ro -- single";
        assert_eq!(announced("ro -- single", 2047, true), named);
        assert_eq!(announced("ro -- single", u32::try_from(named.len()).unwrap(), true), named);
        for (limit, takes) in [(u32::try_from(named.len()).unwrap() - 1, true), (2047, false), (0, true)] {
            assert_eq!(announced("ro -- single", limit, takes), "ro -- single");
        }
    }
}
