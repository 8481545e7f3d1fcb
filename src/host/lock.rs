//! A lock that tells whether somebody is there: held by one, seen by all.
//!
//! It is an open-file-description lock (fcntl(2)) on the first byte of a file: the kernel drops it however its holder ends,
//! and to look whether it is held takes nothing away from anybody, so that a look never keeps one from taking it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes the lock for as long as `file` is open; false where another has it. The file is open for writing.
///
/// # Errors
/// What the kernel says; `Unsupported` and the like where the file system has no locks.
pub fn take(file: &File) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether another open file holds the lock.
///
/// # Errors
/// What the kernel says.
pub fn is_held(file: &File) -> io::Result<bool> {
    Ok(i32::from(fcntl(file, libc::F_OFD_GETLK)?.l_type) != libc::F_UNLCK)
}

fn fcntl(file: &File, command: libc::c_int) -> io::Result<libc::flock> {
    let small = |value: libc::c_int| libc::c_short::try_from(value).unwrap_or_default();
    loop {
        let mut lock = libc::flock {
            l_type: small(libc::F_WRLCK),
            l_whence: small(libc::SEEK_SET),
            l_start: 0,
            l_len: 1,
            // As open-file-description locks want it.
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, and `lock` is a whole `struct flock` that both commands read and may write.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) } == 0 {
            return Ok(lock);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_a_look_takes_nothing() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(named.path()).unwrap();
        let (one, two) = (open(), open());
        assert!(!is_held(&two).unwrap());
        assert!(take(&one).unwrap() && take(&one).unwrap());
        assert!(is_held(&two).unwrap() && is_held(&File::open(named.path()).unwrap()).unwrap());
        assert!(!take(&two).unwrap());
        drop(one);
        assert!(!is_held(&two).unwrap());
        assert!(take(&two).unwrap());
    }
}
