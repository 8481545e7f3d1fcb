//! Long work under way, and what becomes of it when whoever does it is killed.
//!
//! An operation is a row of the catalogue and a locked file. Rows that it makes before it is done carry its id. The kernel
//! drops the lock however the process ends; whoever then finds the lock free undoes what the rows say, so nothing that is
//! half made stays.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Transaction, params};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::CloudError;
use super::home::Home;
use super::time;
use crate::disk::random_bytes;

/// An operation under way in this process.
#[derive(Debug)]
pub struct Operation {
    id: String,
    path: PathBuf,
    /// Whoever has this open has the lock.
    _lock: File,
}

impl Operation {
    /// Takes the lock of a new operation; its row comes with [`Operation::record`].
    ///
    /// # Errors
    /// What the host says.
    pub fn begin(home: &Home) -> Result<Self, CloudError> {
        let dir = home.operations();
        let failed = |cause| CloudError::host(&dir, "cannot begin an operation")(cause);
        loop {
            let id = format!("op-{:032x}", u128::from_le_bytes(random_bytes().map_err(failed)?));
            let path = dir.join(&id);
            let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
            let lock = options.open(&path).map_err(failed)?;
            // Between these two another may have taken it for a dead one's: then it is gone, and another is made.
            flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
            if lock.metadata().map_err(failed)?.nlink() > 0 {
                return Ok(Self { id, path, _lock: lock });
            }
        }
    }

    /// What rows carry.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes down that it is under way, with the first rows that carry its id.
    ///
    /// # Errors
    /// [`CloudError::Catalogue`].
    pub fn record(&self, tx: &Transaction<'_>, what: &str) -> Result<(), CloudError> {
        let insert = "INSERT INTO operations (id, what, started) VALUES (?1, ?2, ?3)";
        tx.execute(insert, params![self.id, what, time::now()])?;
        Ok(())
    }

    /// Writes down that it is done, with the last change of its rows.
    ///
    /// # Errors
    /// [`CloudError::Catalogue`].
    pub fn finish(&self, tx: &Transaction<'_>) -> Result<(), CloudError> {
        tx.execute("DELETE FROM operations WHERE id = ?1", [&self.id])?;
        Ok(())
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // A file that stays is found unlocked, and removed then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Operations whose process is gone, with what they were; files that belong to none are removed.
///
/// # Errors
/// What the host or the catalogue says.
pub fn dead(home: &Home, tx: &Transaction<'_>) -> Result<Vec<(String, String)>, CloudError> {
    let mut query = tx.prepare("SELECT id, what FROM operations")?;
    let known: Vec<(String, String)> =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut dead = Vec::new();
    for (id, what) in known {
        let path = home.operations().join(&id);
        if !matches!(look(&path)?, Lock::Held) {
            dead.push((id, what));
        }
    }
    Ok(dead)
}

/// Removes the files of operations that have no row any more, or never had one.
///
/// # Errors
/// What the host or the catalogue says.
pub fn remove_leftovers(home: &Home, tx: &Transaction<'_>) -> Result<(), CloudError> {
    let dir = home.operations();
    let entries = std::fs::read_dir(&dir).map_err(CloudError::host(&dir, "cannot list it"))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known: bool =
            tx.query_row("SELECT EXISTS (SELECT 1 FROM operations WHERE id = ?1)", [id], |row| row.get(0))?;
        if known {
            continue;
        }
        // Removed while it is held: who is about to begin finds it gone, and makes another.
        if let Lock::Free(_held) = look(&path)? {
            Home::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The lock of an operation, as another finds it.
enum Lock {
    /// Whoever does it has it.
    Held,
    /// Nobody had it; it is held as long as this is.
    Free(#[allow(dead_code)] File),
    /// It is gone with its file.
    Gone,
}

fn look(path: &Path) -> Result<Lock, CloudError> {
    let failed = CloudError::host(path, "cannot see whether the operation is under way");
    match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Lock::Gone),
        Err(e) => Err(failed(e)),
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock::Free(file)),
            Err(Errno::WOULDBLOCK) => Ok(Lock::Held),
            Err(e) => Err(failed(e.into())),
        },
    }
}
