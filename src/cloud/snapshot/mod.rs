//! Snapshots: what a volume was at one moment, for good.
//!
//! A snapshot is the chain of layers that the volume had. The volume goes on in a new, empty layer over it: so a snapshot
//! takes as long as making one file and, where a machine runs, one flush.

pub(super) mod blocks;
mod query;
pub(super) mod take;
#[cfg(test)]
mod tests;
pub(super) mod written;

pub use query::SnapshotQuery;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::error::CloudError;
use super::id::{Id, Kind};
use super::scope::{Account, Scope};
use super::tag::{self, Tags};
use super::{Cloud, layer, lookup, time};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// `snap-...`
    pub snapshot_id: Id,
    /// Who owns it.
    pub owner_id: String,
    /// The volume that it was taken of, if it was.
    pub volume_id: Option<String>,
    /// The size of that volume, in GiB.
    pub volume_size: u64,
    /// What its owner says of it.
    pub description: String,
    /// `pending`, `completed`, `error`.
    pub state: String,
    /// Why it is in that state, where that needs saying.
    pub state_message: Option<String>,
    /// When it was begun.
    pub start_time: String,
    /// How much of it is there, as in `100%`.
    pub progress: String,
    /// Whether everybody may make volumes of it.
    pub public: bool,
    /// Its tags.
    pub tags: Tags,
    /// Its top layer.
    #[serde(skip)]
    pub(super) layer: Option<String>,
}

/// Who may make volumes of a snapshot ("createVolumePermission").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumePermissions {
    /// The snapshot.
    pub snapshot_id: Id,
    /// Its owner, who always may.
    pub owner_id: String,
    /// Whether everybody may: the group `all`.
    pub is_public: bool,
    /// Accounts that may beside, in order.
    pub accounts: Vec<String>,
}

const COLUMNS: &str = "id, owner, volume, size_gib, description, state, state_reason, started, layer,
    EXISTS (SELECT 1 FROM snapshot_permissions WHERE snapshot = snapshots.id AND account = 'all')";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    let state: String = row.get(5)?;
    Ok(Snapshot {
        snapshot_id: row.get(0)?,
        owner_id: row.get(1)?,
        volume_id: row.get(2)?,
        volume_size: layer::from_sql(row.get(3)?),
        description: row.get(4)?,
        progress: if state == "completed" { "100%".into() } else { "0%".into() },
        state,
        state_message: row.get(6)?,
        start_time: time::format(row.get(7)?),
        layer: row.get(8)?,
        public: row.get(9)?,
        tags: Tags::new(),
    })
}

/// A snapshot that the caller may see and use: its own, one shared with it, or a public one.
///
/// # Errors
/// `InvalidSnapshot.NotFound`.
pub(super) fn visible(db: &Connection, scope: &Scope, id: &str) -> Result<Snapshot, CloudError> {
    let id = Id::parse(Kind::Snapshot, id)?;
    let query = format!(
        "SELECT {COLUMNS} FROM snapshots WHERE id = ?1 AND region = ?2 AND (owner = ?3 OR EXISTS
             (SELECT 1 FROM snapshot_permissions WHERE snapshot = snapshots.id AND account IN (?3, 'all')))"
    );
    let found = db.query_row(&query, params![id, scope.region, scope.account.as_str()], from_row).optional()?;
    let mut found = found.ok_or_else(|| CloudError::NotFound { kind: Kind::Snapshot, id: id.to_string() })?;
    found.tags = tag::of(db, &found.snapshot_id)?;
    Ok(found)
}

/// Any snapshot, whoever asks: for what an image that the caller may launch is made of.
///
/// # Errors
/// `InvalidSnapshot.NotFound`.
pub(super) fn any(db: &Connection, id: &str) -> Result<Snapshot, CloudError> {
    let found = db.query_row(&format!("SELECT {COLUMNS} FROM snapshots WHERE id = ?1"), [id], from_row).optional()?;
    found.ok_or_else(|| CloudError::NotFound { kind: Kind::Snapshot, id: id.to_owned() })
}

/// A snapshot that is about to be made.
pub(super) struct New<'a> {
    pub id: &'a Id,
    pub volume: Option<&'a Id>,
    pub size_gib: u64,
    pub description: &'a str,
}

/// Writes a pending snapshot down.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn insert(tx: &Transaction<'_>, scope: &Scope, new: &New<'_>, operation: &str) -> Result<(), CloudError> {
    tx.execute(
        "INSERT INTO snapshots (id, region, owner, size_gib, volume, description, state, started, operation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'pending', ?7, ?8)",
        params![
            new.id,
            scope.region,
            scope.account.as_str(),
            layer::to_sql(new.size_gib),
            new.volume,
            new.description,
            time::now(),
            operation
        ],
    )?;
    Ok(())
}

/// Says that a snapshot is whole: its top layer.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn complete(tx: &Transaction<'_>, id: &Id, layer: &str) -> Result<(), CloudError> {
    let update = "UPDATE snapshots SET state = 'completed', layer = ?2, operation = NULL WHERE id = ?1";
    tx.execute(update, params![id, layer])?;
    Ok(())
}

/// Says that a pending snapshot could not be made, and why.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn fail(tx: &Transaction<'_>, id: &Id, reason: &str) -> Result<(), CloudError> {
    let update =
        "UPDATE snapshots SET state = 'error', state_reason = ?2, operation = NULL WHERE id = ?1 AND state = 'pending'";
    tx.execute(update, params![id, reason])?;
    Ok(())
}

impl Cloud {
    /// Deletes a snapshot. What others are made of, also volumes and later snapshots, stays whole.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `InvalidSnapshot.InUse` where an image is made of it, `UnauthorizedOperation`.
    pub fn delete_snapshot(&mut self, id: &str) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let snapshot = visible(tx, &scope, &resolve(tx, &scope, id)?)?;
            check_owner(&snapshot, &scope.account)?;
            delete(tx, &snapshot)
        })?;
        self.tidy()
    }

    /// Copies a snapshot, also into another region: the copy shares what is in it, and nothing done to either is seen in the
    /// other.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `IncorrectState` for one that is not completed.
    pub fn copy_snapshot(
        &mut self,
        source_region: &str,
        id: &str,
        description: Option<&str>,
        tags: &Tags,
    ) -> Result<Snapshot, CloudError> {
        let scope = self.scope.clone();
        let source = Scope { region: source_region.to_owned(), account: scope.account.clone() };
        self.catalogue.write(|tx| {
            let original = visible(tx, &source, &resolve(tx, &source, id)?)?;
            let copy = copy(tx, &scope, &original, description.unwrap_or(&original.description))?;
            tag::add(tx, &copy, tags)?;
            visible(tx, &scope, copy.as_str())
        })
    }

    /// Lets accounts (or everybody: `all`) make volumes of a snapshot, or no longer.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `UnauthorizedOperation`, `InvalidAMIAttributeItemValue`.
    pub fn share_snapshot(&mut self, id: &str, add: &[String], remove: &[String]) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        for account in add.iter().chain(remove).filter(|account| *account != "all") {
            let _: Account = account.parse().map_err(|_| CloudError::AttributeItem { value: account.clone() })?;
        }
        self.catalogue.write(|tx| {
            let snapshot = visible(tx, &scope, &resolve(tx, &scope, id)?)?;
            check_owner(&snapshot, &scope.account)?;
            for account in add {
                tx.execute(
                    "INSERT OR IGNORE INTO snapshot_permissions VALUES (?1, ?2)",
                    params![snapshot.snapshot_id, account],
                )?;
            }
            for account in remove {
                tx.execute(
                    "DELETE FROM snapshot_permissions WHERE snapshot = ?1 AND account = ?2",
                    params![snapshot.snapshot_id, account],
                )?;
            }
            Ok(())
        })
    }
}

impl Cloud {
    /// Who may make volumes of a snapshot of the caller's.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `UnauthorizedOperation`.
    pub fn snapshot_permissions(&mut self, id: &str) -> Result<VolumePermissions, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let snapshot = visible(tx, &scope, &resolve(tx, &scope, id)?)?;
            check_owner(&snapshot, &scope.account)?;
            let mut query = tx.prepare_cached(
                "SELECT account FROM snapshot_permissions WHERE snapshot = ?1 AND account <> 'all' ORDER BY account",
            )?;
            let accounts = query.query_map([&snapshot.snapshot_id], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(VolumePermissions {
                is_public: snapshot.public,
                owner_id: snapshot.owner_id,
                snapshot_id: snapshot.snapshot_id,
                accounts,
            })
        })
    }

    /// Lets nobody but its owner make volumes of a snapshot of the caller's.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `UnauthorizedOperation`.
    pub fn unshare_snapshot(&mut self, id: &str) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let snapshot = visible(tx, &scope, &resolve(tx, &scope, id)?)?;
            check_owner(&snapshot, &scope.account)?;
            tx.execute("DELETE FROM snapshot_permissions WHERE snapshot = ?1", [&snapshot.snapshot_id])?;
            Ok(())
        })
    }
}

/// The id that a person means: a whole one, or the beginning of one.
///
/// # Errors
/// `InvalidSnapshot.NotFound`, `.Malformed`, or [`CloudError::Ambiguous`].
pub(super) fn resolve(db: &Connection, scope: &Scope, given: &str) -> Result<String, CloudError> {
    lookup::resolve(db, scope, Kind::Snapshot, "snapshots", given)
}

fn check_owner(snapshot: &Snapshot, account: &Account) -> Result<(), CloudError> {
    if snapshot.owner_id == account.as_str() {
        return Ok(());
    }
    Err(CloudError::NotOwner(format!("{}: it is account {}'s", snapshot.snapshot_id, snapshot.owner_id)))
}

/// Takes the row of a snapshot away, unless an image is made of it.
pub(super) fn delete(tx: &Transaction<'_>, snapshot: &Snapshot) -> Result<(), CloudError> {
    let id = &snapshot.snapshot_id;
    let user: Option<Id> = tx
        .query_row(
            "SELECT images.id FROM images, json_each(images.mapping) AS entry
             WHERE state NOT IN ('deregistered', 'failed') AND json_extract(entry.value, '$.ebs.snapshot_id') = ?1 LIMIT 1",
            [id],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(image) = user {
        return Err(CloudError::SnapshotInUse { snapshot: id.clone(), image });
    }
    if snapshot.state == "pending" {
        return Err(CloudError::State {
            what: id.to_string(),
            why: "it is pending: wait until it is completed".into(),
        });
    }
    tag::remove_all(tx, id)?;
    tx.execute("DELETE FROM snapshots WHERE id = ?1", [id])?;
    layer::mark_dead(tx)
}

/// Writes down another snapshot of the same layers.
///
/// # Errors
/// `IncorrectState` for one that is not completed.
pub(super) fn copy(
    tx: &Transaction<'_>,
    scope: &Scope,
    original: &Snapshot,
    description: &str,
) -> Result<Id, CloudError> {
    let Some(layer) = original.layer.as_ref().filter(|_| original.state == "completed") else {
        let what = original.snapshot_id.to_string();
        return Err(CloudError::State { what, why: format!("it is {}, not completed", original.state) });
    };
    let id = Id::new(Kind::Snapshot).map_err(CloudError::host("/", "cannot make an id"))?;
    tx.execute(
        "INSERT INTO snapshots (id, region, owner, layer, size_gib, volume, description, state, started)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'completed', ?8)",
        params![
            id,
            scope.region,
            scope.account.as_str(),
            layer,
            layer::to_sql(original.volume_size),
            original.volume_id,
            description,
            time::now()
        ],
    )?;
    Ok(id)
}
