//! The paravirtual machine: what is where. Every address and interrupt of it stands here and nowhere else.
//!
//! No firmware, no PCI, no PIT, no legacy interrupt controller as far as the guest is told: ACPI in its
//! hardware-reduced form (ACPI 6.5, section 4.1) describes processors, virtio-mmio devices and power.

use vm_memory::GuestAddress;

/// Base memory ends here, as on a PC; above stand the tables.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Start info of a PVH boot, its module list and memory map.
pub const PVH_START_INFO: u64 = 0x6000;
/// PVH module list (one entry: the initrd).
pub const PVH_MODULES: u64 = 0x6040;
/// PVH memory map.
pub const PVH_MEMORY_MAP: u64 = 0x6100;
/// Descriptor table of the boot processor.
pub const BOOT_GDT: u64 = 0x500;
/// The "zero page" (`boot_params`) of a Linux boot.
pub const ZERO_PAGE: u64 = 0x7000;
/// Stack pointer at entry.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables of a 64-bit Linux boot: one page of level 4, one of level 3, four of level 2 (4 GiB, one to one).
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// The command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// The longest command line that has room, in bytes, its final NUL included.
pub const COMMAND_LINE_MAX: u64 = 0x1_0000;
/// ACPI tables: the RSDP first.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// Room for ACPI tables, in bytes: up to SMBIOS.
pub const ACPI_TABLES_MAX: u64 = SMBIOS_ANCHOR - ACPI_TABLES;
/// SMBIOS's entry point: systems without EFI look for it at every 16th byte from here to [`HIGH_MEMORY`] (SMBIOS 3.0, section
/// 5.2.2).
pub const SMBIOS_ANCHOR: u64 = 0xf_0000;
/// SMBIOS's structures.
pub const SMBIOS_TABLES: u64 = SMBIOS_ANCHOR + 0x20;
/// Room for them, in bytes: up to the reset vector.
pub const SMBIOS_TABLES_MAX: u64 = RESET_VECTOR - SMBIOS_TABLES;
/// Where a PC begins after a reset, in real mode. There is no firmware, but Linux jumps there to restart on a machine with
/// hardware-reduced ACPI, which it takes for one with EFI: see [`RESET_CODE`].
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Real-mode code that writes the reset register: `mov dx, POWER_PORTS + 2; mov al, 1; out dx, al; hlt; jmp hlt`.
pub const RESET_CODE: [u8; 9] = {
    let [low, high, ..] = (POWER_PORTS + 2).to_le_bytes();
    [0xba, low, high, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
};
/// Memory above the first megabyte: where kernels live.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Memory below 4 GiB ends here at the most; above it are the devices.
pub const MMIO_GAP_START: u64 = 0xc000_0000;
/// Memory goes on here.
pub const MMIO_GAP_END: u64 = 0x1_0000_0000;

/// The first virtio-mmio device; the others follow.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Room of each virtio-mmio device, in bytes.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// How many virtio-mmio devices there can be.
pub const VIRTIO_MMIO_MAX: usize = 32;
/// How many volumes there may be, beside the three other virtio devices.
pub const VOLUMES_MAX: usize = VIRTIO_MMIO_MAX - 3;

/// I/O APIC (the in-kernel one is there).
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM wants on Intel hosts for its own use (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: usize = 0xfffb_d000;
/// One page that KVM wants on Intel hosts (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// First serial port (8250 at its usual place).
pub const COM1: u64 = 0x3f8;
/// Its interrupt.
pub const COM1_GSI: u32 = 4;
/// Command port of the keyboard controller: only its reset line. Its data port stays empty, and so do the ports between
/// them, which are others': a kernel that waits for a timer bit in 0x61 waits for a one.
pub const I8042_COMMAND: u64 = 0x64;
/// Sleep control, sleep status and reset registers: one byte each.
pub const POWER_PORTS: u64 = 0x600;
/// Which sleep type means power-off: what `\_S5` says and the sleep control register gets (ACPI 6.5, section 4.8.3.7).
pub const SLEEP_TYPE_S5: u8 = 5;
/// What restarts the machine when written to the reset register.
pub const RESET_VALUE: u8 = 1;
/// Panic notifier.
pub const PVPANIC: u64 = 0x505;
/// Boot timer, beside the panic notifier: the same on both kinds of machine.
pub const BOOT_TIMER: u64 = 0x508;
/// Power button, through the generic event device.
pub const POWER_BUTTON_GSI: u32 = 5;
/// Interrupts of virtio devices: one each, and from the start again where there are more devices than interrupts.
pub const VIRTIO_GSIS: std::ops::RangeInclusive<u32> = 6..=23;

/// The address of virtio-mmio device `index`.
#[must_use]
pub fn virtio_mmio_base(index: usize) -> u64 {
    VIRTIO_MMIO_BASE + VIRTIO_MMIO_SIZE * index as u64
}

/// The interrupt of virtio-mmio device `index`.
#[must_use]
pub fn virtio_gsi(index: usize) -> u32 {
    let count = VIRTIO_GSIS.count();
    VIRTIO_GSIS.start() + u32::try_from(index % count).unwrap_or(0)
}

/// Guest memory of a size: below the device gap, and what is left above 4 GiB. `size` is in bytes.
#[must_use]
pub fn memory_ranges(size: u64) -> Vec<(GuestAddress, usize)> {
    let low = size.min(MMIO_GAP_START);
    let to_usize = |n| usize::try_from(n).unwrap_or(usize::MAX);
    let mut ranges = vec![(GuestAddress(0), to_usize(low))];
    if size > low {
        ranges.push((GuestAddress(MMIO_GAP_END), to_usize(size - low)));
    }
    ranges
}

/// What a range of the memory map is (ACPI 6.5, section 15, table 15.374; the numbers are those of e820).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Free memory.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
}

/// One range of the memory map given to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// First address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// The memory map of a machine with `size` bytes.
#[must_use]
pub fn memory_map(size: u64) -> Vec<MemoryMapEntry> {
    let entry = |addr, end: u64, kind| MemoryMapEntry { addr, len: end - addr, kind };
    let low_end = size.min(MMIO_GAP_START);
    let mut map = vec![
        entry(0, LOW_MEMORY_END, MemoryKind::Ram),
        entry(LOW_MEMORY_END, ACPI_TABLES, MemoryKind::Reserved),
        entry(ACPI_TABLES, SMBIOS_ANCHOR, MemoryKind::Acpi),
        entry(SMBIOS_ANCHOR, HIGH_MEMORY, MemoryKind::Reserved),
        entry(HIGH_MEMORY, low_end, MemoryKind::Ram),
    ];
    if size > low_end {
        map.push(entry(MMIO_GAP_END, MMIO_GAP_END + (size - low_end), MemoryKind::Ram));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_gap_goes_above_4_gib() {
        let gib = 1u64 << 30;
        assert_eq!(memory_ranges(gib), vec![(GuestAddress(0), 1 << 30)]);
        assert_eq!(memory_ranges(5 * gib), vec![(GuestAddress(0), 3 << 30), (GuestAddress(4 * gib), 2 << 30)]);
        let ram: u64 = memory_map(5 * gib).iter().filter(|e| e.kind == MemoryKind::Ram).map(|e| e.len).sum();
        assert!(5 * gib - ram <= 0x10_0000);
    }

    #[test]
    fn the_memory_map_has_no_overlaps_and_keeps_tables_out_of_free_memory() {
        let map = memory_map(6 << 30);
        for pair in map.windows(2) {
            assert!(pair[0].addr + pair[0].len <= pair[1].addr);
        }
        assert!(map.iter().any(|e| e.kind == MemoryKind::Acpi && e.addr == ACPI_TABLES));
        assert!(map.iter().any(|e| e.kind == MemoryKind::Reserved && e.addr == SMBIOS_ANCHOR));
    }

    #[test]
    fn device_windows_stay_clear_of_memory_and_the_interrupt_controllers() {
        let end = virtio_mmio_base(VIRTIO_MMIO_MAX);
        assert!(VIRTIO_MMIO_BASE >= MMIO_GAP_START && end < u64::from(IO_APIC));
        assert_eq!(virtio_gsi(0), 6);
        assert_eq!(virtio_gsi(17), 23);
        assert_eq!(virtio_gsi(18), 6);
    }
}
