//! Attributes of instances, one at a time.

use std::mem::take;

use base64ct::{Base64, Encoding};

use super::super::parts::{need, only, text};
use super::answer::{groups, mapping};
use crate::api::call::{Asked, Call, patiently};
use crate::api::error::ApiError;
use crate::api::model::{
    AttributeBooleanValue, AttributeValue, DescribeInstanceAttributeRequest, Done, EnclaveOptions, InstanceAttribute,
    ModifyInstanceAttributeRequest, ResetInstanceAttributeRequest,
};
use crate::cloud::InstanceChange;

fn value(text: impl Into<String>) -> Option<AttributeValue> {
    Some(AttributeValue { value: Some(text.into()) })
}

fn truth(yes: bool) -> Option<AttributeBooleanValue> {
    Some(AttributeBooleanValue { value: Some(yes) })
}

pub fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeInstanceAttributeRequest>,
) -> Result<InstanceAttribute, ApiError> {
    let id = need(text(&mut asked.instance_id), "InstanceId")?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    let instance = call.instance(&id)?;
    let mut answer =
        InstanceAttribute { instance_id: Some(instance.instance_id.to_string()), ..InstanceAttribute::default() };
    match attribute.as_str() {
        "instanceType" => answer.instance_type = value(instance.instance_type),
        "kernel" => answer.kernel_id = instance.kernel_id.map_or(Some(AttributeValue::default()), value),
        "ramdisk" => answer.ramdisk_id = instance.ramdisk_id.map_or(Some(AttributeValue::default()), value),
        "userData" => {
            let data = call.cloud.user_data(&id)?.map(|data| Base64::encode_string(&data));
            answer.user_data = Some(AttributeValue { value: data });
        }
        "disableApiTermination" => answer.disable_api_termination = truth(instance.disable_api_termination),
        "disableApiStop" => answer.disable_api_stop = truth(instance.disable_api_stop),
        "instanceInitiatedShutdownBehavior" => {
            answer.instance_initiated_shutdown_behavior = value(instance.instance_initiated_shutdown_behavior);
        }
        "rootDeviceName" => answer.root_device_name = value(instance.root_device_name),
        "blockDeviceMapping" => {
            answer.block_device_mappings = instance.block_device_mappings.iter().map(mapping).collect();
        }
        "groupSet" => answer.groups = instance.network_interface.as_ref().map(groups).unwrap_or_default(),
        "sourceDestCheck" => answer.source_dest_check = truth(true),
        "ebsOptimized" => answer.ebs_optimized = truth(false),
        "enaSupport" => answer.ena_support = truth(instance.ena_support),
        "sriovNetSupport" => answer.sriov_net_support = Some(AttributeValue::default()),
        "enclaveOptions" => answer.enclave_options = Some(EnclaveOptions { enabled: Some(false) }),
        "productCodes" => {}
        other => return Err(unknown(other)),
    }
    Ok(answer)
}

fn unknown(attribute: &str) -> ApiError {
    ApiError::value(format!("Value ({attribute}) for parameter attribute is invalid. Unknown attribute."))
}

pub fn modify(call: &mut Call<'_>, asked: &mut Asked<ModifyInstanceAttributeRequest>) -> Result<Done, ApiError> {
    let id = need(text(&mut asked.instance_id), "InstanceId")?;
    call.instance(&id)?;
    // The older form: a name and a value.
    if let Some(attribute) = text(&mut asked.attribute) {
        let given = need(asked.value.take(), "Value")?;
        by_name(asked, &attribute, given)?;
    }
    let word = |value: &mut Option<AttributeValue>| value.take().and_then(|value| value.value);
    let truth = |value: &mut Option<AttributeBooleanValue>| value.take().and_then(|value| value.value);
    let user_data = asked.user_data.take().and_then(|data| data.value);
    let groups = take(&mut asked.groups);
    let change = InstanceChange {
        disable_api_termination: truth(&mut asked.disable_api_termination),
        disable_api_stop: truth(&mut asked.disable_api_stop),
        shutdown_behavior: word(&mut asked.instance_initiated_shutdown_behavior),
        instance_type: word(&mut asked.instance_type),
        user_data: user_data.map(|data| data.0),
        security_groups: (!groups.is_empty()).then_some(groups),
    };
    // What a network card of a guest sends is passed on by its address alone: there is no other check.
    if truth(&mut asked.source_dest_check) == Some(false) {
        return Err(ApiError::unsupported("The source/destination check cannot be switched off"));
    }
    truth(&mut asked.ebs_optimized);
    truth(&mut asked.ena_support);
    only(&mut word(&mut asked.sriov_net_support), "SriovNetSupport", &["simple"])?;
    let mut devices = Vec::new();
    for entry in &mut asked.block_device_mappings {
        let device = need(text(&mut entry.device_name), "BlockDeviceMapping.N.DeviceName")?;
        let delete = entry.ebs.as_mut().and_then(|ebs| ebs.delete_on_termination.take());
        if let Some(ebs) = &mut entry.ebs {
            // It is where it is.
            ebs.volume_id = None;
        }
        devices.push((device, need(delete, "BlockDeviceMapping.N.Ebs.DeleteOnTermination")?));
    }
    asked.end()?;
    if !devices.is_empty() {
        patiently(call.cloud, |cloud| cloud.set_delete_on_termination(&id, &devices))?;
    }
    patiently(call.cloud, |cloud| cloud.modify_instance(&id, &change))?;
    Ok(Done)
}

fn by_name(asked: &mut ModifyInstanceAttributeRequest, attribute: &str, given: String) -> Result<(), ApiError> {
    let truth = || match given.as_str() {
        "true" => Ok(Some(AttributeBooleanValue { value: Some(true) })),
        "false" => Ok(Some(AttributeBooleanValue { value: Some(false) })),
        _ => Err(ApiError::value(format!("Value ({given}) for parameter value is invalid. It is true or false."))),
    };
    match attribute {
        "instanceType" => asked.instance_type = value(given),
        "userData" => {
            let data = Base64::decode_vec(given.trim())
                .map_err(|_| ApiError::new("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."))?;
            asked.user_data =
                Some(crate::api::model::SecureBlobAttributeValue { value: Some(crate::api::wire::Blob(data)) });
        }
        "instanceInitiatedShutdownBehavior" => asked.instance_initiated_shutdown_behavior = value(given),
        "disableApiTermination" => asked.disable_api_termination = truth()?,
        "disableApiStop" => asked.disable_api_stop = truth()?,
        "sourceDestCheck" => asked.source_dest_check = truth()?,
        "ebsOptimized" => asked.ebs_optimized = truth()?,
        "enaSupport" => asked.ena_support = truth()?,
        "kernel" => asked.kernel = value(given),
        "ramdisk" => asked.ramdisk = value(given),
        "sriovNetSupport" => asked.sriov_net_support = value(given),
        other => return Err(unknown(other)),
    }
    Ok(())
}

pub fn reset(call: &mut Call<'_>, asked: &mut Asked<ResetInstanceAttributeRequest>) -> Result<Done, ApiError> {
    let id = need(text(&mut asked.instance_id), "InstanceId")?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    call.instance(&id)?;
    match attribute.as_str() {
        // It is never other than at first.
        "sourceDestCheck" => Ok(Done),
        "kernel" | "ramdisk" => Err(ApiError::unsupported(format!("The {attribute} of an instance is its image's"))),
        other => Err(unknown(other)),
    }
}
