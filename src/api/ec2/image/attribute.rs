//! Attributes of images, one at a time.

use std::mem::take;

use super::super::mapping;
use super::super::parts::{check_id, need, text};
use super::list::image_kind;
use crate::api::call::{Asked, Call};
use crate::api::error::ApiError;
use crate::api::model::{
    AttributeValue, DescribeImageAttributeRequest, DisableImageDeprecationRequest, DisableImageDeprecationResult,
    DisableImageDeregistrationProtectionRequest, DisableImageDeregistrationProtectionResult, DisableImageRequest,
    DisableImageResult, Done, EnableImageDeprecationRequest, EnableImageDeprecationResult,
    EnableImageDeregistrationProtectionRequest, EnableImageDeregistrationProtectionResult, EnableImageRequest,
    EnableImageResult, ImageAttribute, LaunchPermission, ModifyImageAttributeRequest, ProductCode,
    ResetImageAttributeRequest,
};
use crate::cloud::image::{self, ProductCodeType};

fn id(image: &mut Option<String>) -> Result<String, ApiError> {
    let id = need(text(image), "ImageId")?;
    check_id(image_kind(&id), &id)?;
    Ok(id)
}

fn unknown(attribute: &str) -> ApiError {
    ApiError::value(format!("Value ({attribute}) for parameter attribute is invalid. Unknown attribute."))
}

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeImageAttributeRequest>,
) -> Result<ImageAttribute, ApiError> {
    let id = id(&mut asked.image_id)?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    let image = call.cloud.image(&id)?;
    if image.owner_id != call.cloud.scope().account.as_str() {
        return Err(ApiError::new("AuthFailure", format!("Not authorized for image:{id}")));
    }
    let value = |text: Option<String>| Some(AttributeValue { value: text });
    let mut answer = ImageAttribute { image_id: Some(image.image_id.to_string()), ..ImageAttribute::default() };
    match attribute.as_str() {
        "description" => answer.description = value(Some(image.description)),
        "kernel" => answer.kernel_id = value(image.kernel_id.map(|id| id.to_string())),
        "ramdisk" => answer.ramdisk_id = value(image.ramdisk_id.map(|id| id.to_string())),
        "launchPermission" => {
            let who = call.cloud.launch_permissions(&id)?;
            let all =
                who.is_public.then(|| LaunchPermission { group: Some("all".into()), ..LaunchPermission::default() });
            let account = |id| LaunchPermission { user_id: Some(id), ..LaunchPermission::default() };
            answer.launch_permissions = all.into_iter().chain(who.accounts.into_iter().map(account)).collect();
        }
        "productCodes" => {
            let code = |code: image::ProductCode| ProductCode {
                product_code_id: Some(code.product_code_id),
                product_code_type: Some(code.product_code_type.as_str().to_owned()),
            };
            answer.product_codes = image.product_codes.into_iter().map(code).collect();
        }
        "blockDeviceMapping" => answer.block_device_mappings = mapping::write(&image.block_device_mappings),
        "sriovNetSupport" => answer.sriov_net_support = value(None),
        "bootMode" => answer.boot_mode = value(image.boot_mode.map(|mode| mode.as_str().to_owned())),
        "tpmSupport" => answer.tpm_support = value(None),
        "uefiData" => answer.uefi_data = value(None),
        "lastLaunchedTime" => answer.last_launched_time = value(None),
        "imdsSupport" => answer.imds_support = value(image.imds_support),
        "deregistrationProtection" => {
            answer.deregistration_protection = value(Some(image.deregistration_protection.to_owned()));
        }
        other => return Err(unknown(other)),
    }
    Ok(answer)
}

pub fn modify(call: &mut Call<'_>, asked: &mut Asked<ModifyImageAttributeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.image_id)?;
    let attribute = text(&mut asked.attribute);
    let mut description = asked.description.take().map(|text| text.value.unwrap_or_default());
    let imds_support = asked.imds_support.take().and_then(|text| text.value);
    if attribute.as_deref() == Some("description") {
        description = description.or_else(|| asked.value.take());
    }
    let mut permissions = asked.launch_permission.take().unwrap_or_default();
    let mut add = who(&mut permissions.add)?;
    let mut remove = who(&mut permissions.remove)?;
    // The older form says the same once more.
    let operation = text(&mut asked.operation_type);
    let mut more = Vec::new();
    for group in take(&mut asked.user_groups) {
        more.push(image::LaunchPermission::group(&group)?);
    }
    for account in take(&mut asked.user_ids) {
        more.push(account.parse()?);
    }
    match operation.as_deref() {
        Some("remove") => remove.extend(more),
        Some("add") | None => add.extend(more),
        Some(other) => return Err(ApiError::value(format!("Value ({other}) for parameter operationType is invalid."))),
    }
    let codes = take(&mut asked.product_codes);
    if !matches!(attribute.as_deref(), None | Some("description" | "launchPermission" | "productCodes" | "imdsSupport"))
    {
        return Err(unknown(attribute.as_deref().unwrap_or_default()));
    }
    permissions.add.retain(|one| one != &LaunchPermission::default());
    permissions.remove.retain(|one| one != &LaunchPermission::default());
    asked.launch_permission = Some(permissions);
    asked.end()?;
    if imds_support.is_some() {
        return Err(ApiError::unsupported("The parameter ImdsSupport is not supported: it is said at registration"));
    }
    for code in codes {
        let code = image::ProductCode { product_code_id: code, product_code_type: ProductCodeType::DevPay };
        call.cloud.add_product_code(&id, &code)?;
    }
    if let Some(description) = description {
        call.cloud.describe_image(&id, &description)?;
    }
    if !add.is_empty() || !remove.is_empty() {
        add.dedup();
        call.cloud.share_image(&id, &add, &remove)?;
    }
    // What asks for nothing still asks for an image of the caller's.
    call.cloud.image(&id)?;
    Ok(Done)
}

fn who(permissions: &mut [LaunchPermission]) -> Result<Vec<image::LaunchPermission>, ApiError> {
    let mut found = Vec::new();
    for permission in permissions {
        if let Some(group) = text(&mut permission.group) {
            found.push(image::LaunchPermission::group(&group)?);
        }
        if let Some(account) = text(&mut permission.user_id) {
            found.push(account.parse()?);
        }
    }
    Ok(found)
}

pub fn reset(call: &mut Call<'_>, asked: &mut Asked<ResetImageAttributeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.image_id)?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    match attribute.as_str() {
        "launchPermission" => call.cloud.unshare_image(&id).map(|_| Done).map_err(ApiError::from),
        other => Err(unknown(other)),
    }
}

pub fn enable(call: &mut Call<'_>, asked: &mut Asked<EnableImageRequest>) -> Result<EnableImageResult, ApiError> {
    let id = id(&mut asked.image_id)?;
    asked.end()?;
    call.cloud.enable_image(&id)?;
    Ok(EnableImageResult { r#return: Some(true) })
}

pub fn disable(call: &mut Call<'_>, asked: &mut Asked<DisableImageRequest>) -> Result<DisableImageResult, ApiError> {
    let id = id(&mut asked.image_id)?;
    asked.end()?;
    call.cloud.disable_image(&id)?;
    Ok(DisableImageResult { r#return: Some(true) })
}

pub fn deprecate(
    call: &mut Call<'_>,
    asked: &mut Asked<EnableImageDeprecationRequest>,
) -> Result<EnableImageDeprecationResult, ApiError> {
    let id = id(&mut asked.image_id)?;
    let at = need(asked.deprecate_at.take(), "DeprecateAt")?;
    asked.end()?;
    call.cloud.deprecate_image(&id, Some(at.0))?;
    Ok(EnableImageDeprecationResult { r#return: Some(true) })
}

pub fn undeprecate(
    call: &mut Call<'_>,
    asked: &mut Asked<DisableImageDeprecationRequest>,
) -> Result<DisableImageDeprecationResult, ApiError> {
    let id = id(&mut asked.image_id)?;
    asked.end()?;
    call.cloud.deprecate_image(&id, None)?;
    Ok(DisableImageDeprecationResult { r#return: Some(true) })
}

pub fn protect(
    call: &mut Call<'_>,
    asked: &mut Asked<EnableImageDeregistrationProtectionRequest>,
) -> Result<EnableImageDeregistrationProtectionResult, ApiError> {
    let id = id(&mut asked.image_id)?;
    let cooldown = asked.with_cooldown.take() == Some(true);
    asked.end()?;
    let image = match cooldown {
        true => call.cloud.protect_image_with_cooldown(&id)?,
        false => call.cloud.protect_image(&id, true)?,
    };
    Ok(EnableImageDeregistrationProtectionResult { r#return: Some(image.deregistration_protection.to_string()) })
}

pub fn unprotect(
    call: &mut Call<'_>,
    asked: &mut Asked<DisableImageDeregistrationProtectionRequest>,
) -> Result<DisableImageDeregistrationProtectionResult, ApiError> {
    let id = id(&mut asked.image_id)?;
    asked.end()?;
    let image = call.cloud.protect_image(&id, false)?;
    Ok(DisableImageDeregistrationProtectionResult { r#return: Some(image.deregistration_protection.to_string()) })
}
