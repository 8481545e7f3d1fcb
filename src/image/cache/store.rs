//! Files that are whole or not there, and the room they take.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use super::Error;

/// A file being written. Dropped before it is published, it is removed.
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Temporary {
    /// Makes an empty file in `directory`, locked for as long as it is being written.
    pub fn create(directory: &Path) -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{}-{number}", std::process::id()));
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let file = match made {
                // A leftover of another process that had the same id.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(Error::new("create", &path))?,
            };
            flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::new("lock", &path)(e.into()))?;
            // Whoever cleans up may have been quicker with the lock.
            if file.metadata().is_ok_and(|m| m.nlink() > 0) {
                return Ok(Self { path, file, published: false });
            }
        }
    }

    /// Makes the content durable, gives it its name, and opens it for reading.
    pub fn publish(mut self, path: &Path, mode: u32) -> Result<File, Error> {
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(Error::new("set the mode of", &self.path))?;
        self.file.sync_all().map_err(Error::new("write", &self.path))?;
        // Opened before the rename: afterwards it may give way to another blob at any time.
        let readable = File::open(&self.path).map_err(Error::new("open", &self.path))?;
        fs::rename(&self.path, path).map_err(Error::new("create", path))?;
        self.published = true;
        if let Some(directory) = path.parent() {
            let synced = File::open(directory).and_then(|d| d.sync_all());
            synced.map_err(Error::new("write", directory))?;
        }
        Ok(readable)
    }
}

impl Write for Temporary {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf).map_err(|e| {
            let path = self.path.display();
            io::Error::new(e.kind(), format!("cannot write to the cache ({path}): {e}"))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here counts; a file that stays is cleaned up by the next `open`.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a directory, and those above it, for this user alone.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::new("create the directory", path))
}

/// Removes the files that nobody holds a lock on.
pub(super) fn remove_leftovers(directory: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::new("read the directory", directory))? {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Its writer, if it lives, has either published it or not yet locked it, and then makes a new one.
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Removes the files used longest ago until the rest has no more than `limit` bytes; never the one named `keep`.
pub(super) fn shrink(directory: &Path, limit: u64, keep: &OsStr) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut files: Vec<(SystemTime, u64, OsString)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            meta.is_file().then_some((meta.modified().ok()?, meta.len(), entry.file_name()))
        })
        .collect();
    files.sort_unstable();
    let mut total = files.iter().fold(0_u64, |sum, (_, len, _)| sum.saturating_add(*len));
    for (_, len, name) in files {
        if total <= limit {
            return;
        }
        if name != keep && fs::remove_file(directory.join(&name)).is_ok() {
            total = total.saturating_sub(len);
        }
    }
}
