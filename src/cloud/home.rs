//! Where everything is kept: the directory `$AMIBOOT_HOME` and what is in it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::CloudError;

/// Bytes of the reserve: the write-ahead log of some hundred changes.
const RESERVE: u64 = 2 << 20;
/// Bytes that are free where it is made.
const ROOM_FOR_RESERVE: u64 = 8 * RESERVE;

/// The directory of the catalogue and of all that it tells of.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The name of [`Home::buckets`] in the directory itself.
    pub const BUCKETS: &'static str = "store";

    /// `$AMIBOOT_HOME`, else `amiboot` in `$XDG_DATA_HOME`, else in `~/.local/share`.
    ///
    /// # Errors
    /// Where none of these is set; else as [`Home::at`].
    pub fn of_person() -> Result<Self, CloudError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("AMIBOOT_HOME")
            .or_else(|| set("XDG_DATA_HOME").map(|dir| dir.join("amiboot")))
            .or_else(|| set("HOME").map(|dir| dir.join(".local/share/amiboot")))
            .ok_or_else(|| {
                CloudError::value("neither AMIBOOT_HOME nor HOME is set: there is no place for the catalogue")
            })?;
        Self::at(&root)
    }

    /// The directory `root`, made where it is not there, for its owner alone.
    ///
    /// # Errors
    /// What the host says.
    pub fn at(root: &Path) -> Result<Self, CloudError> {
        let root = std::path::absolute(root).map_err(CloudError::host(root, "cannot tell where it is"))?;
        let home = Self { root };
        for dir in [home.root.clone(), home.layers(), home.instances(), home.operations()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(CloudError::host(&dir, "cannot make the directory"))?;
        }
        Ok(home)
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The catalogue.
    #[must_use]
    pub fn catalogue(&self) -> PathBuf {
        self.root.join("catalogue.sqlite")
    }

    /// The directory of layers.
    #[must_use]
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The files of one layer, without their endings.
    #[must_use]
    pub fn layer(&self, id: &str) -> PathBuf {
        self.layers().join(id)
    }

    /// The directory of all instances' directories.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// What belongs to one instance.
    #[must_use]
    pub fn instance(&self, id: &str) -> PathBuf {
        self.instances().join(id)
    }

    /// Where machines of a VPC find each other.
    #[must_use]
    pub fn network(&self, vpc: &str) -> PathBuf {
        self.root.join("networks").join(vpc)
    }

    /// The directory of buckets: each is a directory of its name, and its objects are files below that.
    #[must_use]
    pub fn buckets(&self) -> PathBuf {
        self.root.join(Self::BUCKETS)
    }

    /// The directory of the locks of operations under way.
    #[must_use]
    pub fn operations(&self) -> PathBuf {
        self.root.join("ops")
    }

    /// Bytes that this user can still write in the store's file system.
    ///
    /// # Errors
    /// What the host says.
    pub fn free_space(&self) -> Result<u64, CloudError> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|e| CloudError::host(&self.root, "cannot see how much room there is")(e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes that layers may take: all that are free but for the reserve.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn free_for_layers(&self) -> Result<u64, CloudError> {
        let kept = fs::metadata(self.root.join("reserve")).map_or(0, |meta| meta.len());
        Ok(self.free_space()?.saturating_sub(RESERVE.saturating_sub(kept)))
    }

    /// Refuses a directory with layers whose catalogue is gone, or was emptied: a new one would know none of them.
    ///
    /// # Errors
    /// [`CloudError::Damaged`]; what the host says.
    pub(super) fn check(&self) -> Result<(), CloudError> {
        let path = self.catalogue();
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > 0) {
            return Ok(());
        }
        let layers = self.layers();
        let has_layers = fs::read_dir(&layers).map_err(CloudError::host(&layers, "cannot list it"))?.next().is_some();
        // One that another has just made is there by now.
        if !has_layers || fs::metadata(&path).is_ok_and(|meta| meta.len() > 0) {
            return Ok(());
        }
        Err(CloudError::Damaged(format!(
            "{}: the catalogue is damaged: it is empty or missing, and {} has layers; restore it from a copy, or move its \
             directory away to begin anew",
            path.display(),
            layers.display()
        )))
    }

    /// Keeps some room for the catalogue: in a file system that is full, what makes room again has to be written down.
    /// The file that takes it is there while there is much room, and gone while there is none.
    ///
    /// # Errors
    /// What the host says.
    pub(super) fn keep_reserve(&self) -> Result<(), CloudError> {
        let (path, free) = (self.root.join("reserve"), self.free_space()?);
        if free < RESERVE {
            return Self::remove_file(&path);
        }
        if free < ROOM_FOR_RESERVE || fs::metadata(&path).is_ok_and(|meta| meta.len() == RESERVE) {
            return Ok(());
        }
        // Where it cannot be made there is none.
        let made = File::options().write(true).create(true).truncate(false).open(&path);
        let _ = made.map(|file| rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE));
        Ok(())
    }

    /// Makes what was done to the names in a directory durable.
    ///
    /// # Errors
    /// What the host says.
    pub fn sync_dir(dir: &Path) -> Result<(), CloudError> {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(CloudError::host(dir, "cannot make it durable"))
    }

    /// Removes a file that may be gone already.
    ///
    /// # Errors
    /// What else the host says.
    pub fn remove_file(path: &Path) -> Result<(), CloudError> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CloudError::host(path, "cannot remove it")(e)),
            _ => Ok(()),
        }
    }
}
