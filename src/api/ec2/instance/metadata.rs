//! How an instance's metadata service answers.

use super::super::parts::{check_id, need, text};
use crate::api::call::{Asked, Call, patiently};
use crate::api::error::ApiError;
use crate::api::model::{
    InstanceMetadataOptionsRequest, InstanceMetadataOptionsResponse, ModifyInstanceMetadataOptionsRequest,
    ModifyInstanceMetadataOptionsResult,
};
use crate::cloud::{Kind, MetadataChange};
use crate::imds::Options;

/// The options of a launch.
pub fn read(options: &mut InstanceMetadataOptionsRequest) -> Result<MetadataChange, ApiError> {
    Ok(MetadataChange {
        endpoint: switch(&mut options.http_endpoint, "HttpEndpoint", "enabled", "disabled")?,
        tokens_required: switch(&mut options.http_tokens, "HttpTokens", "required", "optional")?,
        hop_limit: hop_limit(options.http_put_response_hop_limit.take())?,
        ipv6: switch(&mut options.http_protocol_ipv6, "HttpProtocolIpv6", "enabled", "disabled")?,
        tags: switch(&mut options.instance_metadata_tags, "InstanceMetadataTags", "enabled", "disabled")?,
    })
}

fn switch(value: &mut Option<String>, parameter: &str, yes: &str, no: &str) -> Result<Option<bool>, ApiError> {
    match text(value) {
        None => Ok(None),
        Some(value) if value == yes => Ok(Some(true)),
        Some(value) if value == no => Ok(Some(false)),
        Some(value) => {
            let why = format!("Valid values: {yes}, {no}");
            Err(ApiError::value(format!("Value ({value}) for parameter {parameter} is invalid. {why}")))
        }
    }
}

fn hop_limit(value: Option<i64>) -> Result<Option<u8>, ApiError> {
    let wrong = |value: i64| {
        ApiError::value(format!(
            "Value ({value}) for parameter HttpPutResponseHopLimit is invalid. It is from 1 to 64."
        ))
    };
    value.map(|value| u8::try_from(value).map_err(|_| wrong(value))).transpose()
}

/// The options as answers show them.
pub fn answer(options: &Options) -> InstanceMetadataOptionsResponse {
    let word = |is: bool, yes: &str, no: &str| Some(if is { yes } else { no }.to_owned());
    InstanceMetadataOptionsResponse {
        state: Some("applied".into()),
        http_tokens: word(options.tokens_required, "required", "optional"),
        http_put_response_hop_limit: Some(options.hop_limit.into()),
        http_endpoint: word(options.endpoint, "enabled", "disabled"),
        http_protocol_ipv6: word(options.ipv6, "enabled", "disabled"),
        instance_metadata_tags: word(options.tags, "enabled", "disabled"),
    }
}

pub fn modify(
    call: &mut Call<'_>,
    asked: &mut Asked<ModifyInstanceMetadataOptionsRequest>,
) -> Result<ModifyInstanceMetadataOptionsResult, ApiError> {
    let id = need(asked.instance_id.take(), "InstanceId")?;
    let mut options = InstanceMetadataOptionsRequest {
        http_tokens: asked.http_tokens.take(),
        http_put_response_hop_limit: asked.http_put_response_hop_limit.take(),
        http_endpoint: asked.http_endpoint.take(),
        http_protocol_ipv6: asked.http_protocol_ipv6.take(),
        instance_metadata_tags: asked.instance_metadata_tags.take(),
    };
    asked.end()?;
    check_id(Kind::Instance, &id)?;
    let change = read(&mut options)?;
    let instance = patiently(call.cloud, |cloud| cloud.modify_metadata_options(&id, &change))?;
    Ok(ModifyInstanceMetadataOptionsResult {
        instance_id: Some(instance.instance_id.to_string()),
        instance_metadata_options: Some(answer(&instance.metadata_options)),
    })
}
