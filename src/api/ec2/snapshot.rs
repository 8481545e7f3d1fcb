//! Snapshots.

use std::mem::take;

use super::parts::{check_id, check_ids, check_page, count, filters, moment, need, only, page, tags, tags_for, text};
use crate::api::call::{Asked, Call, actions, patiently};
use crate::api::error::ApiError;
use crate::api::model::{
    CopySnapshotRequest, CopySnapshotResult, CreateSnapshotRequest, CreateSnapshotsRequest, CreateSnapshotsResult,
    CreateVolumePermission, DeleteSnapshotRequest, DescribeSnapshotAttributeRequest, DescribeSnapshotAttributeResult,
    DescribeSnapshotsRequest, DescribeSnapshotsResult, Done, ModifySnapshotAttributeRequest,
    ResetSnapshotAttributeRequest, Snapshot, SnapshotInfo,
};
use crate::cloud::tag::Tags;
use crate::cloud::{self, Kind, SnapshotQuery};

actions! {
    CopySnapshotAction => copy,
    CreateSnapshotAction => create,
    CreateSnapshotsAction => create_all,
    DeleteSnapshotAction => delete,
    DescribeSnapshotAttributeAction => describe_attribute,
    DescribeSnapshotsAction => describe,
    ModifySnapshotAttributeAction => modify_attribute,
    ResetSnapshotAttributeAction => reset_attribute,
}

fn id(snapshot: &mut Option<String>) -> Result<String, ApiError> {
    let id = need(text(snapshot), "SnapshotId")?;
    check_id(Kind::Snapshot, &id)?;
    Ok(id)
}

/// What a snapshot of no volume here is said to be of, as on EC2.
const NO_VOLUME: &str = "vol-ffffffff";

/// A snapshot as answers show it.
fn answer(of: &cloud::Snapshot) -> Snapshot {
    Snapshot {
        snapshot_id: Some(of.snapshot_id.to_string()),
        volume_id: Some(of.volume_id.clone().unwrap_or_else(|| NO_VOLUME.into())),
        state: Some(of.state.clone()),
        state_message: of.state_message.clone(),
        start_time: moment(&of.start_time),
        progress: Some(of.progress.clone()),
        owner_id: Some(of.owner_id.clone()),
        description: Some(of.description.clone()),
        volume_size: count(Some(of.volume_size)),
        encrypted: Some(false),
        storage_tier: Some("standard".into()),
        tags: tags(&of.tags),
        ..Snapshot::default()
    }
}

fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeSnapshotsRequest>,
) -> Result<DescribeSnapshotsResult, ApiError> {
    let query = SnapshotQuery {
        ids: take(&mut asked.snapshot_ids),
        owners: take(&mut asked.owner_ids),
        restorable_by: take(&mut asked.restorable_by_user_ids),
        filters: filters(&mut asked.filters)?,
    };
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::Snapshot, &query.ids)?;
    check_page(&query.ids, max_results, "snapshotSet")?;
    let found = call.cloud.describe_snapshots(&query)?;
    let order = |snapshot: &cloud::Snapshot| format!("{} {}", snapshot.start_time, snapshot.snapshot_id);
    let (found, next_token) = page(found, order, max_results, token, (5, 1000))?;
    Ok(DescribeSnapshotsResult { snapshots: found.iter().map(answer).collect(), next_token })
}

fn begin(
    call: &Call<'_>,
    volumes: Vec<String>,
    description: String,
    tags: Tags,
) -> Result<Vec<cloud::Snapshot>, ApiError> {
    call.begin(move |cloud, begun| {
        let mut tell = |all: &Vec<cloud::Snapshot>| begun(all.clone());
        patiently(cloud, |cloud| cloud.create_snapshots_with(&volumes, &description, &tags, &mut tell).map(drop))
    })
}

fn create(call: &mut Call<'_>, asked: &mut Asked<CreateSnapshotRequest>) -> Result<Snapshot, ApiError> {
    let volume = need(text(&mut asked.volume_id), "VolumeId")?;
    let description = asked.description.take().unwrap_or_default();
    let tags = tags_for("snapshot", &mut asked.tag_specifications)?;
    only(&mut asked.location, "Location", &["regional"])?;
    asked.end()?;
    check_id(Kind::Volume, &volume)?;
    let made = begin(call, vec![volume], description, tags)?;
    made.first().map(answer).ok_or_else(|| ApiError::new("InternalError", "no snapshot was taken"))
}

fn create_all(
    call: &mut Call<'_>,
    asked: &mut Asked<CreateSnapshotsRequest>,
) -> Result<CreateSnapshotsResult, ApiError> {
    let mut specification = need(asked.instance_specification.take(), "InstanceSpecification")?;
    let instance = need(text(&mut specification.instance_id), "InstanceSpecification.InstanceId")?;
    let without_root = specification.exclude_boot_volume.take() == Some(true);
    let without = take(&mut specification.exclude_data_volume_ids);
    let description = asked.description.take().unwrap_or_default();
    let tags = tags_for("snapshot", &mut asked.tag_specifications)?;
    only(&mut asked.location, "Location", &["regional"])?;
    asked.end()?;
    let instance = call.instance(&instance)?;
    let volumes: Vec<String> = instance
        .block_device_mappings
        .iter()
        .filter(|at| !(without_root && at.device == instance.root_device_name))
        .map(|at| at.volume_id.to_string())
        .filter(|id| !without.contains(id))
        .collect();
    if volumes.is_empty() {
        return Err(ApiError::value(format!(
            "The instance '{}' has no volumes to take snapshots of",
            instance.instance_id
        )));
    }
    let info = |of: cloud::Snapshot| {
        let Snapshot {
            description,
            tags,
            encrypted,
            volume_id,
            state,
            volume_size,
            start_time,
            progress,
            owner_id,
            snapshot_id,
            ..
        } = answer(&of);
        SnapshotInfo {
            description,
            tags,
            encrypted,
            volume_id,
            state,
            volume_size,
            start_time,
            progress,
            owner_id,
            snapshot_id,
            ..SnapshotInfo::default()
        }
    };
    let made = begin(call, volumes, description, tags)?;
    Ok(CreateSnapshotsResult { snapshots: made.into_iter().map(info).collect() })
}

fn copy(call: &mut Call<'_>, asked: &mut Asked<CopySnapshotRequest>) -> Result<CopySnapshotResult, ApiError> {
    let source = need(text(&mut asked.source_snapshot_id), "SourceSnapshotId")?;
    let region = need(text(&mut asked.source_region), "SourceRegion")?;
    let description = asked.description.take();
    let copied_tags = tags_for("snapshot", &mut asked.tag_specifications)?;
    // Clients sign a request to the other region for the service to send; here nothing is sent.
    asked.presigned_url = None;
    let here = call.cloud.scope().region.clone();
    only(&mut asked.destination_region, "DestinationRegion", &[&here])?;
    asked.end()?;
    check_id(Kind::Snapshot, &source)?;
    let copy = call.cloud.copy_snapshot(&region, &source, description.as_deref(), &copied_tags)?;
    Ok(CopySnapshotResult { snapshot_id: Some(copy.snapshot_id.to_string()), tags: tags(&copy.tags) })
}

fn delete(call: &mut Call<'_>, asked: &mut Asked<DeleteSnapshotRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.snapshot_id)?;
    asked.end()?;
    call.cloud.delete_snapshot(&id)?;
    Ok(Done)
}

fn check_attribute(attribute: &mut Option<String>) -> Result<(), ApiError> {
    match text(attribute).as_deref() {
        None | Some("createVolumePermission") => Ok(()),
        Some(other) => Err(ApiError::value(format!("Value ({other}) for parameter attribute is invalid."))),
    }
}

fn describe_attribute(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeSnapshotAttributeRequest>,
) -> Result<DescribeSnapshotAttributeResult, ApiError> {
    let id = id(&mut asked.snapshot_id)?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    let who = call.cloud.snapshot_permissions(&id)?;
    let mut answer =
        DescribeSnapshotAttributeResult { snapshot_id: Some(id), ..DescribeSnapshotAttributeResult::default() };
    if attribute != "productCodes" {
        check_attribute(&mut Some(attribute))?;
        let all = who.is_public.then(|| CreateVolumePermission { group: Some("all".into()), user_id: None });
        let account = |id| CreateVolumePermission { user_id: Some(id), group: None };
        answer.create_volume_permissions = all.into_iter().chain(who.accounts.into_iter().map(account)).collect();
    }
    Ok(answer)
}

fn modify_attribute(call: &mut Call<'_>, asked: &mut Asked<ModifySnapshotAttributeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.snapshot_id)?;
    check_attribute(&mut asked.attribute)?;
    let permissions = asked.create_volume_permission.take().unwrap_or_default();
    let who = |permissions: Vec<CreateVolumePermission>| -> Vec<String> {
        permissions.into_iter().flat_map(|one| [one.group, one.user_id]).flatten().collect()
    };
    let (mut add, mut remove) = (who(permissions.add), who(permissions.remove));
    let older = take(&mut asked.group_names).into_iter().chain(take(&mut asked.user_ids));
    match text(&mut asked.operation_type).as_deref() {
        Some("remove") => remove.extend(older),
        Some("add") | None => add.extend(older),
        Some(other) => return Err(ApiError::value(format!("Value ({other}) for parameter operationType is invalid."))),
    }
    asked.end()?;
    call.cloud.share_snapshot(&id, &add, &remove)?;
    Ok(Done)
}

fn reset_attribute(call: &mut Call<'_>, asked: &mut Asked<ResetSnapshotAttributeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.snapshot_id)?;
    check_attribute(&mut asked.attribute)?;
    asked.end()?;
    call.cloud.unshare_snapshot(&id)?;
    Ok(Done)
}
