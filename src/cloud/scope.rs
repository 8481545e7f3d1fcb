//! Whose resources, and where: account and region.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::error::CloudError;

/// An account: 12 digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account(String);

impl Account {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Account {
    /// The one of a person who says nothing.
    fn default() -> Self {
        Self("123456789012".to_owned())
    }
}

impl FromStr for Account {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<Self, CloudError> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        Err(CloudError::value(format!("{text:?} is not an account: it has 12 digits, as in 123456789012")))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Who asks, and in which region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The region's name, as in `us-east-1`.
    pub region: String,
    /// The account.
    pub account: Account,
}

impl Default for Scope {
    fn default() -> Self {
        Self { region: "us-east-1".to_owned(), account: Account::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_twelve_digits() {
        assert_eq!("000000000001".parse::<Account>().unwrap().as_str(), "000000000001");
        for wrong in ["", "self", "12345678901", "1234567890123", "12345678901x", "١٢٣٤٥٦٧٨٩٠١٢"] {
            assert!(wrong.parse::<Account>().is_err(), "{wrong}");
        }
    }
}
