//! Tasks: imports, exports, and images that are stored, which are asked for now and done later.
//!
//! A task is written down before its work begins, and with its work's result when that ends. Where the process is killed in
//! between, the next look at the catalogue says that it failed, and undoes what its work had written down.

mod archive;
mod cancel;
mod export;
mod import;
mod place;
mod restore;
mod store;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::catalogue::Catalogue;
use super::error::CloudError;
use super::id::{Id, Kind};
use super::operation::Operation;
use super::scope::Scope;
use super::tag::{self, Tags};
use super::token::Token;
use super::words::words;
use super::{Begun, Cloud, time};

pub use export::{ExportRequest, ExportTo};
pub use place::local_path;
pub use restore::RestoreRequest;

/// How long tasks are listed, in milliseconds: 31 days.
const LISTED: i64 = 31 * 24 * 3_600_000;

words! {
    /// What a task does.
    pub enum TaskKind as "task" {
        /// Makes an image of a disk file.
        ImportImage = "import-image",
        /// Makes a snapshot of a disk file.
        ImportSnapshot = "import-snapshot",
        /// Makes a disk file of an image.
        ExportImage = "export-image",
        /// Makes an object of an image, which can be restored.
        StoreImage = "store-image",
    }
}

impl TaskKind {
    fn id(self) -> Kind {
        match self {
            Self::ImportImage => Kind::ImportImageTask,
            Self::ImportSnapshot => Kind::ImportSnapshotTask,
            Self::ExportImage => Kind::ExportImageTask,
            Self::StoreImage => Kind::StoreImageTask,
        }
    }
}

words! {
    /// How far a task is.
    pub enum TaskState as "task state" {
        /// Under way.
        Active = "active",
        /// Done.
        Completed = "completed",
        /// It could not be done.
        Failed = "failed",
        /// Somebody broke it off.
        Cancelled = "cancelled",
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// As in `import-ami-...`
    pub task_id: Id,
    /// What it does.
    pub kind: TaskKind,
    /// How far it is.
    pub state: TaskState,
    /// Percent.
    pub progress: u8,
    /// Why it failed, or was broken off.
    pub status_message: Option<String>,
    /// What is said of it.
    pub description: String,
    /// The image or snapshot that it is about, or has made.
    pub resource_id: Option<String>,
    /// The file that it reads or writes.
    pub path: String,
    /// The format of the file, where that is said.
    pub format: Option<String>,
    /// Of an object, its bucket.
    pub bucket: Option<String>,
    /// Of an object, its key.
    pub object_key: Option<String>,
    /// When it was begun.
    pub start_time: String,
    /// Its tags.
    pub tags: Tags,
}

const COLUMNS: &str =
    "id, kind, state, progress, message, description, resource, path, format, bucket, object_key, started";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        task_id: row.get(0)?,
        kind: row.get(1)?,
        state: row.get(2)?,
        progress: row.get(3)?,
        status_message: row.get(4)?,
        description: row.get(5)?,
        resource_id: row.get(6)?,
        path: row.get(7)?,
        format: row.get(8)?,
        bucket: row.get(9)?,
        object_key: row.get(10)?,
        start_time: time::format(row.get(11)?),
        tags: Tags::new(),
    })
}

fn own(db: &Connection, scope: &Scope, kind: TaskKind, id: &str) -> Result<Task, CloudError> {
    let id = Id::parse(kind.id(), id)?;
    let query = format!("SELECT {COLUMNS} FROM tasks WHERE id = ?1 AND region = ?2 AND owner = ?3 AND kind = ?4");
    let values = params![id, scope.region, scope.account.as_str(), kind];
    let found = db.query_row(&query, values, from_row).optional()?;
    let mut found = found.ok_or_else(|| CloudError::NotFound { kind: kind.id(), id: id.to_string() })?;
    found.tags = tag::of(db, &found.task_id)?;
    Ok(found)
}

/// What a task is about, before it has an id.
#[derive(Debug, Default)]
struct NewTask {
    description: String,
    resource: Option<String>,
    path: String,
    format: Option<String>,
    bucket: Option<String>,
    object_key: Option<String>,
    tags: Tags,
}

impl NewTask {
    fn insert(
        &self,
        tx: &Transaction<'_>,
        scope: &Scope,
        (id, kind): (&Id, TaskKind),
        operation: &Operation,
    ) -> Result<(), CloudError> {
        tx.execute(
            "INSERT INTO tasks (id, region, owner, kind, state, progress, description, resource, path, format, bucket,
                 object_key, started, changed, operation)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13)",
            params![
                id,
                scope.region,
                scope.account.as_str(),
                kind,
                TaskState::Active,
                self.description,
                self.resource,
                self.path,
                self.format,
                self.bucket,
                self.object_key,
                time::now(),
                operation.id()
            ],
        )?;
        tag::add(tx, id, &self.tags)
    }
}

/// Writes down how far a task is: with a connection of its own, since the work has the other.
struct Report {
    catalogue: Catalogue,
    id: Id,
    percent: u64,
}

impl Report {
    /// So much is done, of so much; all of it only when the task is. What was broken off does not go on.
    fn at(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        let percent = done.saturating_mul(99).checked_div(total).unwrap_or(0).min(99);
        if percent > self.percent {
            self.percent = percent;
            let update = "UPDATE tasks SET progress = ?2, changed = ?3 WHERE id = ?1 AND state = ?4";
            let values = params![self.id, i64::try_from(percent).unwrap_or(0), time::now(), TaskState::Active];
            // Progress is only to be looked at: where it cannot be written down, the work goes on.
            if let Ok(0) = self.catalogue.write(|tx| Ok(tx.execute(update, values)?)) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Cloud {
    /// Tasks of the caller's of one kind: all, or those of `ids`, in the order of their beginning.
    ///
    /// # Errors
    /// `.Malformed`, `.NotFound`.
    pub fn tasks(&mut self, kind: TaskKind, ids: &[String]) -> Result<Vec<Task>, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            if !ids.is_empty() {
                return ids.iter().map(|id| own(tx, &scope, kind, id)).collect();
            }
            let query = format!(
                "SELECT {COLUMNS} FROM tasks WHERE region = ?1 AND owner = ?2 AND kind = ?3 ORDER BY started, id"
            );
            let mut query = tx.prepare(&query)?;
            let found = query.query_map(params![scope.region, scope.account.as_str(), kind], from_row)?;
            let mut found: Vec<Task> = found.collect::<Result<_, _>>()?;
            for task in &mut found {
                task.tags = tag::of(tx, &task.task_id)?;
            }
            Ok(found)
        })
    }

    /// Does a task: `first` checks and says what it is about; `begun` is told when that is written down; `work` does it, and
    /// gives what it has made, where that is something of the catalogue. A task that the token stands for is not done again.
    fn task(
        &mut self,
        kind: TaskKind,
        token: &Token<'_>,
        begun: &mut Begun<'_, Task>,
        first: impl FnOnce(&Transaction<'_>, &Id) -> Result<NewTask, CloudError>,
        work: impl FnOnce(&mut Self, &Task, &mut Report) -> Result<Option<Id>, CloudError>,
    ) -> Result<Task, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.operation(
            kind.as_str(),
            |tx, operation| {
                if let Some(before) = token.made_one(tx, &scope)? {
                    return Ok((before, false));
                }
                forget(tx)?;
                let id = Id::new(kind.id()).map_err(CloudError::host(home.root(), "cannot make an id"))?;
                first(tx, &id)?.insert(tx, &scope, (&id, kind), operation)?;
                token.keep(tx, &scope, &[&id], Some(operation))?;
                Ok((id.to_string(), true))
            },
            |cloud, operation, (id, is_new)| {
                let task = cloud.catalogue.read(|tx| own(tx, &scope, kind, &id))?;
                begun(&task);
                let done = if is_new {
                    let catalogue = Catalogue::open(&home.catalogue())?;
                    let done = work(cloud, &task, &mut Report { catalogue, id: task.task_id.clone(), percent: 0 });
                    cloud.catalogue.write(|tx| end(tx, &task.task_id, &done))?;
                    done.map(|_| ())
                } else {
                    Ok(())
                };
                cloud.catalogue.write(|tx| operation.finish(tx))?;
                done?;
                cloud.catalogue.read(|tx| own(tx, &scope, kind, &id))
            },
        )
    }
}

/// Says that a task failed, unless it was broken off.
const FAIL: &str =
    "UPDATE tasks SET state = iif(state = ?5, ?2, state), message = iif(state = ?5, ?3, message), changed = ?4,
    operation = NULL";

/// The values of [`FAIL`].
fn failed<'a>(which: &'a str, why: &'a str) -> impl rusqlite::Params + 'a {
    (which, TaskState::Failed, why, time::now(), TaskState::Active)
}

/// Writes down how a task ended. One that was done before it heard that it is broken off, is done.
fn end(tx: &Transaction<'_>, id: &Id, done: &Result<Option<Id>, CloudError>) -> Result<(), CloudError> {
    match done {
        Ok(made) => tx.execute(
            "UPDATE tasks SET state = ?2, progress = 100, resource = coalesce(?3, resource), changed = ?4, operation = NULL
             WHERE id = ?1",
            params![id, TaskState::Completed, made, time::now()],
        )?,
        Err(error) => {
            let why = format!("{}: {error}", error.code());
            tx.execute(&format!("{FAIL} WHERE id = ?1"), failed(id.as_str(), &why))?
        }
    };
    Ok(())
}

/// Says that the task of an operation whose process was killed failed.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn settle(tx: &Transaction<'_>, operation: &str) -> Result<(), CloudError> {
    let why = "ServerError: it was cut off before it was done";
    tx.execute(&format!("{FAIL} WHERE operation = ?1"), failed(operation, why))?;
    Ok(())
}

/// Forgets tasks that ended long ago.
fn forget(tx: &Transaction<'_>) -> Result<(), CloudError> {
    let mut query = tx.prepare("SELECT id FROM tasks WHERE operation IS NULL AND changed < ?1")?;
    let old = query.query_map([time::now().saturating_sub(LISTED)], |row| row.get(0))?;
    for id in old.collect::<Result<Vec<Id>, _>>()? {
        tag::remove_all(tx, &id)?;
        tx.execute("DELETE FROM tasks WHERE id = ?1", [&id])?;
    }
    Ok(())
}
