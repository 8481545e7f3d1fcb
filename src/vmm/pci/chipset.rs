//! The chipset's own functions, with the identity that firmware knows: the host bridge of the 82441FX ("440FX") and the
//! ISA bridge and power management of the 82371 ("PIIX"). Only what firmware and systems use is there.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{COMMAND, COMMAND_IO, ConfigSpace, Identity};
use super::{PciFunction, Region, Space};
use crate::vmm::bus::BusDevice;

const INTEL: u16 = 0x8086;

fn lock(config: &Mutex<ConfigSpace>) -> MutexGuard<'_, ConfigSpace> {
    config.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of the upper memory area, and where accesses to it go (82441FX data sheet, section 3.2.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PamSegment {
    /// Addresses, from 0xc0000 to 0xfffff.
    pub range: Range<u64>,
    /// Reads go to memory; else to the ROM.
    pub read_memory: bool,
    /// Writes go to memory; else they are lost.
    pub write_memory: bool,
}

/// `Programmable Attribute Map` registers 0 to 6.
const PAM: usize = 0x59;
const PAM_COUNT: usize = 7;
/// `System Management RAM Control`.
const SMRAM: usize = 0x72;
const PAM_READ: u8 = 1;
const PAM_WRITE: u8 = 2;

/// The parts of memory: the half register that each hangs on, counted from the low half of the first, and its addresses.
fn pam_segments() -> impl Iterator<Item = (usize, Range<u64>)> {
    let small = (2..2 * PAM_COUNT).zip((0xc_0000..0xf_0000).step_by(0x4000)).map(|(half, at)| (half, at..at + 0x4000));
    std::iter::once((1, 0xf_0000..0x10_0000)).chain(small)
}

/// The host bridge, 8086:1237.
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
    on_pam: Box<dyn Fn(PamSegment) + Send + Sync>,
}

impl HostBridge {
    /// `on_pam` is told of every segment whose attributes change. After power-on, and after a reset, none of them reads
    /// from or writes to memory.
    #[must_use]
    pub fn new(on_pam: Box<dyn Fn(PamSegment) + Send + Sync>) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: INTEL,
            device: 0x1237,
            revision: 2,
            class: 0x06_00_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        config.allow(PAM, &[0x30]);
        config.allow(PAM + 1, &[0x33; PAM_COUNT - 1]);
        config.set(SMRAM, &[0x02]);
        config.allow(SMRAM, &[0x78]);
        Self { config: Mutex::new(config), on_pam }
    }

    /// Changes registers, and tells which segments were changed by that.
    fn change(&self, change: impl FnOnce(&mut ConfigSpace)) {
        let mut config = lock(&self.config);
        let before = pam(&config);
        change(&mut config);
        let after = pam(&config);
        drop(config);
        for segment in after.into_iter().filter(|segment| !before.contains(segment)) {
            (self.on_pam)(segment);
        }
    }
}

fn pam(config: &ConfigSpace) -> Vec<PamSegment> {
    let segment = |(half, range)| {
        let attributes = config.byte(PAM + half / 2) >> (4 * (half % 2));
        PamSegment { range, read_memory: attributes & PAM_READ != 0, write_memory: attributes & PAM_WRITE != 0 }
    };
    pam_segments().map(segment).collect()
}

impl PciFunction for HostBridge {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        lock(&self.config).read(offset.into(), data);
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        self.change(|config| config.write(offset.into(), data));
    }

    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }

    fn reset(&self) {
        self.change(ConfigSpace::reset);
    }
}

/// `PIRQ Route Control` of INTA# to INTD# (82371SB data sheet, section 2.3.6).
const PIRQ_ROUTES: usize = 0x60;
/// The ISA bridge's command register: I/O, memory, master.
const ALWAYS_ON: u16 = 7;
/// Not routed.
const PIRQ_OFF: u8 = 0x80;

/// The ISA bridge, 8086:7000. It routes nothing: what firmware writes is kept for it to read.
pub struct IsaBridge(Mutex<ConfigSpace>);

impl IsaBridge {
    /// Function 0 of a device with further functions.
    #[must_use]
    pub fn new() -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: INTEL,
            device: 0x7000,
            revision: 0,
            class: 0x06_01_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        config.set_multi_function();
        // It answers whatever anyone writes (82371SB data sheet, section 2.2.3): UEFI firmware binds its drivers of ISA
        // devices, the serial console's among them, only to a bridge whose command register can say so.
        config.set(COMMAND, &ALWAYS_ON.to_le_bytes());
        config.set(PIRQ_ROUTES, &[PIRQ_OFF; 4]);
        config.allow(PIRQ_ROUTES, &[0x8f; 4]);
        Self(Mutex::new(config))
    }
}

impl Default for IsaBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciFunction for IsaBridge {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        lock(&self.0).read(offset.into(), data);
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        lock(&self.0).write(offset.into(), data);
    }

    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }

    fn reset(&self) {
        lock(&self.0).reset();
    }
}

/// `Power Management Base Address` (82371AB data sheet, section 7.1.9).
const PMBASE: usize = 0x40;
/// `Device Activity B`: APMC_EN, bit 25, would let writes of port 0xb2 raise SMIs.
const DEVACTB_APMC_EN: (usize, u8) = (0x5b, 0x02);
/// `Miscellaneous Power Management`: bit 0 lets the registers at PMBASE answer.
const PMREGMISC: usize = 0x80;
/// Ports at PMBASE.
pub const PM_PORTS: u64 = 64;

/// Power management, 8086:7113: configuration space only. The registers are a device of the machine, and answer where
/// firmware puts them.
pub struct PowerManagement {
    config: Mutex<ConfigSpace>,
    registers: Arc<dyn BusDevice>,
}

impl PowerManagement {
    /// `registers` are the [`PM_PORTS`] ports at PMBASE. The function interrupts by IRQ 9.
    #[must_use]
    pub fn new(registers: Arc<dyn BusDevice>) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: INTEL,
            device: 0x7113,
            revision: 3,
            class: 0x06_80_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        config.set_interrupt_pin(1);
        config.set(0x3c, &[9]);
        config.allow(COMMAND, &COMMAND_IO.to_le_bytes());
        config.set(PMBASE, &[1]);
        config.allow(PMBASE, &[0xc0, 0xff]);
        // There is no system management mode: firmware that finds this set takes it for set up already.
        let (offset, value) = DEVACTB_APMC_EN;
        config.set(offset, &[value]);
        config.allow(PMREGMISC, &[1]);
        Self { config: Mutex::new(config), registers }
    }
}

impl PciFunction for PowerManagement {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        lock(&self.config).read(offset.into(), data);
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        lock(&self.config).write(offset.into(), data);
    }

    /// The base is not a BAR: PMREGMISC alone enables it, whatever `Command` says.
    fn regions(&self) -> Vec<Region> {
        let config = lock(&self.config);
        if config.byte(PMREGMISC) & 1 == 0 {
            return Vec::new();
        }
        let base = u64::from(config.word(PMBASE) & 0xffc0);
        let (device, doorbells) = (self.registers.clone(), Arc::default());
        vec![Region { space: Space::Io, base, len: PM_PORTS, device, doorbells }]
    }

    fn reset(&self) {
        lock(&self.config).reset();
    }
}

#[cfg(test)]
mod tests {
    use super::super::DevFn;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_host_bridge_tells_of_shadowed_segments() {
        let told = Arc::new(Mutex::new(Vec::<PamSegment>::new()));
        let seen = told.clone();
        let bus = TestBus::new();
        let slot = DevFn::new(0, 0);
        bus.bus
            .add(slot, Arc::new(HostBridge::new(Box::new(move |segment| seen.lock().unwrap().push(segment)))))
            .unwrap();
        let told = || {
            let mut segments = std::mem::take(&mut *told.lock().unwrap());
            segments.sort_by_key(|segment| segment.range.start);
            segments
                .into_iter()
                .map(|s| (s.range.start, s.range.end, s.read_memory, s.write_memory))
                .collect::<Vec<_>>()
        };
        assert_eq!((bus.get(slot, 0, 4), bus.get(slot, 8, 4)), (0x1237_8086, 0x0600_0002));
        bus.set(slot, 0x59, 1, 0x30);
        assert_eq!(told(), [(0xf_0000, 0x10_0000, true, true)]);
        bus.set(slot, 0x59, 1, 0xff);
        assert_eq!((told(), bus.get(slot, 0x59, 1)), (vec![], 0x30));
        bus.set(slot, 0x5a, 2, 0x1231);
        assert_eq!(
            told(),
            [
                (0xc_0000, 0xc_4000, true, false),
                (0xc_4000, 0xc_8000, true, true),
                (0xc_8000, 0xc_c000, false, true),
                (0xc_c000, 0xd_0000, true, false),
            ]
        );
        bus.set(slot, 0x5f, 1, 0x20);
        assert_eq!(told(), [(0xe_c000, 0xf_0000, false, true)]);
        bus.set(slot, 0x72, 1, 0x4a);
        assert_eq!((bus.get(slot, 0x72, 1), told()), (0x4a, vec![]));
        bus.bus.reset();
        assert_eq!(told().iter().filter(|s| !s.2 && !s.3).count(), 6);
        assert_eq!(bus.get(slot, 0x58, 4), 0);
    }

    #[test]
    fn the_isa_bridge_keeps_routes_and_says_that_it_is_not_alone() {
        let bus = TestBus::new();
        let slot = DevFn::new(1, 0);
        bus.bus.add(slot, Arc::new(IsaBridge::new())).unwrap();
        assert_eq!(
            (bus.get(slot, 0, 4), bus.get(slot, 0x0e, 1), bus.get(slot, 0x60, 4)),
            (0x7000_8086, 0x80, 0x8080_8080)
        );
        bus.set(slot, 0x60, 4, 0x0b0b_0a0a);
        assert_eq!((bus.get(slot, 0x60, 4), bus.get(slot, 4, 2)), (0x0b0b_0a0a, 7));
        bus.set(slot, 4, 2, 0);
        assert_eq!(bus.get(slot, 4, 2) & 3, 3);
    }

    #[test]
    fn power_management_answers_where_firmware_puts_it() {
        let bus = TestBus::new();
        let slot = DevFn::new(1, 3);
        bus.bus.add(slot, Arc::new(PowerManagement::new(Tagged::new(7)))).unwrap();
        assert_eq!(
            (bus.get(slot, 0, 4), bus.get(slot, 0x40, 4), bus.get(slot, 0x58, 4)),
            (0x7113_8086, 1, 0x0200_0000)
        );
        bus.set(slot, 0x40, 4, 0x0601);
        assert_eq!(tag_at(&bus, Space::Io, 0x600), 0xff);
        bus.set(slot, 0x80, 1, 1);
        assert_eq!((tag_at(&bus, Space::Io, 0x600), tag_at(&bus, Space::Io, 0x63f)), (7, 7));
        bus.set(slot, 0x40, 4, 0xfff1_fff1);
        assert_eq!((bus.get(slot, 0x40, 4), tag_at(&bus, Space::Io, 0x600)), (0xffc1, 0xff));
        assert_eq!(tag_at(&bus, Space::Io, 0xffff), 7);
        bus.set(slot, 0x40, 4, 0xcc1);
        assert_eq!(tag_at(&bus, Space::Io, 0xcc0), 0xff);
    }
}
