//! A parallel flash chip that holds a firmware's variables: CFI (JESD68.01) with the Intel command set, 8 bits wide,
//! blocks of 4 KiB. This is the chip that OVMF drives (edk2, `OvmfPkg/QemuFlashFvbServicesRuntimeDxe`).
//!
//! While it is in array mode its contents are memory of the guest, which reads them at full speed and whose writes come
//! here. The first write takes the memory away, so that reads come here too; it is put back only once some reads in a
//! row have found the array, since both are costly and a driver goes in and out of array mode for every few bytes.
//!
//! Where drivers depend on what the chip in QEMU does beyond the command set, this one does the same: clearing the status
//! leads to array mode, a cleared status reads as 0, and programming sets bits too (a driver for real chips never does).

mod contents;
mod query;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Mutex, PoisonError};

pub use contents::{Contents, ContentsError};

use crate::vmm::bus::BusDevice;
use crate::vmm::virtio::Log;

/// Bytes of a block: what is erased at once, and what a write of several bytes lies in.
pub const BLOCK_SIZE: u64 = 4096;

/// Bytes that can be written by one command.
const BUFFER_SIZE: usize = 256;

/// After that many reads of the array in a row it becomes memory again.
const READS_BEFORE_MEMORY: u32 = 32;

/// The commands.
mod command {
    pub const PROGRAM: u8 = 0x40;
    pub const PROGRAM_ALTERNATE: u8 = 0x10;
    pub const ERASE: u8 = 0x20;
    pub const CLEAR_STATUS: u8 = 0x50;
    pub const LOCK: u8 = 0x60;
    pub const READ_STATUS: u8 = 0x70;
    pub const READ_ID: u8 = 0x90;
    pub const QUERY: u8 = 0x98;
    pub const WRITE_TO_BUFFER: u8 = 0xe8;
    pub const READ_ARRAY: u8 = 0xff;
    /// The second cycle of those that change something.
    pub const CONFIRM: u8 = 0xd0;
    /// The second cycles of `LOCK` that lock.
    pub const LOCK_BLOCK: u8 = 0x01;
    pub const LOCK_DOWN: u8 = 0x2f;
}

/// Status register.
mod status {
    pub const READY: u8 = 0x80;
    pub const ERASE_FAILED: u8 = 0x20;
    pub const PROGRAM_FAILED: u8 = 0x10;
    /// Two cycles that do not belong together.
    pub const BAD_SEQUENCE: u8 = ERASE_FAILED | PROGRAM_FAILED;
}

/// What an access means next.
enum Mode {
    /// Reads give the array.
    Array,
    /// Reads give the status register.
    Status,
    /// Reads give the manufacturer and the device.
    Id,
    /// Reads give the query table.
    Query,
    /// The next write is the byte.
    Program,
    /// The next write confirms.
    Erase,
    /// The next write says what is to be done.
    Lock,
    /// The next write says how many bytes follow, less one.
    BufferCount,
    /// Bytes follow, and then what confirms them.
    Buffer(Buffer),
}

/// Bytes that were given for one block, but not confirmed yet.
struct Buffer {
    /// Bytes to come: at most [`BUFFER_SIZE`].
    left: usize,
    /// Where each goes, all in one block.
    bytes: Vec<(u64, u8)>,
}

/// Makes the contents memory of the guest (`true`) or takes them away (`false`).
pub type Show = Box<dyn Fn(bool) -> io::Result<()> + Send + Sync>;

struct State {
    mode: Mode,
    status: u8,
    /// Whether the contents are memory of the guest.
    shown: bool,
    /// Reads of the array since the last write.
    reads: u32,
    /// Whether it was told that KVM refuses to show or hide the contents.
    told: bool,
}

/// The chip.
pub struct Flash {
    contents: Contents,
    show: Show,
    log: Log,
    state: Mutex<State>,
}

impl Flash {
    /// A chip after power-on: in array mode, its contents shown already.
    #[must_use]
    pub fn new(contents: Contents, show: Show, log: Log) -> Self {
        let state = State { mode: Mode::Array, status: status::READY, shown: true, reads: 0, told: false };
        Self { contents, show, log, state: Mutex::new(state) }
    }

    /// Where it fails the contents stay as they were shown: the guest reads the array where it wanted something else, or
    /// slowly.
    fn set_shown(&self, state: &mut State, shown: bool) {
        match (self.show)(shown) {
            Ok(()) => state.shown = shown,
            Err(cause) if !state.told => {
                state.told = true;
                (self.log)(&format!("firmware variables: KVM could not change the guest's memory: {cause}"));
            }
            Err(_) => {}
        }
        state.reads = 0;
    }

    fn read_byte(&self, state: &State, offset: u64) -> u8 {
        match state.mode {
            Mode::Array => self.contents.byte(offset),
            Mode::Id => query::id(offset),
            Mode::Query => query::table(offset, self.contents.len()),
            _ => state.status,
        }
    }

    fn write_byte(&self, state: &mut State, offset: u64, value: u8) {
        state.mode = match std::mem::replace(&mut state.mode, Mode::Array) {
            Mode::Array | Mode::Status | Mode::Id | Mode::Query => first_cycle(&mut state.status, value),
            Mode::Program => self.change(state, status::PROGRAM_FAILED, || self.contents.write(offset, &[value])),
            Mode::Erase if value == command::CONFIRM => {
                let block = offset - offset % BLOCK_SIZE;
                self.change(state, status::ERASE_FAILED, || self.contents.fill(block, BLOCK_SIZE, 0xff))
            }
            // No block is locked at any time.
            Mode::Lock if [command::CONFIRM, command::LOCK_BLOCK, command::LOCK_DOWN].contains(&value) => {
                state.status |= status::READY;
                Mode::Status
            }
            Mode::Erase | Mode::Lock if value == command::READ_ARRAY => Mode::Array,
            Mode::BufferCount => {
                Mode::Buffer(Buffer { left: usize::from(value) + 1, bytes: Vec::with_capacity(BUFFER_SIZE) })
            }
            Mode::Buffer(buffer) => self.buffered(state, buffer, offset, value),
            Mode::Erase | Mode::Lock => bad_sequence(&mut state.status),
        };
    }

    /// A cycle of a write to the buffer.
    fn buffered(&self, state: &mut State, mut buffer: Buffer, offset: u64, value: u8) -> Mode {
        let block = |offset: u64| offset / BLOCK_SIZE;
        if let Some(left) = buffer.left.checked_sub(1) {
            if buffer.bytes.first().is_some_and(|(first, _)| block(*first) != block(offset)) {
                return bad_sequence(&mut state.status);
            }
            buffer.bytes.push((offset, value));
            return Mode::Buffer(Buffer { left, ..buffer });
        }
        if value != command::CONFIRM {
            return bad_sequence(&mut state.status);
        }
        self.change(state, status::PROGRAM_FAILED, || self.contents.write_all(&buffer.bytes))
    }

    /// Changes the contents. What the host cannot keep is not there, and the status says so.
    fn change(&self, state: &mut State, failed: u8, change: impl FnOnce() -> io::Result<()>) -> Mode {
        if let Err(cause) = change() {
            // Once, and again after the guest has taken note.
            if state.status & failed == 0 {
                (self.log)(&format!("firmware variables: a write could not be kept: {cause}"));
            }
            state.status |= failed;
        }
        state.status |= status::READY;
        Mode::Status
    }
}

/// What a command leads to.
fn first_cycle(status: &mut u8, value: u8) -> Mode {
    match value {
        command::PROGRAM | command::PROGRAM_ALTERNATE => Mode::Program,
        command::ERASE => Mode::Erase,
        command::CLEAR_STATUS => {
            *status = 0;
            Mode::Array
        }
        command::LOCK => Mode::Lock,
        command::READ_STATUS => Mode::Status,
        command::READ_ID => Mode::Id,
        command::QUERY => Mode::Query,
        command::WRITE_TO_BUFFER => {
            *status |= status::READY;
            Mode::BufferCount
        }
        // Reading the array, and all that is no command.
        _ => Mode::Array,
    }
}

fn bad_sequence(status: &mut u8) -> Mode {
    *status |= status::READY | status::BAD_SEQUENCE;
    Mode::Status
}

/// An access of several bytes is that many cycles of the 8-bit bus.
impl BusDevice for Flash {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, byte) in (offset..).zip(data.iter_mut()) {
            *byte = self.read_byte(&state, at);
        }
        if matches!(state.mode, Mode::Array) && !state.shown {
            state.reads += 1;
            if state.reads >= READS_BEFORE_MEMORY {
                self.set_shown(&mut state, true);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.shown {
            self.set_shown(&mut state, false);
        }
        state.reads = 0;
        for (at, byte) in (offset..).zip(data) {
            self.write_byte(&mut state, at, *byte);
        }
    }
}
