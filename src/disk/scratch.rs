//! Files that have no name: they are gone when the process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A new, empty, sparse file of `size` bytes in the file system of directory `dir`, without a name in it.
///
/// # Errors
/// What the host said; `FileTooLarge` where the file system has no files of that size.
pub(super) fn unnamed_file(dir: &Path, size: u64) -> io::Result<File> {
    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        // O_EXCL: nobody can give it a name later (open(2)).
        .custom_flags(libc::O_TMPFILE | libc::O_EXCL)
        .open(dir);
    let file = match unnamed {
        // What file systems and kernels without O_TMPFILE answer.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => unlinked_file(dir)?,
        other => other?,
    };
    file.set_len(size)?;
    Ok(file)
}

/// The second best: a file whose name is taken away at once.
fn unlinked_file(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!(".amiboot-{}", uuid::Uuid::from_bytes(random_bytes()?).simple()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Sixteen bytes that nobody can guess.
pub(crate) fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // Up to 256 bytes are never given short (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn neither_way_leaves_a_name() {
        let dir = tempfile::tempdir().unwrap();
        for file in [unnamed_file(dir.path(), 1 << 20).unwrap(), unlinked_file(dir.path()).unwrap()] {
            file.write_all_at(b"here", 1 << 19).unwrap();
            assert_eq!(file.metadata().unwrap().nlink(), 0);
            assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = unnamed_file(&dir.path().join("none"), 512).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
