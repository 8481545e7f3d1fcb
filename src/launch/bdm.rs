//! The block device mapping: which volumes a machine gets, under which names, in which order.
//!
//! An entry is written as `DEV=SOURCE[,OPTION...]`, or in the JSON of the `aws` command line tool, which the types of the
//! EC2 API follow ("BlockDeviceMapping", "EbsBlockDevice" in its reference). [`parse()`] reads what was given, [`resolve`]
//! joins it with the root volume, as RunInstances joins what it is asked for with the mapping of the image, and
//! [`VolumeSpec::open`] makes a disk of each volume.

mod device;
mod error;
mod json;
mod parse;
mod rules;
mod volume;

use std::path::PathBuf;

pub use device::DeviceName;
pub use error::BdmError;
pub use parse::parse;
pub use volume::{RootVolume, VolumeSource, VolumeSpec, hints, resolve};

use crate::disk::Format;

/// Bytes of an instance-store volume for which no size is given.
pub const EPHEMERAL_SIZE: u64 = 1 << 30;

/// One entry of a block device mapping, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BdmEntry {
    /// The device that it is about.
    pub device: DeviceName,
    /// What is to be there.
    pub source: BdmSource,
    /// Bytes that the volume is to have: those of an empty one, else at least what is in the source.
    pub size: Option<u64>,
    /// Whether the volume goes when the machine does.
    pub delete_on_termination: Option<bool>,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// What the guest writes goes to the file itself.
    pub persist: bool,
    /// The format of the file.
    pub format: Option<Format>,
}

/// What an entry puts at its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BdmSource {
    /// A volume made of a snapshot, by its id.
    Snapshot(String),
    /// An empty volume. For the root device: the root volume, of another size.
    Blank,
    /// A disk file.
    File(PathBuf),
    /// An instance-store volume, by its number, 0 to 23: empty, and never kept.
    Ephemeral(u8),
    /// Nothing, whatever the image has there.
    Nothing,
}
