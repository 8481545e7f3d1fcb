//! Imports of images and snapshots from disk files of this host.
//!
//! EC2 reads them from S3 or from a URL; here a URL is one of a file, as in `file:///home/me/images/disk.vmdk`, below a directory
//! that [`import_dirs`](crate::api::import_dirs) allow.

use std::mem::take;
use std::path::PathBuf;

use super::super::parts::{check_ids, filters, need, only, tags, tags_for, text};
use super::{message, progress, select, state};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::import_dirs::{file_url, no_buckets};
use crate::api::model::{
    CancelImportTaskRequest, CancelImportTaskResult, DescribeImportImageTasksRequest, DescribeImportImageTasksResult,
    DescribeImportSnapshotTasksRequest, DescribeImportSnapshotTasksResult, ImportImageRequest, ImportImageResult,
    ImportImageTask, ImportSnapshotRequest, ImportSnapshotResult, ImportSnapshotTask, SnapshotDetail,
    SnapshotTaskDetail, UserBucket,
};
use crate::cloud::image::{Architecture, BootMode, Platform};
use crate::cloud::tag::Tags;
use crate::cloud::{ImportRequest, Kind, Task, TaskKind, TaskState};
use crate::disk::foreign::import::ImportFormat;

/// The file that a disk container names.
fn file(call: &Call<'_>, url: &mut Option<String>, bucket: Option<UserBucket>) -> Result<PathBuf, ApiError> {
    let bucket = bucket.unwrap_or_default();
    if [bucket.s3_bucket, bucket.s3_key].into_iter().flatten().any(|text| !text.is_empty()) {
        return Err(no_buckets());
    }
    call.import_file(&need(text(url), "DiskContainer.Url")?)
}

/// A format in EC2's words, in capitals as a rule.
fn format(format: &mut Option<String>) -> Result<Option<ImportFormat>, ApiError> {
    let read = |text: String| text.to_ascii_lowercase().parse().map_err(|why: String| ApiError::value(why));
    text(format).map(read).transpose()
}

pub fn image(call: &mut Call<'_>, asked: &mut Asked<ImportImageRequest>) -> Result<ImportImageResult, ApiError> {
    let mut containers = take(&mut asked.disk_containers).into_iter();
    let mut container = need(containers.next(), "DiskContainer.1")?;
    if containers.next().is_some() {
        return Err(ApiError::unsupported(
            "Images of more than one disk are not imported; import the others as snapshots",
        ));
    }
    if text(&mut container.snapshot_id).is_some() {
        return Err(ApiError::unsupported(
            "Images are not imported from snapshots: RegisterImage makes one of a snapshot",
        ));
    }
    let request = ImportRequest {
        path: file(call, &mut container.url, container.user_bucket)?,
        format: format(&mut container.format)?,
        root_device_name: text(&mut container.device_name),
        description: text(&mut asked.description).or(container.description).unwrap_or_default(),
        architecture: text(&mut asked.architecture).map(|word| word.parse::<Architecture>()).transpose()?,
        platform: platform(&mut asked.platform)?,
        boot_mode: text(&mut asked.boot_mode).map(|word| word.parse::<BootMode>()).transpose()?,
        ..ImportRequest::default()
    };
    let tags = tags_for("import-image-task", &mut asked.tag_specifications)?;
    let token = text(&mut asked.client_token);
    only(&mut asked.hypervisor, "Hypervisor", &["xen"])?;
    only(&mut asked.license_type, "LicenseType", &["BYOL"])?;
    only(&mut asked.usage_operation, "UsageOperation", &["RunInstances"])?;
    // Nobody needs a role to read a file, and the upload's times are only for statistics.
    (asked.role_name, asked.client_data) = (None, None);
    asked.end()?;
    let task = call.begin(move |cloud, begun| {
        cloud.import_image_task(&request, &tags, token.as_deref(), &mut |task: &Task| begun(task.clone())).map(drop)
    })?;
    let ImportImageTask {
        architecture,
        boot_mode: _,
        description,
        encrypted,
        hypervisor,
        image_id,
        import_task_id,
        kms_key_id,
        license_type,
        platform,
        progress,
        snapshot_details,
        status,
        status_message,
        tags,
        license_specifications,
        usage_operation,
    } = image_task(call, &task);
    Ok(ImportImageResult {
        architecture,
        description,
        encrypted,
        hypervisor,
        image_id,
        import_task_id,
        kms_key_id,
        license_type,
        platform,
        progress,
        snapshot_details,
        status,
        status_message,
        tags,
        license_specifications,
        usage_operation,
    })
}

/// EC2 knows two here, and has a word for only one of them elsewhere.
fn platform(platform: &mut Option<String>) -> Result<Option<Platform>, ApiError> {
    match text(platform).map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("linux") => Ok(None),
        Some(word) => Ok(Some(word.parse()?)),
    }
}

/// What is known of an import: of its image only when there is one.
fn image_task(call: &mut Call<'_>, of: &Task) -> ImportImageTask {
    let image = of.resource_id.as_deref().and_then(|id| call.cloud.image(id).ok());
    let snapshot = image.as_ref().and_then(|image| image.root_snapshot().map(str::to_owned));
    ImportImageTask {
        architecture: image.as_ref().map(|image| image.architecture.to_string()),
        boot_mode: image.as_ref().and_then(|image| image.boot_mode).map(|mode| mode.to_string()),
        description: Some(of.description.clone()),
        hypervisor: image.as_ref().map(|image| image.hypervisor.to_owned()),
        image_id: of.resource_id.clone(),
        import_task_id: Some(of.task_id.to_string()),
        license_type: Some("BYOL".into()),
        platform: image.as_ref().map(|image| if image.platform.is_some() { "Windows" } else { "Linux" }.to_owned()),
        progress: progress(of),
        snapshot_details: vec![SnapshotDetail {
            device_name: image.and_then(|image| image.root_device_name),
            format: of.format.as_deref().map(str::to_uppercase),
            progress: progress(of),
            snapshot_id: snapshot,
            status: Some(state(of.state).to_owned()),
            url: Some(file_url(&of.path)),
            ..SnapshotDetail::default()
        }],
        status: Some(state(of.state).to_owned()),
        status_message: message(of),
        tags: tags(&of.tags),
        ..ImportImageTask::default()
    }
}

pub fn describe_images(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeImportImageTasksRequest>,
) -> Result<DescribeImportImageTasksResult, ApiError> {
    let (ids, filters) = (take(&mut asked.import_task_ids), filters(&mut asked.filters)?);
    let of_page = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::ImportImageTask, &ids)?;
    let found = call.cloud.tasks(TaskKind::ImportImage, &ids)?;
    let (found, next_token) = select(found, state, &filters, of_page)?;
    let import_image_tasks = found.iter().map(|task| image_task(call, task)).collect();
    Ok(DescribeImportImageTasksResult { import_image_tasks, next_token })
}

pub fn snapshot(
    call: &mut Call<'_>,
    asked: &mut Asked<ImportSnapshotRequest>,
) -> Result<ImportSnapshotResult, ApiError> {
    let mut container = need(asked.disk_container.take(), "DiskContainer")?;
    let path = file(call, &mut container.url, container.user_bucket)?;
    let format = format(&mut container.format)?;
    let description = text(&mut asked.description).or(container.description).unwrap_or_default();
    let tags = tags_for("import-snapshot-task", &mut asked.tag_specifications)?;
    let token = text(&mut asked.client_token);
    (asked.role_name, asked.client_data) = (None, None);
    asked.end()?;
    let task = call.begin(move |cloud, begun| {
        let mut begun = |task: &Task| begun(task.clone());
        let tags = (&tags, &Tags::new());
        cloud.import_snapshot_task((&path, format), &description, tags, token.as_deref(), &mut begun).map(drop)
    })?;
    let ImportSnapshotTask { description, import_task_id, snapshot_task_detail, tags } = snapshot_task(&task);
    Ok(ImportSnapshotResult { description, import_task_id, snapshot_task_detail, tags })
}

/// The state of an import of a snapshot. A failure is the one that clients wait for.
fn snapshot_state(of: TaskState) -> &'static str {
    match of {
        TaskState::Active => "active",
        TaskState::Completed => "completed",
        TaskState::Failed => "error",
        TaskState::Cancelled => "deleted",
    }
}

fn snapshot_task(of: &Task) -> ImportSnapshotTask {
    ImportSnapshotTask {
        description: Some(of.description.clone()),
        import_task_id: Some(of.task_id.to_string()),
        snapshot_task_detail: Some(SnapshotTaskDetail {
            description: Some(of.description.clone()),
            encrypted: Some(false),
            format: of.format.as_deref().map(str::to_uppercase),
            progress: progress(of),
            snapshot_id: of.resource_id.clone(),
            status: Some(snapshot_state(of.state).to_owned()),
            status_message: message(of),
            url: Some(file_url(&of.path)),
            ..SnapshotTaskDetail::default()
        }),
        tags: tags(&of.tags),
    }
}

pub fn describe_snapshots(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeImportSnapshotTasksRequest>,
) -> Result<DescribeImportSnapshotTasksResult, ApiError> {
    let (ids, filters) = (take(&mut asked.import_task_ids), filters(&mut asked.filters)?);
    let of_page = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::ImportSnapshotTask, &ids)?;
    let found = call.cloud.tasks(TaskKind::ImportSnapshot, &ids)?;
    let (found, next_token) = select(found, snapshot_state, &filters, of_page)?;
    Ok(DescribeImportSnapshotTasksResult {
        import_snapshot_tasks: found.iter().map(snapshot_task).collect(),
        next_token,
    })
}

pub fn cancel(
    call: &mut Call<'_>,
    asked: &mut Asked<CancelImportTaskRequest>,
) -> Result<CancelImportTaskResult, ApiError> {
    let id = need(text(&mut asked.import_task_id), "ImportTaskId")?;
    let reason = text(&mut asked.cancel_reason).unwrap_or_default();
    asked.end()?;
    let task = call.cloud.cancel_import_task(&id, &reason)?;
    Ok(CancelImportTaskResult {
        import_task_id: Some(task.task_id.to_string()),
        previous_state: Some("active".into()),
        state: Some("deleting".into()),
    })
}
