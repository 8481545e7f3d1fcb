//! What the chip says of itself.

use super::{BLOCK_SIZE, BUFFER_SIZE};

/// Intel.
const MANUFACTURER: u8 = 0x89;
const DEVICE: u8 = 0x18;

/// What a read at `offset` of the identifiers gives. No block is locked.
pub(super) fn id(offset: u64) -> u8 {
    match offset & 0xff {
        0 => MANUFACTURER,
        1 => DEVICE,
        _ => 0,
    }
}

/// A byte of the query table (JESD68.01, section 2.3) of a chip of `len` bytes.
pub(super) fn table(offset: u64, len: u64) -> u8 {
    let blocks = (len / BLOCK_SIZE).saturating_sub(1).to_le_bytes();
    let block_size = (BLOCK_SIZE / 256).to_le_bytes();
    match offset {
        0x10 => b'Q',
        0x11 => b'R',
        0x12 => b'Y',
        // Intel's command set, its table, and no other.
        0x13 => 0x01,
        0x15 => 0x31,
        // Volts that it works with, and how long operations take, as powers of two of microseconds or milliseconds.
        0x1b => 0x45,
        0x1c => 0x55,
        0x1f | 0x20 => 0x07,
        0x21 => 0x0a,
        0x23..=0x25 => 0x04,
        // Sizes, as powers of two: of the chip, at least, and of the buffer.
        0x27 => u8::try_from(len.next_power_of_two().trailing_zeros()).unwrap_or(0),
        0x2a => u8::try_from(BUFFER_SIZE.trailing_zeros()).unwrap_or(0),
        // One region of equal blocks: their number less one, their size in units of 256 bytes.
        0x2c => 1,
        0x2d => blocks[0],
        0x2e => blocks[1],
        0x2f => block_size[0],
        0x30 => block_size[1],
        // Intel's table, version 1.0, none of its features.
        0x31 => b'P',
        0x32 => b'R',
        0x33 => b'I',
        0x34 => b'1',
        0x35 => b'0',
        _ => 0,
    }
}
