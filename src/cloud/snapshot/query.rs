//! Listings of snapshots, and what they can be looked for by: EC2's filters of DescribeSnapshots.

use std::borrow::Cow;

use rusqlite::{Connection, params};

use super::{COLUMNS, Snapshot, from_row, resolve, visible};
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, optional, shown, truth};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::scope::{Account, Scope};
use crate::cloud::tag::{self, Tags};
use crate::cloud::{Cloud, image};

/// Which snapshots to list ("DescribeSnapshots"). Of those that the caller may see: its own, those shared with it, public ones.
#[derive(Clone, Debug, Default)]
pub struct SnapshotQuery {
    /// These alone, each of which has to be there.
    pub ids: Vec<String>,
    /// Of any of these owners: `self`, an alias such as `amazon`, an account.
    pub owners: Vec<String>,
    /// Of which any of these may make volumes: `self` (and the caller's account) for the caller's own and those shared with it
    /// by name, `all` for public ones, another account for the caller's own that are shared with that.
    pub restorable_by: Vec<String>,
    /// All of which have to match.
    pub filters: Vec<Filter>,
}

impl Cloud {
    /// Snapshots that the caller may see: its own, or also those that others share with it.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound` for an id among `ids`; [`CloudError::Catalogue`].
    pub fn snapshots(&mut self, ids: &[String], own_only: bool) -> Result<Vec<Snapshot>, CloudError> {
        let owners = if own_only && ids.is_empty() { vec!["self".to_owned()] } else { Vec::new() };
        self.describe_snapshots(&SnapshotQuery { ids: ids.to_vec(), owners, ..SnapshotQuery::default() })
    }

    /// Snapshots that the caller may see, the oldest first.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound` for an id; `InvalidUserID.Malformed` for an owner that is none; what [`Filters::parse`] says.
    pub fn describe_snapshots(&mut self, query: &SnapshotQuery) -> Result<Vec<Snapshot>, CloudError> {
        let filters = Filters::parse::<Snapshot>(&query.filters)?;
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let mut found = match query.ids.as_slice() {
                [] => all(tx, &scope)?,
                ids => ids
                    .iter()
                    .map(|id| visible(tx, &scope, &resolve(tx, &scope, id)?))
                    .collect::<Result<Vec<_>, _>>()?,
            };
            if !query.owners.is_empty() {
                let owners = image::owners(tx, &scope, &query.owners)?;
                found.retain(|snapshot| owners.contains(&snapshot.owner_id));
            }
            if !query.restorable_by.is_empty() {
                let mut kept = Vec::new();
                for snapshot in found {
                    if is_restorable(tx, &scope, &snapshot, &query.restorable_by)? {
                        kept.push(snapshot);
                    }
                }
                found = kept;
            }
            // Tags are their owners' own to see.
            let others = found.iter_mut().filter(|snapshot| snapshot.owner_id != scope.account.as_str());
            others.for_each(|snapshot| snapshot.tags.clear());
            found.retain(|snapshot| filters.pass(snapshot));
            Ok(found)
        })
    }
}

/// All that the caller may see, with the tags of its own.
fn all(db: &Connection, scope: &Scope) -> Result<Vec<Snapshot>, CloudError> {
    let query = format!(
        "SELECT {COLUMNS} FROM snapshots WHERE region = ?1 AND (owner = ?2 OR EXISTS
             (SELECT 1 FROM snapshot_permissions WHERE snapshot = snapshots.id AND account IN (?2, 'all')))
         ORDER BY started, id"
    );
    let mut query = db.prepare_cached(&query)?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
    let mut found: Vec<Snapshot> = found.collect::<Result<_, _>>()?;
    let mut tags = tag::of_all(db, tag::Table::Snapshots, scope)?;
    for snapshot in &mut found {
        snapshot.tags = tags.remove(&snapshot.snapshot_id).unwrap_or_default();
    }
    Ok(found)
}

/// Whether one of these may make volumes of a snapshot, as far as the caller may know it.
fn is_restorable(db: &Connection, scope: &Scope, snapshot: &Snapshot, who: &[String]) -> Result<bool, CloudError> {
    let is_own = snapshot.owner_id == scope.account.as_str();
    let mut find = db.prepare_cached("SELECT 1 FROM snapshot_permissions WHERE snapshot = ?1 AND account = ?2")?;
    for name in who {
        let is_so = match name.as_str() {
            "all" => snapshot.public,
            "self" => is_own || find.exists(params![snapshot.snapshot_id, scope.account.as_str()])?,
            name if name == scope.account.as_str() => is_own || find.exists(params![snapshot.snapshot_id, name])?,
            name => {
                let account: Account = name.parse().map_err(|_| CloudError::Parameter {
                    code: "InvalidUserID.Malformed",
                    message: format!("Invalid user id: \"{name}\"; give self, all or 12 digits"),
                })?;
                // With whom others share is not the caller's to know.
                is_own && find.exists(params![snapshot.snapshot_id, account.as_str()])?
            }
        };
        if is_so {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Filtered for Snapshot {
    const FILTERS: &'static [&'static str] = &[
        "description",
        "encrypted",
        "owner-id",
        "progress",
        "snapshot-id",
        "start-time",
        "status",
        "storage-tier",
        "transfer-type",
        "volume-id",
        "volume-size",
        // No snapshot has an alias of its owner, or a key.
        "kms-key-id",
        "owner-alias",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "description" => one(&self.description),
            "encrypted" => one(truth(false)),
            "owner-id" => one(&self.owner_id),
            "progress" => one(&self.progress),
            "snapshot-id" => one(self.snapshot_id.as_str()),
            "start-time" => one(&self.start_time),
            "status" => one(&self.state),
            "storage-tier" => one("standard"),
            "volume-id" => optional(self.volume_id.as_deref()),
            "volume-size" => shown(&self.volume_size),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
