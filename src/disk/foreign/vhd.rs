//! VHD, Microsoft's Virtual Hard Disk: fixed and dynamic ("Virtual Hard Disk Image Format Specification", version 1.0).
//!
//! A footer of one sector at the end of the file says what it is. A fixed disk lies before it, byte for byte. A dynamic
//! disk is made of blocks, each behind a bitmap of its sectors; a table says where each block lies.

mod read;
mod structures;
mod write;

pub(super) use read::{Vhd, is_footer};
#[cfg(test)]
pub(super) use structures::checksum;
pub(super) use write::{MAX_SIZE, write};
