//! Tags: names and values that a person gives to resources.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Transaction, params};

use super::error::CloudError;
use super::id::Id;
use super::scope::Scope;

/// Tags by their keys.
pub type Tags = BTreeMap<String, String>;

/// The tags of what has none.
pub static NO_TAGS: Tags = Tags::new();

/// Most tags of one resource.
const MAX_TAGS: usize = 50;
/// Most characters of a key.
const MAX_KEY: usize = 128;
/// Most characters of a value.
const MAX_VALUE: usize = 256;

/// The tags of a resource.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn of(db: &Connection, resource: &Id) -> Result<Tags, CloudError> {
    let mut query = db.prepare_cached("SELECT key, value FROM tags WHERE resource = ?1")?;
    let tags = query.query_map([resource], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(tags.collect::<Result<_, _>>()?)
}

/// Tables of resources with a region and an owner.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Instances,
    KeyPairs,
    SecurityGroups,
    SecurityGroupRules,
    Snapshots,
    Subnets,
    Volumes,
    Vpcs,
}

impl Table {
    /// The table, joined with the one that says whose its rows are where it does not say so itself.
    fn joined(self) -> &'static str {
        match self {
            Self::Instances => "instances AS it",
            Self::KeyPairs => "key_pairs AS it",
            Self::SecurityGroups => "vpcs JOIN security_groups AS it ON it.vpc = vpcs.id",
            Self::SecurityGroupRules => {
                "vpcs JOIN security_groups ON vpc = vpcs.id
                     JOIN security_group_rules AS it ON security_group = security_groups.id"
            }
            Self::Snapshots => "snapshots AS it",
            Self::Subnets => "vpcs JOIN subnets AS it ON it.vpc = vpcs.id",
            Self::Volumes => "volumes AS it",
            Self::Vpcs => "vpcs AS it",
        }
    }
}

/// The tags of all resources of a table that are the caller's in its region.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn of_all(db: &Connection, table: Table, scope: &Scope) -> Result<HashMap<Id, Tags>, CloudError> {
    let mut query = db.prepare_cached(&format!(
        "SELECT resource, key, value FROM {} JOIN tags ON resource = it.id WHERE region = ?1 AND owner = ?2",
        table.joined()
    ))?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], |row| {
        Ok((row.get::<_, Id>(0)?, row.get(1)?, row.get(2)?))
    })?;
    let mut all: HashMap<Id, Tags> = HashMap::new();
    for row in found {
        let (id, key, value) = row?;
        all.entry(id).or_default().insert(key, value);
    }
    Ok(all)
}

/// Gives a resource tags; a key that it has gets the new value.
///
/// # Errors
/// `InvalidParameterValue` for keys and values that are none; `TagLimitExceeded`.
pub fn add(tx: &Transaction<'_>, resource: &Id, tags: &Tags) -> Result<(), CloudError> {
    for (key, value) in tags {
        check(key, value)?;
        tx.execute(
            "INSERT INTO tags VALUES (?1, ?2, ?3) ON CONFLICT (resource, key) DO UPDATE SET value = excluded.value",
            params![resource, key, value],
        )?;
    }
    if of(tx, resource)?.len() > MAX_TAGS {
        let message = format!("{resource} would have more than {MAX_TAGS} tags");
        return Err(CloudError::Parameter { code: "TagLimitExceeded", message });
    }
    Ok(())
}

/// Takes a tag away: the one with this value, or with any.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn remove(tx: &Transaction<'_>, resource: &Id, key: &str, value: Option<&str>) -> Result<(), CloudError> {
    let delete = "DELETE FROM tags WHERE resource = ?1 AND key = ?2 AND (?3 IS NULL OR value = ?3)";
    tx.execute(delete, params![resource, key, value])?;
    Ok(())
}

/// Takes all tags away, with the resource.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn remove_all(tx: &Transaction<'_>, resource: &Id) -> Result<(), CloudError> {
    tx.execute("DELETE FROM tags WHERE resource = ?1", [resource])?;
    Ok(())
}

fn check(key: &str, value: &str) -> Result<(), CloudError> {
    let wrong = |what: String| Err(CloudError::value(what));
    if key.is_empty() || key.chars().count() > MAX_KEY {
        return wrong(format!("tag key {key:?}: a key has 1 to {MAX_KEY} characters"));
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return wrong(format!("tag key {key:?}: keys that begin with aws: are reserved"));
    }
    if value.chars().count() > MAX_VALUE {
        return wrong(format!("the value of tag {key:?} has more than {MAX_VALUE} characters"));
    }
    Ok(())
}
