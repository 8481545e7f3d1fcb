//! What can be wrong with a block device mapping.

use std::io;
use std::path::PathBuf;

use super::DeviceName;
use crate::disk;

/// Why a mapping cannot be had. Every message names the entry or the device, the field, and the mend.
#[derive(Debug, thiserror::Error)]
pub enum BdmError {
    /// An entry that is not of the form.
    #[error("--bdm {entry:?}: {why}")]
    Syntax {
        /// What was given.
        entry: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// A device name that EC2 does not have.
    #[error(
        "{name:?} is not a device name of a block device mapping; possible are /dev/sda to /dev/sdz, with or without a \
         number from 1 to 15, /dev/xvda to /dev/xvdz and /dev/xvdba to /dev/xvddz, for data volumes best /dev/sdf to /dev/sdp"
    )]
    DeviceName {
        /// What was given.
        name: String,
    },
    /// A field of an entry that does not go with the rest of it.
    #[error("block device mapping of {device}: {field}: {why}")]
    Field {
        /// The device of the entry.
        device: DeviceName,
        /// The option or JSON field.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// Two entries for one device.
    #[error("{device} is there twice in the block device mapping; give each device once")]
    Duplicate {
        /// The device.
        device: DeviceName,
    },
    /// JSON that is none, or has other fields than EC2's.
    #[error("--bdm {origin}: not the JSON of a block device mapping: {source}")]
    Json {
        /// The file, or "JSON".
        origin: String,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// The file with the mapping cannot be read.
    #[error("--bdm @{}: cannot read the block device mapping: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A volume that would be smaller than what it is made of; in the words of EC2.
    #[error(
        "block device mapping of {device}: volume of size {} is smaller than snapshot '{}', expect size >= {}GB ({size} and \
         {source_size} bytes)",
        disk::size::format_size(*size), path.display(), source_size.div_ceil(1 << 30)
    )]
    SmallerThanSnapshot {
        /// The device.
        device: DeviceName,
        /// Bytes asked for.
        size: u64,
        /// The disk file.
        path: PathBuf,
        /// Bytes of the disk in it.
        source_size: u64,
    },
    /// The disk of a volume cannot be opened.
    #[error("volume {device}: {source}")]
    Disk {
        /// The device.
        device: DeviceName,
        /// Why.
        source: disk::Error,
    },
    /// The host gives no random numbers for a volume id.
    #[error("cannot make a volume id: {0}")]
    Random(io::Error),
}

impl BdmError {
    /// Whether the mapping cannot be followed whatever files there are.
    #[must_use]
    pub fn is_about_words(&self) -> bool {
        match self {
            Self::Syntax { .. }
            | Self::DeviceName { .. }
            | Self::Field { .. }
            | Self::Duplicate { .. }
            | Self::Json { .. } => true,
            Self::Read { .. } | Self::SmallerThanSnapshot { .. } | Self::Disk { .. } | Self::Random(_) => false,
        }
    }
}
