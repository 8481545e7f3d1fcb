//! A whole PC: firmware at the reset vector, and everything that it looks for.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvm_bindings::{CpuId, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::VmFd;
use rustix::time::{ClockId, clock_gettime};
use vmm_sys_util::eventfd::EventFd;

use super::{
    BuildError, Common, DiskConfig, DiskInterface, Firmware, clone_event, create_irq_chip, create_vcpus, create_vm,
    event, give_memory, rom, start_vcpus, supported_cpuid,
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
use crate::vmm::memory::{self, GuestMemory};
use crate::vmm::nvme::{self, NvmeFunction};
use crate::vmm::pci::bus::{PciBus, PciWindows};
use crate::vmm::pci::chipset::{self, HostBridge, IsaBridge};
use crate::vmm::pci::intx::{Intx, SharedLine};
use crate::vmm::pci::ports::{CONFIG_PORTS, CONFIG_PORTS_LEN, ConfigPorts};
use crate::vmm::pci::{DevFn, PciFunction};
use crate::vmm::running::{Machine, Running};
use crate::vmm::stop::{StopReason, Stopper};
use crate::vmm::timeline::{Mark, Timeline};
use crate::vmm::vcpu::{Shared, kernel_sign};
use crate::vmm::virtio::block::Block;
use crate::vmm::virtio::pci::VirtioPci;
use crate::vmm::virtio::rng::Rng;
use crate::vmm::virtio::{Log, VirtioDevice};

/// `CPUID` leaf with the number of physical address bits.
const ADDRESS_SIZES: u32 = 0x8000_0008;

pub(super) fn build(parts: &Common<'_>, firmware: Firmware) -> Result<Machine, BuildError> {
    MachineConfig::check_disks(parts.disks.len(), hvm::SLOTS_MAX)?;
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

    let mut pci = Pci::new(&vm, &layout, memory.clone(), routing);
    pci.add_chipset(&power)?;
    for disk in &parts.disks {
        match firmware.interface {
            DiskInterface::Virtio => {
                pci.add_virtio(Box::new(Block::new(disk.disk.clone(), &disk.serial, 1, parts.log.clone())))?;
            }
            DiskInterface::Nvme => pci.add_nvme(disk, parts.cpus, parts.log.clone())?,
        }
    }
    pci.add_virtio(Box::new(Rng::new()))?;
    let mut mmio = Bus::default();
    rom::add_variables(&vm, &mut mmio, &firmware, parts.log.clone())?;
    pci.bus.claim(&mut mmio, &mut ports.bus)?;
    let resets = stopper.clone();
    let config_ports = ConfigPorts::new(pci.bus.clone(), Box::new(move || resets.stop(StopReason::Reset)));
    ports.add(CONFIG_PORTS, CONFIG_PORTS_LEN, config_ports)?;

    let shared = Shared { ports: ports.bus, mmio, stopper: stopper.clone(), timeline: parts.timeline.clone() };
    // They start as after power-on: the first at the reset vector, the others waiting for it.
    let vcpus = create_vcpus(parts.kvm, &vm, cpuid, parts.cpus)?;
    parts.timeline.mark(Mark::DevicesReady);
    huge_pages::advise(&memory);
    let vcpus = start_vcpus(vcpus, &Arc::new(shared))?;
    let bus = pci.bus;
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
}

/// Adds functions to the PCI bus.
struct Pci {
    bus: Arc<PciBus>,
    memory: GuestMemory,
    routing: IrqRouting,
    /// By interrupt number.
    lines: Vec<(u32, Arc<SharedLine>)>,
    next_slot: u8,
}

impl Pci {
    fn new(vm: &Arc<VmFd>, layout: &MemoryLayout, memory: GuestMemory, routing: IrqRouting) -> Self {
        let windows = PciWindows {
            memory: std::iter::once(layout.pci_low()).chain(layout.pci_high()).collect(),
            io: hvm::PCI_IO.to_vec(),
        };
        let mut gsis = hvm::PCI_GSIS.to_vec();
        gsis.dedup();
        let shared = |gsi| {
            let line = line(vm, gsi);
            (gsi, SharedLine::new(Box::new(move |level| line(level))))
        };
        Self {
            bus: Arc::new(PciBus::new(windows, vm.clone())),
            memory,
            routing,
            lines: gsis.into_iter().map(shared).collect(),
            next_slot: hvm::FIRST_SLOT,
        }
    }

    /// The functions that firmware knows the machine by.
    fn add_chipset(&mut self, power: &PowerManagement) -> Result<(), BuildError> {
        // There is memory from 0xc0000 on at all times, with the ROM's end in it.
        self.bus.add(hvm::HOST_BRIDGE, Arc::new(HostBridge::new(Box::new(|_| {}))))?;
        self.bus.add(hvm::ISA_BRIDGE, Arc::new(IsaBridge::new()))?;
        let registers = Arc::new(power.clone());
        self.bus.add(hvm::POWER_MANAGEMENT, Arc::new(chipset::PowerManagement::new(registers)))?;
        Ok(())
    }

    /// The interrupt pin INTA# of a slot.
    fn intx(&self, slot: u8) -> Option<Arc<Intx>> {
        let gsi = hvm::pci_gsi(slot, 0);
        self.lines.iter().find(|(of, _)| *of == gsi).map(|(_, line)| Intx::new(line.clone()))
    }

    fn add(&mut self, function: Arc<dyn PciFunction>) -> Result<(), BuildError> {
        self.bus.add(DevFn::new(self.next_slot, 0), function)?;
        self.next_slot += 1;
        Ok(())
    }

    /// With a pair of queues for each processor, and two at least: OVMF's driver takes two, or none.
    fn add_nvme(&mut self, disk: &DiskConfig, cpus: u8, log: Log) -> Result<(), BuildError> {
        let identity = match disk.ephemeral {
            Some(number) => nvme::Identity::instance_store(number, &disk.serial, &disk.device),
            None => nvme::Identity::ebs(&disk.serial, &disk.device),
        };
        let (disk, memory) = (disk.disk.clone(), self.memory.clone());
        let function = NvmeFunction::new(disk, identity, memory, cpus.max(2).into(), &self.routing, log)
            .map_err(|cause| BuildError::Event { what: "NVMe controller", cause })?;
        self.add(Arc::new(function))
    }

    fn add_virtio(&mut self, device: Box<dyn VirtioDevice>) -> Result<(), BuildError> {
        let function = VirtioPci::new(device, self.memory.clone(), &self.routing, self.intx(self.next_slot))
            .map_err(|cause| BuildError::Event { what: "virtio device", cause })?;
        self.add(Arc::new(function))
    }
}
