//! Disk files opened to be imported.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::Flaw;
use super::fields::SECTOR;
use super::laid::{Laid, Layout};
use super::vhd::{self, Vhd};
use super::vhdx::{self, Vhdx};
use super::vmdk::{self, Vmdk};
use crate::disk::lock::Claim;
use crate::disk::{Access, Disk, Error, Format, HostCache, Source, format, open as native};

/// The format of a file that is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportFormat {
    /// The bytes of the disk, in order.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// VMware's format: one sparse or stream-optimized file, or a descriptor with extents beside it.
    Vmdk,
    /// Microsoft's Virtual Hard Disk, fixed or dynamic.
    Vhd,
    /// Hyper-V's format, version 1, fixed or dynamic.
    Vhdx,
}

impl fmt::Display for ImportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "VMDK",
            Self::Vhd => "VHD",
            Self::Vhdx => "VHDX",
        })
    }
}

impl FromStr for ImportFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vmdk" => Ok(Self::Vmdk),
            "vhd" | "vpc" => Ok(Self::Vhd),
            "vhdx" => Ok(Self::Vhdx),
            other => Err(format!("format {other:?} is not known; known are raw, qcow2, vmdk, vhd and vhdx")),
        }
    }
}

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file itself: it is not there, empty, in use, of an unknown kind; or a qcow2 that is not supported.
    #[error(transparent)]
    Disk(#[from] Error),
    /// What the file says.
    #[error("{}: this {format} {source}", path.display())]
    Flaw {
        /// The file asked for.
        path: PathBuf,
        /// Its format.
        format: ImportFormat,
        /// What is wrong.
        source: Flaw,
    },
}

/// A disk to be imported.
pub struct Imported {
    /// The disk, read-only. Where the file, or one it consists of, ends before it should, reading says so; nobody else
    /// may write to them for as long as this lives.
    pub disk: Arc<dyn Disk>,
    /// The format of the file.
    pub format: ImportFormat,
}

/// Bytes at the start of a file that are looked at.
const HEAD: usize = 4096;

/// Opens the disk file at `path` to be read. Its format is looked for in the file if it is not given; see
/// [`detect`](crate::disk::detect) for what that is worth.
///
/// # Errors
/// See [`ImportError`]; what differs from a parent disk, has a backing file, or is encrypted, is refused.
pub fn open(path: &Path, format: Option<ImportFormat>) -> Result<Imported, ImportError> {
    // A descriptor may be shorter than a disk.
    let file = format::open_any(path, false)?;
    native::claim(&file, path, Claim::Steady)?;
    let file_len = format::file_len(&file).map_err(|error| format::at(path, "cannot tell its size", error))?;
    let format = format.map_or_else(|| identify(&file, file_len, path), Ok)?;
    if format != ImportFormat::Vmdk {
        format::check_long_enough(&file, path)?;
    }
    let flaw = |source| ImportError::Flaw { path: path.into(), format, source };
    let disk: Arc<dyn Disk> = match format {
        ImportFormat::Raw => return own(path, Format::Raw, format),
        ImportFormat::Qcow2 => return own(path, Format::Qcow2, format),
        ImportFormat::Vmdk => {
            // The error of another's lock names the file already.
            let claim = |file: &File, path: &Path| {
                native::claim(file, path, Claim::Steady)
                    .map_err(|error| Flaw::Extent { name: path.display().to_string(), why: error.to_string() })
            };
            laid(Vmdk::new(file, file_len, path, &claim).map_err(flaw)?)
        }
        ImportFormat::Vhd => laid(Vhd::new(file, file_len).map_err(flaw)?),
        ImportFormat::Vhdx => laid(Vhdx::new(file, file_len).map_err(flaw)?),
    };
    Ok(Imported { disk, format })
}

fn laid(layout: impl Layout + 'static) -> Arc<dyn Disk> {
    Arc::new(Laid::new(layout))
}

/// Opens a file of a format that machines use too.
fn own(path: &Path, format: Format, of: ImportFormat) -> Result<Imported, ImportError> {
    let source = Source {
        path: path.into(),
        format: Some(format),
        access: Access::ReadOnly,
        size: None,
        cache: HostCache::Used,
    };
    Ok(Imported { disk: native::open(&source)?.disk, format: of })
}

/// Tells the format of a file by its content.
fn identify(file: &File, file_len: u64, path: &Path) -> Result<ImportFormat, Error> {
    let unreadable = |error| format::at(path, "cannot read it", error);
    let mut head = vec![0; usize::try_from(file_len).unwrap_or(usize::MAX).min(HEAD)];
    file.read_exact_at(&mut head, 0).map_err(unreadable)?;
    if vmdk::is_vmdk(&head) {
        return Ok(ImportFormat::Vmdk);
    }
    format::check_long_enough(file, path)?;
    let mut last = [0; SECTOR];
    file.read_exact_at(&mut last, file_len.saturating_sub(SECTOR as u64)).map_err(unreadable)?;
    if head.starts_with(vhdx::MAGIC) {
        Ok(ImportFormat::Vhdx)
    } else if vhd::is_footer(&head) || vhd::is_footer(&last) {
        Ok(ImportFormat::Vhd)
    } else {
        match format::detect_open(file, path)? {
            Format::Raw => Ok(ImportFormat::Raw),
            Format::Qcow2 => Ok(ImportFormat::Qcow2),
        }
    }
}
