//! Imports, exports and stored images, as tasks that go on after their answer.

mod export;
mod import;
mod store;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::parts::page;
use crate::api::call::actions;
use crate::api::error::ApiError;
use crate::cloud::filter::{self, Filtered, Filters};
use crate::cloud::tag::Tags;
use crate::cloud::{Task, TaskState};

actions! {
    CancelImportTaskAction => import::cancel,
    CreateRestoreImageTaskAction => store::restore,
    CreateStoreImageTaskAction => store::store,
    DescribeExportImageTasksAction => export::describe,
    DescribeImportImageTasksAction => import::describe_images,
    DescribeImportSnapshotTasksAction => import::describe_snapshots,
    DescribeStoreImageTasksAction => store::describe,
    ExportImageAction => export::export,
    ImportImageAction => import::image,
    ImportSnapshotAction => import::snapshot,
}

/// A task, with the word that its action has for its state.
struct Shown {
    task: Task,
    state: &'static str,
}

impl Filtered for Shown {
    const FILTERS: &'static [&'static str] = &["bucket", "task-state"];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "bucket" => self.task.bucket.as_deref().map(Cow::from).into_iter().collect(),
            "task-state" => vec![Cow::from(self.state)],
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.task.tags
    }
}

/// One page of the tasks that pass.
fn select(
    tasks: Vec<Task>,
    word: fn(TaskState) -> &'static str,
    filters: &[filter::Filter],
    (max_results, token): (Option<i64>, Option<String>),
) -> Result<(Vec<Task>, Option<String>), ApiError> {
    let filters = Filters::parse::<Shown>(filters)?;
    let shown = tasks.into_iter().map(|task| Shown { state: word(task.state), task });
    let passing = shown.filter(|task| filters.pass(task)).map(|shown| shown.task).collect();
    page(passing, |task| format!("{} {}", task.start_time, task.task_id), max_results, token, (1, 500))
}

/// The state of an import of an image, or of an export: EC2 deletes those that fail.
fn state(of: TaskState) -> &'static str {
    match of {
        TaskState::Active => "active",
        TaskState::Completed => "completed",
        TaskState::Failed | TaskState::Cancelled => "deleted",
    }
}

/// Percent, while there is something to wait for.
fn progress(of: &Task) -> Option<String> {
    (of.state == TaskState::Active).then(|| of.progress.to_string())
}

/// What is said of a state.
fn message(of: &Task) -> Option<String> {
    let under_way = || (of.state == TaskState::Active).then(|| "converting".to_owned());
    of.status_message.clone().or_else(under_way)
}
