//! The catalogue: a SQLite file that many processes use at once, any of which may be killed at any moment.
//!
//! Every change is one transaction that takes the write lock at its beginning (`BEGIN IMMEDIATE`), so that what it has read is
//! still so when it writes. What was committed is durable (write-ahead log, `synchronous = FULL`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::error::CloudError;
use super::zone;

/// Schemas, the oldest first: each makes the next version of the one before.
const MIGRATIONS: &[&str] =
    &[include_str!("v1.sql"), include_str!("v2.sql"), include_str!("v3.sql"), include_str!("v4.sql")];

/// How long to wait for another process's transaction; they are short.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that a change of the catalogue needs at the most, as far as it is about files beside it.
const ROOM: u64 = 256 << 10;

/// `application_id` of the file (SQLite file format, section 1.3.16): "amib".
const APPLICATION_ID: i32 = 0x616d_6962;

/// The catalogue, opened.
pub struct Catalogue {
    path: PathBuf,
    connection: Connection,
}

impl Catalogue {
    /// Opens the catalogue at `path`, which is made where it is not there, and brings it to this program's schema.
    ///
    /// # Errors
    /// [`CloudError::Damaged`] for a file that is none, is damaged, or is of a later version; [`CloudError::Catalogue`].
    pub fn open(path: &Path) -> Result<Self, CloudError> {
        Self::try_open(path).map_err(|error| named(path, error))
    }

    fn try_open(path: &Path) -> Result<Self, CloudError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        let mut catalogue = Self { path: path.to_owned(), connection };
        if catalogue.version()? != MIGRATIONS.len() {
            // Only now: to change the journal takes the lock.
            catalogue.connection.pragma_update(None, "journal_mode", "WAL")?;
            catalogue.migrate(path)?;
        }
        Ok(catalogue)
    }

    fn version(&self) -> Result<usize, CloudError> {
        let version: i64 = self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok(usize::try_from(version).unwrap_or(usize::MAX))
    }

    fn migrate(&mut self, path: &Path) -> Result<(), CloudError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another may have done it meanwhile.
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        let Some(missing) = MIGRATIONS.get(version..) else {
            return Err(CloudError::Damaged(format!(
                "{}: it was written by a later amiboot (version {version} of its schema; this one knows {}); use that one",
                path.display(),
                MIGRATIONS.len()
            )));
        };
        if version == 0 {
            let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err(CloudError::Damaged(format!(
                    "{}: this is another program's database; move it away",
                    path.display()
                )));
            }
        }
        for schema in missing {
            transaction.execute_batch(schema)?;
        }
        if version == 0 {
            zone::seed(&transaction)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
        transaction.commit()?;
        Ok(())
    }

    /// Does `change` in one transaction: all of it or, where it fails, nothing.
    ///
    /// # Errors
    /// What `change` says, or [`CloudError::Catalogue`].
    pub fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let changed = in_transaction(&mut self.connection, TransactionBehavior::Immediate, change);
        changed.map_err(|error| named(&self.path, error))
    }

    /// Looks at one state of the catalogue.
    ///
    /// # Errors
    /// What `look` says, or [`CloudError::Catalogue`].
    pub fn read<T>(&mut self, look: impl FnOnce(&Transaction<'_>) -> Result<T, CloudError>) -> Result<T, CloudError> {
        let seen = in_transaction(&mut self.connection, TransactionBehavior::Deferred, look);
        seen.map_err(|error| named(&self.path, error))
    }

    /// To look without a transaction of its own.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Looks through all of the file for damage.
    ///
    /// # Errors
    /// [`CloudError::Damaged`] with what SQLite finds.
    pub fn check(&self) -> Result<(), CloudError> {
        let found: String = self.connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
        if found == "ok" { Ok(()) } else { Err(CloudError::Damaged(format!("the catalogue is damaged: {found}"))) }
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, CloudError>,
) -> Result<T, CloudError> {
    let transaction = connection.transaction_with_behavior(behavior)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Bytes that are free in the file system of a file.
fn free_space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Names the file where it is damaged, or has no room.
fn named(path: &Path, error: CloudError) -> CloudError {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, SystemIoFailure};
    match error {
        CloudError::Catalogue(error) => match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => CloudError::Damaged(format!(
                "{}: the catalogue is damaged ({error}); restore it from a copy, or move its directory away to begin anew",
                path.display()
            )),
            // What SQLite says where its index finds no room.
            Some(SystemIoFailure) if free_space(path).is_some_and(|have| have < ROOM) => {
                CloudError::NoSpace { path: path.to_owned(), need: ROOM, have: free_space(path).unwrap_or(0) }
            }
            Some(CannotOpen) => CloudError::Damaged(format!("{}: cannot open the catalogue: {error}", path.display())),
            _ => CloudError::Catalogue(error),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_open_it_at_once_and_it_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.sqlite");
        std::thread::scope(|scope| {
            let open = || {
                let mut catalogue = Catalogue::open(&path).unwrap();
                for number in 0..20 {
                    let id = format!("op-{:?}-{number}", std::thread::current().id());
                    let insert = "INSERT INTO operations VALUES (?1, 'test', 0)";
                    catalogue.write(|tx| Ok(tx.execute(insert, [id])?)).unwrap();
                }
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let mut catalogue = Catalogue::open(&path).unwrap();
        let count =
            catalogue.read(|tx| Ok(tx.query_row("SELECT count(*) FROM operations", [], |r| r.get::<_, i64>(0))?));
        assert_eq!(count.unwrap(), 160);
        catalogue.check().unwrap();
    }

    #[test]
    fn what_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalogue = Catalogue::open(&dir.path().join("c")).unwrap();
        let failed: Result<(), _> = catalogue.write(|tx| {
            tx.execute("INSERT INTO operations VALUES ('op-1', 'test', 0)", [])?;
            Err(CloudError::value("no"))
        });
        assert_eq!(failed.unwrap_err().code(), "InvalidParameterValue");
        let count =
            catalogue.read(|tx| Ok(tx.query_row("SELECT count(*) FROM operations", [], |r| r.get::<_, i64>(0))?));
        assert_eq!(count.unwrap(), 0);
    }

    #[test]
    fn damage_and_strangers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        std::fs::write(&path, [7; 8192]).unwrap();
        let error = Catalogue::open(&path).err().unwrap().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("damaged"), "{error}");
        let other = dir.path().join("other");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(Catalogue::open(&other).err().unwrap().to_string().contains("another program"));
        let later = dir.path().join("later");
        Connection::open(&later).unwrap().pragma_update(None, "user_version", 1000).unwrap();
        assert!(Catalogue::open(&later).err().unwrap().to_string().contains("later amiboot"));
    }
}
