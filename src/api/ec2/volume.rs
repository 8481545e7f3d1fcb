//! Volumes.

use std::mem::take;

use super::parts::{
    check_id, check_ids, check_page, count, filters, moment, natural, need, only, own_filters, page, passes, tags,
    tags_for, text,
};
use crate::api::call::{Asked, Call, actions, patiently};
use crate::api::error::ApiError;
use crate::api::model::{
    AttachVolumeRequest, AttributeBooleanValue, CreateVolumeRequest, DeleteVolumeRequest,
    DescribeVolumeAttributeRequest, DescribeVolumeAttributeResult, DescribeVolumeStatusRequest,
    DescribeVolumeStatusResult, DescribeVolumesModificationsRequest, DescribeVolumesModificationsResult,
    DescribeVolumesRequest, DescribeVolumesResult, DetachVolumeRequest, Done, ModifyVolumeAttributeRequest,
    ModifyVolumeRequest, ModifyVolumeResult, Volume, VolumeAttachment, VolumeModification, VolumeStatusDetails,
    VolumeStatusInfo, VolumeStatusItem,
};
use crate::cloud::{self, Kind, VolumeChange, VolumeRequest};

actions! {
    AttachVolumeAction => attach,
    CreateVolumeAction => create,
    DeleteVolumeAction => delete,
    DescribeVolumeAttributeAction => describe_attribute,
    DescribeVolumeStatusAction => status,
    DescribeVolumesAction => describe,
    DescribeVolumesModificationsAction => modifications,
    DetachVolumeAction => detach,
    ModifyVolumeAction => modify,
    ModifyVolumeAttributeAction => modify_attribute,
}

fn id(volume: &mut Option<String>) -> Result<String, ApiError> {
    let id = need(text(volume), "VolumeId")?;
    check_id(Kind::Volume, &id)?;
    Ok(id)
}

/// A volume as answers show it.
fn answer(of: &cloud::Volume) -> Volume {
    Volume {
        volume_id: Some(of.volume_id.to_string()),
        size: count(Some(of.size)),
        snapshot_id: Some(of.snapshot_id.clone().unwrap_or_default()),
        availability_zone: Some(of.availability_zone.clone()),
        availability_zone_id: of.availability_zone_id.clone(),
        state: Some(of.state.clone()),
        create_time: moment(&of.create_time),
        attachments: of.attachments.iter().map(attachment).collect(),
        encrypted: Some(false),
        volume_type: Some(of.volume_type.clone()),
        iops: count(of.iops).or_else(|| default_iops(&of.volume_type, of.size)),
        throughput: count(of.throughput).or_else(|| (of.volume_type == "gp3").then_some(125)),
        multi_attach_enabled: Some(false),
        tags: tags(&of.tags),
        ..Volume::default()
    }
}

/// What EC2 says of volumes that nobody has said it of.
fn default_iops(kind: &str, size: u64) -> Option<i64> {
    match kind {
        "gp3" => Some(3000),
        "gp2" => i64::try_from(size.saturating_mul(3).clamp(100, 16_000)).ok(),
        _ => None,
    }
}

fn attachment(of: &cloud::Attachment) -> VolumeAttachment {
    VolumeAttachment {
        volume_id: Some(of.volume_id.to_string()),
        instance_id: Some(of.instance_id.to_string()),
        device: Some(of.device.clone()),
        state: Some(of.state.clone()),
        attach_time: moment(&of.attach_time),
        delete_on_termination: Some(of.delete_on_termination),
        ..VolumeAttachment::default()
    }
}

fn create(call: &mut Call<'_>, asked: &mut Asked<CreateVolumeRequest>) -> Result<Volume, ApiError> {
    let zone_id = text(&mut asked.availability_zone_id);
    let zone = match (text(&mut asked.availability_zone), zone_id) {
        (Some(zone), _) => zone,
        (None, Some(id)) => {
            let found = call.cloud.describe_zones(&[], &[id], &[], true)?.pop();
            need(found.map(|zone| zone.zone_name), "AvailabilityZone")?
        }
        (None, None) => return Err(ApiError::missing("AvailabilityZone")),
    };
    let request = VolumeRequest {
        size: natural(asked.size.take(), "Size")?,
        snapshot_id: text(&mut asked.snapshot_id),
        zone: Some(zone),
        volume_type: text(&mut asked.volume_type),
        iops: natural(asked.iops.take(), "Iops")?.filter(|iops| *iops > 0),
        throughput: natural(asked.throughput.take(), "Throughput")?.filter(|throughput| *throughput > 0),
        tags: tags_for("volume", &mut asked.tag_specifications)?,
        client_token: text(&mut asked.client_token),
    };
    asked.end()?;
    request.snapshot_id.iter().try_for_each(|id| check_id(Kind::Snapshot, id))?;
    Ok(answer(&call.cloud.create_volume(&request)?))
}

fn describe(call: &mut Call<'_>, asked: &mut Asked<DescribeVolumesRequest>) -> Result<DescribeVolumesResult, ApiError> {
    let (ids, filters) = (take(&mut asked.volume_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.include_managed_resources = None;
    asked.end()?;
    check_ids(|_| Kind::Volume, &ids)?;
    check_page(&ids, max_results, "volumesSet")?;
    let found = call.cloud.describe_volumes(&ids, &filters)?;
    let (found, next_token) = page(found, order, max_results, token, (5, 1000))?;
    Ok(DescribeVolumesResult { volumes: found.iter().map(answer).collect(), next_token })
}

fn order(volume: &cloud::Volume) -> String {
    format!("{} {}", volume.create_time, volume.volume_id)
}

/// Filters of what a status says. There are no events.
const STATUS_FILTERS: [&str; 13] = [
    "action.code",
    "action.description",
    "action.event-id",
    "event.description",
    "event.event-id",
    "event.event-type",
    "event.not-after",
    "event.not-before",
    "operator.managed",
    "operator.principal",
    "volume-status.details-name",
    "volume-status.details-status",
    "volume-status.status",
];
const STATUS_VALUES: [(&str, &str); 3] = [
    ("volume-status.details-name", "io-enabled"),
    ("volume-status.details-status", "passed"),
    ("volume-status.status", "ok"),
];

fn status(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeVolumeStatusRequest>,
) -> Result<DescribeVolumeStatusResult, ApiError> {
    let (ids, mut filters) = (take(&mut asked.volume_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.include_managed_resources = None;
    asked.end()?;
    check_ids(|_| Kind::Volume, &ids)?;
    check_page(&ids, max_results, "volumesSet")?;
    let of_status = own_filters(&mut filters, &STATUS_FILTERS);
    let mut found = call.cloud.describe_volumes(&ids, &filters)?;
    found.retain(|_| passes(&of_status, &STATUS_VALUES));
    let (found, next_token) = page(found, order, max_results, token, (5, 1000))?;
    let word = |word: &str| Some(word.to_owned());
    let item = |volume: &cloud::Volume| VolumeStatusItem {
        volume_id: Some(volume.volume_id.to_string()),
        availability_zone: Some(volume.availability_zone.clone()),
        availability_zone_id: volume.availability_zone_id.clone(),
        volume_status: Some(VolumeStatusInfo {
            status: word("ok"),
            details: vec![VolumeStatusDetails { name: word("io-enabled"), status: word("passed") }],
        }),
        ..VolumeStatusItem::default()
    };
    Ok(DescribeVolumeStatusResult { volume_statuses: found.iter().map(item).collect(), next_token })
}

fn delete(call: &mut Call<'_>, asked: &mut Asked<DeleteVolumeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.volume_id)?;
    asked.end()?;
    patiently(call.cloud, |cloud| cloud.delete_volume(&id))?;
    Ok(Done)
}

fn attach(call: &mut Call<'_>, asked: &mut Asked<AttachVolumeRequest>) -> Result<VolumeAttachment, ApiError> {
    let id = id(&mut asked.volume_id)?;
    let instance = need(text(&mut asked.instance_id), "InstanceId")?;
    let device = need(text(&mut asked.device), "Device")?;
    asked.end()?;
    check_id(Kind::Instance, &instance)?;
    Ok(attachment(&patiently(call.cloud, |cloud| cloud.attach_volume(&id, &instance, &device))?))
}

fn detach(call: &mut Call<'_>, asked: &mut Asked<DetachVolumeRequest>) -> Result<VolumeAttachment, ApiError> {
    let id = id(&mut asked.volume_id)?;
    let (instance, device) = (text(&mut asked.instance_id), text(&mut asked.device));
    let force = asked.force.take() == Some(true);
    asked.end()?;
    if let Some(device) = device {
        let found = call.cloud.volumes(std::slice::from_ref(&id))?;
        if found.iter().flat_map(|volume| &volume.attachments).any(|at| at.device != device) {
            let message = format!("The volume '{id}' is not attached to an instance as device '{device}'");
            return Err(ApiError::new("InvalidAttachment.NotFound", message));
        }
    }
    Ok(attachment(&patiently(call.cloud, |cloud| cloud.detach_volume(&id, instance.as_deref(), force))?))
}

fn modify(call: &mut Call<'_>, asked: &mut Asked<ModifyVolumeRequest>) -> Result<ModifyVolumeResult, ApiError> {
    let id = id(&mut asked.volume_id)?;
    let change = VolumeChange {
        size: natural(asked.size.take(), "Size")?,
        volume_type: text(&mut asked.volume_type),
        iops: natural(asked.iops.take(), "Iops")?,
        throughput: natural(asked.throughput.take(), "Throughput")?,
    };
    asked.end()?;
    let modification = patiently(call.cloud, |cloud| cloud.modify_volume(&id, &change))?;
    Ok(ModifyVolumeResult { volume_modification: Some(modification_answer(&modification)) })
}

fn modification_answer(of: &cloud::VolumeModification) -> VolumeModification {
    VolumeModification {
        volume_id: Some(of.volume_id.to_string()),
        modification_state: Some(of.modification_state.clone()),
        target_size: count(Some(of.target_size)),
        target_iops: count(of.target_iops).or_else(|| default_iops(&of.target_volume_type, of.target_size)),
        target_volume_type: Some(of.target_volume_type.clone()),
        target_throughput: count(of.target_throughput),
        target_multi_attach_enabled: Some(false),
        original_size: count(Some(of.original_size)),
        original_iops: count(of.original_iops).or_else(|| default_iops(&of.original_volume_type, of.original_size)),
        original_volume_type: Some(of.original_volume_type.clone()),
        original_throughput: count(of.original_throughput),
        original_multi_attach_enabled: Some(false),
        progress: Some(of.progress.into()),
        start_time: moment(&of.start_time),
        end_time: of.end_time.as_deref().and_then(moment),
        ..VolumeModification::default()
    }
}

fn modifications(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeVolumesModificationsRequest>,
) -> Result<DescribeVolumesModificationsResult, ApiError> {
    let (ids, filters) = (take(&mut asked.volume_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.include_managed_resources = None;
    asked.end()?;
    check_ids(|_| Kind::Volume, &ids)?;
    let found = call.cloud.describe_volume_modifications(&ids, &filters)?;
    let (found, next_token) = page(found, |one| one.volume_id.to_string(), max_results, token, (1, 500))?;
    Ok(DescribeVolumesModificationsResult {
        volumes_modifications: found.iter().map(modification_answer).collect(),
        next_token,
    })
}

fn describe_attribute(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeVolumeAttributeRequest>,
) -> Result<DescribeVolumeAttributeResult, ApiError> {
    let id = id(&mut asked.volume_id)?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    call.cloud.volumes(std::slice::from_ref(&id))?;
    match attribute.as_str() {
        "autoEnableIO" => Ok(DescribeVolumeAttributeResult {
            volume_id: Some(id),
            auto_enable_io: Some(AttributeBooleanValue { value: Some(true) }),
            product_codes: Vec::new(),
        }),
        "productCodes" => Ok(DescribeVolumeAttributeResult { volume_id: Some(id), ..Default::default() }),
        other => Err(ApiError::value(format!("Value ({other}) for parameter attribute is invalid."))),
    }
}

fn modify_attribute(call: &mut Call<'_>, asked: &mut Asked<ModifyVolumeAttributeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.volume_id)?;
    // Input and output are never stopped here, so they go on by themselves.
    let goes_on = asked.auto_enable_io.take().and_then(|value| value.value);
    asked.end()?;
    call.cloud.volumes(&[id])?;
    match goes_on {
        Some(false) => only(&mut Some("false".into()), "AutoEnableIO", &["true"]).map(|()| Done),
        _ => Ok(Done),
    }
}
