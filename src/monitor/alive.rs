//! Whether an instance's process lives: a lock that the kernel drops however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::host::lock;

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AliveError {
    /// Another process has it.
    #[error(
        "{}: this instance has a process already{}; stop it first", path.display(),
        pid.map(|pid| format!(", {pid}")).unwrap_or_default()
    )]
    Taken {
        /// The lock file.
        path: PathBuf,
        /// Who has it, where that can be read.
        pid: Option<u32>,
    },
    /// The host refuses.
    #[error("{}: {cause}", path.display())]
    Host {
        /// The lock file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

/// The lock, held for as long as this lives.
#[derive(Debug)]
pub struct Alive {
    _file: File,
}

impl Alive {
    /// Takes the lock and writes this process's id to its file, which is made where it is not there.
    ///
    /// # Errors
    /// [`AliveError`].
    pub fn take(path: &Path) -> Result<Self, AliveError> {
        let host = |cause| AliveError::Host { path: path.into(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(host)?;
        if !lock::take(&file).map_err(host)? {
            return Err(AliveError::Taken { path: path.into(), pid: read_pid(&mut file) });
        }
        // The lock says all that others depend on; the number is for who has to end the process by force.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// What a lock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The process lives.
    Alive {
        /// Its id, where that could be written.
        pid: Option<u32>,
    },
    /// There is none.
    Dead,
}

/// Looks at the lock of an instance; a file that is not there is nobody's.
///
/// # Errors
/// What the host says.
pub fn look(path: &Path) -> io::Result<Life> {
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Life::Dead),
        other => other?,
    };
    Ok(if lock::is_held(&file)? { Life::Alive { pid: read_pid(&mut file) } } else { Life::Dead })
}

/// Removes the configuration of an instance that does not live, so that a process which was started with it does not begin
/// to; tells whether one lives already.
///
/// # Errors
/// What the host says.
pub fn withdraw(lock: &Path, config: &Path) -> io::Result<Life> {
    let alive = match Alive::take(lock) {
        Err(AliveError::Taken { pid, .. }) => return Ok(Life::Alive { pid }),
        // There is no directory for it: nothing was started.
        Err(AliveError::Host { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => return Ok(Life::Dead),
        Err(AliveError::Host { cause, .. }) => return Err(cause),
        Ok(alive) => alive,
    };
    // Whoever takes the lock looks then whether its configuration is still there.
    let removed = std::fs::remove_file(config);
    drop(alive);
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(Life::Dead),
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lives_and_others_see_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alive");
        assert_eq!(look(&path).unwrap(), Life::Dead);
        let alive = Alive::take(&path).unwrap();
        let own = std::process::id();
        assert_eq!(look(&path).unwrap(), Life::Alive { pid: Some(own) });
        let error = Alive::take(&path).unwrap_err().to_string();
        assert!(error.contains("has a process already") && error.contains(&own.to_string()), "{error}");
        drop(alive);
        assert_eq!(look(&path).unwrap(), Life::Dead);
        // Its leftover is no obstacle.
        drop(Alive::take(&path).unwrap());
        std::fs::write(&path, "no number at all, and long").unwrap();
        let _alive = Alive::take(&path).unwrap();
        assert_eq!(look(&path).unwrap(), Life::Alive { pid: Some(own) });
    }

    #[test]
    fn a_start_is_taken_back_unless_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, config) = (dir.path().join("alive"), dir.path().join("config"));
        assert_eq!(withdraw(&dir.path().join("none/alive"), &config).unwrap(), Life::Dead);
        std::fs::write(&config, "").unwrap();
        let alive = Alive::take(&lock).unwrap();
        assert!(matches!(withdraw(&lock, &config).unwrap(), Life::Alive { .. }) && config.exists());
        drop(alive);
        assert_eq!(withdraw(&lock, &config).unwrap(), Life::Dead);
        assert!(!config.exists());
        assert_eq!(withdraw(&lock, &config).unwrap(), Life::Dead);
    }
}
