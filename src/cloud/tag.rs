//! Tags: names and values that a person gives to resources.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Transaction, params};

use super::error::CloudError;
use super::id::{Id, Kind};
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

/// Tables of resources that can have tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Images,
    Instances,
    KeyPairs,
    NetworkInterfaces,
    SecurityGroups,
    SecurityGroupRules,
    Snapshots,
    Subnets,
    Volumes,
    Vpcs,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Images,
        Self::Instances,
        Self::KeyPairs,
        Self::NetworkInterfaces,
        Self::SecurityGroups,
        Self::SecurityGroupRules,
        Self::Snapshots,
        Self::Subnets,
        Self::Volumes,
        Self::Vpcs,
    ];

    /// What EC2 calls what is in it, where it speaks of tags ("resource-type").
    pub fn resource_type(self) -> &'static str {
        match self {
            Self::Images => "image",
            Self::Instances => "instance",
            Self::KeyPairs => "key-pair",
            Self::NetworkInterfaces => "network-interface",
            Self::SecurityGroups => "security-group",
            Self::SecurityGroupRules => "security-group-rule",
            Self::Snapshots => "snapshot",
            Self::Subnets => "subnet",
            Self::Volumes => "volume",
            Self::Vpcs => "vpc",
        }
    }

    /// The table that ids of this kind are in, if what they are of can have tags.
    pub fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Image | Kind::KernelImage | Kind::RamdiskImage => Self::Images,
            Kind::Instance => Self::Instances,
            Kind::KeyPair => Self::KeyPairs,
            Kind::NetworkInterface => Self::NetworkInterfaces,
            Kind::SecurityGroup => Self::SecurityGroups,
            Kind::SecurityGroupRule => Self::SecurityGroupRules,
            Kind::Snapshot => Self::Snapshots,
            Kind::Subnet => Self::Subnets,
            Kind::Volume => Self::Volumes,
            Kind::Vpc => Self::Vpcs,
            // Tasks get theirs when they are made.
            Kind::ImportImageTask
            | Kind::ImportSnapshotTask
            | Kind::ExportImageTask
            | Kind::StoreImageTask
            | Kind::Reservation => return None,
        })
    }

    /// The table as `it`, joined with the one that says whose its rows are where it does not say so itself.
    pub fn joined(self) -> &'static str {
        match self {
            Self::Images => "(SELECT * FROM images WHERE state <> 'deregistered') AS it",
            Self::Instances => "instances AS it",
            Self::KeyPairs => "key_pairs AS it",
            Self::NetworkInterfaces => {
                "vpcs JOIN subnets ON vpc = vpcs.id JOIN interfaces AS it ON it.subnet = subnets.id"
            }
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

/// A tag that is to go ("DeleteTags").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its key.
    pub key: String,
    /// The value that it has to have, which may be an empty one; any where not said.
    pub value: Option<String>,
}

/// Takes tags away: those that are named, or all of a person's where none is.
///
/// # Errors
/// `InvalidParameterValue` for keys that no person gives.
pub fn remove_named(tx: &Transaction<'_>, resource: &Id, removals: &[Removal]) -> Result<(), CloudError> {
    if removals.is_empty() {
        let delete = "DELETE FROM tags WHERE resource = ?1 AND lower(substr(key, 1, 4)) <> 'aws:'";
        tx.execute(delete, [resource])?;
    }
    for Removal { key, value } in removals {
        check(key, value.as_deref().unwrap_or_default())?;
        remove(tx, resource, key, value.as_deref())?;
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
        return wrong(format!("Tag keys starting with 'aws:' are reserved for internal use: {key:?}"));
    }
    if value.chars().count() > MAX_VALUE {
        return wrong(format!("the value of tag {key:?} has more than {MAX_VALUE} characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::{World, all, code, new_volume};

    #[test]
    fn keys_and_values_have_bounds() {
        let longest = ("\u{e9}".repeat(MAX_KEY), "\u{e9}".repeat(MAX_VALUE));
        assert!(check(&longest.0, &longest.1).is_ok());
        for (key, value) in [
            (String::new(), String::new()),
            ("x".repeat(MAX_KEY + 1), String::new()),
            ("x".to_owned(), "x".repeat(MAX_VALUE + 1)),
            ("aws:x".to_owned(), String::new()),
            ("AWS:x".to_owned(), String::new()),
        ] {
            assert_eq!(code(check(&key, &value)), "InvalidParameterValue", "{key:?}");
        }
        assert!(check("awsome", "aws:x").is_ok());
    }

    #[test]
    fn a_resource_has_so_many_and_no_more() {
        let world = World::new();
        let mut cloud = world.cloud();
        let volume = new_volume(&mut cloud, "us-east-1a", &[]);
        let many: Tags = (0..MAX_TAGS).map(|n| (n.to_string(), String::new())).collect();
        cloud.catalogue.write(|tx| add(tx, &volume, &many)).unwrap();
        // A key that it has is no other tag.
        cloud.catalogue.write(|tx| add(tx, &volume, &all(&[("0", "new")]))).unwrap();
        assert_eq!(code(cloud.catalogue.write(|tx| add(tx, &volume, &all(&[("50", "")])))), "TagLimitExceeded");
    }
}
