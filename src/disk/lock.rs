//! Locks on disk files: one writer, or any number of readers under whom the file must not change.
//!
//! They are open-file-description locks (fcntl(2)), so they belong to the open file, not to the process, are dropped by the
//! kernel however the process ends, and work over NFS, where the server holds them. Which bytes are locked, and what
//! each means, follows QEMU (`docs/` there: "image locking"), so that its tools and amiboot also keep out of
//! each other's way: who uses a file in some way holds byte `USES + bit`, who bears no other that does holds byte
//! `EXCLUDES + bit`; all locks are shared ones; first one takes one's own, then looks for others' that contradict. So of two
//! that contradict each other at least one sees the other. The bytes lie where they lie, also beyond the end of the file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use super::file_io;

const USES: i64 = 100;
const EXCLUDES: i64 = 200;

/// Ways to use a file: needs what it reads to be consistent.
const CONSISTENT_READ: i64 = 0;
/// Writes to it.
const WRITE: i64 = 1;
/// Changes its length.
const RESIZE: i64 = 3;

/// What someone wants of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// To read while nobody writes.
    Steady,
    /// To write while nobody else reads or writes.
    Exclusive,
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Another writes to the file.
    Written,
    /// Another reads the file and needs it to stay as it is.
    Read,
}

/// Someone who has the file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// The name of its program, as in `/proc/PID/comm`.
    pub name: String,
}

/// Takes the locks of `claim` on `file`; they last until the file is closed (by all who share its description).
///
/// `Ok(Some(..))` says who stands in the way, as far as that can be seen; the file should then be closed.
///
/// # Errors
/// What the kernel said. A file system without locks is an error only for [`Claim::Exclusive`]: readers do without.
pub(super) fn claim(file: &File, claim: Claim) -> io::Result<Option<(Conflict, Vec<Holder>)>> {
    match try_claim(file, claim) {
        Err(error) if claim == Claim::Steady && has_no_locks(&error) => Ok(None),
        Ok(Some((conflict, byte))) => Ok(Some((conflict, holders(file, byte)))),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives up of an exclusive claim what is more than a steady one.
///
/// # Errors
/// What the kernel said.
pub(super) fn relax(file: &File) -> io::Result<()> {
    for way in [WRITE, RESIZE] {
        file_io::unlock_byte(file, USES + way)?;
    }
    Ok(())
}

fn try_claim(file: &File, claim: Claim) -> io::Result<Option<(Conflict, i64)>> {
    let writes: &[i64] = &[WRITE, RESIZE];
    file_io::lock_byte(file, USES + CONSISTENT_READ)?;
    for way in writes {
        if claim == Claim::Exclusive {
            file_io::lock_byte(file, USES + way)?;
        }
        file_io::lock_byte(file, EXCLUDES + way)?;
    }
    for way in writes {
        if file_io::byte_is_locked(file, USES + way)? {
            return Ok(Some((Conflict::Written, USES + way)));
        }
    }
    if claim == Claim::Exclusive {
        for way in writes {
            if file_io::byte_is_locked(file, EXCLUDES + way)? {
                return Ok(Some((Conflict::Read, EXCLUDES + way)));
            }
        }
    }
    Ok(None)
}

/// Whether the error says that the file system cannot lock.
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

/// Who holds a lock on `byte` of `file`, other than through `file` itself; only processes that this user may look into.
///
/// The kernel does not tell whose an open-file-description lock is, but each process lists its own.
fn holders(file: &File, byte: i64) -> Vec<Holder> {
    let Ok(meta) = file.metadata() else { return Vec::new() };
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let holds = std::fs::read_dir(process.path().join("fdinfo")).into_iter().flatten().flatten().any(|info| {
            let own = pid == std::process::id() && info.file_name().to_str() == Some(&file.as_raw_fd().to_string());
            !own && std::fs::read_to_string(info.path())
                .is_ok_and(|text| text.lines().any(|line| is_lock_on(line, &inode, byte)))
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(Holder { pid, name: name.trim_end().to_owned() });
        }
    }
    found
}

/// Whether a line of a `fdinfo` file says that `byte` of `inode` is locked, as in
/// `lock: 1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101` (proc(5)); the kernel joins locks on neighbouring bytes.
fn is_lock_on(line: &str, inode: &str, byte: i64) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (end, start, lock_inode) = (words.next_back(), words.next_back(), words.next_back());
    let start = start.and_then(|start| start.parse::<i64>().ok());
    // The end is a number or "EOF".
    let end = end.map(|end| end.parse::<i64>().unwrap_or(i64::MAX));
    line.starts_with("lock:")
        && lock_inode == Some(inode)
        && start.is_some_and(|start| start <= byte)
        && end.is_some_and(|end| byte <= end)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn take(path: &Path, wanted: Claim) -> Result<File, (Conflict, Vec<Holder>)> {
        let file = File::options().read(true).write(true).open(path).unwrap();
        match claim(&file, wanted).unwrap() {
            None => Ok(file),
            Some(conflict) => Err(conflict),
        }
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let one = take(path, Claim::Steady).unwrap();
        let two = take(path, Claim::Steady).unwrap();
        assert_eq!(take(path, Claim::Exclusive).unwrap_err().0, Conflict::Read);
        drop((one, two));
        let writer = take(path, Claim::Exclusive).unwrap();
        assert_eq!(take(path, Claim::Exclusive).unwrap_err().0, Conflict::Written);
        let (conflict, holders) = take(path, Claim::Steady).unwrap_err();
        assert_eq!(conflict, Conflict::Written);
        assert_eq!(holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [std::process::id()]);
        drop(writer);
        take(path, Claim::Exclusive).unwrap();
    }

    #[test]
    fn a_writer_that_relaxes_is_a_reader() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = take(file.path(), Claim::Exclusive).unwrap();
        relax(&writer).unwrap();
        let reader = take(file.path(), Claim::Steady).unwrap();
        drop(reader);
        assert_eq!(take(file.path(), Claim::Exclusive).unwrap_err().0, Conflict::Read);
    }

    #[test]
    fn a_read_only_file_can_be_claimed() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(named.path()).unwrap();
        assert!(claim(&file, Claim::Steady).unwrap().is_none());
    }
}
