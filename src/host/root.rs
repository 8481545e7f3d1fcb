//! Reading the host's own files: bounded, never waiting, and below a directory that a test may choose.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The directory that holds `proc`, `sys`, `dev`, `etc` and `usr`: `/`, or a test's stand-in for it.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self("/".into())
    }
}

impl Root {
    /// A root below which a host is faked.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// Where the absolute `path` is below this root.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The first `limit` bytes of a file as text; what is not UTF-8 is replaced. Does not wait on pipes and devices.
    ///
    /// # Errors
    /// What the host says; `InvalidInput` where it is no regular file.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.path(path))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The one line of a small file, as sysfs has them; nothing where it cannot be read or is empty.
    #[must_use]
    pub fn line(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.read(path, 4096).ok()?;
        text.lines().next().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned)
    }

    /// Whether something is there.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_below_the_root_and_no_further_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        fs::write(dir.path().join("long"), [b'x'; 5000]).unwrap();
        fs::write(dir.path().join("odd"), b" on\xff \nmore").unwrap();
        assert_eq!(root.read("/long", 100).unwrap().len(), 100);
        assert_eq!(root.line("/odd").as_deref(), Some("on\u{fffd}"));
        assert_eq!(root.line("/none"), None);
        assert!(root.has("/odd") && !root.has("/none"));
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = std::ffi::CString::new(dir.path().join("pipe").as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the path is a string that ends with a zero byte and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        let error = Root::at(dir.path()).read("/pipe", 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
