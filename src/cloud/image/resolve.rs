//! Which image a person means.

use rusqlite::{Connection, OptionalExtension};

use super::access;
use crate::cloud::error::CloudError;
use crate::cloud::scope::Scope;
use crate::cloud::{Cloud, Id, Kind, parameter};

/// How many of those that could be meant are told.
const TOLD: usize = 5;

impl Cloud {
    /// The image that a person means: by its whole id, by the beginning of an id that only one image has, or by its name,
    /// where the caller's own images come first; or as `resolve:ssm:NAME` by a parameter's name. A whole id is taken as it is,
    /// whether there is such an image or not.
    ///
    /// # Errors
    /// [`CloudError::Ambiguous`]; `ParameterNotFound`; `InvalidAMIID.NotFound`, or `.Malformed` for what begins as an id and is none.
    pub fn resolve_image(&mut self, given: &str) -> Result<Id, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| resolve(tx, &scope, given))
    }
}

/// As [`Cloud::resolve_image`].
///
/// # Errors
/// As that.
pub(in crate::cloud) fn resolve(db: &Connection, scope: &Scope, given: &str) -> Result<Id, CloudError> {
    if let Some(image) = parameter::image_of(db, scope, given)? {
        return Ok(image);
    }
    let kinds = [Kind::Image, Kind::KernelImage, Kind::RamdiskImage];
    let digits = kinds.into_iter().find_map(|kind| given.strip_prefix(kind.prefix()));
    let is_hex = |digits: &str| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let (me, region) = (scope.account.as_str(), scope.region.as_str());
    if let Some(digits) = digits.filter(|digits| !digits.is_empty() && is_hex(digits)) {
        if digits.len() == 17 {
            return access::parse_id(given);
        }
        // An old, short id may be the beginning of a long one.
        let whole = db.query_row("SELECT id FROM images WHERE id = ?1", [given], |row| row.get(0)).optional()?;
        if let Some(whole) = whole {
            return Ok(whole);
        }
        let beginning = format!("region = ?2 AND id >= ?3 AND id < ?3 || 'g' AND {}", access::VISIBLE);
        if let Some(found) = only(db, given, &beginning, [me, region, given])? {
            return Ok(found);
        }
    }
    let own = "owner = ?1 AND region = ?2 AND name = ?3 AND state <> 'deregistered' AND state <> 'failed'";
    let others = format!("region = ?2 AND name = ?3 AND {}", access::VISIBLE);
    for condition in [own, &others] {
        if let Some(found) = only(db, given, condition, [me, region, given])? {
            return Ok(found);
        }
    }
    match digits {
        Some(digits) if !is_hex(digits) || digits.len() > 17 || digits.is_empty() => access::parse_id(given),
        _ => Err(CloudError::NotFound { kind: Kind::Image, id: given.to_owned() }),
    }
}

/// The only image that is `condition`, if there is one.
fn only(db: &Connection, given: &str, condition: &str, values: [&str; 3]) -> Result<Option<Id>, CloudError> {
    let mut query = db.prepare_cached(&format!("SELECT id FROM images WHERE {condition} ORDER BY id LIMIT {TOLD}"))?;
    let found: Vec<Id> = query.query_map(values, |row| row.get(0))?.collect::<Result<_, _>>()?;
    match found.len() {
        0 | 1 => Ok(found.into_iter().next()),
        _ => {
            let found = found.iter().map(ToString::to_string).collect();
            Err(CloudError::Ambiguous { kind: Kind::Image, given: given.to_owned(), found })
        }
    }
}
