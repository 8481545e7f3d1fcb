//! Images come and go.

use super::super::mapping;
use super::super::parts::{check_id, need, only, tags_for, tags_for_all, text};
use super::list::image_kind;
use crate::api::call::{Asked, Call, patiently};
use crate::api::error::ApiError;
use crate::api::model::{
    CopyImageRequest, CopyImageResult, CreateImageRequest, CreateImageResult, DeleteSnapshotReturnCode,
    DeregisterImageRequest, DeregisterImageResult, RegisterImageRequest, RegisterImageResult,
};
use crate::cloud::image::{self, CopyRequest, Image, RegisterRequest};
use crate::cloud::{self, Kind};

pub fn create(call: &mut Call<'_>, asked: &mut Asked<CreateImageRequest>) -> Result<CreateImageResult, ApiError> {
    let [tags, snapshot_tags] = tags_for_all(["image", "snapshot"], &mut asked.tag_specifications)?;
    let request = cloud::CreateImageRequest {
        instance: need(text(&mut asked.instance_id), "InstanceId")?,
        name: need(text(&mut asked.name), "Name")?,
        description: asked.description.take().unwrap_or_default(),
        no_reboot: asked.no_reboot.take() == Some(true),
        mapping: mapping::read(&mut asked.block_device_mappings)?,
        tags,
        snapshot_tags: Some(snapshot_tags),
        ..cloud::CreateImageRequest::default()
    };
    only(&mut asked.snapshot_location, "SnapshotLocation", &["regional"])?;
    asked.end()?;
    check_id(Kind::Instance, &request.instance)?;
    let image = call.begin(move |cloud, begun| {
        let mut tell = |image: &Image| begun(image.image_id.to_string());
        patiently(cloud, |cloud| cloud.create_image_with(&request, &mut tell).map(drop))
    })?;
    Ok(CreateImageResult { image_id: Some(image) })
}

pub fn register(call: &mut Call<'_>, asked: &mut Asked<RegisterImageRequest>) -> Result<RegisterImageResult, ApiError> {
    fn word<T: std::str::FromStr<Err = cloud::CloudError>>(value: &mut Option<String>) -> Result<Option<T>, ApiError> {
        text(value).map(|word| word.parse()).transpose().map_err(ApiError::from)
    }
    let request = RegisterRequest {
        name: need(text(&mut asked.name), "Name")?,
        description: asked.description.take(),
        architecture: word(&mut asked.architecture)?,
        virtualization_type: word(&mut asked.virtualization_type)?,
        boot_mode: word(&mut asked.boot_mode)?,
        platform: None,
        root_device_name: text(&mut asked.root_device_name),
        block_device_mappings: mapping::read(&mut asked.block_device_mappings)?,
        kernel_id: text(&mut asked.kernel_id),
        ramdisk_id: text(&mut asked.ramdisk_id),
        ena_support: asked.ena_support.take() == Some(true),
        imds_support: text(&mut asked.imds_support),
        image_location: text(&mut asked.image_location),
        tags: tags_for("image", &mut asked.tag_specifications)?,
    };
    // What all network cards here are as good as.
    only(&mut asked.sriov_net_support, "SriovNetSupport", &["simple"])?;
    asked.end()?;
    Ok(RegisterImageResult { image_id: Some(call.cloud.register_image(&request)?.image_id.to_string()) })
}

pub fn copy(call: &mut Call<'_>, asked: &mut Asked<CopyImageRequest>) -> Result<CopyImageResult, ApiError> {
    let [tags, snapshot_tags] = tags_for_all(["image", "snapshot"], &mut asked.tag_specifications)?;
    let request = CopyRequest {
        source_image_id: need(text(&mut asked.source_image_id), "SourceImageId")?,
        source_region: Some(need(text(&mut asked.source_region), "SourceRegion")?),
        name: need(text(&mut asked.name), "Name")?,
        description: asked.description.take(),
        copy_image_tags: asked.copy_image_tags.take() == Some(true),
        client_token: text(&mut asked.client_token),
        tags,
        snapshot_tags,
    };
    asked.end()?;
    check_id(image_kind(&request.source_image_id), &request.source_image_id)?;
    Ok(CopyImageResult { image_id: Some(call.cloud.copy_image(&request)?.image_id.to_string()) })
}

pub fn deregister(
    call: &mut Call<'_>,
    asked: &mut Asked<DeregisterImageRequest>,
) -> Result<DeregisterImageResult, ApiError> {
    let id = need(text(&mut asked.image_id), "ImageId")?;
    let delete_snapshots = asked.delete_associated_snapshots.take() == Some(true);
    asked.end()?;
    check_id(image_kind(&id), &id)?;
    let done = call.cloud.deregister_image(&id, delete_snapshots)?;
    let result = |result: image::DeleteSnapshotResult| DeleteSnapshotReturnCode {
        snapshot_id: Some(result.snapshot_id),
        return_code: Some(result.return_code.as_str().to_owned()),
    };
    let delete_snapshot_results = done.delete_snapshot_results.into_iter().map(result).collect();
    Ok(DeregisterImageResult { r#return: Some(true), delete_snapshot_results })
}
