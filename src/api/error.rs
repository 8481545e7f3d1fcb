//! Errors as callers of the API are told them.

use thiserror::Error;

use super::wire::parameters::WireError;
use crate::cloud::CloudError;

/// An error with EC2's code.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// EC2's code, as `InvalidParameterValue`.
    pub code: String,
    /// In words.
    pub message: String,
}

impl ApiError {
    /// An error of this code.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// A parameter that is needed is not there.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::new("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }

    /// A value that cannot be.
    pub fn value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    /// Parameters that do not go together.
    pub fn combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", message)
    }

    /// What EC2 can do and this cannot.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperation", message)
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code.as_str() {
            "AuthFailure" if self.message.starts_with("Not authorized for") => 400,
            "AuthFailure" => 401,
            "UnauthorizedOperation"
            | "MissingAuthenticationToken"
            | "SignatureDoesNotMatch"
            | "InvalidClientTokenId"
            | "AccessDeniedException" => 403,
            "ResourceNotFoundException" => 404,
            "DryRunOperation" => 412,
            "RequestEntityTooLarge" => 413,
            "InternalError" | "InsufficientInstanceCapacity" | "InternalFailure" => 500,
            "RequestLimitExceeded" | "Unavailable" => 503,
            _ => 400,
        }
    }
}

impl From<CloudError> for ApiError {
    fn from(error: CloudError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
