//! A whole PC: firmware at the reset vector, and everything that it looks for.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvm_bindings::{CpuId, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::VmFd;
use rustix::time::{ClockId, clock_gettime};
use vmm_sys_util::eventfd::EventFd;

use super::{
    BuildError, Common, DiskInterface, Firmware, clone_event, create_irq_chip, create_vcpus, create_vm, event,
    give_memory, rom, start_vcpus, supported_cpuid,
};
use crate::vmm::bus::{Bus, BusDevice};
use crate::vmm::config::MachineConfig;
use crate::vmm::console::ConsoleBuffer;
use crate::vmm::devices::Line;
use crate::vmm::devices::boot_timer::BootTimer;
use crate::vmm::devices::chipset::{DebugConsole, Port92, PostPort};
use crate::vmm::devices::cmos::{self, Cmos, CmosConfig};
use crate::vmm::devices::debug_text;
use crate::vmm::devices::fw_cfg::{self, FwCfg};
use crate::vmm::devices::pm::{self, ApmPorts, PowerManagement};
use crate::vmm::devices::ps2::{self, KeyboardController};
use crate::vmm::devices::pvpanic::PanicNotifier;
use crate::vmm::devices::serial::SerialPort;
use crate::vmm::huge_pages;
use crate::vmm::irq_routing::IrqRouting;
use crate::vmm::machine::hvm::{self, MemoryLayout};
use crate::vmm::machine::hvm_firmware::{self, BootPath};
use crate::vmm::memory;
use crate::vmm::pci::bus::{PciBus, PciWindows};
use crate::vmm::pci::chipset::{self, HostBridge, IsaBridge};
use crate::vmm::pci::hotplug::{self, HotplugPorts, SlotEvents};
use crate::vmm::pci::intx::SharedLine;
use crate::vmm::pci::ports::{CONFIG_PORTS, CONFIG_PORTS_LEN, ConfigPorts};
use crate::vmm::running::{Machine, NetworkCard, Running};
use crate::vmm::stop::{StopReason, Stopper};
use crate::vmm::timeline::{Mark, Timeline};
use crate::vmm::vcpu::{Shared, kernel_sign};
use crate::vmm::virtio::rng::Rng;
use crate::vmm::volumes::functions::Functions;
use crate::vmm::volumes::slots::SlotVolumes;

/// `CPUID` leaf with the number of physical address bits.
const ADDRESS_SIZES: u32 = 0x8000_0008;

pub(super) fn build(parts: &Common<'_>, firmware: Firmware) -> Result<Machine, BuildError> {
    MachineConfig::check_disks(parts.disks.len(), hvm::VOLUMES_MAX)?;
    let cpuid = supported_cpuid(parts.kvm)?;
    let layout = MemoryLayout::new(parts.memory, address_bits(&cpuid));

    let vm = Arc::new(create_vm(parts.kvm, hvm::KVM_IDENTITY_MAP, hvm::KVM_TSS)?);
    // When a PV guest's kernel starts needs no watching for.
    kernel_sign::watch(parts.kvm, &vm);
    create_irq_chip(&vm)?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(BuildError::kvm("create the timer"))?;
    let routing = IrqRouting::new(vm.clone(), hvm::TIMER_PIN);
    routing.install().map_err(|cause| BuildError::Kvm { what: "route interrupts", cause })?;
    parts.timeline.mark(Mark::VmCreated);

    let memory = memory::allocate(&layout.ranges())?;
    give_memory(&vm, &memory, 0, 0)?;
    let rom = rom::place(&vm, &memory, &firmware)?;
    parts.timeline.mark(Mark::MemoryReady);

    let stopper = Stopper::new().map_err(|cause| BuildError::Event { what: "machine", cause })?;
    let mut ports = Ports { vm: vm.clone(), bus: Bus::default() };
    let input_taken = event("console input")?;
    let serial = ports.add_serial(clone_event(&input_taken, "console input")?, parts.console.clone())?;
    let contents = hvm_firmware::contents(&layout, parts.cpus, &firmware.identity, boot_path(firmware.interface))?;
    ports.add(hvm::FW_CFG, fw_cfg::PORTS, FwCfg::new(contents, memory.clone()))?;
    let cmos = CmosConfig { memory_below_4g: layout.low_end, memory_above_4g: layout.above_4g, cpus: parts.cpus };
    ports.add(hvm::CMOS, cmos::PORTS, Cmos::new(cmos, Arc::new(wall_clock)))?;
    let debug = debug_text::watch(parts.timeline.clone(), firmware.debug.clone());
    ports.add(hvm::DEBUG_CONSOLE, 1, DebugConsole::new(debug))?;
    ports.add(hvm::BOOT_TIMER, 1, BootTimer::new(parts.timeline.clone(), parts.console.clone()))?;
    ports.add_small(&stopper, &parts.console)?;
    let power = ports.add_power(&stopper, &parts.timeline)?;

    let bus = pci_bus(&vm, &layout, &power)?;
    let functions = Functions {
        interface: firmware.interface,
        memory: memory.clone(),
        msi: Box::new(routing),
        line: pci_lines(&vm),
        cpus: parts.cpus,
        log: parts.log.clone(),
    };
    let volumes = ports.add_volumes(&bus, functions, &power)?;
    for disk in &parts.disks {
        volumes.put_before_start(disk.clone())?;
    }
    let entropy = volumes.functions().virtio(hvm::ENTROPY.device(), Box::new(Rng::new()));
    bus.add(hvm::ENTROPY, Arc::new(entropy.map_err(|cause| BuildError::Event { what: "entropy device", cause })?))?;
    let mut network = None;
    if let Some(card) = parts.network_card() {
        let handle = (card.carrier(), card.counters());
        let function = volumes.functions().virtio(hvm::NETWORK.device(), Box::new(card));
        let function = Arc::new(function.map_err(|cause| BuildError::Event { what: "network card", cause })?);
        bus.add(hvm::NETWORK, function.clone())?;
        network = Some(NetworkCard::new(handle, Box::new(move || function.config_changed())));
    }
    if let Some(port) = parts.agent_port() {
        let function = volumes.functions().virtio(hvm::AGENT_PORT.device(), Box::new(port));
        let function = function.map_err(|cause| BuildError::Event { what: "agent port", cause })?;
        bus.add(hvm::AGENT_PORT, Arc::new(function))?;
    }
    let mut mmio = Bus::default();
    rom::add_variables(&vm, &mut mmio, &firmware, parts.log.clone())?;
    bus.claim(&mut mmio, &mut ports.bus)?;
    let resets = stopper.clone();
    let config_ports = ConfigPorts::new(bus.clone(), Box::new(move || resets.stop(StopReason::Reset)));
    ports.add(CONFIG_PORTS, CONFIG_PORTS_LEN, config_ports)?;

    let shared = Shared { ports: ports.bus, mmio, stopper: stopper.clone(), timeline: parts.timeline.clone() };
    // They start as after power-on: the first at the reset vector, the others waiting for it.
    let vcpus = create_vcpus(parts.kvm, &vm, cpuid, parts.cpus)?;
    parts.timeline.mark(Mark::DevicesReady);
    huge_pages::advise(&memory);
    let vcpus = start_vcpus(vcpus, &Arc::new(shared))?;
    let mut quiet: Vec<Box<dyn Fn() + Send>> = vec![Box::new(move || bus.reset())];
    quiet.extend(firmware.variables.map(|variables| rom::keeping(variables, parts.log.clone())));
    let running = Running {
        vm,
        memory,
        rom: Some(rom),
        vcpus,
        stopper,
        serial,
        input_taken,
        power_button: Box::new(move || {
            power.press_power_button();
            Ok(())
        }),
        volumes,
        network,
        quiet,
    };
    Ok(Machine::new(running, &parts.console))
}

/// The first disk below its slot, as Open Firmware names it.
fn boot_path(interface: DiskInterface) -> BootPath {
    match interface {
        DiskInterface::Virtio => BootPath { function: "scsi", unit: "disk@0,0" },
        DiskInterface::Nvme => BootPath { function: "pci1d0f,8061", unit: "namespace@1,0" },
    }
}

fn address_bits(cpuid: &CpuId) -> u8 {
    let leaf = cpuid.as_slice().iter().find(|leaf| leaf.function == ADDRESS_SIZES);
    leaf.and_then(|leaf| u8::try_from(leaf.eax & 0xff).ok()).unwrap_or(0)
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn monotonic_nanos() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

/// A line of the interrupt controllers.
fn line(vm: &Arc<VmFd>, gsi: u32) -> Line {
    let vm = vm.clone();
    Arc::new(move |level| {
        // It fails only for a number that is none.
        let _ = vm.set_irq_line(gsi, level);
    })
}

/// Adds devices to the I/O ports.
struct Ports {
    vm: Arc<VmFd>,
    bus: Bus,
}

impl Ports {
    fn add(&mut self, base: u64, len: u64, device: impl BusDevice + 'static) -> Result<(), BuildError> {
        Ok(self.bus.claim(base, len, Arc::new(device))?)
    }

    fn add_serial(&mut self, input_taken: EventFd, console: Arc<ConsoleBuffer>) -> Result<Arc<SerialPort>, BuildError> {
        let irq = event("serial port")?;
        self.vm.register_irqfd(&irq, hvm::COM1_GSI).map_err(BuildError::kvm("connect an interrupt"))?;
        let serial = Arc::new(SerialPort::new(irq, input_taken, console));
        self.bus.claim(hvm::COM1, 8, serial.clone())?;
        Ok(serial)
    }

    fn add_small(&mut self, stopper: &Stopper, console: &Arc<ConsoleBuffer>) -> Result<(), BuildError> {
        let (keyboard, aux) = (line(&self.vm, hvm::KEYBOARD_GSI), line(&self.vm, hvm::AUX_GSI));
        self.add(hvm::KEYBOARD, ps2::PORTS, KeyboardController::new(stopper.clone(), keyboard, aux))?;
        self.add(hvm::POST, 1, PostPort::default())?;
        self.add(hvm::PORT_92, 1, Port92::new(stopper.clone()))?;
        self.add(hvm::PVPANIC, 1, PanicNotifier::new(console.clone()))
    }

    fn add_power(&mut self, stopper: &Stopper, timeline: &Arc<Timeline>) -> Result<PowerManagement, BuildError> {
        let sci = line(&self.vm, hvm::SCI_GSI);
        let power = PowerManagement::new(Arc::new(monotonic_nanos), sci, stopper.clone(), timeline.clone());
        self.add(hvm::PM_BASE, pm::PORTS, power.clone())?;
        self.add(hvm::APM, pm::APM_PORTS, ApmPorts(power.clone()))?;
        Ok(power)
    }

    /// The slots of volumes, empty, and the registers by which the guest learns of them and empties them.
    fn add_volumes(
        &mut self,
        bus: &Arc<PciBus>,
        functions: Functions,
        power: &PowerManagement,
    ) -> Result<Arc<SlotVolumes>, BuildError> {
        let power = power.clone();
        let event = move |asserted| power.set_general_event(hvm::PCI_HOTPLUG_EVENT, asserted);
        let events = Arc::new(SlotEvents::new(Box::new(event)));
        let volumes = SlotVolumes::new(bus.clone(), events.clone(), functions, hvm::VOLUME_SLOTS)
            .map_err(|cause| BuildError::Event { what: "volumes", cause })?;
        let ejecting = volumes.clone();
        let registers = HotplugPorts::new(events, Box::new(move |slot| ejecting.eject(slot)));
        self.add(hvm::PCI_HOTPLUG, hotplug::PORTS, registers)?;
        Ok(volumes)
    }
}

/// The PCI bus, with the functions that firmware knows the machine by.
fn pci_bus(vm: &Arc<VmFd>, layout: &MemoryLayout, power: &PowerManagement) -> Result<Arc<PciBus>, BuildError> {
    let windows = PciWindows {
        memory: std::iter::once(layout.pci_low()).chain(layout.pci_high()).collect(),
        io: hvm::PCI_IO.to_vec(),
    };
    let bus = Arc::new(PciBus::new(windows, vm.clone()));
    // There is memory from 0xc0000 on at all times, with the ROM's end in it.
    bus.add(hvm::HOST_BRIDGE, Arc::new(HostBridge::new(Box::new(|_| {}))))?;
    bus.add(hvm::ISA_BRIDGE, Arc::new(IsaBridge::new()))?;
    let registers = Arc::new(power.clone());
    bus.add(hvm::POWER_MANAGEMENT, Arc::new(chipset::PowerManagement::new(registers)))?;
    Ok(bus)
}

/// The line that pin INTA# of each slot hangs on.
fn pci_lines(vm: &Arc<VmFd>) -> Box<dyn Fn(u8) -> Option<Arc<SharedLine>> + Send + Sync> {
    let mut gsis = hvm::PCI_GSIS.to_vec();
    gsis.dedup();
    let shared = |gsi| {
        let line = line(vm, gsi);
        (gsi, SharedLine::new(Box::new(move |level| line(level))))
    };
    let lines: Vec<(u32, Arc<SharedLine>)> = gsis.into_iter().map(shared).collect();
    Box::new(move |slot| {
        let gsi = hvm::pci_gsi(slot, 0);
        lines.iter().find(|(of, _)| *of == gsi).map(|(_, line)| line.clone())
    })
}
