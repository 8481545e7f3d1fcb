//! Imports as tasks.

use std::path::Path;

use super::{NewTask, Task, TaskKind};
use crate::cloud::error::CloudError;
use crate::cloud::tag::Tags;
use crate::cloud::token::Token;
use crate::cloud::{Begun, Cloud, ImportRequest};
use crate::disk::foreign::import::ImportFormat;

impl Cloud {
    /// Imports an image as a task ("ImportImage"); where the request has no name, the image has the task's. The image is told
    /// of when it is whole; `tags` are the task's.
    ///
    /// # Errors
    /// As [`Cloud::import_image`]: the task says so, too, if it was begun; `IdempotentParameterMismatch`.
    pub fn import_image_task(
        &mut self,
        request: &ImportRequest,
        tags: &Tags,
        client_token: Option<&str>,
        begun: &mut Begun<'_, Task>,
    ) -> Result<Task, CloudError> {
        let token = Token::new("ImportImage", client_token, &(request, tags))?;
        self.task(
            TaskKind::ImportImage,
            &token,
            begun,
            |_, _| {
                Ok(NewTask {
                    description: request.description.clone(),
                    path: request.path.display().to_string(),
                    format: request.format.map(|format| format.to_string()),
                    tags: tags.clone(),
                    ..NewTask::default()
                })
            },
            |cloud, task, report| {
                let mut request = request.clone();
                if request.name.is_empty() {
                    request.name = task.task_id.to_string();
                }
                let made = cloud.import_image(&request, &mut |done, total| report.at(done, total))?;
                Ok(Some(made.image_id))
            },
        )
    }

    /// Imports a snapshot as a task ("ImportSnapshot"); `snapshot_tags` are the snapshot's, `tags` the task's.
    ///
    /// # Errors
    /// As [`Cloud::import_snapshot`]: the task says so, too, if it was begun; `IdempotentParameterMismatch`.
    pub fn import_snapshot_task(
        &mut self,
        (path, format): (&Path, Option<ImportFormat>),
        description: &str,
        (tags, snapshot_tags): (&Tags, &Tags),
        client_token: Option<&str>,
        begun: &mut Begun<'_, Task>,
    ) -> Result<Task, CloudError> {
        let request = (path, format, description, tags, snapshot_tags);
        let token = Token::new("ImportSnapshot", client_token, &request)?;
        self.task(
            TaskKind::ImportSnapshot,
            &token,
            begun,
            |_, _| {
                Ok(NewTask {
                    description: description.to_owned(),
                    path: path.display().to_string(),
                    format: format.map(|format| format.to_string()),
                    tags: tags.clone(),
                    ..NewTask::default()
                })
            },
            |cloud, task, report| {
                let said = format!("Created by AWS-VMImport service for {}", task.task_id);
                let description = if description.is_empty() { &said } else { description };
                let mut progress = |done, total| report.at(done, total);
                let made = cloud.import_snapshot(path, format, description, snapshot_tags, &mut progress)?;
                Ok(Some(made.snapshot_id))
            },
        )
    }
}
