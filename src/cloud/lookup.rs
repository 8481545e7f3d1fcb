//! What a person means who gives the beginning of an id.

use rusqlite::{Connection, params};

use super::error::CloudError;
use super::id::Kind;
use super::scope::Scope;

/// How many of those that could be meant are told.
const TOLD: usize = 5;

/// The id of `table` in the region that `given` is, or begins as the only one of the caller's.
///
/// # Errors
/// `.NotFound`, `.Malformed` for what is no id, or [`CloudError::Ambiguous`].
pub(super) fn resolve(
    db: &Connection,
    scope: &Scope,
    kind: Kind,
    table: &'static str,
    given: &str,
) -> Result<String, CloudError> {
    let digits = given.strip_prefix(kind.prefix()).unwrap_or_default();
    let is_begun = !digits.is_empty() && digits.len() < 17 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let exists: bool =
        db.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE id = ?1)"), [given], |row| row.get(0))?;
    if exists || !is_begun {
        return super::Id::parse(kind, given).map(|id| id.to_string());
    }
    let query = format!(
        "SELECT id FROM {table} WHERE region = ?1 AND owner = ?2 AND substr(id, 1, length(?3)) = ?3 ORDER BY id LIMIT ?4"
    );
    let limit = i64::try_from(TOLD).unwrap_or(i64::MAX);
    let mut query = db.prepare(&query)?;
    let found = query.query_map(params![scope.region, scope.account.as_str(), given, limit], |row| row.get(0))?;
    let mut found: Vec<String> = found.collect::<Result<_, _>>()?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            found.push(last);
            Err(CloudError::Ambiguous { kind, given: given.to_owned(), found })
        }
        (None, _) => Err(CloudError::NotFound { kind, id: given.to_owned() }),
    }
}
