//! Files that a file names and that lie right beside it.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

/// Why such a file is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BesideError {
    /// The name leads elsewhere.
    #[error("only a file right beside it is used; put it there and correct the name")]
    Elsewhere,
    /// A link could lead anywhere.
    #[error("it is a symbolic link, and those are not followed; put the file itself there")]
    Link,
    /// There is none.
    #[error("there is no such file beside it; copy it there")]
    Missing,
    /// A directory, a pipe, a device.
    #[error("it is no regular file")]
    NotAFile,
    /// The host refused it.
    #[error("it cannot be opened: {0}")]
    Host(#[from] io::Error),
}

/// The directory that a file really is in, whatever links led to it.
///
/// # Errors
/// What the host said.
pub(crate) fn directory_of(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    Ok(path.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from))
}

/// Opens a file of this name in `dir`, and no other: whoever wrote the name could otherwise have any file read that this
/// user can read.
///
/// # Errors
/// See [`BesideError`].
pub(crate) fn open_beside(dir: &Path, name: &str) -> Result<File, BesideError> {
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name) {
        return Err(BesideError::Elsewhere);
    }
    // It may be a pipe, which must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, dir.join(name), flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP => BesideError::Link,
        Errno::NOENT => BesideError::Missing,
        // A socket.
        Errno::NXIO => BesideError::NotAFile,
        other => BesideError::Host(other.into()),
    })?;
    let kind = FileType::from_raw_mode(fstat(&file).map_err(io::Error::from)?.st_mode);
    if kind == FileType::RegularFile { Ok(File::from(file)) } else { Err(BesideError::NotAFile) }
}
