//! Images stored as objects, and restored. A bucket is the directory of its name in `$AMIBOOT_HOME/store`.

use std::mem::take;

use super::super::image::image_kind;
use super::super::parts::{check_id, check_ids, check_page, filters, moment, need, tags_for_all, text};
use super::select;
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    CreateRestoreImageTaskRequest, CreateRestoreImageTaskResult, CreateStoreImageTaskRequest,
    CreateStoreImageTaskResult, DescribeStoreImageTasksRequest, DescribeStoreImageTasksResult, StoreImageTaskResult,
};
use crate::cloud::image::Image;
use crate::cloud::tag::Tags;
use crate::cloud::{RestoreRequest, Task, TaskState};

pub fn store(
    call: &mut Call<'_>,
    asked: &mut Asked<CreateStoreImageTaskRequest>,
) -> Result<CreateStoreImageTaskResult, ApiError> {
    let image = need(text(&mut asked.image_id), "ImageId")?;
    let bucket = need(text(&mut asked.bucket), "Bucket")?;
    let mut tags = Tags::new();
    for tag in take(&mut asked.s3_object_tags) {
        tags.insert(need(tag.key, "S3ObjectTag.N.Key")?, tag.value.unwrap_or_default());
    }
    asked.end()?;
    check_id(image_kind(&image), &image)?;
    let object_key = call.begin(move |cloud, begun| {
        cloud.store_image_task(&image, &bucket, &tags, &mut |task: &Task| begun(task.object_key.clone())).map(drop)
    })?;
    Ok(CreateStoreImageTaskResult { object_key })
}

/// The state of a task that stores an image, which EC2 writes another way.
fn state(of: TaskState) -> &'static str {
    match of {
        TaskState::Active => "InProgress",
        TaskState::Completed => "Completed",
        TaskState::Failed | TaskState::Cancelled => "Failed",
    }
}

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeStoreImageTasksRequest>,
) -> Result<DescribeStoreImageTasksResult, ApiError> {
    let (images, filters) = (take(&mut asked.image_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(image_kind, &images)?;
    check_page(&images, max_results, "imageId")?;
    let found = call.cloud.store_image_tasks(&images)?;
    let (found, next_token) = select(found, state, &filters, (max_results, token))?;
    let answer = |task: Task| StoreImageTaskResult {
        ami_id: task.resource_id,
        bucket: task.bucket,
        progress_percentage: Some(task.progress.into()),
        s3object_key: task.object_key,
        store_task_failure_reason: task.status_message,
        store_task_state: Some(state(task.state).to_owned()),
        task_start_time: moment(&task.start_time),
    };
    Ok(DescribeStoreImageTasksResult { store_image_task_results: found.into_iter().map(answer).collect(), next_token })
}

pub fn restore(
    call: &mut Call<'_>,
    asked: &mut Asked<CreateRestoreImageTaskRequest>,
) -> Result<CreateRestoreImageTaskResult, ApiError> {
    let [tags, snapshot_tags] = tags_for_all(["image", "snapshot"], &mut asked.tag_specifications)?;
    let request = RestoreRequest {
        bucket: need(text(&mut asked.bucket), "Bucket")?,
        object_key: need(text(&mut asked.object_key), "ObjectKey")?,
        name: text(&mut asked.name).unwrap_or_default(),
        tags,
        snapshot_tags,
    };
    asked.end()?;
    let image_id = call.begin(move |cloud, begun| {
        cloud.restore_image(&request, &mut |image: &Image| begun(image.image_id.to_string())).map(drop)
    })?;
    Ok(CreateRestoreImageTaskResult { image_id: Some(image_id) })
}
