//! The EBS direct API: snapshots read and written by block, over REST and JSON.

mod read;
mod write;

use std::sync::Arc;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::clouds::Clouds;
use super::error::ApiError;
use super::service::{HttpAnswer, HttpRequest};
use crate::cloud::{Id, Kind};

/// A request in its parts.
struct Asked<'a> {
    request: &'a HttpRequest,
    parameters: Vec<(String, String)>,
    parts: Vec<String>,
}

/// The name of what a path asks for, where it is a path of this API.
#[must_use]
pub fn action(method: &str, path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        ("POST", ["snapshots"]) => Some("StartSnapshot"),
        ("POST", ["snapshots", "completion", _]) => Some("CompleteSnapshot"),
        ("GET", ["snapshots", _, "blocks"]) => Some("ListSnapshotBlocks"),
        ("GET", ["snapshots", _, "changedblocks"]) => Some("ListChangedBlocks"),
        ("GET", ["snapshots", _, "blocks", _]) => Some("GetSnapshotBlock"),
        ("PUT", ["snapshots", _, "blocks", _]) => Some("PutSnapshotBlock"),
        _ => None,
    }
}

/// Does what a request asks for.
///
/// # Errors
/// `ValidationException`, `ResourceNotFoundException`, `AccessDeniedException`, `InternalServerException`.
pub fn answer(
    clouds: &Arc<Clouds>,
    caller: &Caller,
    action: &str,
    request: &HttpRequest,
) -> Result<HttpAnswer, ApiError> {
    let parameters =
        form_urlencoded::parse(request.query.as_bytes()).map(|(name, value)| (name.into(), value.into())).collect();
    let decode = |part: &str| form_urlencoded::parse(part.as_bytes()).next().map(|(name, _)| name.into_owned());
    let parts = request.path.trim_matches('/').split('/').map(|part| decode(part).unwrap_or_default()).collect();
    let asked = Asked { request, parameters, parts };
    clouds.with(&caller.scope, |cloud| match action {
        "StartSnapshot" => write::start(cloud, &asked),
        "PutSnapshotBlock" => write::put(cloud, &asked),
        "CompleteSnapshot" => write::complete(cloud, &asked),
        "GetSnapshotBlock" => read::block(cloud, &asked),
        "ListChangedBlocks" => read::changed(cloud, &asked),
        _ => read::list(cloud, &asked),
    })
}

/// An error as this API writes it.
#[must_use]
pub fn error(error: &ApiError) -> HttpAnswer {
    let (status, kind, reason) = match error.code.as_str() {
        "InvalidSnapshot.NotFound" => (404, "ResourceNotFoundException", Some("SNAPSHOT_NOT_FOUND")),
        "InvalidSnapshotID.Malformed" => (400, "ValidationException", Some("INVALID_SNAPSHOT_ID")),
        "UnauthorizedOperation" | "AuthFailure" => (403, "AccessDeniedException", Some("UNAUTHORIZED_ACCOUNT")),
        "IdempotentParameterMismatch" => (409, "ConflictException", None),
        "INVALID_PAGE_TOKEN" => (400, "ValidationException", Some("INVALID_PAGE_TOKEN")),
        "INVALID_BLOCK_TOKEN" => (400, "ValidationException", Some("INVALID_BLOCK_TOKEN")),
        "INVALID_BLOCK" => (400, "ValidationException", Some("INVALID_BLOCK")),
        "InternalError" | "InsufficientVolumeCapacity" => (500, "InternalServerException", None),
        "SignatureDoesNotMatch" | "RequestExpired" | "MissingAuthenticationToken" | "IncompleteSignature" => {
            (error.status(), "AccessDeniedException", Some("UNAUTHORIZED_ACCOUNT"))
        }
        _ => (400, "ValidationException", Some("INVALID_PARAMETER_VALUE")),
    };
    let mut body = json!({ "Message": error.message });
    if let Some(reason) = reason {
        body["Reason"] = reason.into();
    }
    let mut answer = json_answer(status, &body);
    answer.headers.push(("x-amzn-errortype", kind.to_owned()));
    answer
}

fn json_answer(status: u16, body: &serde_json::Value) -> HttpAnswer {
    HttpAnswer::new(status, "application/json", body.to_string())
}

impl Asked<'_> {
    /// The snapshot in the path.
    fn snapshot(&self, at: usize) -> Result<&str, ApiError> {
        let id = self.parts.get(at).map(String::as_str).unwrap_or_default();
        Id::parse(Kind::Snapshot, id)?;
        Ok(id)
    }

    /// The block in the path.
    fn block(&self) -> Result<u32, ApiError> {
        let text = self.parts.get(3).map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| ApiError::new("INVALID_BLOCK", format!("{text} is not the index of a block")))
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let wrong = |text| ApiError::value(format!("Value ({text}) for parameter {name} is invalid: it is a number"));
        self.parameter(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }
}

/// A token of a block, which says whose it is: only with it the block is read.
fn token(snapshot: &str, index: u32) -> String {
    let digest = Sha256::digest(format!("block {index} of {snapshot}").as_bytes());
    Base64UrlUnpadded::encode_string(digest.get(..16).unwrap_or_default())
}

/// A checksum as this API writes it.
fn checksum(digest: &[u8; 32]) -> String {
    Base64::encode_string(digest)
}

/// A checksum out of a header.
fn read_checksum(text: &str) -> Result<[u8; 32], ApiError> {
    let read = Base64::decode_vec(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    read.ok_or_else(|| ApiError::value("The checksum is not the base64 of a SHA-256"))
}
