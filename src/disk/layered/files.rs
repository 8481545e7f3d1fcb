//! The two files of a layer, open and locked.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::header::{self, Header};
use super::{LayerError, bitmap, map_len};
use crate::disk::lock::{self, Claim};
use crate::disk::random_bytes;

/// What is to be done with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerAccess {
    /// To read a sealed layer, which nobody can change. Takes a lock that any number may have.
    Sealed,
    /// To write to an open layer. Nobody else may use it meanwhile.
    Writable,
    /// A look, of which nothing depends on the layer staying as it is: takes no lock.
    Inspect,
}

/// A layer: both of its files, open, and locked as long as this or what is made of it lasts.
///
/// The lock is on the data file and covers both. It is one of the open file description, so that it goes along when the
/// descriptors are handed to another process.
#[derive(Debug)]
pub struct LayerFiles {
    pub(super) data: File,
    pub(super) map: File,
    pub(super) access: LayerAccess,
    /// Where the layer is, for messages: the files have `.data` and `.map` at the end of it.
    pub(super) stem: PathBuf,
}

/// What can be said of a layer at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Random, so that no two layers have the same.
    pub id: [u8; 16],
    /// Bytes of the disk.
    pub size: u64,
    /// Whether it never changes any more.
    pub sealed: bool,
    /// Bytes that both files take in their file system.
    pub allocated: u64,
}

/// The name of a file of a layer.
pub(super) fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(ending);
    name.into()
}

/// The data file of a layer.
#[must_use]
pub(super) fn data_path(stem: &Path) -> PathBuf {
    with_ending(stem, ".data")
}

/// The map file of a layer.
#[must_use]
pub(crate) fn map_path(stem: &Path) -> PathBuf {
    with_ending(stem, ".map")
}

impl LayerFiles {
    /// Makes a new, empty, open layer of `size` bytes: `STEM.data` and `STEM.map`, durable with their names.
    ///
    /// # Errors
    /// [`LayerError::Exists`], [`LayerError::BadSize`], or what the host said; then no file is left.
    pub fn create(stem: &Path, size: u64) -> Result<Self, LayerError> {
        if !header::is_size(size) {
            return Err(LayerError::BadSize { path: stem.to_owned(), size });
        }
        let data = new_file(&data_path(stem))?;
        let made = Self::create_map(stem, data, size);
        if made.is_err() {
            // The error is that of making it.
            let _ = std::fs::remove_file(data_path(stem));
        }
        made
    }

    fn create_map(stem: &Path, data: File, size: u64) -> Result<Self, LayerError> {
        let path = map_path(stem);
        let map = new_file(&path)?;
        let files = Self { data, map, access: LayerAccess::Writable, stem: stem.to_owned() };
        let made = files.claim().and_then(|()| files.format(size)).and_then(|()| sync_directory(stem));
        if let Err(error) = made {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(files)
    }

    /// Makes the empty files those of an empty layer.
    fn format(&self, size: u64) -> Result<(), LayerError> {
        let id = random_bytes().map_err(LayerError::host(&self.stem, "cannot make an id"))?;
        let data = self.data.set_len(size).and_then(|()| self.data.sync_all());
        data.map_err(LayerError::host(&self.data_path(), "cannot make the file"))?;
        let header = Header { id, size, sealed: None };
        let map = self.map.set_len(map_len(size)).and_then(|()| header.write(&self.map));
        map.and_then(|()| self.map.sync_all()).map_err(LayerError::host(&self.map_path(), "cannot make the file"))
    }

    /// Opens a layer. What is in its map is looked at only where it is used.
    ///
    /// # Errors
    /// What is wrong with it, or [`LayerError::Locked`].
    pub fn open(stem: &Path, access: LayerAccess) -> Result<Self, LayerError> {
        let write = access == LayerAccess::Writable;
        let open = |path: PathBuf| match OpenOptions::new().read(true).write(write).open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LayerError::Missing { path }),
            Err(error) => Err(LayerError::host(&path, "cannot open it")(error)),
        };
        let (data, map) = (open(data_path(stem))?, open(map_path(stem))?);
        Self { data, map, access, stem: stem.to_owned() }.checked()
    }

    /// The layer whose files another process has opened, with their locks.
    ///
    /// # Errors
    /// As [`LayerFiles::open`]; `EBADF` for descriptors that are not open for what is to be done.
    pub fn from_fds(data: OwnedFd, map: OwnedFd, access: LayerAccess) -> Result<Self, LayerError> {
        let stem = path_of(data.as_fd()).unwrap_or_else(|| "a layer".into());
        for file in [&data, &map] {
            let mode = rustix::fs::fcntl_getfl(file).map(|flags| flags & rustix::fs::OFlags::ACCMODE);
            let wanted = access == LayerAccess::Writable;
            let fits = mode
                .is_ok_and(|mode| mode == rustix::fs::OFlags::RDWR || (mode == rustix::fs::OFlags::RDONLY && !wanted));
            if !fits {
                let error = io::Error::from_raw_os_error(libc::EBADF);
                return Err(LayerError::host(&stem, "its files are not open for this")(error));
            }
        }
        Self { data: data.into(), map: map.into(), access, stem }.checked()
    }

    /// The descriptors of the data and of the map file, to be handed to another process; the lock goes with the first.
    #[must_use]
    pub fn into_fds(self) -> (OwnedFd, OwnedFd) {
        (self.data.into(), self.map.into())
    }

    /// The same, lent.
    #[must_use]
    pub fn fds(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.data.as_fd(), self.map.as_fd())
    }

    /// The same, once more; the lock is one.
    ///
    /// # Errors
    /// What the host said.
    pub fn try_clone(&self) -> Result<Self, LayerError> {
        let clone = |file: &File| file.try_clone().map_err(LayerError::host(&self.stem, "cannot open it once more"));
        let (data, map) = (clone(&self.data)?, clone(&self.map)?);
        Ok(Self { data, map, access: self.access, stem: self.stem.clone() })
    }

    /// The path of the layer, without the endings of its files.
    #[must_use]
    pub fn stem(&self) -> &Path {
        &self.stem
    }

    /// What can be said of it at a glance.
    ///
    /// # Errors
    /// What is wrong with its header.
    pub fn info(&self) -> Result<LayerInfo, LayerError> {
        let header = self.header()?;
        let blocks = |file: &File, path: PathBuf| match file.metadata() {
            Ok(meta) => Ok(meta.blocks().saturating_mul(512)),
            Err(error) => Err(LayerError::host(&path, "cannot look at it")(error)),
        };
        let allocated = blocks(&self.data, self.data_path())?.saturating_add(blocks(&self.map, self.map_path())?);
        Ok(LayerInfo { id: header.id, size: header.size, sealed: header.sealed.is_some(), allocated })
    }

    pub(super) fn data_path(&self) -> PathBuf {
        data_path(&self.stem)
    }

    pub(crate) fn map_path(&self) -> PathBuf {
        map_path(&self.stem)
    }

    pub(super) fn header(&self) -> Result<Header, LayerError> {
        Header::read(&self.map, &self.map_path())
    }

    /// Locks the layer and looks whether its state, and the length of its files, are what they should be.
    fn checked(self) -> Result<Self, LayerError> {
        for (file, path) in [(&self.data, self.data_path()), (&self.map, self.map_path())] {
            let meta = file.metadata().map_err(LayerError::host(&path, "cannot look at it"))?;
            if !meta.is_file() {
                return Err(LayerError::NotAFile { path });
            }
        }
        self.claim()?;
        // Only now: it could have been changed before.
        let header = self.header()?;
        match (self.access, header.sealed) {
            (LayerAccess::Sealed, None) => return Err(LayerError::NotSealed { path: self.stem }),
            (LayerAccess::Writable, Some(_)) => return Err(LayerError::Sealed { path: self.stem }),
            _ => {}
        }
        self.check_lengths(&header)?;
        Ok(self)
    }

    /// Whether the files are as long as the header says. Those of an open layer may be longer: someone was about to make it
    /// larger.
    fn check_lengths(&self, header: &Header) -> Result<(), LayerError> {
        let files = [(&self.data, self.data_path(), header.size), (&self.map, self.map_path(), map_len(header.size))];
        for (file, path, wanted) in files {
            let len = file.metadata().map_err(LayerError::host(&path, "cannot look at it"))?.len();
            if len < wanted || (len > wanted && header.sealed.is_some()) {
                return Err(LayerError::Length { path, len, wanted });
            }
        }
        Ok(())
    }

    /// Looks at all that there is to check.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<LayerInfo, LayerError> {
        bitmap::scan(&self.map, &self.header()?, &self.map_path(), |_, _| {})?;
        self.info()
    }

    fn claim(&self) -> Result<(), LayerError> {
        let claim = match self.access {
            LayerAccess::Sealed => Claim::Steady,
            LayerAccess::Writable => Claim::Exclusive,
            LayerAccess::Inspect => return Ok(()),
        };
        let path = self.data_path();
        match lock::claim(&self.data, claim) {
            Ok(None) => Ok(()),
            Ok(Some((conflict, holders))) => Err(LayerError::Locked { path, conflict, holders }),
            Err(error) if lock::has_no_locks(&error) => Err(LayerError::NoLocks { path }),
            Err(error) => Err(LayerError::host(&path, "cannot lock it")(error)),
        }
    }
}

fn new_file(path: &Path) -> Result<File, LayerError> {
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(LayerError::Exists { path: path.to_owned() }),
        Err(error) => Err(LayerError::host(path, "cannot make the file")(error)),
    }
}

/// Makes the names in the directory of `stem` durable.
pub(super) fn sync_directory(stem: &Path) -> Result<(), LayerError> {
    let dir = match stem.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(LayerError::host(dir, "cannot make the directory durable"))
}

/// The stem of an open data file, as the kernel knows it.
fn path_of(data: BorrowedFd<'_>) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", data.as_raw_fd())).ok()?;
    let path = path.to_str()?;
    Some(path.strip_suffix(".data").unwrap_or(path).into())
}
