//! Exports of images as tasks.

use std::path::PathBuf;

use super::{NewTask, Task, TaskKind, place};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::tag::Tags;
use crate::cloud::token::Token;
use crate::cloud::{Begun, Cloud, Id, image};
use crate::disk::foreign::export::{ExportError, ExportFormat, write};
use crate::disk::output::Overwrite;

/// Where the file of an export appears: it is named by the task, as in `export-ami-....vmdk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// In a directory of this host.
    Directory(PathBuf),
    /// In a bucket, with this in front of its name.
    Bucket {
        /// The bucket.
        bucket: String,
        /// As in `exports/`.
        prefix: String,
    },
}

/// An image that is to become a file ("ExportImage").
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The image.
    pub image: String,
    /// The file's format.
    pub format: ExportFormat,
    /// Where it appears.
    pub to: ExportTo,
    /// What is said of the task.
    pub description: String,
    /// The task's tags.
    pub tags: Tags,
    /// Another request with this token and the same content exports nothing more.
    pub client_token: Option<String>,
}

impl Cloud {
    /// Exports the root of an image that the caller may launch, as a task.
    ///
    /// # Errors
    /// As for launching the image; `InvalidParameterValue` for a place that is none; `IdempotentParameterMismatch`. What the
    /// host says, and a file that the format cannot be: the task says so, too.
    pub fn export_image_task(
        &mut self,
        request: &ExportRequest,
        begun: &mut Begun<'_, Task>,
    ) -> Result<Task, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        let token = Token::new("ExportImage", request.client_token.as_deref(), request)?;
        self.task(
            TaskKind::ExportImage,
            &token,
            begun,
            |tx, id| {
                let image = image::may_use(tx, &scope, &request.image)?;
                let (path, bucket, object_key) = place_of(&home, request, id)?;
                Ok(NewTask {
                    description: request.description.clone(),
                    resource: Some(image.image_id.to_string()),
                    path: path.display().to_string(),
                    format: Some(request.format.to_string()),
                    bucket,
                    object_key,
                    tags: request.tags.clone(),
                })
            },
            |cloud, task, report| {
                let (path, bucket, _) = place_of(&home, request, &task.task_id)?;
                if bucket.is_some() {
                    place::make_directory_of(&path)?;
                }
                let (_, disk) = cloud.image_disk(&request.image)?;
                let mut progress = |at: crate::disk::foreign::Progress| {
                    let _ = report.at(at.done, at.total);
                };
                match write(disk.as_ref(), request.format, &path, Overwrite::Refuse, &mut progress) {
                    Ok(_) => Ok(None),
                    Err(ExportError::Output(error)) => Err(CloudError::File(error)),
                    Err(ExportError::Disk(error)) => Err(CloudError::host(&request.image, "cannot read it")(error)),
                    Err(error @ ExportError::TooLarge { .. }) => Err(CloudError::value(error.to_string())),
                }
            },
        )
    }
}

type Placed = (PathBuf, Option<String>, Option<String>);

/// The file, and bucket and key where it is an object.
fn place_of(home: &Home, request: &ExportRequest, task: &Id) -> Result<Placed, CloudError> {
    let ending = match request.format {
        ExportFormat::Raw => "raw",
        ExportFormat::Qcow2 => "qcow2",
        ExportFormat::Vmdk => "vmdk",
        ExportFormat::Vhd => "vhd",
    };
    let name = format!("{task}.{ending}");
    match &request.to {
        ExportTo::Directory(dir) => Ok((dir.join(name), None, None)),
        ExportTo::Bucket { bucket, prefix } => {
            let key = format!("{prefix}{name}");
            Ok((place::object(home, bucket, &key)?, Some(bucket.clone()), Some(key)))
        }
    }
}
