//! Images as they are.

use std::mem::take;

use super::super::mapping;
use super::super::parts::{check_ids, filters, tags};
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{DescribeImagesRequest, DescribeImagesResult, Image, ProductCode, StateReason};
use crate::cloud::image::{self, ImageQuery};

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeImagesRequest>,
) -> Result<DescribeImagesResult, ApiError> {
    let query = ImageQuery {
        ids: take(&mut asked.image_ids),
        owners: take(&mut asked.owners),
        executable_by: take(&mut asked.executable_users),
        filters: filters(&mut asked.filters)?,
        include_deprecated: asked.include_deprecated.take() == Some(true),
        include_disabled: asked.include_disabled.take() == Some(true),
        max_results: asked.max_results.take().map(|count| usize::try_from(count).unwrap_or(0)),
        next_token: asked.next_token.take().filter(|token| !token.is_empty()),
    };
    asked.end()?;
    check_ids(image_kind, &query.ids)?;
    let page = call.cloud.images(&query)?;
    Ok(DescribeImagesResult { images: page.images.iter().map(answer).collect(), next_token: page.next_token })
}

/// The kind of image whose id it may be.
pub fn image_kind(id: &str) -> crate::cloud::Kind {
    use crate::cloud::Kind;
    [Kind::KernelImage, Kind::RamdiskImage]
        .into_iter()
        .find(|kind| id.starts_with(kind.prefix()))
        .unwrap_or(Kind::Image)
}

/// An image as answers show it.
fn answer(of: &image::Image) -> Image {
    let some = |text: &str| Some(text.to_owned());
    Image {
        image_id: Some(of.image_id.to_string()),
        image_type: some(of.image_type.as_str()),
        image_location: some(&of.image_location),
        name: some(&of.name),
        description: some(&of.description).filter(|text| !text.is_empty()),
        state: some(of.state.as_str()),
        state_reason: of
            .state_reason
            .as_ref()
            .map(|reason| StateReason { code: some(&reason.code), message: some(&reason.message) }),
        owner_id: some(&of.owner_id),
        image_owner_alias: of.image_owner_alias.clone(),
        public: Some(of.is_public),
        architecture: some(of.architecture.as_str()),
        virtualization_type: some(of.virtualization_type.as_str()),
        hypervisor: some(of.hypervisor),
        boot_mode: of.boot_mode.map(|mode| mode.as_str().to_owned()),
        platform: of.platform.map(|platform| platform.as_str().to_owned()),
        platform_details: some(&of.platform_details),
        usage_operation: some(of.usage_operation),
        root_device_type: some(of.root_device_type.as_str()),
        root_device_name: of.root_device_name.clone(),
        block_device_mappings: mapping::write(&of.block_device_mappings),
        kernel_id: of.kernel_id.as_ref().map(ToString::to_string),
        ramdisk_id: of.ramdisk_id.as_ref().map(ToString::to_string),
        ena_support: Some(of.ena_support),
        imds_support: of.imds_support.clone(),
        creation_date: some(&of.creation_date),
        deprecation_time: of.deprecation_time.clone(),
        deregistration_protection: some(of.deregistration_protection),
        source_instance_id: of.source_instance_id.clone(),
        source_image_id: of.source_image_id.clone(),
        source_image_region: of.source_image_region.clone(),
        product_codes: of
            .product_codes
            .iter()
            .map(|code| ProductCode {
                product_code_id: some(&code.product_code_id),
                product_code_type: some(code.product_code_type.as_str()),
            })
            .collect(),
        tags: tags(&of.tags),
        ..Image::default()
    }
}
