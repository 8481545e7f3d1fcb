//! ACPI of the HVM machine, generated from the same table of addresses as the machine itself ([`super::hvm`]), in the
//! form that firmware's table loader takes.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package, PackageBuilder,
    ResourceTemplate, Scope, ZERO,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace as Registers, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;

use super::hvm::{self, MemoryLayout};
use super::hvm_hotplug;
use crate::vmm::devices::linker::{Script, Zone};
use crate::vmm::devices::{cmos, fw_cfg, pm};
use crate::vmm::pci::hotplug;

const OEM_ID: [u8; 6] = *b"AMIBOO";
const OEM_TABLE_ID: [u8; 8] = *b"AMIBOOTH";
const OEM_REVISION: u32 = 1;

/// The file of the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// The file of all other tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";

/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11): ISA devices, a keyboard controller, no VGA, no PCIe power saving.
const BOOT_ARCH: u16 = 1 | 1 << 1 | 1 << 2 | 1 << 4;
/// Latencies that say that there are no such processor states (ACPI 6.5, table 5.9).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// MPS INTI flags (ACPI 6.5, table 5.26): active high, level-triggered.
const LEVEL_HIGH: u16 = 1 | 3 << 2;

/// Where the checksum of a table is.
const CHECKSUM: u32 = 9;
/// Where the first entry of the RSDT and of the XSDT is.
const ENTRIES: u32 = 36;
/// Where the FADT points to the FACS and to the DSDT, 4 bytes each.
const FADT_FACS: u32 = 36;
const FADT_DSDT: u32 = 40;
/// Where the RSDP points to the RSDT, 4 bytes, and to the XSDT, 8 bytes; its two checksums, and what they cover.
const RSDP_RSDT: u32 = 16;
const RSDP_XSDT: u32 = 24;
const RSDP_CHECKSUMS: [(u32, u32); 2] = [(8, 20), (32, 36)];

/// Tables and the script that places them.
pub struct AcpiFiles {
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// [`crate::vmm::devices::linker::SCRIPT_FILE`].
    pub script: Vec<u8>,
}

/// The files of a machine.
#[must_use]
pub fn files(layout: &MemoryLayout, cpus: u8) -> AcpiFiles {
    let mut script = Script::default();
    script.allocate(RSDP_FILE, 16, Zone::FSegment);
    // The FACS, which comes first, lies at a multiple of 64.
    script.allocate(TABLES_FILE, 64, Zone::High);

    let mut tables = Tables::default();
    let facs = tables.append(&FACS::new());
    let dsdt = tables.append(&dsdt(layout));
    let fadt = tables.append(&fadt(facs, dsdt));
    let madt = tables.append(&madt(cpus));
    // Who knows the tables of ACPI 1.0 only, as GRUB does to switch the machine off, looks at the first of these two.
    let rsdt = tables.append(&rsdt(&[fadt, madt]));
    let xsdt = tables.append(&xsdt(&[fadt, madt]));

    for (at, size) in [(fadt + FADT_FACS, 4), (fadt + FADT_DSDT, 4)] {
        script.add_pointer(TABLES_FILE, TABLES_FILE, at, size);
    }
    for (table, size) in [(rsdt, 4), (xsdt, 8)] {
        for entry in 0..2 {
            script.add_pointer(TABLES_FILE, TABLES_FILE, table + ENTRIES + u32::from(size) * entry, size);
        }
    }
    for table in [fadt, rsdt, xsdt] {
        tables.clear(table + CHECKSUM);
        script.add_checksum(TABLES_FILE, table + CHECKSUM, table, tables.len_of(table));
    }

    let mut rsdp = bytes_of(&Rsdp::new(OEM_ID, xsdt.into()));
    if let Some(field) = rsdp.get_mut(RSDP_RSDT as usize..RSDP_RSDT as usize + 4) {
        field.copy_from_slice(&rsdt.to_le_bytes());
    }
    script.add_pointer(RSDP_FILE, TABLES_FILE, RSDP_RSDT, 4);
    script.add_pointer(RSDP_FILE, TABLES_FILE, RSDP_XSDT, 8);
    for (at, len) in RSDP_CHECKSUMS {
        if let Some(byte) = rsdp.get_mut(at as usize) {
            *byte = 0;
        }
        script.add_checksum(RSDP_FILE, at, 0, len);
    }
    AcpiFiles { rsdp, tables: tables.0, script: script.into_bytes() }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Tables one after the other.
#[derive(Default)]
struct Tables(Vec<u8>);

impl Tables {
    /// Adds a table and gives its offset.
    fn append(&mut self, table: &dyn Aml) -> u32 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let offset = self.0.len();
        table.to_aml_bytes(&mut self.0);
        u32::try_from(offset).unwrap_or(u32::MAX)
    }

    fn clear(&mut self, at: u32) {
        if let Some(byte) = self.0.get_mut(at as usize) {
            *byte = 0;
        }
    }

    /// The length of the table at an offset, from its header.
    fn len_of(&self, table: u32) -> u32 {
        let field = self.0.get(table as usize + 4..table as usize + 8);
        field.and_then(|f| f.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
}

fn port(base: u64) -> u32 {
    u32::try_from(base).unwrap_or(u32::MAX)
}

fn register(base: u64, bits: u8, access: AccessSize) -> GAS {
    GAS::new(Registers::SystemIo, bits, 0, access, base)
}

fn fadt(facs: u32, dsdt: u32) -> impl Aml {
    let (event, control, timer) =
        (hvm::PM_BASE + pm::PM1_EVENT, hvm::PM_BASE + pm::PM1_CONTROL, hvm::PM_BASE + pm::PM_TIMER);
    let general_events = hvm::PM_BASE + pm::GENERAL_EVENTS;
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_32(dsdt)
        .firmware_ctrl_32(facs)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // There is no sleep button, and no waking by the clock. The power button is fixed hardware.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    fadt.sci_int = u16::try_from(hvm::SCI_GSI).unwrap_or(0).into();
    fadt.smi_cmd = port(hvm::APM).into();
    fadt.acpi_enable = pm::ACPI_ENABLE;
    fadt.acpi_disable = pm::ACPI_DISABLE;
    (fadt.pm1a_evt_blk, fadt.pm1_evt_len) = (port(event).into(), 4);
    (fadt.pm1a_cnt_blk, fadt.pm1_cnt_len) = (port(control).into(), 2);
    (fadt.pm_tmr_blk, fadt.pm_tmr_len) = (port(timer).into(), 4);
    (fadt.gpe0_blk, fadt.gpe0_blk_len) = (port(general_events).into(), pm::GENERAL_EVENTS_LEN);
    fadt.x_pm1a_evt_blk = register(event, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = register(control, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = register(timer, 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = register(general_events, 8 * pm::GENERAL_EVENTS_LEN, AccessSize::ByteAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = cmos::CENTURY;
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = register(hvm::RESET_CONTROL, 8, AccessSize::ByteAccess);
    fadt.reset_value = hvm::RESET_VALUE;
    fadt.finalize()
}

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut table = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(body);
    table.update_checksum();
    table
}

fn rsdt(tables: &[u32]) -> Sdt {
    let entries: Vec<u8> = tables.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    table(*b"RSDT", 1, &entries)
}

fn xsdt(tables: &[u32]) -> Sdt {
    let entries: Vec<u8> = tables.iter().flat_map(|offset| u64::from(*offset).to_le_bytes()).collect();
    table(*b"XSDT", 1, &entries)
}

/// The interrupt controllers (ACPI 6.5, section 5.2.12).
fn madt(cpus: u8) -> Sdt {
    /// There is a pair of legacy interrupt controllers.
    const PCAT_COMPAT: u32 = 1;
    let mut body = hvm::LOCAL_APIC.to_le_bytes().to_vec();
    body.extend(PCAT_COMPAT.to_le_bytes());
    for id in 0..cpus {
        ProcessorLocalApic::new(id, id, EnabledStatus::Enabled).to_aml_bytes(&mut body);
    }
    IoApic::new(0, hvm::IO_APIC, 0).to_aml_bytes(&mut body);
    source_override(&mut body, 0, hvm::TIMER_PIN, 0);
    source_override(&mut body, hvm::SCI_GSI, hvm::SCI_GSI, LEVEL_HIGH);
    let mut pci = hvm::PCI_GSIS.to_vec();
    pci.dedup();
    for gsi in pci {
        source_override(&mut body, gsi, gsi, LEVEL_HIGH);
    }
    // Non-maskable interrupts come to LINT1 of every processor (section 5.2.12.7).
    body.extend([4, 6, 0xff, 0, 0, 1]);
    table(*b"APIC", 3, &body)
}

/// An interrupt source override (ACPI 6.5, section 5.2.12.5).
fn source_override(body: &mut Vec<u8>, irq: u32, gsi: u32, flags: u16) {
    body.extend([2, 10, 0, u8::try_from(irq).unwrap_or(0)]);
    body.extend(gsi.to_le_bytes());
    body.extend(flags.to_le_bytes());
}

fn dsdt(layout: &MemoryLayout) -> Sdt {
    let mut aml = Vec::new();
    let s5 = [&pm::SLEEP_TYPE_S5 as &dyn Aml; 2].to_vec();
    Name::new("_S5_".into(), &Package::new(s5)).to_aml_bytes(&mut aml);
    pci_root(&mut aml, layout);
    isa_devices(&mut aml);
    hvm_hotplug::slots(&mut aml);
    table(*b"DSDT", 2, &aml)
}

fn pci_root(aml: &mut Vec<u8>, layout: &MemoryLayout) {
    let low = layout.pci_low();
    let high = layout.pci_high().map(|window| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, window.start, window.end - 1, None)
    });
    let memory = |window: Range<u64>| {
        let last = port(window.end - 1);
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, port(window.start), last, None)
    };
    let bus = AddressSpace::new_bus_number(0u16, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let (ports_low, ports_high) =
        (AddressSpace::new_io(0u16, 0xcf7, None), AddressSpace::new_io(0xd00u16, 0xffff, None));
    let (vga, low) = (memory(hvm::VGA_WINDOW), memory(low));
    let mut resources: Vec<&dyn Aml> = vec![&bus, &config, &ports_low, &ports_high, &vga, &low];
    resources.extend(high.as_ref().map(|window| window as &dyn Aml));
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "PCI0".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
                &Name::new("_UID".into(), &ZERO),
                &Name::new("_ADR".into(), &ZERO),
                &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
                &Name::new("_PRT".into(), &interrupt_routes()),
            ],
        )],
    )
    .to_aml_bytes(aml);
}

/// The interrupt of each pin of each slot (ACPI 6.5, section 6.2.13), wired to the I/O APIC.
fn interrupt_routes() -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for slot in 1..32u8 {
        for pin in 0..4u8 {
            let address = u32::from(slot) << 16 | 0xffff;
            routes.add_element(&Package::new(vec![&address, &pin, &ZERO, &hvm::pci_gsi(slot, pin)]));
        }
    }
    routes
}

/// Devices behind the ISA bridge.
fn isa_devices(aml: &mut Vec<u8>) {
    let io = |base: u64, len: u8| {
        let base = u16::try_from(base).unwrap_or(u16::MAX);
        IO::new(base, base, 1, len)
    };
    let len = |ports: u64| u8::try_from(ports).unwrap_or(u8::MAX);
    let edge = |gsi| Interrupt::new(true, true, false, false, gsi);
    let device = |aml: &mut Vec<u8>, name: &str, hid: &dyn Aml, resources: Vec<&dyn Aml>| {
        Scope::new(
            "_SB_.PCI0.ISA_".into(),
            vec![&Device::new(
                name.into(),
                vec![
                    &Name::new("_HID".into(), hid),
                    &Name::new("_UID".into(), &ZERO),
                    &Name::new("_STA".into(), &0x0fu8),
                    &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
                ],
            )],
        )
        .to_aml_bytes(aml);
    };
    let address = u32::from(hvm::ISA_BRIDGE.device()) << 16 | u32::from(hvm::ISA_BRIDGE.function());
    Scope::new("_SB_.PCI0".into(), vec![&Device::new("ISA_".into(), vec![&Name::new("_ADR".into(), &address)])])
        .to_aml_bytes(aml);
    let pnp = EISAName::new;
    device(aml, "COM1", &pnp("PNP0501"), vec![&io(hvm::COM1, 8), &edge(hvm::COM1_GSI)]);
    device(
        aml,
        "KBD_",
        &pnp("PNP0303"),
        vec![&io(hvm::KEYBOARD, 1), &io(hvm::KEYBOARD + 4, 1), &edge(hvm::KEYBOARD_GSI)],
    );
    device(aml, "RTC_", &pnp("PNP0B00"), vec![&io(hvm::CMOS, len(cmos::PORTS)), &edge(hvm::CMOS_GSI)]);
    device(aml, "PEVT", &"QEMU0001", vec![&io(hvm::PVPANIC, 1)]);
    // What no driver should take for free.
    device(
        aml,
        "MBRD",
        &pnp("PNP0C02"),
        vec![
            &io(hvm::PM_BASE, len(pm::PORTS)),
            &io(hvm::APM, len(pm::APM_PORTS)),
            &io(hvm::FW_CFG, len(fw_cfg::PORTS)),
            &io(hvm::DEBUG_CONSOLE, 1),
            &io(hvm::BOOT_TIMER, 1),
            &io(hvm::PCI_HOTPLUG, len(hotplug::PORTS)),
        ],
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::vmm::devices::linker::model;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, b| sum.wrapping_add(*b))
    }

    fn len_of(table: &[u8]) -> usize {
        usize::try_from(number(table, 4, 4)).unwrap()
    }

    fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
        let mut value = [0; 8];
        value[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(value)
    }

    #[test]
    fn firmware_places_the_tables_so_that_every_pointer_lands_and_every_sum_is_zero() {
        for (memory, cpus) in [(64 << 20, 1), (2 << 30, 4), (3 << 30, 8), (9 << 30, 254)] {
            let files = files(&MemoryLayout::new(memory, 40), cpus);
            let contents = BTreeMap::from([(RSDP_FILE.to_owned(), files.rsdp), (TABLES_FILE.to_owned(), files.tables)]);
            let placed = model::run(&files.script, &contents);
            let (rsdp, _) = &placed[RSDP_FILE];
            let (tables, base) = &placed[TABLES_FILE];
            let table = |addr: u64, signature: &[u8; 4]| {
                let at = usize::try_from(addr - base).unwrap();
                let bytes = &tables[at..at + len_of(&tables[at..])];
                assert_eq!(&bytes[..4], signature);
                bytes
            };
            assert_eq!(&rsdp[..8], b"RSD PTR ");
            assert_eq!((sum(&rsdp[..20]), sum(&rsdp[..36])), (0, 0));
            let xsdt = table(number(rsdp, 24, 8), b"XSDT");
            let rsdt = table(number(rsdp, 16, 4), b"RSDT");
            let fadt = table(number(xsdt, 36, 8), b"FACP");
            let madt = table(number(xsdt, 44, 8), b"APIC");
            // The same ones, as ACPI 1.0 lists them.
            assert_eq!([number(rsdt, 36, 4), number(rsdt, 40, 4)], [number(xsdt, 36, 8), number(xsdt, 44, 8)]);
            let dsdt = table(number(fadt, 40, 4), b"DSDT");
            let facs = number(fadt, 36, 4);
            table(facs, b"FACS");
            assert!(facs.is_multiple_of(64));
            for bytes in [rsdt, xsdt, fadt, madt, dsdt] {
                assert_eq!(sum(bytes), 0);
            }
            assert_eq!((rsdt.len(), xsdt.len()), (44, 52));
            assert_eq!(madt.len(), 44 + 8 * usize::from(cpus) + 12 + 4 * 10 + 6);
            assert_eq!(number(fadt, 76, 4), hvm::PM_BASE + 8, "PM timer");
        }
    }

    #[test]
    fn the_root_bridge_has_its_windows_and_routes() {
        let dsdt = bytes_of(&dsdt(&MemoryLayout::new(5 << 30, 40)));
        let count = |what: &[u8]| dsdt.windows(what.len()).filter(|w| *w == what).count();
        assert_eq!(count(b"_PRT"), 1);
        assert_eq!(count(b"_CRS"), 6);
        assert_eq!(count(&(6u64 << 30).to_le_bytes()), 1, "the high window begins above memory");
        assert_eq!(count(&0xfebf_ffffu32.to_le_bytes()), 1);
    }
}
