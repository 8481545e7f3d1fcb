//! Layers as the catalogue knows them: which is over which, who needs it, and what goes when nobody does.
//!
//! A layer is needed by a snapshot, also by one that is being written, a volume, an instance's own volume or an image's template that names it, and by every
//! layer over it. What is needed by nobody is marked dead, and its files are removed after that was committed; so no file
//! is without a row, and a row is the last thing that goes.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::error::CloudError;
use super::home::Home;
use super::operation::Operation;
use crate::disk::random_bytes;

/// What is asked of a layer when a chain is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The name of its files.
    pub id: String,
    /// Bytes of the disk that it is a layer of.
    pub size: u64,
}

/// A new name for a layer.
///
/// # Errors
/// Where the host gives no random numbers.
pub fn new_id(home: &Home) -> Result<String, CloudError> {
    let random = random_bytes().map_err(CloudError::host(home.layers(), "cannot make a name for a layer"))?;
    Ok(format!("layer-{:032x}", u128::from_le_bytes(random)))
}

/// Writes down a layer whose files are about to be made.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn insert(
    tx: &Transaction<'_>,
    id: &str,
    size: u64,
    parent: Option<&str>,
    operation: &Operation,
) -> Result<(), CloudError> {
    let insert = "INSERT INTO layers (id, size, state, parent, operation) VALUES (?1, ?2, 'making', ?3, ?4)";
    tx.execute(insert, params![id, to_sql(size), parent, operation.id()])?;
    Ok(())
}

/// Says that a layer's files are whole: as `open` or `sealed`.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn made(tx: &Transaction<'_>, id: &str, state: &str) -> Result<(), CloudError> {
    tx.execute("UPDATE layers SET state = ?2, operation = NULL WHERE id = ?1", params![id, state])?;
    Ok(())
}

/// The layers of a disk whose top is `id`, the lowest first.
///
/// # Errors
/// [`CloudError::Damaged`] where one is not there; [`CloudError::Catalogue`].
pub fn chain(db: &Connection, id: &str) -> Result<Vec<Layer>, CloudError> {
    let mut query = db.prepare_cached(
        "WITH RECURSIVE below (id, size, parent, depth) AS (
             SELECT id, size, parent, 0 FROM layers WHERE id = ?1
             UNION ALL
             SELECT layers.id, layers.size, layers.parent, depth + 1 FROM layers JOIN below ON layers.id = below.parent
             LIMIT 100000)
         SELECT id, size FROM below ORDER BY depth DESC",
    )?;
    let layers = query.query_map([id], |row| Ok(Layer { id: row.get(0)?, size: from_sql(row.get(1)?) }))?;
    let layers: Vec<Layer> = layers.collect::<Result<_, _>>()?;
    if layers.is_empty() {
        return Err(CloudError::Damaged(format!("the catalogue has no layer {id}, which something is made of")));
    }
    Ok(layers)
}

/// Marks every layer dead that nobody needs. A deregistered kernel is needed by instances that start from it.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn mark_dead(tx: &Transaction<'_>) -> Result<(), CloudError> {
    let mut forget = tx.prepare_cached(
        "UPDATE images SET template = NULL WHERE state = 'deregistered' AND template IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM instances
                 WHERE state <> 'terminated' AND (instances.kernel = images.id OR instances.ramdisk = images.id))",
    )?;
    forget.execute([])?;
    let mut mark = tx.prepare_cached(
        "UPDATE layers SET state = 'dead', parent = NULL WHERE state <> 'dead' AND operation IS NULL
             AND NOT EXISTS (SELECT 1 FROM snapshots WHERE layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM started_snapshots WHERE layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM volumes WHERE layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM images WHERE template = layers.id)
             AND NOT EXISTS (SELECT 1 FROM instance_store WHERE layer = layers.id)
             AND NOT EXISTS (SELECT 1 FROM layers AS child WHERE child.parent = layers.id)",
    )?;
    // One may free the one below it.
    while mark.execute([])? > 0 {}
    Ok(())
}

/// Ids of dead layers, whose files can go.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn dead(db: &Connection) -> Result<Vec<String>, CloudError> {
    let mut query = db.prepare_cached("SELECT id FROM layers WHERE state = 'dead'")?;
    let ids = query.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Ids of layers whose files are whole.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn whole(db: &Connection) -> Result<Vec<String>, CloudError> {
    let mut query = db.prepare("SELECT id FROM layers WHERE state IN ('open', 'sealed') ORDER BY id")?;
    let ids = query.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Forgets a dead layer, whose files are gone.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn forget(tx: &Transaction<'_>, id: &str) -> Result<(), CloudError> {
    tx.execute("DELETE FROM layers WHERE id = ?1 AND state = 'dead'", [id])?;
    Ok(())
}

/// A layer that only one other needs, which can take it in: both are sealed and in no operation.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn mergeable(db: &Connection) -> Result<Option<(Layer, Layer)>, CloudError> {
    let query = "SELECT lower.id, lower.size, upper.id, upper.size
         FROM layers AS lower JOIN layers AS upper ON upper.parent = lower.id
         WHERE lower.state = 'sealed' AND upper.state = 'sealed' AND lower.operation IS NULL AND upper.operation IS NULL
             AND NOT EXISTS (SELECT 1 FROM snapshots WHERE layer = lower.id)
             AND NOT EXISTS (SELECT 1 FROM images WHERE template = lower.id)
             AND (SELECT count(*) FROM layers AS child WHERE child.parent = lower.id) = 1
         LIMIT 1";
    let layer = |id, size| -> Layer { Layer { id, size: from_sql(size) } };
    let found = db
        .query_row(query, [], |row| Ok((layer(row.get(0)?, row.get(1)?), layer(row.get(2)?, row.get(3)?))))
        .optional()?;
    Ok(found)
}

/// Writes down that two layers are being put together, unless another process has begun that, or something needs the lower
/// one again.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn begin_merge(
    tx: &Transaction<'_>,
    pair: &[Layer; 2],
    merged: &str,
    operation: &Operation,
) -> Result<bool, CloudError> {
    let [lower, upper] = pair;
    if mergeable(tx)?.is_none_or(|(now_lower, now_upper)| now_lower != *lower || now_upper != *upper) {
        return Ok(false);
    }
    insert(tx, merged, upper.size, None, operation)?;
    let mark = "UPDATE layers SET operation = ?3 WHERE id IN (?1, ?2)";
    tx.execute(mark, params![lower.id, upper.id, operation.id()])?;
    Ok(true)
}

/// Puts `merged` in the place of `upper` and of the layer below it.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub fn replace(tx: &Transaction<'_>, lower: &str, upper: &str, merged: &str) -> Result<(), CloudError> {
    tx.execute(
        "UPDATE layers SET state = 'sealed', operation = NULL, parent = (SELECT parent FROM layers WHERE id = ?2)
         WHERE id = ?1",
        [merged, lower],
    )?;
    for change in [
        "UPDATE layers SET parent = ?1 WHERE parent = ?2",
        "UPDATE snapshots SET layer = ?1 WHERE layer = ?2",
        "UPDATE images SET template = ?1 WHERE template = ?2",
    ] {
        tx.execute(change, [merged, upper])?;
    }
    tx.execute("UPDATE layers SET operation = NULL WHERE id IN (?1, ?2)", [lower, upper])?;
    mark_dead(tx)
}

/// A size for the catalogue, whose numbers have a sign.
pub(super) fn to_sql(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A size of the catalogue.
pub(super) fn from_sql(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}
