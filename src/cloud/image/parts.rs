//! Snapshots, as images are made of them.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::cloud::error::CloudError;
use crate::cloud::scope::Scope;
use crate::cloud::{Id, Kind, layer, tag, time};

/// A snapshot.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub id: Id,
    pub owner: String,
    pub size_gib: u64,
    pub state: String,
    layer: Option<String>,
    volume: Option<String>,
}

/// A snapshot, whoever asks.
///
/// # Errors
/// `InvalidSnapshot.NotFound`, `.Malformed`.
pub(super) fn any(db: &Connection, region: &str, id: &str) -> Result<Part, CloudError> {
    let id = Id::parse(Kind::Snapshot, id)?;
    let query = "SELECT id, owner, size_gib, state, layer, volume FROM snapshots WHERE id = ?1 AND region = ?2";
    let found = db.query_row(query, params![id, region], |row| {
        let size_gib = layer::from_sql(row.get(2)?);
        Ok(Part {
            id: row.get(0)?,
            owner: row.get(1)?,
            size_gib,
            state: row.get(3)?,
            layer: row.get(4)?,
            volume: row.get(5)?,
        })
    });
    found.optional()?.ok_or_else(|| CloudError::NotFound { kind: Kind::Snapshot, id: id.to_string() })
}

/// A snapshot that the caller may make volumes of, and that is whole.
///
/// # Errors
/// As [`any`]; `IncorrectState`.
pub(super) fn usable(db: &Connection, scope: &Scope, id: &str) -> Result<Part, CloudError> {
    let part = any(db, &scope.region, id)?;
    let query = "SELECT EXISTS (SELECT 1 FROM snapshot_permissions WHERE snapshot = ?1 AND account IN (?2, 'all'))";
    let me = scope.account.as_str();
    if part.owner != me && !db.query_row(query, params![part.id, me], |row| row.get::<_, bool>(0))? {
        return Err(CloudError::NotFound { kind: Kind::Snapshot, id: id.to_owned() });
    }
    check_completed(&part)?;
    Ok(part)
}

fn check_completed(part: &Part) -> Result<(), CloudError> {
    if part.state == "completed" && part.layer.is_some() {
        return Ok(());
    }
    let why = format!("it is {}, and has to be completed for that", part.state);
    Err(CloudError::State { what: part.id.to_string(), why })
}

/// Writes down a snapshot of the caller's that refers to the same layers.
///
/// # Errors
/// `IncorrectState` for one that is not completed.
pub(super) fn copy(tx: &Transaction<'_>, scope: &Scope, part: &Part, description: &str) -> Result<Id, CloudError> {
    check_completed(part)?;
    let id = Id::new(Kind::Snapshot).map_err(CloudError::host("/dev/urandom", "cannot make an id"))?;
    tx.execute(
        "INSERT INTO snapshots (id, region, owner, layer, size_gib, volume, description, state, started)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'completed', ?8)",
        params![
            id,
            scope.region,
            scope.account.as_str(),
            part.layer,
            layer::to_sql(part.size_gib),
            part.volume,
            description,
            time::now()
        ],
    )?;
    Ok(id)
}

/// Images that a snapshot is part of, beside those that are no more.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn users(db: &Connection, id: &str) -> Result<Vec<Id>, CloudError> {
    let mut query = db.prepare_cached(
        "SELECT DISTINCT images.id FROM images, json_each(images.mapping) AS entry
         WHERE state NOT IN ('deregistered', 'failed') AND instr(images.mapping, ?1) > 0
             AND json_extract(entry.value, '$.ebs.snapshot_id') = ?1",
    )?;
    let users = query.query_map([id], |row| row.get(0))?;
    Ok(users.collect::<Result<_, _>>()?)
}

/// Takes the row of a snapshot away; its layers are for [`layer::mark_dead`].
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn delete(tx: &Transaction<'_>, part: &Part) -> Result<(), CloudError> {
    tag::remove_all(tx, &part.id)?;
    tx.execute("DELETE FROM snapshots WHERE id = ?1", [&part.id])?;
    Ok(())
}
