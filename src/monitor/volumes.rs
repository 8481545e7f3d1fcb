//! An instance's volumes, opened.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::{VolumeConfig, VolumeSource};
use crate::disk::layered::{self, LayerAccess, LayerError, LayerFiles, Layered};
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
    /// One of its layers.
    #[error("volume {id} ({device}): {source}")]
    Layer {
        /// The volume.
        id: String,
        /// Its device.
        device: String,
        /// What is wrong.
        source: LayerError,
    },
    /// There is none.
    #[error("volumes: there is no root: the first volume is it")]
    NoRoot,
}

/// Opens and locks all volumes; the first is the root.
///
/// # Errors
/// [`VolumeError`]; every file is then as it was.
pub fn open(volumes: &[VolumeConfig]) -> Result<Opened, VolumeError> {
    let mut disks = Vec::with_capacity(volumes.len());
    let mut layered = Vec::new();
    for volume in volumes {
        let (disk, layers) = open_one(volume)?;
        disks.push(disk);
        layered.extend(layers.map(|layers| (volume.id.clone(), layers)));
    }
    let root = volumes.first().ok_or(VolumeError::NoRoot)?;
    let (path, format) = match &root.source {
        VolumeSource::Layers { stems, .. } => (stems.last().cloned().unwrap_or_default(), None),
        VolumeSource::File { path, format, .. } => (path.clone(), *format),
        VolumeSource::Blank { .. } => (PathBuf::from(&root.id), None),
    };
    let volumes = Volumes::of(disks, path, format).ok_or(VolumeError::NoRoot)?;
    Ok(Opened { volumes, layered })
}

/// Volumes that were opened.
pub struct Opened {
    /// All of them.
    pub volumes: Volumes,
    /// Those that are made of layers, by their ids.
    pub layered: Vec<(String, Arc<Layered>)>,
}

/// Opens and locks one; also as what it is, if it is made of layers.
///
/// # Errors
/// [`VolumeError`].
pub fn open_one(volume: &VolumeConfig) -> Result<(DiskConfig, Option<Arc<Layered>>), VolumeError> {
    let (id, device) = (volume.id.clone(), volume.device.clone());
    let config = |disk| {
        let (serial, device, ephemeral) = (volume.serial(), volume.device.clone(), volume.ephemeral);
        DiskConfig { disk, serial, device, ephemeral }
    };
    let disk: Result<Arc<dyn Disk>, disk::Error> = match &volume.source {
        VolumeSource::Layers { stems, size } => {
            let layered = open_layers(stems, *size, volume.read_only);
            let layered = Arc::new(layered.map_err(|source| VolumeError::Layer { id, device, source })?);
            return Ok((config(layered.clone()), Some(layered)));
        }
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
    Ok((config(disk), None))
}

/// A disk of layers; the top is written to, unless the disk is read only.
fn open_layers(stems: &[PathBuf], size: u64, read_only: bool) -> Result<Layered, LayerError> {
    let top = stems.len().saturating_sub(1);
    let open = |(at, stem): (usize, &PathBuf)| match at == top && !read_only {
        true => LayerFiles::open(stem, LayerAccess::Writable),
        false => layered::open_sealed(stem),
    };
    let files = stems.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
    Layered::open(files, size, read_only, HostCache::Used)
}
