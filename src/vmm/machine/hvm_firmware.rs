//! What the HVM machine tells its firmware through fw_cfg.

use super::hvm::{self, MemoryLayout};
use super::hvm_acpi;
use crate::vmm::devices::fw_cfg::{Contents, FwCfgError};
use crate::vmm::devices::linker;
use crate::vmm::smbios::{self, Hardware, Identity};

const KEY_UUID: u16 = 0x02;
const KEY_RAM_SIZE: u16 = 0x03;
const KEY_NO_GRAPHIC: u16 = 0x04;
const KEY_CPUS: u16 = 0x05;
const KEY_NUMA: u16 = 0x0d;
const KEY_BOOT_MENU: u16 = 0x0e;
const KEY_CPUS_MAX: u16 = 0x0f;
/// Whether the timer hangs on input 2 of the I/O APIC.
const KEY_TIMER_OVERRIDE: u16 = 0x8002;

/// Sleep states 0 to 5: bit 7 says that there is one, the others its type. There are only 0 and 5.
const SYSTEM_STATES: [u8; 6] = [0x80, 0, 0, 0, 0, 0x80];

/// How firmware names the first disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPath {
    /// What kind of PCI function it is.
    pub function: &'static str,
    /// The disk behind the function.
    pub unit: &'static str,
}

/// All items of a machine that boots from the first disk.
///
/// # Errors
/// [`FwCfgError`]: a fault of this table.
pub fn contents(layout: &MemoryLayout, cpus: u8, identity: &Identity, boot: BootPath) -> Result<Contents, FwCfgError> {
    let mut contents = Contents::default();
    contents.set(KEY_UUID, *identity.uuid.as_bytes());
    contents.set(KEY_RAM_SIZE, (layout.low_end + layout.above_4g).to_le_bytes());
    contents.set(KEY_NO_GRAPHIC, 1u16.to_le_bytes());
    contents.set(KEY_CPUS, u16::from(cpus).to_le_bytes());
    contents.set(KEY_CPUS_MAX, u16::from(cpus).to_le_bytes());
    // No nodes.
    contents.set(KEY_NUMA, 0u64.to_le_bytes());
    contents.set(KEY_BOOT_MENU, 0u16.to_le_bytes());
    contents.set(KEY_TIMER_OVERRIDE, [u8::from(hvm::TIMER_PIN == 2)]);

    contents.add_file("etc/e820", e820(layout))?;
    contents.add_file("etc/system-states", SYSTEM_STATES)?;
    contents.add_file("bootorder", boot_order(boot))?;
    // A machine with nothing to boot says so and waits, instead of starting again for ever.
    contents.add_file("etc/boot-fail-wait", u32::MAX.to_le_bytes())?;
    contents.add_file("etc/sercon-port", u16::try_from(hvm::COM1).unwrap_or(0).to_le_bytes())?;

    let acpi = hvm_acpi::files(layout, cpus);
    contents.add_file(hvm_acpi::RSDP_FILE, acpi.rsdp)?;
    contents.add_file(hvm_acpi::TABLES_FILE, acpi.tables)?;
    contents.add_file(linker::SCRIPT_FILE, acpi.script)?;

    let mut memory = vec![(0, layout.low_end)];
    if layout.above_4g > 0 {
        memory.push((hvm::FOUR_GIB, layout.above_4g));
    }
    let tables = smbios::Tables::new(identity, &Hardware { cpus, memory });
    contents.add_file(smbios::TABLES_FILE, tables.bytes())?;
    contents.add_file(smbios::ANCHOR_FILE, tables.entry_point_32(0))?;
    Ok(contents)
}

/// Ranges of memory: address, length and kind, packed.
fn e820(layout: &MemoryLayout) -> Vec<u8> {
    let entry = |e: super::pv::MemoryMapEntry| {
        [&e.addr.to_le_bytes()[..], &e.len.to_le_bytes(), &(e.kind as u32).to_le_bytes()].concat()
    };
    layout.e820().into_iter().flat_map(entry).collect()
}

/// Open Firmware's name of the first disk.
fn boot_order(boot: BootPath) -> Vec<u8> {
    format!("/pci@i0cf8/{}@{:x}/{}\0", boot.function, hvm::VOLUME_SLOTS.start, boot.unit).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootPath = BootPath { function: "scsi", unit: "disk@0,0" };

    #[test]
    fn every_size_of_machine_has_its_files() {
        let identity = Identity::random("t3.micro").unwrap();
        for (memory, entries) in [(64 << 20, 2), (8 << 30, 3)] {
            let layout = MemoryLayout::new(memory, 40);
            assert_eq!(e820(&layout).len(), entries * 20);
            contents(&layout, 4, &identity, BOOT).unwrap();
        }
        assert_eq!(boot_order(BOOT), b"/pci@i0cf8/scsi@3/disk@0,0\0");
    }
}
