//! The volumes of a run: the block device mapping, opened.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bdm::{self, BdmError, DeviceName, RootVolume, VolumeSource, VolumeSpec};
use super::plan::{RootDisk, open_at_once};
use crate::disk::{Disk, Format, HostCache};
use crate::image::cache::FileIdentity;
use crate::vmm::builder::DiskConfig;
use crate::vmm::config::{ConfigError, MachineConfig};
use crate::vmm::machine::pv;

/// Why the volumes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The mapping, or a volume of it.
    #[error(transparent)]
    Mapping(#[from] BdmError),
    /// One file behind two volumes, of which one writes to it.
    #[error(
        "{}: it is both volume {first} and volume {second}, and what is written to one of them is to stay in it; leave out \
         --persist, or give each a file of its own", path.display()
    )]
    Twice {
        /// The file.
        path: PathBuf,
        /// One volume.
        first: DeviceName,
        /// The other.
        second: DeviceName,
    },
    /// More of them than the machine has places for.
    #[error(transparent)]
    TooMany(#[from] ConfigError),
}

impl VolumeError {
    /// Whether the mapping cannot be followed whatever files there are.
    #[must_use]
    pub fn is_about_words(&self) -> bool {
        match self {
            Self::Mapping(error) => error.is_about_words(),
            Self::TooMany(_) => true,
            Self::Twice { .. } => false,
        }
    }
}

/// The volumes, open: the root first, the rest in the order of the mapping.
pub struct Volumes {
    root_path: PathBuf,
    root: Arc<dyn Disk>,
    root_format: Option<Format>,
    root_identity: Option<FileIdentity>,
    disks: Vec<DiskConfig>,
    hints: Vec<String>,
}

/// Opens the root and what the texts of `--bdm` map. With `root.persist`, writes to every file go to the file itself.
///
/// # Errors
/// [`VolumeError`]; every file is then as it was.
pub fn open(root: &RootVolume, mapping: &[String]) -> Result<Volumes, VolumeError> {
    let mut entries = Vec::new();
    for text in mapping {
        entries.extend(bdm::parse(text)?);
    }
    if root.persist {
        entries
            .iter_mut()
            .filter(|e| matches!(e.source, bdm::BdmSource::File(_)))
            .for_each(|e| e.persist = !e.read_only);
    }
    let specs = bdm::resolve(root, &entries)?;
    MachineConfig::check_disks(specs.len(), pv::VOLUMES_MAX)?;
    check_files(&specs)?;
    // Before the disk is opened: what is found on it is then at least as new as this says.
    let root_identity = identity(&root.path);
    let dir = scratch_dir();
    let disks = specs.iter().map(|spec| open_spec(spec, &dir, root.cache)).collect::<Result<Vec<_>, _>>()?;
    // The root is always there: resolve() begins with it.
    let root_disk = disks.first().map(|d| d.disk.clone()).ok_or(ConfigError::TooManyDisks { asked: 0, max: 0 })?;
    Ok(Volumes {
        root_path: root.path.clone(),
        root: root_disk,
        root_format: root.format,
        root_identity,
        disks,
        hints: bdm::hints(root, &entries),
    })
}

/// Its own locks would keep the run from opening a file a second time, and name the run itself as the one in the way.
fn check_files(specs: &[VolumeSpec]) -> Result<(), VolumeError> {
    let file = |spec: &VolumeSpec| match &spec.source {
        // One that is not there is told when it is opened.
        VolumeSource::File { path, .. } => fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino())),
        VolumeSource::Blank => None,
    };
    for (index, second) in specs.iter().enumerate() {
        let same = |first: &&VolumeSpec| file(first) == file(second) && (first.persist || second.persist);
        if let (VolumeSource::File { path, .. }, Some(_)) = (&second.source, file(second))
            && let Some(first) = specs.iter().take(index).find(same)
        {
            return Err(VolumeError::Twice {
                path: path.clone(),
                first: first.device.clone(),
                second: second.device.clone(),
            });
        }
    }
    Ok(())
}

fn open_spec(spec: &VolumeSpec, dir: &Path, cache: HostCache) -> Result<DiskConfig, BdmError> {
    let serial = String::from_utf8_lossy(&spec.serial()).into_owned();
    let disk = spec.open(dir, cache)?;
    Ok(DiskConfig { disk, serial, device: spec.device.to_string(), ephemeral: spec.ephemeral })
}

/// A block device does not tell by its times that it was written to: it has no identity.
fn identity(path: &Path) -> Option<FileIdentity> {
    let file = open_at_once(path).ok()?;
    file.metadata().ok()?.is_file().then(|| FileIdentity::of(&file).ok())?
}

impl Volumes {
    /// Volumes that another has opened, the root of which is known as `root_path` in messages. None where there is no disk.
    #[must_use]
    pub fn of(disks: Vec<DiskConfig>, root_path: PathBuf, root_format: Option<Format>) -> Option<Self> {
        let root = disks.first()?.disk.clone();
        Some(Self { root_path, root, root_format, root_identity: None, disks, hints: Vec::new() })
    }

    /// The disks, in the order in which the guest sees them.
    #[must_use]
    pub fn disks(&self) -> &[DiskConfig] {
        &self.disks
    }

    /// The disks alone, so that nothing else keeps one open that the machine lets go of.
    #[must_use]
    pub fn into_disks(self) -> Vec<DiskConfig> {
        self.disks
    }

    /// The root, for the planner.
    #[must_use]
    pub fn root(&self) -> RootDisk {
        RootDisk {
            path: self.root_path.clone(),
            disk: self.root.clone(),
            format: self.root_format,
            identity: self.root_identity,
        }
    }

    /// What the person may have meant otherwise.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

/// Where throw-away layers take room: `$TMPDIR`, else `/var/tmp`, which unlike `/tmp` is seldom in memory.
#[must_use]
pub fn scratch_dir() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|v| !v.is_empty()).map_or_else(|| Path::new("/var/tmp").into(), PathBuf::from)
}
