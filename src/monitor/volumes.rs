//! An instance's volumes, opened.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::{VolumeConfig, VolumeSource};
use crate::disk::{self, Access, Disk, HostCache, Source};
use crate::launch::volumes::Volumes;
use crate::vmm::builder::DiskConfig;

/// A volume cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Its file, or its directory.
    #[error("volume {id} ({device}): {source}")]
    Disk {
        /// The volume.
        id: String,
        /// Its device.
        device: String,
        /// What is wrong.
        source: disk::Error,
    },
    /// It is made of layers.
    #[error("volume {id} ({device}): this program cannot open volumes that are made of layers")]
    Layers {
        /// The volume.
        id: String,
        /// Its device.
        device: String,
    },
    /// There is none.
    #[error("volumes: there is no root: the first volume is it")]
    NoRoot,
}

/// Opens and locks all volumes; the first is the root.
///
/// # Errors
/// [`VolumeError`]; every file is then as it was.
pub fn open(volumes: &[VolumeConfig]) -> Result<Volumes, VolumeError> {
    let disks = volumes.iter().map(open_one).collect::<Result<Vec<_>, _>>()?;
    let root = volumes.first().ok_or(VolumeError::NoRoot)?;
    let (path, format) = match &root.source {
        VolumeSource::Layers { stems, .. } => (stems.last().cloned().unwrap_or_default(), None),
        VolumeSource::File { path, format, .. } => (path.clone(), *format),
        VolumeSource::Blank { .. } => (PathBuf::from(&root.id), None),
    };
    Volumes::of(disks, path, format).ok_or(VolumeError::NoRoot)
}

/// Opens and locks one.
///
/// # Errors
/// [`VolumeError`].
pub fn open_one(volume: &VolumeConfig) -> Result<DiskConfig, VolumeError> {
    let (id, device) = (volume.id.clone(), volume.device.clone());
    let disk: Result<Arc<dyn Disk>, disk::Error> = match &volume.source {
        VolumeSource::Layers { .. } => return Err(VolumeError::Layers { id, device }),
        VolumeSource::File { path, format, throw_away } => {
            let access = match (volume.read_only, throw_away) {
                (true, _) => Access::ReadOnly,
                (false, Some(dir)) => Access::Throwaway { dir: dir.clone() },
                (false, None) => Access::Persist,
            };
            let source = Source { path: path.clone(), format: *format, access, size: None, cache: HostCache::Used };
            disk::open(&source).map(|opened| opened.disk)
        }
        VolumeSource::Blank { directory, size } => disk::blank(*size, directory, HostCache::Used),
    };
    let disk = disk.map_err(|source| VolumeError::Disk { id, device, source })?;
    Ok(DiskConfig { disk, serial: volume.serial(), device: volume.device.clone(), ephemeral: volume.ephemeral })
}
