//! Snapshots read by block.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Asked, checksum, json_answer, token};
use crate::api::error::ApiError;
use crate::api::service::HttpAnswer;
use crate::cloud::{BLOCK, ChangedBlock, Cloud, time};

/// Blocks of a page where nothing is said, and at most.
const PAGE: usize = 10_000;
/// The least of a page.
const LEAST: usize = 100;
/// How long tokens are good for, as is said; they are in fact for good. In milliseconds.
const EXPIRY: i64 = 7 * 24 * 3_600_000;

/// Where a page begins, and how long it is.
fn page(asked: &Asked<'_>) -> Result<(u32, usize), ApiError> {
    let most = asked.number::<usize>("maxResults")?.unwrap_or(PAGE);
    if !(LEAST..=PAGE).contains(&most) {
        return Err(ApiError::value(format!("Value ({most}) for parameter maxResults is invalid: {LEAST} to {PAGE}")));
    }
    let start = match asked.parameter("pageToken").filter(|token| !token.is_empty()) {
        Some(token) => {
            let wrong = || ApiError::new("INVALID_PAGE_TOKEN", "The page token is none of ours");
            token.strip_prefix("block-").and_then(|text| text.parse().ok()).ok_or_else(wrong)?
        }
        None => asked.number("startingBlockIndex")?.unwrap_or(0),
    };
    Ok((start, most))
}

/// What is around the blocks of a page.
fn around(volume_size: u64, next: Option<u32>) -> serde_json::Value {
    let mut body = json!({
        "BlockSize": BLOCK,
        "VolumeSize": volume_size,
        "ExpiryTime": time::now().saturating_add(EXPIRY) / 1000,
    });
    if let Some(next) = next {
        body["NextToken"] = format!("block-{next}").into();
    }
    body
}

pub fn list(cloud: &mut Cloud, asked: &Asked<'_>) -> Result<HttpAnswer, ApiError> {
    let id = asked.snapshot(1)?;
    let (start, most) = page(asked)?;
    let page = cloud.snapshot_blocks(id, start, most)?;
    let mut body = around(page.volume_size, page.next);
    let block = |index: &u32| json!({ "BlockIndex": index, "BlockToken": token(id, *index) });
    body["Blocks"] = page.blocks.iter().map(block).collect();
    Ok(json_answer(200, &body))
}

pub fn changed(cloud: &mut Cloud, asked: &Asked<'_>) -> Result<HttpAnswer, ApiError> {
    let second = asked.snapshot(1)?;
    let first = asked.parameter("firstSnapshotId").filter(|id| !id.is_empty());
    let (start, most) = page(asked)?;
    let (volume_size, next, blocks) = match first {
        Some(first) => {
            crate::cloud::Id::parse(crate::cloud::Kind::Snapshot, first)?;
            let page = cloud.changed_blocks(first, second, start, most)?;
            (page.volume_size, page.next, page.blocks)
        }
        // Without a first one, it is all that the second has.
        None => {
            let page = cloud.snapshot_blocks(second, start, most)?;
            let block = |index| ChangedBlock { index, in_first: false, in_second: true };
            (page.volume_size, page.next, page.blocks.into_iter().map(block).collect())
        }
    };
    let mut body = around(volume_size, next);
    let block = |block: &ChangedBlock| {
        let mut value = json!({ "BlockIndex": block.index });
        if let Some(first) = first.filter(|_| block.in_first) {
            value["FirstBlockToken"] = token(first, block.index).into();
        }
        if block.in_second {
            value["SecondBlockToken"] = token(second, block.index).into();
        }
        value
    };
    body["ChangedBlocks"] = blocks.iter().map(block).collect();
    Ok(json_answer(200, &body))
}

pub fn block(cloud: &mut Cloud, asked: &Asked<'_>) -> Result<HttpAnswer, ApiError> {
    let (id, index) = (asked.snapshot(1)?, asked.block()?);
    if asked.parameter("blockToken") != Some(token(id, index).as_str()) {
        return Err(ApiError::new("INVALID_BLOCK_TOKEN", format!("The token is not that of block {index} of {id}")));
    }
    let bytes = cloud.snapshot_block(id, index)?;
    let digest = <[u8; 32]>::from(Sha256::digest(&bytes));
    let length = bytes.len().to_string();
    let mut answer = HttpAnswer::new(200, "application/octet-stream", bytes);
    answer.headers = vec![
        ("x-amz-data-length", length),
        ("x-amz-checksum", checksum(&digest)),
        ("x-amz-checksum-algorithm", "SHA256".to_owned()),
    ];
    Ok(answer)
}
