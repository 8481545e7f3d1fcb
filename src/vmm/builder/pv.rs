//! A paravirtual machine: the kernel is in memory before the first instruction.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{
    BuildError, Common, DiskConfig, clone_event, create_irq_chip, create_vcpus, create_vm, event, give_memory,
    start_vcpus, supported_cpuid,
};
use crate::vmm::boot::{self, BootError, BootSource};
use crate::vmm::bus::Bus;
use crate::vmm::config::MachineConfig;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::devices::boot_timer::BootTimer;
use crate::vmm::devices::i8042::KeyboardController;
use crate::vmm::devices::power::{self, PowerRegisters};
use crate::vmm::devices::pvpanic::PanicNotifier;
use crate::vmm::devices::serial::SerialPort;
use crate::vmm::huge_pages;
use crate::vmm::machine::{pv, pv_acpi};
use crate::vmm::memory::{self, GuestMemory, MemoryError};
use crate::vmm::running::{Machine, NetworkCard, Running};
use crate::vmm::smbios::{Hardware, Identity, Tables};
use crate::vmm::stop::Stopper;
use crate::vmm::timeline::{Mark, Timeline};
use crate::vmm::vcpu::{Shared, registers};
use crate::vmm::virtio::VirtioDevice;
use crate::vmm::virtio::block::Block;
use crate::vmm::virtio::mmio::{self, MmioTransport};
use crate::vmm::virtio::rng::Rng;
use crate::vmm::volumes::fixed::{FixedVolumes, Resized};

pub(super) fn build(
    parts: &Common<'_>,
    mut boot_source: BootSource,
    identity: &Identity,
) -> Result<Machine, BuildError> {
    MachineConfig::check_disks(parts.disks.len(), pv::VOLUMES_MAX)?;
    let cpus = parts.cpus;

    let vm = Arc::new(create_vm(parts.kvm, pv::KVM_IDENTITY_MAP, pv::KVM_TSS)?);
    parts.timeline.mark(Mark::VmCreated);

    // Before the interrupt controllers: after them KVM takes some milliseconds to see that nobody uses the old map.
    let guest_memory = memory::allocate(&pv::memory_ranges(parts.memory))?;
    give_memory(&vm, &guest_memory, 0, 0)?;
    create_irq_chip(&vm)?;
    let others = 1 + usize::from(parts.network.is_some()) + usize::from(parts.agent.is_some());
    let virtio_devices = parts.disks.len() + others;
    write_tables(&guest_memory, cpus, virtio_devices)?;
    write_identity(&guest_memory, parts.memory, cpus, identity)?;
    announce_on_cmdline(&mut boot_source, virtio_devices);
    let entry = boot::load(&guest_memory, parts.memory, &boot_source, pv::ACPI_TABLES)?;
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
    let mut network = None;
    if let Some(card) = parts.network_card() {
        let handle = (card.carrier(), card.counters());
        let transport = devices.add_virtio(Box::new(card))?;
        network = Some(NetworkCard::new(handle, Box::new(move || transport.config_changed())));
    }
    if let Some(port) = parts.agent_port() {
        devices.add_virtio(Box::new(port))?;
    }
    let power_button = devices.irq("power button", pv::POWER_BUTTON_GSI)?;
    let Devices { ports, mmio, transports, .. } = devices;
    let volumes = volumes(&parts.disks, &transports)?;

    let shared = Arc::new(Shared { ports, mmio, stopper: stopper.clone(), timeline: parts.timeline.clone() });
    let vcpus = create_vcpus(parts.kvm, &vm, supported_cpuid(parts.kvm)?, cpus)?;
    for vcpu in &vcpus {
        registers::set_msrs(vcpu)?;
    }
    registers::set_entry(&vcpus[0], entry)?;
    parts.timeline.mark(Mark::DevicesReady);

    huge_pages::advise(&guest_memory);
    let threads = start_vcpus(vcpus, &shared)?;
    let running = Running {
        vm,
        memory: guest_memory,
        rom: None,
        vcpus: threads,
        stopper,
        serial,
        input_taken,
        power_button: Box::new(move || power_button.write(1)),
        volumes: Arc::new(volumes),
        network,
        quiet: transports.into_iter().map(|t| Box::new(move || t.reset()) as Box<dyn Fn() + Send>).collect(),
    };
    Ok(Machine::new(running, &parts.console))
}

/// The disks with their transports, which begin with them.
fn volumes(disks: &[DiskConfig], transports: &[Arc<MmioTransport>]) -> Result<FixedVolumes, BuildError> {
    let volume = |(disk, transport): (&DiskConfig, &Arc<MmioTransport>)| {
        let transport = transport.clone();
        (disk.clone(), Box::new(move || transport.config_changed()) as Resized)
    };
    FixedVolumes::new(disks.iter().zip(transports).map(volume).collect())
        .map_err(|cause| BuildError::Event { what: "volumes", cause })
}

fn write_tables(memory: &GuestMemory, cpus: u8, virtio_devices: usize) -> Result<(), BuildError> {
    let tables = pv_acpi::tables(pv::ACPI_TABLES, cpus, virtio_devices).map_err(BootError::TablesTooLarge)?;
    memory.write_slice(&tables, GuestAddress(pv::ACPI_TABLES)).map_err(MemoryError::from)?;
    memory.write_slice(&pv::RESET_CODE, GuestAddress(pv::RESET_VECTOR)).map_err(MemoryError::from)?;
    Ok(())
}

/// What the guest is told that it is.
fn write_identity(memory: &GuestMemory, size: u64, cpus: u8, identity: &Identity) -> Result<(), BuildError> {
    let ranges = pv::memory_ranges(size).into_iter().map(|(start, len)| (start.raw_value(), len as u64));
    let tables = Tables::new(identity, &Hardware { cpus, memory: ranges.collect() });
    let size = tables.bytes().len();
    if size as u64 > pv::SMBIOS_TABLES_MAX {
        return Err(BuildError::IdentityTooLarge(size));
    }
    let anchor = tables.entry_point_64(pv::SMBIOS_TABLES);
    memory.write_slice(&anchor, GuestAddress(pv::SMBIOS_ANCHOR)).map_err(MemoryError::from)?;
    memory.write_slice(tables.bytes(), GuestAddress(pv::SMBIOS_TABLES)).map_err(MemoryError::from)?;
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
        self.ports.claim(pv::BOOT_TIMER, 1, Arc::new(BootTimer::new(timeline.clone(), console.clone())))?;
        self.ports.claim(pv::I8042_COMMAND, 1, Arc::new(KeyboardController::new(stopper.clone())))?;
        Ok(())
    }

    fn add_virtio(&mut self, device: Box<dyn VirtioDevice>) -> Result<Arc<MmioTransport>, BuildError> {
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
        self.transports.push(transport.clone());
        Ok(transport)
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
    fn a_kernel_without_firmware_finds_who_the_instance_is() {
        let memory = memory::allocate(&pv::memory_ranges(2 << 20)).unwrap();
        let mut identity = Identity::random("t3.micro").unwrap();
        write_identity(&memory, 2 << 20, 2, &identity).unwrap();
        let mut area = vec![0; 0x1_0000];
        memory.read_slice(&mut area, GuestAddress(0xf_0000)).unwrap();
        let at = area.chunks(16).position(|line| line.starts_with(b"_SM3_")).unwrap() * 16;
        let anchor = &area[at..at + 24];
        assert_eq!(anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let tables = usize::try_from(u64::from_le_bytes(anchor[16..24].try_into().unwrap())).unwrap() - 0xf_0000;
        // The second structure, behind the first one's strings, is the system's; its UUID is at offset 8.
        let first = usize::from(area[tables + 1]);
        let strings = area[tables + first..].windows(2).position(|two| two == [0, 0]).unwrap() + 2;
        let system = &area[tables + first + strings..];
        assert_eq!((system[0], &system[8..24]), (1, &identity.uuid.to_bytes_le()[..]));
        assert!(identity.uuid.to_string().starts_with("ec2"));
        // The reset vector is left alone, whatever the identity is.
        identity.instance_type = "x".repeat(0x8000);
        let error = write_identity(&memory, 2 << 20, 2, &identity).unwrap_err();
        assert!(matches!(error, BuildError::IdentityTooLarge(size) if size > 0xffd0), "{error}");
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
