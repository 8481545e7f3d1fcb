//! Disks in the formats of other makers: read to be imported, written to be exported.
//!
//! [`import::open`] makes a read-only [`Disk`](super::Disk) of a raw, qcow2, VMDK, VHD or VHDX file; [`export::write`] makes a
//! raw, qcow2, stream-optimized VMDK or dynamic VHD file of any disk. What is sparse stays sparse both ways.
//!
//! Each format is a `Layout`: a map from bytes of the disk to bytes of files. `Laid` makes a disk of it. A map is looked up
//! in the file each time it is needed, a piece at a time, so that memory is bounded whatever a file says of itself.

pub mod export;
mod fields;
mod flaw;
pub mod import;
mod laid;
mod output;
#[cfg(test)]
mod tests;
mod vhd;
mod vhdx;
mod vmdk;

pub use flaw::Flaw;
pub use output::{OutputError, Overwrite};
