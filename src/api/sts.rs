//! The Security Token Service, as far as clients ask it who they are.

use super::auth::Caller;
use super::error::ApiError;
use super::wire::parameters::Fields;
use super::wire::xml::Xml;

/// The version of its API.
pub const VERSION: &str = "2011-06-15";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Does what a request asks for.
///
/// # Errors
/// `InvalidAction`, `UnknownParameter`.
pub fn dispatch(caller: &Caller, request_id: &str, action: &str, fields: Fields) -> Result<String, ApiError> {
    match action {
        "GetCallerIdentity" => {
            fields.end()?;
            Ok(answer(action, request_id, |xml| {
                let account = caller.scope.account.to_string();
                xml.member("Arn", Some(&format!("arn:aws:iam::{account}:root")));
                xml.member("UserId", Some(&account));
                xml.member("Account", Some(&account));
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
