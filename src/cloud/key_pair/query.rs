//! Listings of key pairs, and what they can be looked for by: EC2's filters of DescribeKeyPairs.

use std::borrow::Cow;

use rusqlite::Connection;

use super::{COLUMNS, KeyPair, NOT_FOUND, find, from_row};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::one;
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};

impl Cloud {
    /// Key pairs of the caller's: all, or those with these names or ids.
    ///
    /// # Errors
    /// `InvalidKeyPair.NotFound`.
    pub fn key_pairs(&mut self, names: &[String]) -> Result<Vec<KeyPair>, CloudError> {
        self.describe_key_pairs(names, &[], &[])
    }

    /// Key pairs of the caller's that pass `filters` ("DescribeKeyPairs"): of all, or of those with these names and ids, each of
    /// which has to be there. They are in the order of their names.
    ///
    /// # Errors
    /// `InvalidKeyPair.NotFound`; what [`Filters::parse`] says.
    pub fn describe_key_pairs(
        &mut self,
        names: &[String],
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<KeyPair>, CloudError> {
        let filters = Filters::parse::<KeyPair>(filters)?;
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let mut found = match names.is_empty() && ids.is_empty() {
                true => all(tx, &scope)?,
                false => {
                    let named = names.iter().map(|name| find(tx, &scope, name));
                    named.chain(ids.iter().map(|id| by_id(tx, &scope, id))).collect::<Result<Vec<_>, _>>()?
                }
            };
            found.retain(|pair| filters.pass(pair));
            Ok(found)
        })
    }
}

fn all(db: &Connection, scope: &Scope) -> Result<Vec<KeyPair>, CloudError> {
    let query = format!("SELECT {COLUMNS} FROM key_pairs WHERE region = ?1 AND owner = ?2 ORDER BY name");
    let mut query = db.prepare_cached(&query)?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
    let mut found: Vec<KeyPair> = found.collect::<Result<_, _>>()?;
    let mut tags = tag::of_all(db, tag::Table::KeyPairs, scope)?;
    for pair in &mut found {
        pair.tags = tags.remove(&pair.key_pair_id).unwrap_or_default();
    }
    Ok(found)
}

fn by_id(db: &Connection, scope: &Scope, id: &str) -> Result<KeyPair, CloudError> {
    match find(db, scope, id) {
        Ok(pair) if pair.key_pair_id.as_str() == id => Ok(pair),
        // What has it as its name is another.
        Ok(_) | Err(CloudError::Parameter { code: NOT_FOUND, .. }) => Err(CloudError::Parameter {
            code: "InvalidKeyPair.NotFound",
            message: format!("The key pair ID '{id}' does not exist"),
        }),
        Err(error) => Err(error),
    }
}

impl Filtered for KeyPair {
    const FILTERS: &'static [&'static str] = &["fingerprint", "key-name", "key-pair-id", "key-type"];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "fingerprint" => one(&self.key_fingerprint),
            "key-name" => one(&self.key_name),
            "key-pair-id" => one(self.key_pair_id.as_str()),
            "key-type" => one(self.key_type.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
