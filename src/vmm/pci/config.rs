//! The configuration space of one function: a type 0 header (PCI 3.0, section 6.1) and capabilities (section 6.7).
//!
//! Every byte has a mask of the bits that the guest may change. The rules of BARs follow from it: the low bits of a BAR
//! that its size spans are fixed at zero, so that writing all ones and reading back tells the size (section 6.2.5.1).

use super::{PciError, Space};

/// Bytes of configuration space.
pub const SIZE: usize = 256;

/// `Command` and `Status`.
pub const COMMAND: usize = 0x04;
/// `Status`.
pub const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CACHE_LINE_SIZE: usize = 0x0c;
const LATENCY_TIMER: usize = 0x0d;
const HEADER_TYPE: usize = 0x0e;
const BAR_0: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;

/// `Command`: answers in I/O space.
pub const COMMAND_IO: u16 = 1 << 0;
/// `Command`: answers in memory space.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// `Command`: may act as a bus master.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// `Command`: does not assert INTx#.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// `Status`: the function asserts INTx#, or would if it were not disabled.
pub const STATUS_INTERRUPT: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// `Header Type`: there are further functions in this device.
const MULTI_FUNCTION: u8 = 1 << 7;

const BAR_IO: u8 = 1;
const BAR_64_BIT: u8 = 2 << 1;

/// What a function says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class and programming interface, as in `0x01_08_02`.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// The kinds of base address register (section 6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes the next BAR too.
    Memory64,
    /// Ports.
    Io,
}

impl BarKind {
    fn space(self) -> Space {
        if self == Self::Io { Space::Io } else { Space::Memory }
    }
}

#[derive(Clone, Copy)]
struct Bar {
    kind: BarKind,
    size: u64,
}

/// A BAR that answers now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// 0 to 5.
    pub index: usize,
    /// Of which space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The registers of one function.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// As after power-on.
    initial: [u8; SIZE],
    bars: [Option<Bar>; 6],
    /// Where the offset of the next capability goes.
    link: usize,
    next_capability: usize,
}

impl ConfigSpace {
    /// A function without BARs and capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut config = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            bars: [None; 6],
            link: CAPABILITIES,
            next_capability: FIRST_CAPABILITY,
        };
        config.set(0, &identity.vendor.to_le_bytes());
        config.set(2, &identity.device.to_le_bytes());
        let [class @ .., _] = identity.class.to_le_bytes();
        config.set(REVISION, &[identity.revision]);
        config.set(REVISION + 1, &class);
        config.set(SUBSYSTEM, &identity.subsystem_vendor.to_le_bytes());
        config.set(SUBSYSTEM + 2, &identity.subsystem.to_le_bytes());
        config.allow(COMMAND, &(COMMAND_MASTER | COMMAND_INTX_DISABLE).to_le_bytes());
        config.allow(CACHE_LINE_SIZE, &[0xff]);
        config.allow(LATENCY_TIMER, &[0xff]);
        config.allow(INTERRUPT_LINE, &[0xff]);
        config
    }

    /// Sets the value after power-on, whatever the guest may write.
    pub fn set(&mut self, offset: usize, data: &[u8]) {
        for (at, &value) in (offset..).zip(data) {
            if let (Some(byte), Some(initial)) = (self.bytes.get_mut(at), self.initial.get_mut(at)) {
                (*byte, *initial) = (value, value);
            }
        }
    }

    /// Lets the guest change the bits of `mask` too.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (at, &bits) in (offset..).zip(mask) {
            if let Some(byte) = self.writable.get_mut(at) {
                *byte |= bits;
            }
        }
    }

    /// Says that the device has further functions.
    pub fn set_multi_function(&mut self) {
        self.set(HEADER_TYPE, &[MULTI_FUNCTION]);
    }

    /// Says which pin it interrupts by: 1 is INTA#.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.set(INTERRUPT_PIN, &[pin]);
    }

    /// Adds a base address register. `size` is in bytes.
    ///
    /// # Errors
    /// [`PciError::BadBar`].
    pub fn add_bar(&mut self, index: usize, kind: BarKind, size: u64) -> Result<(), PciError> {
        let fail = |why| Err(PciError::BadBar { index, size, why });
        let (least, most) = match kind {
            BarKind::Memory32 | BarKind::Memory64 => (16, 1 << 31),
            BarKind::Io => (4, 256),
        };
        if !size.is_power_of_two() || size < least || size > most {
            return fail("a size is a power of two, 16 bytes to 2 GiB or 4 to 256 ports");
        }
        let dwords = if kind == BarKind::Memory64 { 2 } else { 1 };
        if index + dwords > self.bars.len() {
            return fail("there are six BARs, and one of 64 bits takes two");
        }
        // The second half of a BAR of 64 bits has no entry of its own, but its bits are writable.
        if (index..index + dwords).any(|i| self.writable.get(BAR_0 + 4 * i + 3) != Some(&0)) {
            return fail("the register is in use");
        }
        let mask = (!(size - 1)).to_le_bytes();
        self.allow(BAR_0 + 4 * index, mask.get(..4 * dwords).unwrap_or_default());
        let (flags, command) = match kind {
            BarKind::Memory32 => (0, COMMAND_MEMORY),
            BarKind::Memory64 => (BAR_64_BIT, COMMAND_MEMORY),
            BarKind::Io => (BAR_IO, COMMAND_IO),
        };
        self.set(BAR_0 + 4 * index, &[flags]);
        self.allow(COMMAND, &command.to_le_bytes());
        if let Some(bar) = self.bars.get_mut(index) {
            *bar = Some(Bar { kind, size });
        }
        Ok(())
    }

    /// Adds a capability; `body` follows its ID and link, and the guest may change the bits of `writable`. Gives its
    /// offset.
    ///
    /// # Errors
    /// [`PciError::CapabilityTooLong`].
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<usize, PciError> {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        let too_long = PciError::CapabilityTooLong { id, len: 2 + body.len() };
        let link = u8::try_from(offset).ok().filter(|_| end <= SIZE).ok_or(too_long)?;
        self.set(self.link, &[link]);
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable.get(..body.len().min(writable.len())).unwrap_or_default());
        self.set(STATUS, &[STATUS_CAPABILITIES]);
        self.link = offset + 1;
        self.next_capability = end.next_multiple_of(4);
        Ok(offset)
    }

    /// Reads; what is beyond the end reads as ones.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Writes as the guest does.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, &value) in (offset..).zip(data) {
            if let (Some(byte), Some(&mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | value & mask;
            }
        }
    }

    /// One byte.
    #[must_use]
    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0xff)
    }

    /// Two bytes.
    #[must_use]
    pub fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset + 1)])
    }

    /// Four bytes.
    #[must_use]
    pub fn dword(&self, offset: usize) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }

    /// `Command`.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    /// Forgets what the guest wrote.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    /// The BARs that `Command` lets answer, where the guest put them. One that would wrap does not answer.
    pub fn decoded(&self) -> impl Iterator<Item = Decoded> + '_ {
        self.bars.iter().enumerate().filter_map(|(index, bar)| {
            let Bar { kind, size } = (*bar)?;
            let space = kind.space();
            let enable = if space == Space::Io { COMMAND_IO } else { COMMAND_MEMORY };
            if self.command() & enable == 0 {
                return None;
            }
            let at = BAR_0 + 4 * index;
            let high = if kind == BarKind::Memory64 { u64::from(self.dword(at + 4)) } else { 0 };
            let base = (high << 32 | u64::from(self.dword(at))) & !(size - 1);
            base.checked_add(size - 1)?;
            Some(Decoded { index, space, base, len: size })
        })
    }
}
