//! The Security Token Service, as far as clients ask it who they are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::auth::Caller;
use super::error::ApiError;
use super::wire::parameters::Fields;
use super::wire::xml::Xml;
use crate::cloud::access_key::{AccessKeys, DEFAULT_DURATION};

/// The version of its API.
pub const VERSION: &str = "2011-06-15";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// What it can.
pub const ACTIONS: [&str; 2] = ["GetCallerIdentity", "GetSessionToken"];

/// Does what a request asks for.
///
/// # Errors
/// `InvalidAction`, `UnknownParameter`, `ValidationError`.
pub fn dispatch(
    keys: &Mutex<AccessKeys>,
    caller: &Caller,
    request_id: &str,
    action: &str,
    mut fields: Fields,
) -> Result<String, ApiError> {
    let account = &caller.scope.account;
    match action {
        "GetCallerIdentity" => {
            fields.end()?;
            Ok(answer(action, request_id, |xml| {
                xml.member("Arn", Some(&format!("arn:aws:iam::{account}:root")));
                xml.member("UserId", Some(&account.to_string()));
                xml.member("Account", Some(&account.to_string()));
            }))
        }
        "GetSessionToken" => {
            let seconds: Option<i64> = fields.one("DurationSeconds")?;
            fields.end()?;
            let wrong = |_| ApiError::new("ValidationError", "DurationSeconds is negative");
            let seconds = seconds.map(|seconds| u64::try_from(seconds).map_err(wrong)).transpose()?;
            let duration = seconds.map_or(DEFAULT_DURATION, Duration::from_secs);
            let made = keys.lock().unwrap_or_else(PoisonError::into_inner).create_temporary(account, duration)?;
            Ok(answer(action, request_id, |xml| {
                xml.element("Credentials", |xml| {
                    xml.member("AccessKeyId", Some(&made.key.access_key_id));
                    xml.member("SecretAccessKey", Some(&String::from(made.secret.as_str())));
                    xml.member("SessionToken", made.session_token.as_ref().map(|token| token.to_string()).as_ref());
                    xml.member("Expiration", made.key.expiration.as_ref());
                });
            }))
        }
        _ => Err(ApiError::new("InvalidAction", format!("Could not find operation {action} for version {VERSION}"))),
    }
}

fn answer(action: &str, request_id: &str, write: impl FnOnce(&mut Xml)) -> String {
    let content = Xml::fragment(|xml| {
        xml.element(&format!("{action}Result"), write);
        xml.element("ResponseMetadata", |xml| xml.member("RequestId", Some(&request_id.to_owned())));
    });
    format!("<{action}Response xmlns=\"{NAMESPACE}\">{content}</{action}Response>")
}

/// An error as this service writes it.
#[must_use]
pub fn error(error: &ApiError, request_id: &str) -> String {
    let content = Xml::fragment(|xml| {
        xml.element("Error", |xml| {
            xml.member("Type", Some(&"Sender".to_owned()));
            xml.member("Code", Some(&error.code));
            xml.member("Message", Some(&error.message));
        });
        xml.member("RequestId", Some(&request_id.to_owned()));
    });
    format!("<ErrorResponse xmlns=\"{NAMESPACE}\">{content}</ErrorResponse>")
}
