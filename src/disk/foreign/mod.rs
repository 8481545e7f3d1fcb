//! Disks in the formats of other makers: read to be imported, written to be exported.
//!
//! [`import::open`] makes a read-only [`Disk`](super::Disk) of a raw, qcow2, VMDK, VHD or VHDX file; [`export::write`] makes a
//! raw, qcow2, stream-optimized VMDK or dynamic VHD file of any disk. What is sparse stays sparse both ways.
//!
//! Each format is a `Layout`: a map from bytes of the disk to bytes of files. `Laid` makes a disk of it. A map is looked up
//! in the file each time it is needed, a piece at a time, so that memory is bounded whatever a file says of itself.

mod beside;
pub mod export;
mod fields;
mod flaw;
pub mod import;
mod laid;
#[cfg(test)]
mod tests;
mod vhd;
mod vhdx;
mod vmdk;

pub use crate::disk::output::{OutputError, Overwrite};
pub(crate) use beside::{BesideError, directory_of, open_beside};
pub(crate) use export::is_zero;
pub use flaw::Flaw;

/// How far something is that takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done; in the end as many as `total`.
    pub done: u64,
    /// Bytes to be done: of a disk, those that may be something else than zero.
    pub total: u64,
}
