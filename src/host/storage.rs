//! The directories in which amiboot keeps files: what room there is and what their file systems can do.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, FallocateFlags, accessat, fallocate, fstatfs};

/// Subdirectories looked at in one that is to be written to.
const SUBDIRECTORIES_MAX: usize = 64;

/// What keeps a directory from being used.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {operation}: {cause}", path.display())]
pub struct StorageError {
    /// The directory.
    pub path: PathBuf,
    /// What was tried.
    pub operation: &'static str,
    /// What the host said.
    pub cause: io::Error,
}

impl StorageError {
    fn new<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |cause| Self { path: path.into(), operation, cause: cause.into() }
    }
}

/// Room in a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What this user may still take, in bytes.
    pub available: u64,
    /// The file system's name, or its number in hexadecimal.
    pub file_system: String,
    /// Whether what is written takes memory (or swap) instead of a disk.
    pub in_memory: bool,
}

impl Room {
    fn of(file: &File, path: &Path) -> Result<Self, StorageError> {
        let stat = fstatfs(file).map_err(StorageError::new("read the file system's size of", path))?;
        let block = u64::try_from(stat.f_bsize).unwrap_or(0);
        let name = file_system_name(stat.f_type);
        Ok(Self {
            available: stat.f_bavail.saturating_mul(block),
            file_system: name.map_or_else(|| format!("{:#x}", stat.f_type), str::to_owned),
            in_memory: matches!(name, Some("tmpfs" | "ramfs")),
        })
    }
}

/// By the numbers of statfs(2).
fn file_system_name(magic: i64) -> Option<&'static str> {
    Some(match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        0x6573_5546 => "fuse",
        0xca45_1a4e => "bcachefs",
        _ => return None,
    })
}

/// What a directory for throw-away layers can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// Its room.
    pub room: Room,
    /// Whether files can be made that never have a name (`O_TMPFILE`).
    pub unnamed_files: bool,
    /// Whether space in the middle of a file can be given back.
    pub holes: bool,
}

/// Tries what throw-away layers need in `dir`, on a file that leaves nothing behind.
///
/// # Errors
/// [`StorageError`] where no file can be made and written to there.
pub fn probe_scratch(dir: &Path) -> Result<Scratch, StorageError> {
    let handle = File::open(dir).map_err(StorageError::new("open it", dir))?;
    let room = Room::of(&handle, dir)?;
    let (file, unnamed_files) = throw_away_file(dir).map_err(StorageError::new("make a file in it", dir))?;
    file.write_all_at(&[1; 4096], 64 << 10).map_err(StorageError::new("write to a file in it", dir))?;
    let hole = fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 64 << 10, 4096);
    Ok(Scratch { room, unnamed_files, holes: hole.is_ok() })
}

/// A file that is gone when it is closed, and whether it never had a name.
fn throw_away_file(dir: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE | libc::O_EXCL).open(dir) {
        Ok(file) => Ok((file, true)),
        // What file systems and kernels without O_TMPFILE answer.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            Ok((unlinked_file(&mut options, dir)?, false))
        }
        Err(e) => Err(e),
    }
}

fn unlinked_file(options: &mut OpenOptions, dir: &Path) -> io::Result<File> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let path = dir.join(format!(".amiboot-{:016x}", u64::from_ne_bytes(random)));
    let file = options.create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// What is known of a directory that is made at need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The room where it is or will be.
    pub room: Room,
    /// Whether it is there already.
    pub exists: bool,
}

/// Whether `dir`, or the nearest directory above it that is there, can be written to. Nothing is made.
///
/// # Errors
/// [`StorageError`], which names the directory that is in the way.
pub fn probe_kept(dir: &Path) -> Result<Kept, StorageError> {
    let nearest = dir.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    for path in nearest {
        match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StorageError::new("look at it", path)(e)),
            Ok(_) => {
                let handle = File::open(path).map_err(StorageError::new("open it", path))?;
                let exists = path == dir;
                writable(path)?;
                if exists {
                    subdirectories(path)?.iter().try_for_each(|p| writable(p))?;
                }
                return Ok(Kept { room: Room::of(&handle, path)?, exists });
            }
        }
    }
    Err(StorageError::new("find any directory above it", dir)(io::Error::from(io::ErrorKind::NotFound)))
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let entries = fs::read_dir(dir).map_err(StorageError::new("list it", dir))?.take(SUBDIRECTORIES_MAX).flatten();
    Ok(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect())
}

fn writable(dir: &Path) -> Result<(), StorageError> {
    let meta = fs::metadata(dir).map_err(StorageError::new("look at it", dir))?;
    if !meta.is_dir() {
        return Err(StorageError::new("use it", dir)(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(StorageError::new("make files in it", dir))
}

/// Does something that a dead network file system may hold up for ever; nothing after `limit`.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::channel();
    // The thread is left alone where it hangs: it ends with the process.
    thread::Builder::new().spawn(move || send.send(work())).ok()?;
    receive.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = probe_scratch(dir.path()).unwrap();
        assert!(scratch.room.available > 0 && !scratch.room.file_system.is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_second_best_file_leaves_no_name_either() {
        let dir = tempfile::tempdir().unwrap();
        let file = unlinked_file(OpenOptions::new().read(true).write(true), dir.path()).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn holes_are_found_where_the_file_system_has_them() {
        // Every kernel's tmpfs has both.
        let Ok(scratch) = probe_scratch(Path::new("/dev/shm")) else { return };
        assert!(scratch.room.file_system != "tmpfs" || (scratch.unnamed_files && scratch.holes));
        assert_eq!(scratch.room.in_memory, scratch.room.file_system == "tmpfs");
    }

    #[test]
    fn a_scratch_directory_must_be_there_and_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let none = probe_scratch(&dir.path().join("none")).unwrap_err();
        assert_eq!(none.cause.kind(), io::ErrorKind::NotFound);
        fs::write(dir.path().join("file"), "").unwrap();
        let file = probe_scratch(&dir.path().join("file")).unwrap_err();
        assert_eq!(file.cause.kind(), io::ErrorKind::NotADirectory);
        assert!(probe_scratch(Path::new("/proc")).is_err());
    }

    #[test]
    fn a_kept_directory_may_be_made_later() {
        let dir = tempfile::tempdir().unwrap();
        assert!(probe_kept(dir.path()).unwrap().exists);
        assert!(!probe_kept(&dir.path().join("a/b")).unwrap().exists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!probe_kept(Path::new("none-of-this-name/here")).unwrap().exists);
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = probe_kept(&file).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: cannot use it", file.display())), "{error}");
        // A file above it.
        assert!(probe_kept(&file.join("below")).is_err());
        // A file system that takes no directories from anybody, not even root.
        assert!(probe_kept(Path::new("/proc/self/amiboot")).is_err());
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let (held, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(1), move || never.recv().is_ok()), None);
        drop(held);
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    }
}
