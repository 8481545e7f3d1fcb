//! Systems Manager's parameters, by which clients find images: JSON 1.1.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::clouds::Clouds;
use super::error::ApiError;
use super::service::HttpAnswer;
use crate::cloud::parameter::Parameter;
use crate::cloud::time;

/// What it can.
pub const ACTIONS: [&str; 3] = ["GetParameter", "GetParameters", "GetParametersByPath"];
/// Most parameters of a page where nothing is said, and at most.
const PAGE: usize = 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct One {
    name: String,
    #[serde(default, rename = "WithDecryption")]
    _with_decryption: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Several {
    names: Vec<String>,
    #[serde(default, rename = "WithDecryption")]
    _with_decryption: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ByPath {
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    max_results: Option<usize>,
    #[serde(default)]
    next_token: Option<String>,
    #[serde(default, rename = "WithDecryption")]
    _with_decryption: Option<bool>,
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::new("ValidationException", format!("The request: {error}")))
}

/// Does what a request asks for.
///
/// # Errors
/// `ParameterNotFound`, `ValidationException`, `UnknownOperationException`; what the catalogue says.
pub fn answer(clouds: &Arc<Clouds>, caller: &Caller, action: &str, body: &[u8]) -> Result<HttpAnswer, ApiError> {
    let value = clouds.with(&caller.scope, |cloud| match action {
        "GetParameter" => {
            let asked: One = read(body)?;
            Ok(json!({ "Parameter": shown(&cloud.parameter(&asked.name)?) }))
        }
        "GetParameters" => {
            let asked: Several = read(body)?;
            let found = cloud.parameters(&asked.names)?;
            let all: Vec<Value> = found.parameters.iter().map(shown).collect();
            Ok(json!({ "Parameters": all, "InvalidParameters": found.invalid }))
        }
        "GetParametersByPath" => {
            let asked: ByPath = read(body)?;
            let most = asked.max_results.unwrap_or(PAGE);
            if !(1..=PAGE).contains(&most) {
                return Err(ApiError::new("ValidationException", "MaxResults is from 1 to 10"));
            }
            let all = cloud.parameters_by_path(&asked.path, asked.recursive)?;
            let after = asked.next_token.as_deref().unwrap_or_default();
            let mut rest = all.iter().filter(|parameter| parameter.name.as_str() > after);
            let told: Vec<&Parameter> = rest.by_ref().take(most).collect();
            let next = rest.next().and_then(|_| told.last()).map(|last| last.name.clone());
            let mut value = json!({ "Parameters": told.iter().map(|one| shown(one)).collect::<Vec<_>>() });
            if let Some(next) = next {
                value["NextToken"] = next.into();
            }
            Ok(value)
        }
        other => Err(ApiError::new("UnknownOperationException", format!("There is no action {other} here"))),
    })?;
    Ok(HttpAnswer::new(200, "application/x-amz-json-1.1", value.to_string()))
}

fn shown(parameter: &Parameter) -> Value {
    let modified = time::parse(&parameter.last_modified_date).unwrap_or_default();
    #[allow(clippy::cast_precision_loss)]
    let seconds = modified as f64 / 1000.0;
    json!({
        "Name": parameter.name,
        "Type": parameter.kind,
        "Value": parameter.value,
        "Version": parameter.version,
        "LastModifiedDate": seconds,
        "ARN": parameter.arn,
        "DataType": parameter.data_type.as_str(),
    })
}

/// An error as this service writes it.
#[must_use]
pub fn error(error: &ApiError) -> HttpAnswer {
    let body = json!({ "__type": error.code, "message": error.message });
    HttpAnswer::new(error.status(), "application/x-amz-json-1.1", body.to_string())
}
