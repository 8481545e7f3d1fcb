//! ACPI of the paravirtual machine, generated from the same table of addresses as the machine itself ([`super::pv`]).

use acpi_tables::aml::{
    self, Arg, Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use super::pv;

const OEM_ID: [u8; 6] = *b"AMIBOO";
const OEM_TABLE_ID: [u8; 8] = *b"AMIBOOTP";
const OEM_REVISION: u32 = 1;

/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11): no VGA, no CMOS clock; the bit for a keyboard controller stays clear, so
/// that the kernel does not spend half a second looking for one.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;

/// All ACPI tables of a machine, one after the other as they lie in memory from `base`; the RSDP is the first.
///
/// # Errors
/// The size that was needed, where it is more than [`pv::ACPI_TABLES_MAX`].
pub fn tables(base: u64, cpus: u8, virtio_devices: usize) -> Result<Vec<u8>, usize> {
    let mut out = Appender { base, bytes: vec![0; Rsdp::len().next_multiple_of(16)] };
    let dsdt = out.append(&dsdt(virtio_devices));
    let fadt = out.append(&fadt(dsdt));
    let madt = out.append(&madt(cpus));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = out.append(&xsdt);
    let rsdp = bytes_of(&Rsdp::new(OEM_ID, xsdt));
    out.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    if out.bytes.len() as u64 > pv::ACPI_TABLES_MAX {
        return Err(out.bytes.len());
    }
    Ok(out.bytes)
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

struct Appender {
    base: u64,
    bytes: Vec<u8>,
}

impl Appender {
    /// Adds a table and gives its address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        let addr = self.base + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        addr
    }
}

fn power_register(index: u64) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, pv::POWER_PORTS + index)
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        .flag(Flags::ResetRegSup)
        // Both buttons are devices or absent, not fixed hardware.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.sleep_control_reg = power_register(0);
    fadt.sleep_status_reg = power_register(1);
    fadt.reset_reg = power_register(2);
    fadt.reset_value = pv::RESET_VALUE;
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.finalize()
}

fn madt(cpus: u8) -> impl Aml {
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, LocalInterruptController::Address(pv::LOCAL_APIC));
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    // The I/O APIC's id only has to differ from the processors'.
    madt.add_structure(IoApic::new(cpus, pv::IO_APIC, 0));
    madt
}

fn dsdt(virtio_devices: usize) -> Sdt {
    let mut aml = Vec::new();
    Name::new("_S5_".into(), &Package::new(vec![&pv::SLEEP_TYPE_S5])).to_aml_bytes(&mut aml);
    serial_port(&mut aml);
    power_button(&mut aml);
    panic_notifier(&mut aml);
    for index in 0..virtio_devices {
        virtio_mmio(&mut aml, index);
    }
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&aml);
    dsdt.update_checksum();
    dsdt
}

/// An interrupt line as every device here has it: consumer, edge-triggered, active high.
fn interrupt(gsi: u32, shared: bool) -> Interrupt {
    Interrupt::new(true, true, false, shared, gsi)
}

fn in_system_bus(device: &Device<'_>, sink: &mut dyn AmlSink) {
    Scope::new("_SB_".into(), vec![device]).to_aml_bytes(sink);
}

fn port(base: u64, len: u8) -> IO {
    let base = u16::try_from(base).unwrap_or(u16::MAX);
    IO::new(base, base, 0, len)
}

fn serial_port(sink: &mut Vec<u8>) {
    in_system_bus(
        &Device::new(
            "COM1".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0501")),
                &Name::new("_UID".into(), &aml::ZERO),
                &Name::new("_DDN".into(), &"COM1"),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![&interrupt(pv::COM1_GSI, false), &port(pv::COM1, 8)]),
                ),
            ],
        ),
        sink,
    );
}

/// The power button and the generic event device that speaks for it (ACPI 6.5, section 5.6.9).
fn power_button(sink: &mut Vec<u8>) {
    in_system_bus(
        &Device::new(
            "PWRB".into(),
            vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C")), &Name::new("_UID".into(), &aml::ZERO)],
        ),
        sink,
    );
    in_system_bus(
        &Device::new(
            "GED_".into(),
            vec![
                &Name::new("_HID".into(), &"ACPI0013"),
                &Name::new("_UID".into(), &aml::ZERO),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt(pv::POWER_BUTTON_GSI, false)])),
                &Method::new(
                    "_EVT".into(),
                    1,
                    true,
                    vec![&If::new(
                        &Equal::new(&Arg(0), &pv::POWER_BUTTON_GSI),
                        // 0x80: the button was pressed (section 5.6.6).
                        vec![&Notify::new(&Path::new("\\_SB_.PWRB"), &0x80u8)],
                    )],
                ),
            ],
        ),
        sink,
    );
}

fn panic_notifier(sink: &mut Vec<u8>) {
    in_system_bus(
        &Device::new(
            "PEVT".into(),
            vec![
                &Name::new("_HID".into(), &"QEMU0001"),
                &Name::new("_STA".into(), &0x0fu8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port(pv::PVPANIC, 1)])),
            ],
        ),
        sink,
    );
}

fn virtio_mmio(sink: &mut Vec<u8>, index: usize) {
    let name = format!("VR{index:02}");
    let uid = u32::try_from(index).unwrap_or(u32::MAX);
    let base = u32::try_from(pv::virtio_mmio_base(index)).unwrap_or(u32::MAX);
    let size = u32::try_from(pv::VIRTIO_MMIO_SIZE).unwrap_or(u32::MAX);
    in_system_bus(
        &Device::new(
            name.as_str().into(),
            vec![
                &Name::new("_HID".into(), &"LNRO0005"),
                &Name::new("_UID".into(), &uid),
                // The device sees what the processors' caches hold.
                &Name::new("_CCA".into(), &aml::ONE),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![
                        &Memory32Fixed::new(true, base, size),
                        &interrupt(pv::virtio_gsi(index), true),
                    ]),
                ),
            ],
        ),
        sink,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, b| sum.wrapping_add(*b))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The table at a guest address, its length taken from its header.
    fn table(all: &[u8], base: u64, addr: u64) -> &[u8] {
        let at = usize::try_from(addr - base).unwrap();
        let len = u32::from_le_bytes(all[at + 4..at + 8].try_into().unwrap()) as usize;
        &all[at..at + len]
    }

    #[test]
    fn every_table_is_found_from_the_rsdp_and_sums_to_zero() {
        let base = pv::ACPI_TABLES;
        let all = tables(base, 4, 3).unwrap();
        assert_eq!(&all[..8], b"RSD PTR ");
        assert_eq!((sum(&all[..20]), sum(&all[..36])), (0, 0));
        let xsdt = table(&all, base, u64_at(&all, 24));
        assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
        let fadt = table(&all, base, u64_at(xsdt, 36));
        assert_eq!((&fadt[..4], sum(fadt)), (&b"FACP"[..], 0));
        let madt = table(&all, base, u64_at(xsdt, 44));
        assert_eq!((&madt[..4], sum(madt)), (&b"APIC"[..], 0));
        assert_eq!(madt.len(), 44 + 4 * 8 + 12);
        let dsdt = table(&all, base, u64_at(fadt, 140));
        assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
        assert_eq!(dsdt.windows(8).filter(|w| *w == b"LNRO0005").count(), 3);
    }

    #[test]
    fn the_largest_machine_has_room() {
        assert!(tables(pv::ACPI_TABLES, 254, pv::VIRTIO_MMIO_MAX).is_ok());
    }
}
