//! Imports broken off.

use rusqlite::params;

use super::{Task, TaskKind, TaskState, own};
use crate::cloud::error::CloudError;
use crate::cloud::{Cloud, Kind, time};

impl Cloud {
    /// Breaks off an import of an image or a snapshot ("CancelImportTask"); tells the task as it is then. Its work ends at its
    /// next step, and what that had made is undone; work that was all but done may be done all the same.
    ///
    /// # Errors
    /// `InvalidConversionTaskId.Malformed`, `.NotFound`; `IncorrectState` for a task that has ended.
    pub fn cancel_import_task(&mut self, id: &str, reason: &str) -> Result<Task, CloudError> {
        let is_snapshot = id.starts_with(Kind::ImportSnapshotTask.prefix());
        let kind = if is_snapshot { TaskKind::ImportSnapshot } else { TaskKind::ImportImage };
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let task = own(tx, &scope, kind, id)?;
            if task.state != TaskState::Active {
                let why = format!("it is {}, not active", task.state);
                return Err(CloudError::State { what: task.task_id.to_string(), why });
            }
            let why = if reason.is_empty() { "it was cancelled" } else { reason };
            let update = "UPDATE tasks SET state = ?2, message = ?3, changed = ?4 WHERE id = ?1";
            tx.execute(update, params![task.task_id, TaskState::Cancelled, why, time::now()])?;
            own(tx, &scope, kind, id)
        })
    }
}
