//! From what a person asks for to a disk: the file, its format, its lock, its layer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lock::{self, Claim};
use super::qcow2::OpenError;
use super::{Disk, Error, Format, HostCache, MAX_SIZE, Overlay, Qcow2, Raw, SECTOR_SIZE, format, scratch};

/// What is to be done with a disk file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// A look, of which nothing depends on the file staying as it is. Takes no lock, so that what a running machine uses can
    /// be looked at too; what is seen may then not fit together.
    Inspect,
    /// Read-only use. Others may read the file, nobody may write to it meanwhile.
    ReadOnly,
    /// Writes go to a layer that is gone afterwards. To the file this is [`Access::ReadOnly`].
    Throwaway {
        /// A directory in whose file system the layer takes room; no name appears in it.
        dir: PathBuf,
    },
    /// Writes go to the file. Nobody else may use it meanwhile.
    Persist,
}

/// A disk file and how to use it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file or block device.
    pub path: PathBuf,
    /// Its format; looked for in the file if the person did not say (see [`detect`](super::detect) for what that is worth). However
    /// it was found, it does not change while the disk is open.
    pub format: Option<Format>,
    /// What is to be done with it.
    pub access: Access,
    /// Bytes that the disk is to have, at least those in the file; more only for [`Access::Throwaway`]. `None`: as it is.
    pub size: Option<u64>,
    /// What it does with the host's page cache.
    pub cache: HostCache,
}

/// A disk that was opened.
pub struct Opened {
    /// The disk. The lock on its file lasts as long as this does.
    pub disk: Arc<dyn Disk>,
    /// The format of the file.
    pub format: Format,
    /// Bytes of the disk in the file, without what a layer adds.
    pub base_size: u64,
}

/// Opens a disk.
///
/// # Errors
/// See [`Error`]; the file is then as it was.
pub fn open(source: &Source) -> Result<Opened, Error> {
    let path = &source.path;
    let persist = source.access == Access::Persist;
    let file = format::open_file(path, persist)?;
    match &source.access {
        Access::Inspect => {}
        Access::ReadOnly | Access::Throwaway { .. } => claim(&file, path, Claim::Steady)?,
        Access::Persist => claim(&file, path, Claim::Exclusive)?,
    }
    // Only now: what was there before the lock could have been changed by another.
    let format = source.format.map_or_else(|| format::detect_open(&file, path), Ok)?;
    let base = open_format(file, source, format, !persist)?;
    let base_size = base.size();
    if base_size > MAX_SIZE {
        return Err(Error::TooLarge { path: path.clone(), size: base_size });
    }
    let size = wanted_size(source, format, base_size)?;
    let disk = match &source.access {
        Access::Throwaway { dir } => {
            let overlay = Overlay::new(base, size, dir, source.cache);
            Arc::new(overlay.map_err(|error| no_room(dir, error))?)
        }
        _ => base,
    };
    Ok(Opened { disk, format, base_size })
}

/// A new, empty disk of `size` bytes that is gone afterwards; it takes room in the file system of directory `dir` as it is
/// written to.
///
/// # Errors
/// [`Error::BadSize`], or what the host said.
pub fn blank(size: u64, dir: &Path, cache: HostCache) -> Result<Arc<dyn Disk>, Error> {
    check_size(size)?;
    let raw = scratch::unnamed_file(dir, size).and_then(|file| Raw::new(file, false));
    let disk = raw.and_then(|disk| disk.with_cache(cache));
    Ok(Arc::new(disk.map_err(|error| no_room(dir, error))?))
}

/// The error of a directory that cannot hold a layer or an empty disk: also where it is not there, it is no disk file.
/// Sizes were checked before: what is invalid is only to go past the page cache.
fn no_room(dir: &Path, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EINVAL) => Error::NoDirectIo { path: dir.into() },
        _ => Error::Host {
            path: dir.into(),
            operation: "cannot make a throw-away file in it (TMPDIR names another directory)",
            source,
        },
    }
}

/// Keeps every other user out of a file that is no disk but written to like one; for as long as it is open.
///
/// # Errors
/// [`Error::Locked`] where another has it, [`Error::NoLocks`], or what the host said.
pub fn claim_for_writing(file: &File, path: &Path) -> Result<(), Error> {
    claim(file, path, Claim::Exclusive)
}

pub(super) fn claim(file: &File, path: &Path, wanted: Claim) -> Result<(), Error> {
    match lock::claim(file, wanted) {
        Ok(None) => Ok(()),
        Ok(Some((conflict, holders))) => Err(Error::Locked { path: path.into(), conflict, holders }),
        Err(error) if lock::has_no_locks(&error) => Err(Error::NoLocks { path: path.into() }),
        Err(error) => Err(format::at(path, "cannot lock it", error)),
    }
}

fn open_format(file: File, source: &Source, format: Format, read_only: bool) -> Result<Arc<dyn Disk>, Error> {
    let Source { path, cache, .. } = source;
    let host = |error| format::at(path, "cannot open the disk in it", error);
    match format {
        Format::Raw => {
            let disk = Raw::new(file, read_only).map_err(host)?;
            match disk.with_cache(*cache) {
                Ok(disk) => Ok(Arc::new(disk)),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    Err(Error::NoDirectIo { path: path.clone() })
                }
                Err(error) => Err(host(error)),
            }
        }
        Format::Qcow2 if *cache == HostCache::Bypassed => Err(Error::CachedFormat { path: path.clone(), format }),
        Format::Qcow2 => match Qcow2::new(file, read_only) {
            Ok(disk) => Ok(Arc::new(disk)),
            Err(OpenError::Header(source)) => Err(Error::Header { path: path.clone(), source }),
            Err(OpenError::Host(error)) => Err(host(error)),
        },
    }
}

/// The size that the disk will have.
fn wanted_size(source: &Source, format: Format, size: u64) -> Result<u64, Error> {
    let Some(wanted) = source.size else { return Ok(size) };
    let path = source.path.clone();
    check_size(wanted)?;
    if wanted < size {
        return Err(Error::SizeTooSmall { path, wanted, size });
    }
    if wanted > size && !matches!(source.access, Access::Throwaway { .. }) {
        return Err(Error::CannotGrow { path, format, wanted, size });
    }
    Ok(wanted)
}

fn check_size(size: u64) -> Result<(), Error> {
    let possible = (SECTOR_SIZE..=MAX_SIZE).contains(&size) && size.is_multiple_of(SECTOR_SIZE);
    if possible { Ok(()) } else { Err(Error::BadSize { size }) }
}
