//! Exports of images to disk files.

use std::mem::take;

use super::super::image::image_kind;
use super::super::parts::{check_id, check_ids, filters, need, tags, tags_for, text};
use super::{message, progress, select, state};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    DescribeExportImageTasksRequest, DescribeExportImageTasksResult, ExportImageRequest, ExportImageResult,
    ExportImageTask, ExportTaskS3Location,
};
use crate::cloud::{ExportRequest, ExportTo, Kind, Task, TaskKind};
use crate::disk::foreign::export::ExportFormat;

/// Exports an image. EC2's action knows no other places than S3's: a bucket is the directory of that name in
/// `$AMIBOOT_HOME/store`, as it is for `CreateStoreImageTask`, and is made where it is not there.
pub fn export(call: &mut Call<'_>, asked: &mut Asked<ExportImageRequest>) -> Result<ExportImageResult, ApiError> {
    let format = need(text(&mut asked.disk_image_format), "DiskImageFormat")?;
    let mut to = need(asked.s3_export_location.take(), "S3ExportLocation")?;
    let request = ExportRequest {
        image: need(text(&mut asked.image_id), "ImageId")?,
        format: format.to_ascii_lowercase().parse::<ExportFormat>().map_err(ApiError::value)?,
        to: ExportTo::Bucket {
            bucket: need(text(&mut to.s3_bucket), "S3ExportLocation.S3Bucket")?,
            prefix: text(&mut to.s3_prefix).unwrap_or_default(),
        },
        description: asked.description.take().unwrap_or_default(),
        tags: tags_for("export-image-task", &mut asked.tag_specifications)?,
        client_token: text(&mut asked.client_token),
    };
    // Nobody needs a role to write a file.
    let role = asked.role_name.take();
    asked.end()?;
    check_id(image_kind(&request.image), &request.image)?;
    let task = call.begin(move |cloud, begun| {
        cloud.export_image_task(&request, &mut |task: &Task| begun(task.clone())).map(drop)
    })?;
    let ExportImageTask {
        description,
        export_image_task_id,
        image_id,
        progress,
        s3_export_location,
        status,
        status_message,
        tags,
    } = answer(&task);
    Ok(ExportImageResult {
        description,
        disk_image_format: task.format.as_deref().map(str::to_uppercase),
        export_image_task_id,
        image_id,
        role_name: role,
        progress,
        s3_export_location,
        status,
        status_message,
        tags,
    })
}

fn answer(of: &Task) -> ExportImageTask {
    let prefix = |key: &String| key.split(of.task_id.as_str()).next().map(str::to_owned);
    ExportImageTask {
        description: Some(of.description.clone()),
        export_image_task_id: Some(of.task_id.to_string()),
        image_id: of.resource_id.clone(),
        progress: progress(of),
        s3_export_location: Some(ExportTaskS3Location {
            s3_bucket: of.bucket.clone(),
            s3_prefix: of.object_key.as_ref().and_then(prefix),
        }),
        status: Some(state(of.state).to_owned()),
        status_message: message(of),
        tags: tags(&of.tags),
    }
}

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeExportImageTasksRequest>,
) -> Result<DescribeExportImageTasksResult, ApiError> {
    let (ids, filters) = (take(&mut asked.export_image_task_ids), filters(&mut asked.filters)?);
    let of_page = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::ExportImageTask, &ids)?;
    let found = call.cloud.tasks(TaskKind::ExportImage, &ids)?;
    let (found, next_token) = select(found, state, &filters, of_page)?;
    Ok(DescribeExportImageTasksResult { export_image_tasks: found.iter().map(answer).collect(), next_token })
}
