//! A directory for one bench: reports, and kernels taken out of the image. It is gone with the bench, and where a bench was
//! killed, with the next one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const PREFIX: &str = "amiboot-bench-";

/// The directory; removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    /// Held as long as the directory is in use.
    _lock: File,
}

impl WorkDir {
    /// Makes one below `parent`, and removes those of benches that were killed.
    ///
    /// # Errors
    /// What the host says.
    pub fn new(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        // The name of one that was not swept may be taken.
        for number in 0..1000 {
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
            let lock = File::open(&path)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            return Ok(Self { path, _lock: lock });
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{PREFIX}*: too many leftovers")))
    }

    /// The path of something in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // The next bench removes what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes this user's directories that nobody holds. Whatever does not let itself be removed stays.
fn sweep(parent: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == own);
        if !is_ours {
            continue;
        }
        let Ok(directory) = File::open(entry.path()) else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_and_go_and_leftovers_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let leftover = parent.path().join(format!("{PREFIX}1-0"));
        fs::create_dir_all(leftover.join("cache")).unwrap();
        fs::write(parent.path().join(format!("{PREFIX}file")), "not a directory").unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        let (one, two) = (WorkDir::new(parent.path()).unwrap(), WorkDir::new(parent.path()).unwrap());
        assert!(!leftover.exists());
        assert!(one.path("").exists() && two.path("").exists() && one.path("") != two.path(""));
        fs::write(one.path("report"), "x").unwrap();
        drop((one, two));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
        assert!(WorkDir::new(&parent.path().join("none")).is_err());
    }
}
