//! The firmware configuration device (QEMU, `docs/specs/fw_cfg.rst`): items by key and files by name, which firmware
//! reads byte by byte through ports or whole by DMA.
//!
//! Every item is read-only to the guest.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::vmm::bus::BusDevice;
use crate::vmm::memory::GuestMemory;

/// How many ports it takes: selector, data, and the DMA address register.
pub const PORTS: u64 = 12;

/// Offset of the data register.
const DATA: u64 = 1;
/// Offset of the DMA address register: eight bytes, the most significant first.
const DMA: u64 = 4;
/// What reading the DMA address register gives.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
/// `FW_CFG_ID`: the traditional interface, and DMA.
const FEATURES: u32 = 1 | 1 << 1;

const KEY_SIGNATURE: u16 = 0x00;
const KEY_ID: u16 = 0x01;
const KEY_FILE_DIR: u16 = 0x19;
/// The first file's key; the others follow.
const KEY_FILE_FIRST: u16 = 0x20;
/// How many files there can be: keys from 0x4000 on have other meanings.
const FILES_MAX: usize = 0x3fe0;
/// A file's name and its final NUL.
const NAME_SIZE: usize = 56;

const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;

/// Why a file could not be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FwCfgError {
    /// The name does not fit into the directory.
    #[error("the firmware file name {0:?} is empty, longer than {max} bytes or holds a NUL", max = NAME_SIZE - 1)]
    BadName(String),
    /// There is a file of that name.
    #[error("there are two firmware files of the name {0:?}")]
    Twice(String),
    /// Too many files.
    #[error("there are more firmware files than the {FILES_MAX} that have room")]
    TooMany,
    /// A file that is larger than its size field.
    #[error("the firmware file {0:?} is larger than 4 GiB")]
    TooLarge(String),
}

/// What the device is to hold.
#[derive(Debug, Default)]
pub struct Contents {
    items: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// Sets the item of a key below 0x19 or from 0x8000 on; all numbers in items are little-endian.
    pub fn set(&mut self, key: u16, bytes: impl Into<Vec<u8>>) {
        self.items.insert(key, bytes.into());
    }

    /// Adds a file.
    ///
    /// # Errors
    /// [`FwCfgError`].
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Result<(), FwCfgError> {
        if name.is_empty() || name.len() >= NAME_SIZE || name.contains('\0') {
            return Err(FwCfgError::BadName(name.into()));
        }
        if self.files.len() >= FILES_MAX {
            return Err(FwCfgError::TooMany);
        }
        let bytes = bytes.into();
        if u32::try_from(bytes.len()).is_err() {
            return Err(FwCfgError::TooLarge(name.into()));
        }
        match self.files.insert(name.into(), bytes) {
            None => Ok(()),
            Some(_) => Err(FwCfgError::Twice(name.into())),
        }
    }

    /// All items by key, the directory among them.
    fn into_items(self) -> BTreeMap<u16, Vec<u8>> {
        let mut items = self.items;
        items.insert(KEY_SIGNATURE, b"QEMU".to_vec());
        items.insert(KEY_ID, FEATURES.to_le_bytes().to_vec());
        let count = u32::try_from(self.files.len()).unwrap_or(0);
        let mut directory = count.to_be_bytes().to_vec();
        for (key, (name, bytes)) in (KEY_FILE_FIRST..).zip(self.files) {
            let size = u32::try_from(bytes.len()).unwrap_or(0);
            let mut field = name.into_bytes();
            field.resize(NAME_SIZE, 0);
            directory.extend(size.to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(field);
            items.insert(key, bytes);
        }
        items.insert(KEY_FILE_DIR, directory);
        items
    }
}

/// What the guest has selected.
#[derive(Debug, Default)]
struct State {
    key: u16,
    offset: usize,
    /// The upper half of the DMA address, written first.
    dma_high: u32,
}

/// The device.
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    memory: GuestMemory,
    state: Mutex<State>,
}

impl FwCfg {
    /// A device with these contents; DMA reaches `memory`.
    #[must_use]
    pub fn new(contents: Contents, memory: GuestMemory) -> Self {
        Self { items: contents.into_items(), memory, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of the selected item.
    fn rest(&self, state: &State) -> &[u8] {
        self.items.get(&state.key).and_then(|item| item.get(state.offset..)).unwrap_or_default()
    }

    /// The next byte of the selected item; after its end, zero.
    fn next_byte(&self, state: &mut State) -> u8 {
        let byte = self.rest(state).first().copied();
        if byte.is_some() {
            state.offset += 1;
        }
        byte.unwrap_or(0)
    }

    /// Does what the descriptor at `addr` says and answers in its first word. Where there is no memory for a
    /// descriptor, there is none for an answer.
    fn run_dma(&self, state: &mut State, addr: u64) {
        let mut descriptor = [0; 16];
        let at = GuestAddress(addr);
        if self.memory.read_slice(&mut descriptor, at).is_err() {
            return;
        }
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = descriptor;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let answer = match self.transfer(state, control, length, u64::from_be_bytes(address)) {
            Ok(()) => 0,
            Err(NotDone) => DMA_ERROR,
        };
        // It was read a moment ago.
        let _ = self.memory.write_slice(&answer.to_be_bytes(), at);
    }

    fn transfer(&self, state: &mut State, control: u32, length: u32, addr: u64) -> Result<(), NotDone> {
        if control & DMA_SELECT != 0 {
            (state.key, state.offset) = (u16::try_from(control >> 16).unwrap_or(0), 0);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if control & DMA_READ != 0 {
            // All or nothing: no half of an item is left where the other half has no memory.
            if length > 0 && !self.memory.check_range(GuestAddress(addr), length) {
                return Err(NotDone);
            }
            let rest = self.rest(state);
            let data = &rest[..length.min(rest.len())];
            self.memory.write_slice(data, GuestAddress(addr)).map_err(|_| NotDone)?;
            self.fill_zero(addr + data.len() as u64, length - data.len())?;
            state.offset += data.len();
            Ok(())
        } else if control & DMA_WRITE != 0 {
            Err(NotDone)
        } else {
            if control & DMA_SKIP != 0 {
                state.offset += length.min(self.rest(state).len());
            }
            Ok(())
        }
    }

    fn fill_zero(&self, mut addr: u64, mut len: usize) -> Result<(), NotDone> {
        const ZEROES: [u8; 4096] = [0; 4096];
        while len > 0 {
            let chunk = len.min(ZEROES.len());
            self.memory.write_slice(&ZEROES[..chunk], GuestAddress(addr)).map_err(|_| NotDone)?;
            addr += chunk as u64;
            len -= chunk;
        }
        Ok(())
    }
}

/// A transfer that the device refuses.
struct NotDone;

impl BusDevice for FwCfg {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset == DATA && data.len() == 1 {
            data[0] = self.next_byte(&mut self.state());
            return;
        }
        for (at, byte) in (offset..).zip(data) {
            let at = at.checked_sub(DMA).and_then(|at| usize::try_from(at).ok());
            *byte = at.and_then(|at| DMA_SIGNATURE.get(at)).copied().unwrap_or(0);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        match (offset, data) {
            (0, [low, high]) => (state.key, state.offset) = (u16::from_le_bytes([*low, *high]), 0),
            (DMA, [a, b, c, d]) => state.dma_high = u32::from_be_bytes([*a, *b, *c, *d]),
            (8, [a, b, c, d]) => {
                let high = std::mem::take(&mut state.dma_high);
                let low = u32::from_be_bytes([*a, *b, *c, *d]);
                self.run_dma(&mut state, u64::from(high) << 32 | u64::from(low));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vmm::memory;

    const MEMORY: usize = 0x2_0000;

    fn device() -> FwCfg {
        let mut contents = Contents::default();
        contents.set(5, 3u16.to_le_bytes());
        contents.add_file("etc/e820", b"0123456789".to_vec()).unwrap();
        contents.add_file("bootorder", b"/disk\0".to_vec()).unwrap();
        FwCfg::new(contents, memory::allocate(&[(GuestAddress(0), MEMORY)]).unwrap())
    }

    fn bytes(device: &FwCfg, key: u16, n: usize) -> Vec<u8> {
        device.write(0, &key.to_le_bytes());
        let next = |_| {
            let mut byte = [0xaa];
            device.read(1, &mut byte);
            byte[0]
        };
        (0..n).map(next).collect()
    }

    /// Puts a descriptor at 0x1000, starts it, and gives what the device answers.
    fn dma(device: &FwCfg, control: u32, length: u32, addr: u64) -> u32 {
        let mut descriptor = control.to_be_bytes().to_vec();
        descriptor.extend(length.to_be_bytes());
        descriptor.extend(addr.to_be_bytes());
        device.memory.write_slice(&descriptor, GuestAddress(0x1000)).unwrap();
        device.write(4, &0u32.to_be_bytes());
        device.write(8, &0x1000u32.to_be_bytes());
        u32::from_be_bytes(device.memory.read_obj(GuestAddress(0x1000)).unwrap())
    }

    #[test]
    fn firmware_finds_the_device_and_its_files() {
        let device = device();
        assert_eq!(bytes(&device, 0, 4), b"QEMU");
        assert_eq!(bytes(&device, 1, 4), [3, 0, 0, 0]);
        assert_eq!(bytes(&device, 5, 4), [3, 0, 0, 0]);
        let mut signature = [0; 4];
        device.read(4, &mut signature);
        assert_eq!(&signature, b"QEMU");
        device.read(8, &mut signature);
        assert_eq!(&signature, b" CFG");

        let directory = bytes(&device, 0x19, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        let (first, second) = directory[4..].split_at(64);
        assert_eq!((&first[..6], &first[8..18]), (&[0, 0, 0, 6, 0, 0x20][..], &b"bootorder\0"[..]));
        assert_eq!((&second[..6], &second[8..17]), (&[0, 0, 0, 10, 0, 0x21][..], &b"etc/e820\0"[..]));
        assert_eq!(bytes(&device, 0x21, 12), b"0123456789\0\0");
    }

    #[test]
    fn dma_reads_skips_and_fills_up_with_zeroes() {
        let device = device();
        device.memory.write_slice(&[0xee; 16], GuestAddress(0x2000)).unwrap();
        assert_eq!(dma(&device, 0x21 << 16 | DMA_SELECT | DMA_SKIP, 4, 0), 0);
        assert_eq!(dma(&device, DMA_READ, 2, 0x2000), 0);
        assert_eq!(dma(&device, DMA_READ, 6, 0x2002), 0);
        let got: [u8; 9] = device.memory.read_obj(GuestAddress(0x2000)).unwrap();
        assert_eq!(&got, b"456789\0\0\xee");
        assert_eq!(dma(&device, 0x7777 << 16 | DMA_SELECT | DMA_READ, 2, 0x2000), 0, "an unknown item reads as zero");
    }

    #[test]
    fn dma_to_nowhere_or_wrapping_and_writes_set_the_error_bit() {
        let device = device();
        let size = MEMORY as u64;
        for (length, addr) in [(1, size), (2, size - 1), (u32::MAX, 0), (16, u64::MAX - 8), (1, u64::MAX), (1, 1 << 40)]
        {
            assert_eq!(dma(&device, 0x21 << 16 | DMA_SELECT | DMA_READ, length, addr), DMA_ERROR, "{length} {addr:#x}");
        }
        assert_eq!(dma(&device, 0x21 << 16 | DMA_SELECT | DMA_WRITE, 1, 0), DMA_ERROR);
        assert_eq!(dma(&device, 0, u32::MAX, u64::MAX), 0, "asks for nothing");
        // A descriptor that is nowhere, or half of it.
        for addr in [0x2_0000u32, 0x1_fff8, u32::MAX] {
            device.write(4, &0u32.to_be_bytes());
            device.write(8, &addr.to_be_bytes());
        }
        device.write(4, &u32::MAX.to_be_bytes());
        device.write(8, &u32::MAX.to_be_bytes());
        assert_eq!(bytes(&device, 0, 4), b"QEMU");
    }

    #[test]
    fn file_names_are_checked() {
        let mut contents = Contents::default();
        let long = "x".repeat(56);
        for bad in ["", &long, "a\0b"] {
            assert_eq!(contents.add_file(bad, vec![]), Err(FwCfgError::BadName(bad.into())));
        }
        contents.add_file(&long[1..], vec![]).unwrap();
        assert_eq!(contents.add_file(&long[1..], vec![]), Err(FwCfgError::Twice(long[1..].into())));
    }

    proptest! {
        #[test]
        fn no_access_does_harm(accesses in prop::collection::vec(
            (any::<bool>(), 0u64..12, prop::collection::vec(any::<u8>(), 1..9)), 0..40,
        ), descriptor in any::<[u8; 16]>(), low_length in any::<bool>()) {
            let device = device();
            let mut descriptor = descriptor;
            if low_length {
                // Else few descriptors would do anything at all.
                descriptor[4..6].fill(0);
                descriptor[8..14].fill(0);
            }
            device.memory.write_slice(&descriptor, GuestAddress(0x1000)).unwrap();
            device.write(8, &0x1000u32.to_be_bytes());
            for (is_read, offset, mut data) in accesses {
                if is_read { device.read(offset, &mut data) } else { device.write(offset, &data) }
            }
            // The device still does its work.
            prop_assert_eq!(bytes(&device, 0, 4), b"QEMU");
        }
    }
}
