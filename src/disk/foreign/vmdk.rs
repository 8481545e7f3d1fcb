//! VMDK, VMware's disks ("Virtual Disk Format 5.0"): sparse and stream-optimized files, and descriptors with flat or sparse
//! extents beside them.
//!
//! A descriptor is a text that lists extents, one after the other on the disk. It is a file of its own, or lies inside
//! the one sparse extent that is all of the disk. A sparse extent is made of grains; a directory says where the tables
//! are that say where the grains are.

mod descriptor;
mod extents;
mod sparse;
mod write;

pub(super) use extents::Vmdk;
pub(super) use write::write;

use self::descriptor::is_descriptor;

/// What the head of a file says that is of this family: `None`, or whether it is a text.
pub(super) fn is_vmdk(head: &[u8]) -> bool {
    head.starts_with(sparse::MAGIC) || other_kind(head).is_some() || is_descriptor(head)
}

/// Kinds of extents that are not read.
fn other_kind(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"COWD") {
        Some("is a sparse extent of VMware ESX (COWD)")
    } else if head.starts_with(&0xcafe_babe_u64.to_le_bytes()) {
        Some("is a space-efficient sparse extent of VMware ESX (seSparse)")
    } else {
        None
    }
}

/// How to get another kind of it.
const CONVERT: &str =
    "make one file of it: vmkfstools -i OLD -d monolithicsparse NEW, or qemu-img convert -O qcow2 OLD NEW";
