//! Client tokens: a request that is made again with the same token makes nothing more, and is answered as before.
//!
//! A token is an account's own in a region and for one action. It is written down with what the request makes, in the same
//! transaction, goes where that is undone, and is forgotten after a day.

use std::fmt::Debug;

use rusqlite::{OptionalExtension, Transaction, params};
use sha2::{Digest, Sha256};

use super::error::CloudError;
use super::id::Id;
use super::operation::Operation;
use super::scope::Scope;
use super::time;

/// How long a token is known, in milliseconds.
const KNOWN: i64 = 24 * 3_600_000;
/// Most bytes of a token: as for snapshots that are written by block, which have the longest.
const MAX_LEN: usize = 255;

/// A request as its token stands for it.
pub(super) struct Token<'a> {
    action: &'static str,
    token: Option<&'a str>,
    hash: String,
}

impl<'a> Token<'a> {
    /// The token of a request for an action, as EC2 names it; an empty one is none.
    ///
    /// # Errors
    /// `InvalidParameterValue` for one that is too long.
    pub fn new(action: &'static str, token: Option<&'a str>, request: &impl Debug) -> Result<Self, CloudError> {
        let token = token.filter(|token| !token.is_empty());
        if token.is_some_and(|token| token.len() > MAX_LEN) {
            return Err(CloudError::value(format!("a client token has at most {MAX_LEN} bytes")));
        }
        let hash = Sha256::digest(format!("{request:?}"));
        Ok(Self { action, token, hash: hash.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// What the same request made before, if it did.
    ///
    /// # Errors
    /// `IdempotentParameterMismatch` where another request had the token.
    pub fn made(&self, tx: &Transaction<'_>, scope: &Scope) -> Result<Option<Vec<String>>, CloudError> {
        let Some(token) = self.token else { return Ok(None) };
        tx.execute("DELETE FROM tokens WHERE created < ?1", [time::now().saturating_sub(KNOWN)])?;
        let select = "SELECT request_hash, resources FROM tokens
             WHERE owner = ?1 AND region = ?2 AND action = ?3 AND token = ?4";
        let values = params![scope.account.as_str(), scope.region, self.action, token];
        let found = tx.query_row(select, values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((hash, resources)): Option<(String, String)> = found else { return Ok(None) };
        if hash != self.hash {
            return Err(CloudError::TokenMismatch);
        }
        let resources = serde_json::from_str(&resources);
        resources
            .map(Some)
            .map_err(|error| CloudError::Damaged(format!("the token {token:?} in the catalogue: {error}")))
    }

    /// The one thing that the same request made before, if it did.
    ///
    /// # Errors
    /// As [`Token::made`].
    pub fn made_one(&self, tx: &Transaction<'_>, scope: &Scope) -> Result<Option<String>, CloudError> {
        Ok(self.made(tx, scope)?.and_then(|all| all.into_iter().next()))
    }

    /// Writes down what the request makes.
    ///
    /// # Errors
    /// [`CloudError::Catalogue`].
    pub fn keep(
        &self,
        tx: &Transaction<'_>,
        scope: &Scope,
        resources: &[&Id],
        operation: Option<&Operation>,
    ) -> Result<(), CloudError> {
        let Some(token) = self.token else { return Ok(()) };
        let ids: Vec<&str> = resources.iter().map(|id| id.as_str()).collect();
        let ids = serde_json::to_string(&ids).map_err(|error| CloudError::Damaged(error.to_string()))?;
        tx.execute(
            "INSERT INTO tokens (owner, region, action, token, request_hash, resources, created, operation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                scope.account.as_str(),
                scope.region,
                self.action,
                token,
                self.hash,
                ids,
                time::now(),
                operation.map(Operation::id)
            ],
        )?;
        Ok(())
    }
}
