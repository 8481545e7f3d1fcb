//! Disks in layers: how volumes and snapshots are kept.
//!
//! A *layer* is two files: `NAME.data`, a sparse file in which byte X of the disk is byte X, and `NAME.map`, which says
//! which units of 4 KiB are in it. A unit that is in a layer hides what the layers below have there, also where the data
//! file has a hole: that reads as zero, so that what was discarded takes no room. A *chain* of layers, bottom first, is a
//! disk ([`Layered`]): each unit is the topmost layer's that has it, and zero where none has.
//!
//! A layer is *open*, and may be written to as the top of one chain; or *sealed*, and then it never changes again, may lie
//! in any number of chains, and its map has a checksum. To cut a volume from a snapshot is to put a new empty layer on its
//! chain; to make a snapshot is to seal the top and put a new one on it ([`Layered::snapshot`]), at any moment.
//!
//! # The map file
//!
//! All numbers are little endian. The header is the first 64 bytes, within one sector, which disks write as a whole;
//! up to byte 4096 there are zeroes.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `AMILAYER` |
//! | 8..12 | version, 1 |
//! | 12..16 | state: 0 open, 1 sealed |
//! | 16..32 | id: random |
//! | 32..40 | bytes of the disk: a multiple of 512, at most 64 TiB |
//! | 40..44 | bytes of a unit: 4096 |
//! | 44..48 | sealed: checksum of the bitmap; else 0 |
//! | 48..60 | 0 |
//! | 60..64 | CRC-32C of bytes 0..60 |
//!
//! From byte 4096 there is the bitmap, in pages of 4096 bytes for 128 MiB of disk each: unit U is bit U % 8 of byte
//! U / 8. The checksum of the bitmap is the CRC-32C over the number of each page with a bit in it (4 bytes) and the CRC-32C of
//! that page (4 bytes), in order; so it costs nothing where there is nothing, and is made anew quickly after a change.
//!
//! # What survives
//!
//! Bits reach the map file only when the disk is flushed, after the data were made durable; they are never taken back. So
//! whenever the process or the host ends, the map names only units whose data are whole: what was not flushed may be lost,
//! sector by sector, nothing else. Before a unit enters a layer there is room for it and for its bit, so that a full file
//! system shows as the error of that request, and leaves everything else as it was.

mod bitmap;
mod care;
mod chain;
mod changes;
mod crc32c;
mod error;
mod files;
mod fill;
mod header;
mod layer;
mod merge;
mod owners;
mod region;
mod snapshot;
mod stack;
#[cfg(test)]
mod tests;
mod top;

pub use care::{check, open_sealed, remove, seal};
pub use changes::{Changes, changes};
pub use error::LayerError;
pub(crate) use files::map_path;
pub use files::{LayerAccess, LayerFiles, LayerInfo};
pub use fill::{Progress, fill};
pub use merge::merge;
pub use snapshot::snapshot_together;
pub use stack::Layered;

/// The unit of copy-on-write, in bytes: the block of nearly every file system and the page of the host.
pub const UNIT: u64 = UNIT_LEN as u64;
const UNIT_LEN: usize = 4096;

/// Bytes of a page of the map file.
const PAGE: u64 = PAGE_LEN as u64;
const PAGE_LEN: usize = 4096;

/// Units that share one page of the map: a region of the disk.
const UNITS_PER_REGION: u64 = PAGE * 8;

/// Bytes that a region covers: 128 MiB.
const REGION: u64 = UNIT * UNITS_PER_REGION;

/// The regions of a disk of `size` bytes.
const fn regions(size: u64) -> u64 {
    size.div_ceil(REGION)
}

/// Bytes of the map file of a layer for `size` bytes.
const fn map_len(size: u64) -> u64 {
    PAGE + regions(size) * PAGE
}
