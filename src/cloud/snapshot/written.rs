//! Snapshots that are written block by block: started, filled, completed, or given up.
//!
//! Each block may come from another process. Whoever writes one takes a turn at the layer, writes it, makes it durable, and
//! only then writes down that it is there, with its checksum; what was acknowledged is there whatever ends next. A block that
//! was not acknowledged may be in the layer or not, and is written again. Whoever completes the snapshot takes a turn, too,
//! so that nobody is about to write.

use std::io;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use sha2::{Digest, Sha256};
use vm_memory::VolatileSlice;

use super::blocks::{BLOCK, range};
use super::{New, Snapshot, check_owner, complete, fail, insert, visible};
use crate::cloud::error::CloudError;
use crate::cloud::id::{Id, Kind};
use crate::cloud::mapping::GIB;
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::cloud::token::Token;
use crate::cloud::{Cloud, layer, time};
use crate::disk::Disk;

/// GiB that a snapshot can have.
const SIZES: std::ops::RangeInclusive<u64> = 1..=64 << 10;
/// Minutes that a snapshot can wait for its next block.
const TIMEOUTS: std::ops::RangeInclusive<u32> = 10..=4320;
/// The same where nothing is said.
const DEFAULT_TIMEOUT: u32 = 60;
/// Milliseconds of a minute.
const MINUTE: i64 = 60_000;

/// A snapshot that is to be written block by block ("StartSnapshot").
#[derive(Clone, Debug, Default)]
pub struct StartRequest {
    /// GiB, 1 to 65536; at least those of the parent.
    pub size: u64,
    /// A completed snapshot of the caller's: blocks that are not written are as they are there. Else they are zero.
    pub parent: Option<String>,
    /// What is said of it.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
    /// Minutes without a block after which it is given up, 10 to 4320; 60 where not said.
    pub timeout: Option<u32>,
    /// Another request with this token and the same content starts nothing more.
    pub client_token: Option<String>,
}

/// A snapshot that is being written.
struct Started {
    snapshot: Snapshot,
    layer: String,
}

impl Cloud {
    /// Starts a snapshot that is written block by block; it is `pending` until it is completed, or given up.
    ///
    /// # Errors
    /// `InvalidParameterValue`; of the parent `InvalidSnapshot.NotFound`, `UnauthorizedOperation`, `IncorrectState`;
    /// `IdempotentParameterMismatch`.
    pub fn start_snapshot(&mut self, request: &StartRequest) -> Result<Snapshot, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        let timeout = check(request)?;
        let size = request.size.saturating_mul(GIB);
        let token = Token::new("StartSnapshot", request.client_token.as_deref(), request)?;
        let id = self.operation(
            "start-snapshot",
            |tx, operation| {
                if let Some(before) = token.made_one(tx, &scope)? {
                    return Ok((before, None));
                }
                let below = request.parent.as_deref().map(|id| parent(tx, &scope, id, request.size)).transpose()?;
                let id = Id::new(Kind::Snapshot).map_err(CloudError::host(home.root(), "cannot make an id"))?;
                let layer = layer::new_id(&home)?;
                layer::insert(tx, &layer, size, below.as_deref(), operation)?;
                let new = New { id: &id, volume: None, size_gib: request.size, description: &request.description };
                insert(tx, &scope, &new, operation.id())?;
                let insert =
                    "INSERT INTO started_snapshots (snapshot, layer, patience, touched) VALUES (?1, ?2, ?3, ?4)";
                tx.execute(insert, params![id, layer, i64::from(timeout) * MINUTE, time::now()])?;
                tag::add(tx, &id, &request.tags)?;
                token.keep(tx, &scope, &[&id], Some(operation))?;
                Ok((id.to_string(), Some(layer)))
            },
            |cloud, operation, (id, layer)| {
                if let Some(layer) = &layer {
                    cloud.store().create(layer, size)?;
                }
                cloud.catalogue.write(|tx| {
                    if let Some(layer) = &layer {
                        layer::made(tx, layer, "open")?;
                        tx.execute("UPDATE snapshots SET operation = NULL WHERE id = ?1", [&id])?;
                    }
                    operation.finish(tx)?;
                    Ok(id)
                })
            },
        )?;
        self.catalogue.read(|tx| visible(tx, &scope, &id))
    }

    /// Writes a block of a snapshot that was started, durably. It can be written again, as long as the snapshot is pending.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`, `UnauthorizedOperation`, `IncorrectState` for one that is not being written;
    /// `InvalidParameterValue` for a block beyond its end, or not of [`BLOCK`] bytes; `InsufficientVolumeCapacity`.
    pub fn put_snapshot_block(
        &mut self,
        id: &str,
        index: u32,
        block: &[u8],
        checksum: [u8; 32],
    ) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        let Started { snapshot, layer } = self.catalogue.read(|tx| started(tx, &scope, id))?;
        let range = range(&snapshot, index)?;
        if block.len() as u64 != BLOCK {
            return Err(CloudError::value(format!("a block has {BLOCK} bytes, and this one {}", block.len())));
        }
        let turn = self.store().turn(&layer)?;
        self.check_room()?;
        // Its own copy: the disk's buffers are memory that may change.
        let mut bytes = block.to_vec();
        let disk = self.store().open_alone(&turn, &layer, snapshot.volume_size.saturating_mul(GIB))?;
        let written = disk.write_at(range.start, &[VolatileSlice::from(&mut bytes[..])]).and_then(|()| disk.flush());
        drop(disk);
        written.map_err(|error| self.of_write(id, error))?;
        self.catalogue.write(|tx| {
            // It may have been given up meanwhile.
            let now = started(tx, &scope, id)?.snapshot;
            let insert = "INSERT OR REPLACE INTO written_blocks (snapshot, block, checksum) VALUES (?1, ?2, ?3)";
            tx.execute(insert, params![now.snapshot_id, index, checksum])?;
            let touch = "UPDATE started_snapshots SET touched = ?2 WHERE snapshot = ?1";
            tx.execute(touch, params![now.snapshot_id, time::now()])?;
            Ok(())
        })
    }

    /// Completes a snapshot that was started: it never changes again. `count` is the number of blocks that were written;
    /// `checksum`, where it is given, the SHA-256 of their checksums one after the other, in the order of the blocks
    /// ("LINEAR").
    ///
    /// # Errors
    /// As [`Cloud::put_snapshot_block`]; `InvalidParameterValue` where count or checksum are not those of what was written.
    pub fn complete_snapshot(
        &mut self,
        id: &str,
        count: u32,
        checksum: Option<[u8; 32]>,
    ) -> Result<Snapshot, CloudError> {
        let scope = self.scope.clone();
        let layer = self.catalogue.read(|tx| started(tx, &scope, id))?.layer;
        let turn = self.store().turn(&layer)?;
        self.catalogue.read(|tx| {
            let snapshot = started(tx, &scope, id)?.snapshot;
            check_written(tx, &snapshot.snapshot_id, count, checksum)
        })?;
        self.store().seal_alone(&turn, &layer)?;
        self.catalogue.write(|tx| {
            let snapshot = started(tx, &scope, id)?.snapshot;
            layer::made(tx, &layer, "sealed")?;
            complete(tx, &snapshot.snapshot_id, &layer)?;
            tx.execute("DELETE FROM started_snapshots WHERE snapshot = ?1", [&snapshot.snapshot_id])?;
            visible(tx, &scope, id)
        })
    }

    /// Refuses a block that there is no room for.
    fn check_room(&self) -> Result<(), CloudError> {
        let have = self.home.free_for_layers()?;
        if have >= BLOCK {
            return Ok(());
        }
        Err(CloudError::NoSpace { path: self.home.root().to_owned(), need: BLOCK, have })
    }

    /// What the host said of a block that it did not write.
    fn of_write(&self, id: &str, error: io::Error) -> CloudError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let have = self.home.free_for_layers().unwrap_or(0);
                CloudError::NoSpace { path: self.home.root().to_owned(), need: BLOCK, have }
            }
            _ => CloudError::host(id, "cannot write the block")(error),
        }
    }
}

/// The minutes of the request's patience.
fn check(request: &StartRequest) -> Result<u32, CloudError> {
    let (size, timeout) = (request.size, request.timeout.unwrap_or(DEFAULT_TIMEOUT));
    if !SIZES.contains(&size) {
        return Err(CloudError::value(format!("Value ({size}) for parameter volumeSize is invalid: 1 to 65536 GiB")));
    }
    if !TIMEOUTS.contains(&timeout) {
        return Err(CloudError::value(format!(
            "Value ({timeout}) for parameter timeout is invalid: 10 to 4320 minutes"
        )));
    }
    Ok(timeout)
}

/// The top layer of a parent.
fn parent(tx: &Transaction<'_>, scope: &Scope, id: &str, size: u64) -> Result<String, CloudError> {
    let parent = visible(tx, scope, id)?;
    check_owner(&parent, &scope.account)?;
    if parent.volume_size > size {
        return Err(CloudError::value(format!(
            "Value ({size}) for parameter volumeSize is invalid: the parent {id} has {} GiB",
            parent.volume_size
        )));
    }
    let why = format!("it is {}, not completed", parent.state);
    parent.layer.ok_or(CloudError::State { what: id.to_owned(), why })
}

/// A snapshot of the caller's that is being written.
fn started(db: &Connection, scope: &Scope, id: &str) -> Result<Started, CloudError> {
    let snapshot = visible(db, scope, id)?;
    check_owner(&snapshot, &scope.account)?;
    let select = "SELECT started_snapshots.layer FROM started_snapshots JOIN snapshots ON id = snapshot
         WHERE snapshot = ?1 AND snapshots.operation IS NULL AND touched + patience >= ?2";
    let layer = db.query_row(select, params![snapshot.snapshot_id, time::now()], |row| row.get(0)).optional()?;
    match layer {
        Some(layer) => Ok(Started { snapshot, layer }),
        None => {
            let why = match snapshot.state.as_str() {
                "pending" => "it is pending, but not to be written by block".to_owned(),
                state => format!("it is {state}, and no block is written any more"),
            };
            Err(CloudError::State { what: snapshot.snapshot_id.to_string(), why })
        }
    }
}

/// Whether what was written is what the caller says.
fn check_written(db: &Connection, id: &Id, count: u32, checksum: Option<[u8; 32]>) -> Result<(), CloudError> {
    let mut query = db.prepare_cached("SELECT checksum FROM written_blocks WHERE snapshot = ?1 ORDER BY block")?;
    let mut rows = query.query([id])?;
    let (mut found, mut linear) = (0u64, Sha256::new());
    while let Some(row) = rows.next()? {
        found += 1;
        linear.update(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    }
    if found != u64::from(count) {
        return Err(CloudError::value(format!(
            "Value ({count}) for parameter changedBlocksCount is invalid: {found} blocks of {id} were written"
        )));
    }
    if checksum.is_some_and(|checksum| checksum != *linear.finalize()) {
        return Err(CloudError::value(format!("the checksum is not that of the blocks of {id} that were written")));
    }
    Ok(())
}

/// Whether snapshots that were started wait for their next block for longer than they may.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn is_abandoned(db: &Connection) -> Result<bool, CloudError> {
    let query = format!("SELECT EXISTS (SELECT 1 FROM {ABANDONED})");
    Ok(db.query_row(&query, [time::now()], |row| row.get(0))?)
}

const ABANDONED: &str = "started_snapshots JOIN snapshots ON id = snapshot
    WHERE snapshots.operation IS NULL AND touched + patience < ?1";

/// Gives those up: they are of no use to anybody, and what was written to them goes.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn give_up(tx: &Transaction<'_>) -> Result<(), CloudError> {
    let mut query = tx.prepare(&format!("SELECT snapshot FROM {ABANDONED}"))?;
    let found = query.query_map([time::now()], |row| row.get(0))?;
    for id in found.collect::<Result<Vec<Id>, _>>()? {
        fail(tx, &id, "it was not completed in time")?;
        tx.execute("DELETE FROM started_snapshots WHERE snapshot = ?1", [&id])?;
    }
    layer::mark_dead(tx)
}
