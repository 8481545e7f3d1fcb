//! A file that appears under its name when it is whole and durable, or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, RenameFlags, fstatvfs, linkat, renameat_with};
use rustix::io::Errno;

use crate::disk::random_bytes;

/// Whether a file that is there already may be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays, and nothing is written.
    #[default]
    Refuse,
    /// It is replaced at once when the new one is whole. Who has it open goes on with the old one.
    Replace,
}

/// Why a file is not written. Every message names it.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It is there already.
    #[error("{}: this is there already; choose another name, or ask for it to be overwritten", path.display())]
    Exists {
        /// The file asked for.
        path: PathBuf,
    },
    /// What is there cannot be replaced by a file.
    #[error("{}: this is no regular file, so it is not replaced; choose another name", path.display())]
    NotAFile {
        /// The file asked for.
        path: PathBuf,
    },
    /// There is not enough room for it.
    #[error(
        "{}: it needs {needed} bytes, and its file system has room for {available}; make room, or choose another directory",
        path.display()
    )]
    NoRoom {
        /// The file asked for.
        path: PathBuf,
        /// Bytes that it takes at most.
        needed: u64,
        /// Bytes that are free for this user.
        available: u64,
    },
    /// The room was used up while it was written.
    #[error("{}: there is no room left in its file system; make room, or choose another directory", path.display())]
    Full {
        /// The file asked for.
        path: PathBuf,
    },
    /// The host refused something.
    #[error("{}: cannot {operation}: {source}", path.display())]
    Host {
        /// The file asked for.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// A file that is being written.
pub(crate) struct Output {
    file: File,
    path: PathBuf,
    directory: PathBuf,
    overwrite: Overwrite,
    /// Its name meanwhile, where it needs one.
    name: Option<PathBuf>,
}

impl Output {
    /// A new, empty file that is to be at `path`.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn create(path: &Path, overwrite: Overwrite) -> Result<Self, OutputError> {
        Self::create_as(path, overwrite, 0o666)
    }

    fn create_as(path: &Path, overwrite: Overwrite, mode: u32) -> Result<Self, OutputError> {
        let host = |operation| move |source| OutputError::Host { path: path.into(), operation, source };
        match std::fs::symlink_metadata(path) {
            Ok(_) if overwrite == Overwrite::Refuse => return Err(OutputError::Exists { path: path.into() }),
            Ok(meta) if !meta.is_file() => return Err(OutputError::NotAFile { path: path.into() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(host("look at it")(error)),
        }
        if path.file_name().is_none() {
            return Err(OutputError::NotAFile { path: path.into() });
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (file, name) = create(directory, path, mode).map_err(host("make it"))?;
        Ok(Self { file, path: path.into(), directory: directory.into(), overwrite, name })
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Refuses to begin where there is less room than `needed` bytes.
    ///
    /// # Errors
    /// [`OutputError::NoRoom`], or what the host said.
    pub fn need_room(&self, needed: u64) -> Result<(), OutputError> {
        let stat = fstatvfs(&self.file).map_err(|errno| self.failed("ask for free room", errno.into()))?;
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed <= available {
            Ok(())
        } else {
            Err(OutputError::NoRoom { path: self.path.clone(), needed, available })
        }
    }

    /// The error of an operation on the file.
    pub fn failed(&self, operation: &'static str, source: io::Error) -> OutputError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OutputError::Full { path: self.path.clone() },
            _ => OutputError::Host { path: self.path.clone(), operation, source },
        }
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// See [`OutputError`]; [`OutputError::Exists`] also where another has made a file of that name meanwhile. Nothing is
    /// left of it then.
    pub fn finish(mut self) -> Result<(), OutputError> {
        self.file.sync_all().map_err(|error| self.failed("make it durable", error))?;
        self.give_name().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists { path: self.path.clone() },
            _ => self.failed("give it its name", error),
        })?;
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.failed("make its name durable", error))
    }

    fn give_name(&mut self) -> io::Result<()> {
        if self.name.is_none() && self.overwrite == Overwrite::Refuse {
            return Ok(link(&self.file, &self.path)?);
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let name = name_beside(&self.path)?;
                link(&self.file, &name)?;
                self.name.insert(name).clone()
            }
        };
        match self.overwrite {
            Overwrite::Replace => std::fs::rename(&name, &self.path)?,
            Overwrite::Refuse => match renameat_with(CWD, &name, CWD, &self.path, RenameFlags::NOREPLACE) {
                // Where this cannot be asked for, links can.
                Err(Errno::INVAL) => {
                    std::fs::hard_link(&name, &self.path)?;
                    std::fs::remove_file(&name)?;
                }
                other => other?,
            },
        }
        self.name = None;
        Ok(())
    }
}

/// Writes a new file that only its owner can read, whole and durable or not at all.
///
/// # Errors
/// See [`OutputError`]; [`OutputError::Exists`] where there is one, which stays.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let output = Output::create_as(path, Overwrite::Refuse, 0o600)?;
    output.file().write_all_at(bytes, 0).map_err(|error| output.failed("write it", error))?;
    output.finish()
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nobody is left to be told.
            let _ = std::fs::remove_file(name);
        }
    }
}

/// A file without a name in `directory`, so that nothing is left of it where the process ends before it is whole; or, where
/// the file system has none such, one with a name beside `path`.
fn create(directory: &Path, path: &Path, mode: u32) -> io::Result<(File, Option<PathBuf>)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(mode);
    match options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let name = name_beside(path)?;
            Ok((options.create_new(true).open(&name)?, Some(name)))
        }
        other => Ok((other?, None)),
    }
}

/// A name in the directory of `path` that nobody else uses.
fn name_beside(path: &Path) -> io::Result<PathBuf> {
    let id = uuid::Uuid::from_bytes(random_bytes()?);
    Ok(path.with_file_name(format!(".amiboot-{}", id.simple())))
}

/// Gives a file without a name this one, if nothing has it.
fn link(file: &File, path: &Path) -> rustix::io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// As on a file system without nameless files.
    fn with_name(path: &Path, overwrite: Overwrite) -> Output {
        let mut output = Output::create(path, overwrite).unwrap();
        let name = name_beside(path).unwrap();
        output.file = File::create_new(&name).unwrap();
        output.name = Some(name);
        output
    }

    #[test]
    fn it_appears_when_it_is_whole_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        for create in [|path: &Path, how| Output::create(path, how).unwrap(), with_name] {
            drop(create(&path, Overwrite::Refuse));
            assert_eq!(names(dir.path()), [""; 0]);
            let output = create(&path, Overwrite::Refuse);
            output.file().write_all(b"first").unwrap();
            output.finish().unwrap();
            assert_eq!((names(dir.path()), std::fs::read(&path).unwrap()), (vec!["new".to_owned()], b"first".to_vec()));
            let output = create(&path, Overwrite::Replace);
            output.file().write_all(b"second").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"first");
            output.finish().unwrap();
            assert_eq!(
                (names(dir.path()), std::fs::read(&path).unwrap()),
                (vec!["new".to_owned()], b"second".to_vec())
            );
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("there");
        for create in [|path: &Path, how| Output::create(path, how).unwrap(), with_name] {
            // Another comes first.
            let output = create(&path, Overwrite::Refuse);
            std::fs::write(&path, "other").unwrap();
            assert!(matches!(output.finish(), Err(OutputError::Exists { .. })));
            assert!(matches!(Output::create(&path, Overwrite::Refuse), Err(OutputError::Exists { .. })));
            assert_eq!(
                (names(dir.path()), std::fs::read(&path).unwrap()),
                (vec!["there".to_owned()], b"other".to_vec())
            );
            std::fs::remove_file(&path).unwrap();
        }
        for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
            assert!(Output::create(dir.path(), overwrite).is_err());
            assert!(Output::create(Path::new("/"), overwrite).is_err());
            assert!(Output::create(&dir.path().join("none/new"), overwrite).is_err());
        }
    }

    #[test]
    fn room_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::create(&dir.path().join("new"), Overwrite::Refuse).unwrap();
        output.need_room(1).unwrap();
        let error = output.need_room(u64::MAX).unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
    }
}
