//! How an instance ended, in a file that outlasts it.
//!
//! A process that is killed, or whose host goes down, leaves none: the lock is free then, and there is no file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The version of [`Exit`].
const VERSION: u32 = 1;
/// How much room is reserved, in bytes.
const RESERVED: usize = 4 << 10;
/// More bytes than any of them has.
const SIZE_MAX: u64 = 1 << 20;

/// Why an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason", content = "detail")]
pub enum Reason {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest reset itself and was not started again: it was asked to switch itself off, or resets are the end.
    ResetRefused,
    /// The guest crashed: what was seen of it.
    Crashed(String),
    /// It was ended by force.
    Forced,
    /// The process could not go on, or not begin: why.
    Error(String),
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Of this form.
    pub version: u32,
    /// The instance.
    pub id: String,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
    /// The process that it was.
    pub pid: u32,
    /// When the process began, in milliseconds of Unix time.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// How often a machine was started.
    pub starts: u32,
    /// The console's last lines.
    #[serde(default)]
    pub last_lines: Vec<String>,
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct ExitFileError {
    path: PathBuf,
    cause: io::Error,
}

impl Exit {
    /// An end that is now, of this process, without any start.
    #[must_use]
    pub fn now(id: &str, reason: Reason, began_ms: u64) -> Self {
        let (pid, ended_ms) = (std::process::id(), super::unix_ms());
        Self { version: VERSION, id: id.into(), reason, pid, began_ms, ended_ms, starts: 0, last_lines: Vec::new() }
    }

    /// Writes the file, whole and durable or not at all. Where the disk is full, the console's last lines are left out:
    /// the rest has room that was [reserved](Self::reserve).
    ///
    /// # Errors
    /// [`ExitFileError`].
    pub fn write(&self, path: &Path) -> Result<(), ExitFileError> {
        let write = |exit: &Self| {
            let mut json = serde_json::to_vec_pretty(exit)?;
            json.push(b'\n');
            replace(path, &json)
        };
        let brief = || write(&Self { last_lines: Vec::new(), ..self.clone() });
        write(self).or_else(|_| brief()).map_err(|cause| ExitFileError { path: path.into(), cause })
    }

    /// Takes the room that a file without the console's last lines needs, so that the end can be told though the disk is
    /// full by then.
    ///
    /// # Errors
    /// [`ExitFileError`].
    pub fn reserve(path: &Path) -> Result<(), ExitFileError> {
        let reserve = || {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary(path))?;
            (&file).write_all(&[b' '; RESERVED])?;
            file.sync_all()
        };
        reserve().map_err(|cause| ExitFileError { path: path.into(), cause })
    }

    /// Reads one; `None` where there is no file.
    ///
    /// # Errors
    /// [`ExitFileError`].
    pub fn read(path: &Path) -> Result<Option<Self>, ExitFileError> {
        let fail = |cause| ExitFileError { path: path.into(), cause };
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(fail)?,
        };
        let mut text = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut text).map_err(fail)?;
        serde_json::from_slice(&text).map(Some).map_err(|e| fail(e.into()))
    }

    /// Removes one of an earlier run, durably.
    ///
    /// # Errors
    /// [`ExitFileError`].
    pub fn clear(path: &Path) -> Result<(), ExitFileError> {
        match fs::remove_file(path) {
            Ok(()) => sync_directory(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
        .map_err(|cause| ExitFileError { path: path.into(), cause })
    }
}

/// Where it is written before it appears.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    // Over what is there: it has room.
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit.json");
        assert_eq!(Exit::read(&path).unwrap(), None);
        Exit::clear(&path).unwrap();
        let reasons = [
            Reason::PoweredOff,
            Reason::ResetRefused,
            Reason::Forced,
            Reason::Crashed("how".into()),
            Reason::Error("why".into()),
        ];
        for reason in reasons {
            let exit = Exit { last_lines: vec!["last".into()], ..Exit::now("i-0", reason, 7) };
            exit.write(&path).unwrap();
            assert_eq!(Exit::read(&path).unwrap(), Some(exit));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((&json["reason"], &json["detail"]), (&"error".into(), &"why".into()));
        fs::write(&path, "{").unwrap();
        assert!(Exit::read(&path).unwrap_err().to_string().contains("exit.json"));
        Exit::clear(&path).unwrap();
        assert_eq!(Exit::read(&path).unwrap(), None);
        // What was there of an end that could not be written whole does no harm.
        Exit::reserve(&path).unwrap();
        assert_eq!(Exit::read(&path).unwrap(), None);
        let exit = Exit::now("i-0", Reason::Forced, 0);
        exit.write(&path).unwrap();
        assert_eq!(Exit::read(&path).unwrap(), Some(exit));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Exit::now("i-0", Reason::Forced, 0).write(&dir.path().join("none/exit.json")).is_err());
    }
}
