//! The HVM machine: what is where. Every address and interrupt of it stands here and nowhere else.
//!
//! A PC with the 82441FX and 82371 ("440FX", "PIIX") chipset, as firmware knows it: PIC, PIT and I/O APIC in the kernel,
//! one PCI bus, and the small devices of an ISA bus.

use std::ops::Range;

use vm_memory::GuestAddress;

use super::pv::{MemoryKind, MemoryMapEntry};
use crate::vmm::pci::DevFn;

/// Base memory ends here: above lies the window of a display adapter, of which there is none.
pub const VGA_WINDOW: Range<u64> = 0xa_0000..0xc_0000;
/// The end of the firmware's ROM is seen here too, in memory that can be written to.
pub const LOW_ROM: Range<u64> = 0xe_0000..0x10_0000;
/// Memory below 4 GiB ends here at the most.
pub const LOW_MEMORY_MAX: u64 = 0xc000_0000;
/// PCI addresses below 4 GiB begin no lower than here: that is where firmware begins too.
const PCI_MEMORY_FIRST: u64 = 0x8000_0000;
/// PCI addresses below 4 GiB end here.
const PCI_MEMORY_END: u64 = 0xfec0_0000;
/// Memory goes on here, and the ROM ends.
pub const FOUR_GIB: u64 = 0x1_0000_0000;
/// The most that firmware and its variables have together, in bytes: there is nothing else in that range.
pub const ROM_MAX: u64 = 16 << 20;
/// The firmware's memory slot in KVM: after those of memory, of which there are at most three.
pub const ROM_SLOT: u32 = 8;
/// The memory slot of its variables.
pub const VARIABLES_SLOT: u32 = 9;
/// PCI addresses above memory begin at a multiple of this.
const PCI_HIGH_ALIGN: u64 = 1 << 30;

/// I/O APIC (the in-kernel one is there).
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page that KVM wants on Intel hosts (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// Three pages that KVM wants on Intel hosts for its own use (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: usize = 0xfeff_d000;
/// Both of these.
const KVM_PAGES: Range<u64> = 0xfeff_c000..0xff00_0000;

/// Keyboard controller: data, and four ports on, command.
pub const KEYBOARD: u64 = 0x60;
/// Clock and its memory.
pub const CMOS: u64 = 0x70;
/// POST codes.
pub const POST: u64 = 0x80;
/// Fast reset.
pub const PORT_92: u64 = 0x92;
/// APM control and status.
pub const APM: u64 = 0xb2;
/// First serial port.
pub const COM1: u64 = 0x3f8;
/// Debug console.
pub const DEBUG_CONSOLE: u64 = 0x402;
/// Panic notifier.
pub const PVPANIC: u64 = 0x505;
/// Boot timer, beside the panic notifier: the same on both kinds of machine.
pub const BOOT_TIMER: u64 = 0x508;
/// Firmware configuration.
pub const FW_CFG: u64 = 0x510;
/// Power management registers. They always answer here; firmware may have them answer in [`PCI_IO`] too.
pub const PM_BASE: u64 = 0x600;
/// Slots that are filled and emptied ([`crate::vmm::pci::hotplug`]).
pub const PCI_HOTPLUG: u64 = 0xae00;
/// The general-purpose event that tells of these.
pub const PCI_HOTPLUG_EVENT: u8 = 1;
/// The reset control register.
pub const RESET_CONTROL: u64 = 0xcf9;
/// What resets the whole machine there.
pub const RESET_VALUE: u8 = 6;
/// Ports that PCI functions may be moved to: where OVMF puts power management, and where firmware puts BARs.
pub const PCI_IO: [Range<u64>; 2] = [0xb000..0xb040, 0xc000..0x1_0000];

/// Input of the I/O APIC that the timer hangs on.
pub const TIMER_PIN: u32 = 2;
/// Keyboard.
pub const KEYBOARD_GSI: u32 = 1;
/// First serial port.
pub const COM1_GSI: u32 = 4;
/// Clock. Nothing raises it.
pub const CMOS_GSI: u32 = 8;
/// System control interrupt, level-triggered.
pub const SCI_GSI: u32 = 9;
/// Auxiliary port of the keyboard controller.
pub const AUX_GSI: u32 = 12;
/// The interrupts of PCI pins, level-triggered: firmware programs the same into every function's interrupt line.
pub const PCI_GSIS: [u32; 4] = [10, 10, 11, 11];

/// Host bridge.
pub const HOST_BRIDGE: DevFn = DevFn::new(0, 0);
/// ISA bridge.
pub const ISA_BRIDGE: DevFn = DevFn::new(1, 0);
/// Power management.
pub const POWER_MANAGEMENT: DevFn = DevFn::new(1, 3);
/// The entropy device.
pub const ENTROPY: DevFn = DevFn::new(2, 0);
/// The slots of volumes: the first one is the root's, which stays there; all others are filled and emptied while the guest
/// runs.
pub const VOLUME_SLOTS: Range<u8> = 3..30;
/// How many volumes there may be.
pub const VOLUMES_MAX: usize = 27;
/// The port of the guest's agent, behind them.
pub const AGENT_PORT: DevFn = DevFn::new(30, 0);
/// The network card.
pub const NETWORK: DevFn = DevFn::new(31, 0);

/// The interrupt of a pin (0 is INTA#) of a slot.
#[must_use]
pub fn pci_gsi(slot: u8, pin: u8) -> u32 {
    PCI_GSIS[(usize::from(slot) + usize::from(pin) + 3) % 4]
}

/// Where the firmware begins, which ends at 4 GiB, and where its variables begin, which end where it begins. Nothing
/// where they have more than [`ROM_MAX`] bytes together.
#[must_use]
pub fn firmware_bases(firmware_len: u64, variables_len: u64) -> Option<(u64, u64)> {
    let len = firmware_len.checked_add(variables_len).filter(|len| *len <= ROM_MAX)?;
    Some((FOUR_GIB - firmware_len, FOUR_GIB - len))
}

/// What a machine of some size has where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLayout {
    /// Memory below 4 GiB ends here.
    pub low_end: u64,
    /// Memory above 4 GiB, in bytes.
    pub above_4g: u64,
    /// Physical addresses end here.
    address_end: u64,
}

impl MemoryLayout {
    /// `size` is in bytes; `address_bits` are the processor's physical ones.
    #[must_use]
    pub fn new(size: u64, address_bits: u8) -> Self {
        let low_end = size.min(LOW_MEMORY_MAX);
        Self { low_end, above_4g: size - low_end, address_end: 1 << address_bits.clamp(36, 46) }
    }

    /// Ranges of memory that the guest has.
    #[must_use]
    pub fn ranges(&self) -> Vec<(GuestAddress, usize)> {
        let range = |from, to| (GuestAddress(from), usize::try_from(to - from).unwrap_or(usize::MAX));
        let mut ranges = vec![range(0, VGA_WINDOW.start), range(VGA_WINDOW.end, self.low_end)];
        if self.above_4g > 0 {
            ranges.push(range(FOUR_GIB, FOUR_GIB + self.above_4g));
        }
        ranges
    }

    /// The memory map for the firmware: memory, and what it could not know of. It adds its own ranges.
    #[must_use]
    pub fn e820(&self) -> Vec<MemoryMapEntry> {
        let entry = |range: Range<u64>, kind| MemoryMapEntry { addr: range.start, len: range.end - range.start, kind };
        let mut map = vec![entry(0..self.low_end, MemoryKind::Ram), entry(KVM_PAGES, MemoryKind::Reserved)];
        if self.above_4g > 0 {
            map.push(entry(FOUR_GIB..FOUR_GIB + self.above_4g, MemoryKind::Ram));
        }
        map
    }

    /// Addresses below 4 GiB that PCI functions may be moved to.
    #[must_use]
    pub fn pci_low(&self) -> Range<u64> {
        self.low_end.max(PCI_MEMORY_FIRST)..PCI_MEMORY_END
    }

    /// Addresses above all memory that PCI functions may be moved to, where there are any.
    #[must_use]
    pub fn pci_high(&self) -> Option<Range<u64>> {
        let start = (FOUR_GIB + self.above_4g).next_multiple_of(PCI_HIGH_ALIGN);
        (start < self.address_end).then_some(start..self.address_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_room_for_the_display_window_and_the_devices() {
        let gib = 1 << 30;
        let small = MemoryLayout::new(gib, 40);
        assert_eq!(small.ranges(), [(GuestAddress(0), 0xa_0000), (GuestAddress(0xc_0000), (1 << 30) - 0xc_0000)]);
        assert_eq!(small.pci_low(), 0x8000_0000..0xfec0_0000);
        assert_eq!(small.pci_high(), Some(FOUR_GIB..1 << 40));
        let large = MemoryLayout::new(5 * gib + 4096, 40);
        assert_eq!(large.ranges()[2], (GuestAddress(FOUR_GIB), (2 << 30) + 4096));
        assert_eq!(large.pci_low().start, LOW_MEMORY_MAX);
        assert_eq!(large.pci_high(), Some(7 * gib..1 << 40));
        assert_eq!(MemoryLayout::new(64 * gib, 0).pci_high(), None);
        let ram: u64 = large.e820().iter().filter(|e| e.kind == MemoryKind::Ram).map(|e| e.len).sum();
        assert_eq!(ram, 5 * gib + 4096);
    }

    #[test]
    fn variables_lie_below_the_firmware() {
        // OVMF_CODE_4M.fd and OVMF_VARS_4M.fd of Debian.
        assert_eq!(firmware_bases(0x37_c000, 0x8_4000), Some((0xffc8_4000, 0xffc0_0000)));
        assert_eq!(firmware_bases(ROM_MAX, 0), Some((0xff00_0000, 0xff00_0000)));
        assert_eq!(firmware_bases(ROM_MAX, 1), None);
        assert_eq!(firmware_bases(u64::MAX, 1), None);
        const { assert!(KVM_PAGES.end <= FOUR_GIB - ROM_MAX) };
    }

    #[test]
    fn as_many_volumes_as_slots_and_ports_clear_of_those_of_functions() {
        assert_eq!(VOLUME_SLOTS.len(), VOLUMES_MAX);
        assert!(
            [HOST_BRIDGE, ENTROPY, AGENT_PORT, NETWORK].iter().all(|other| !VOLUME_SLOTS.contains(&other.device()))
        );
        let ports = PCI_HOTPLUG..PCI_HOTPLUG + crate::vmm::pci::hotplug::PORTS;
        assert!(PCI_IO.iter().all(|window| window.end <= ports.start || ports.end <= window.start));
    }

    #[test]
    fn slots_and_pins_are_spread_as_firmware_does_it() {
        assert_eq!([1, 2, 3, 4, 5].map(|slot| pci_gsi(slot, 0)), [10, 10, 11, 11, 10]);
        assert_eq!(pci_gsi(31, 3), 10);
    }
}
