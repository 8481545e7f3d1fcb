//! Disks written as files of other formats.

mod formats;
mod units;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) use self::units::Units;
pub use self::units::data_len;
pub(crate) use self::units::is_zero;
use super::Progress;
use super::{vhd, vmdk};
use crate::disk::Disk;
use crate::disk::output::{Output, OutputError, Overwrite};

/// The format of a file that is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// The bytes of the disk, in order; zeroes are holes.
    Raw,
    /// qcow2, version 3.
    Qcow2,
    /// VMDK, stream-optimized: compressed, in one file.
    Vmdk,
    /// VHD, dynamic.
    Vhd,
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "VMDK",
            Self::Vhd => "VHD",
        })
    }
}

impl FromStr for ExportFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vmdk" => Ok(Self::Vmdk),
            "vhd" | "vpc" => Ok(Self::Vhd),
            other => Err(format!("format {other:?} is not written; written are raw, qcow2, vmdk and vhd")),
        }
    }
}

/// Why a disk is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The disk cannot be read.
    #[error("cannot read the disk: {0}")]
    Disk(#[source] io::Error),
    /// The file cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The format has no disks of this size.
    #[error(
        "{}: a {format} holds at most {limit} bytes, and the disk has {size}; choose raw or qcow2",
        path.display()
    )]
    TooLarge {
        /// The file asked for.
        path: PathBuf,
        /// The format asked for.
        format: ExportFormat,
        /// Bytes of the disk.
        size: u64,
        /// Bytes that the format can have.
        limit: u64,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the disk.
    pub disk_size: u64,
    /// Bytes of the disk that are in the file; all others are zero. In units of the format.
    pub data: u64,
    /// Length of the file, in bytes.
    pub file_len: u64,
}

/// Writes `disk` as a file of `format` to `to`, where it appears when it is whole and durable. The disk must not be written to
/// meanwhile.
///
/// # Errors
/// See [`ExportError`]; nothing is then left of the file, and one that was to be overwritten is as it was.
pub fn write(
    disk: &dyn Disk,
    format: ExportFormat,
    to: &Path,
    overwrite: Overwrite,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, ExportError> {
    let limit = match format {
        ExportFormat::Vhd => vhd::MAX_SIZE,
        _ => crate::disk::MAX_SIZE,
    };
    if disk.size() > limit {
        return Err(ExportError::TooLarge { path: to.into(), format, size: disk.size(), limit });
    }
    let output = Output::create(to, overwrite)?;
    let total = data_len(disk).map_err(ExportError::Disk)?;
    // What compression will make of it is not known.
    if format != ExportFormat::Vmdk {
        output.need_room(total)?;
    }
    let mut source = Units::new(disk, total, progress);
    let data = match format {
        ExportFormat::Raw => formats::raw(&mut source, &output)?,
        ExportFormat::Qcow2 => formats::qcow2(&mut source, &output)?,
        ExportFormat::Vmdk => vmdk::write(&mut source, &output, &name_of(to))?,
        ExportFormat::Vhd => vhd::write(&mut source, &output)?,
    };
    source.finish();
    let file_len =
        crate::disk::format::file_len(output.file()).map_err(|error| output.failed("tell its size", error))?;
    output.finish()?;
    Ok(Summary { disk_size: disk.size(), data, file_len })
}

/// The name of the file without its directory.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
