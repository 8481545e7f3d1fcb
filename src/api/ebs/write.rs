//! Snapshots written by block.

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Asked, checksum, json_answer, read_checksum};
use crate::api::error::ApiError;
use crate::api::service::HttpAnswer;
use crate::cloud::tag::Tags;
use crate::cloud::{BLOCK, Cloud, StartRequest, time};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Start {
    volume_size: u64,
    #[serde(default)]
    parent_snapshot_id: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    client_token: Option<String>,
    #[serde(default)]
    encrypted: Option<bool>,
    #[serde(default)]
    kms_key_arn: Option<String>,
    #[serde(default)]
    timeout: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

pub fn start(cloud: &mut Cloud, asked: &Asked<'_>) -> Result<HttpAnswer, ApiError> {
    let start: Start = serde_json::from_slice(&asked.request.body)
        .map_err(|error| ApiError::value(format!("The request: {error}")))?;
    if start.encrypted == Some(true) || start.kms_key_arn.is_some() {
        return Err(ApiError::unsupported("Encrypted snapshots are not supported"));
    }
    if let Some(parent) = &start.parent_snapshot_id {
        crate::cloud::Id::parse(crate::cloud::Kind::Snapshot, parent)?;
    }
    let tags: Tags = start.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    let request = StartRequest {
        size: start.volume_size,
        parent: start.parent_snapshot_id,
        description: start.description.unwrap_or_default(),
        tags,
        timeout: start.timeout,
        client_token: start.client_token.filter(|token| !token.is_empty()),
    };
    let made = cloud.start_snapshot(&request)?;
    let tag = |(key, value): (&String, &String)| json!({ "Key": key, "Value": value });
    let mut body = json!({
        "SnapshotId": made.snapshot_id.as_str(),
        "OwnerId": made.owner_id,
        "Status": made.state,
        "StartTime": time::parse(&made.start_time).unwrap_or_default() / 1000,
        "VolumeSize": made.volume_size,
        "BlockSize": BLOCK,
        "Description": made.description,
        "Tags": made.tags.iter().map(tag).collect::<Vec<_>>(),
        "SseType": "none",
    });
    if let Some(parent) = &request.parent {
        body["ParentSnapshotId"] = parent.as_str().into();
    }
    Ok(json_answer(201, &body))
}

fn sha256(asked: &Asked<'_>, name: &str) -> Result<(), ApiError> {
    match asked.request.header(name) {
        None | Some("SHA256") => Ok(()),
        Some(other) => Err(ApiError::value(format!("The checksum algorithm {other} is not SHA256"))),
    }
}

pub fn put(cloud: &mut Cloud, asked: &Asked<'_>) -> Result<HttpAnswer, ApiError> {
    let (id, index) = (asked.snapshot(1)?, asked.block()?);
    let body = &asked.request.body;
    sha256(asked, "x-amz-checksum-algorithm")?;
    let said = asked.request.header("x-amz-data-length").and_then(|text| text.parse::<usize>().ok());
    if said.is_some_and(|length| length != body.len()) {
        return Err(ApiError::new(
            "INVALID_BLOCK",
            format!("The block has {} bytes, not what x-amz-Data-Length says", body.len()),
        ));
    }
    let digest = <[u8; 32]>::from(Sha256::digest(body));
    let given = asked.request.header("x-amz-checksum");
    let given = given.ok_or_else(|| ApiError::value("The header x-amz-Checksum is not there"))?;
    if read_checksum(given)? != digest {
        return Err(ApiError::new("INVALID_BLOCK", "The checksum of the block is not that of x-amz-Checksum"));
    }
    cloud.put_snapshot_block(id, index, body, digest)?;
    let mut answer = json_answer(201, &json!({}));
    answer.headers = vec![("x-amz-checksum", checksum(&digest)), ("x-amz-checksum-algorithm", "SHA256".to_owned())];
    Ok(answer)
}

pub fn complete(cloud: &mut Cloud, asked: &Asked<'_>) -> Result<HttpAnswer, ApiError> {
    let id = asked.snapshot(2)?;
    let count = asked.request.header("x-amz-changedblockscount").and_then(|text| text.parse().ok());
    let count = count.ok_or_else(|| ApiError::value("The header x-amz-ChangedBlocksCount is not a number"))?;
    sha256(asked, "x-amz-checksum-algorithm")?;
    match asked.request.header("x-amz-checksum-aggregation-method") {
        None | Some("LINEAR") => {}
        Some(other) => return Err(ApiError::value(format!("The aggregation method {other} is not LINEAR"))),
    }
    let whole = asked.request.header("x-amz-checksum").map(read_checksum).transpose()?;
    let done = cloud.complete_snapshot(id, count, whole)?;
    Ok(json_answer(202, &json!({ "Status": done.state })))
}
