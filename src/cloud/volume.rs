//! Volumes: disks that instances have, one at a time each.

mod modify;
mod query;
#[cfg(test)]
mod tests;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

pub(super) use query::attachments_of_all;

use super::error::CloudError;
use super::id::{Id, Kind};
use super::mapping::GIB;
use super::operation::Operation;
use super::scope::Scope;
use super::snapshot::{self, Snapshot};
use super::tag::{self, Tags};
use super::token::Token;
use super::{Cloud, layer, lookup, time, zone};

pub(super) use modify::settle as settle_modifications;
pub use modify::{VolumeChange, VolumeModification};

/// Kinds of volumes, with the least and the most GiB that EC2 gives each.
const TYPES: [(&str, u64, u64); 7] = [
    ("gp2", 1, 16 << 10),
    ("gp3", 1, 64 << 10),
    ("io1", 4, 16 << 10),
    ("io2", 4, 64 << 10),
    ("st1", 125, 16 << 10),
    ("sc1", 125, 16 << 10),
    ("standard", 1, 1 << 10),
];

/// The kind of volumes for which none is said.
pub const DEFAULT_TYPE: &str = "gp2";

/// A volume at an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The volume.
    pub volume_id: Id,
    /// The instance.
    pub instance_id: Id,
    /// The device, as in `/dev/sdf`.
    pub device: String,
    /// `attaching`, `attached`, `detaching`, `detached`.
    pub state: String,
    /// Since when.
    pub attach_time: String,
    /// Whether the volume goes when the instance does.
    pub delete_on_termination: bool,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// `vol-...`
    pub volume_id: Id,
    /// GiB.
    pub size: u64,
    /// The snapshot that it was made of, if it was.
    pub snapshot_id: Option<String>,
    /// Its zone.
    pub availability_zone: String,
    /// The zone's id, as in `use1-az1`.
    pub availability_zone_id: Option<String>,
    /// `creating`, `available`, `in-use`, `deleting`.
    pub state: String,
    /// `gp2` and so on.
    pub volume_type: String,
    /// Kept, and without meaning here.
    pub iops: Option<u64>,
    /// Kept, and without meaning here.
    pub throughput: Option<u64>,
    /// When it was made.
    pub create_time: String,
    /// Where it is attached.
    pub attachments: Vec<Attachment>,
    /// Its tags.
    pub tags: Tags,
    /// Who owns it.
    #[serde(skip)]
    pub(super) owner: String,
    /// Its layer that is written to.
    #[serde(skip)]
    pub(super) layer: Option<String>,
    /// The operation that works on it.
    #[serde(skip)]
    pub(super) operation: Option<String>,
}

const COLUMNS: &str =
    "id, size_gib, snapshot, zone, state, volume_type, iops, throughput, created, layer, operation, owner";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Volume> {
    let number = |value: Option<i64>| value.map(layer::from_sql);
    Ok(Volume {
        volume_id: row.get(0)?,
        size: layer::from_sql(row.get(1)?),
        snapshot_id: row.get(2)?,
        availability_zone: row.get(3)?,
        state: row.get(4)?,
        volume_type: row.get(5)?,
        iops: number(row.get(6)?),
        throughput: number(row.get(7)?),
        create_time: time::format(row.get(8)?),
        layer: row.get(9)?,
        operation: row.get(10)?,
        owner: row.get(11)?,
        availability_zone_id: None,
        attachments: Vec::new(),
        tags: Tags::new(),
    })
}

/// What a volume is to be.
#[derive(Clone, Debug, Default)]
pub struct VolumeRequest {
    /// GiB; at least those of the snapshot, and as many where not said.
    pub size: Option<u64>,
    /// What it is made of.
    pub snapshot_id: Option<String>,
    /// Its zone; the region's first where not said.
    pub zone: Option<String>,
    /// Its kind.
    pub volume_type: Option<String>,
    /// Kept.
    pub iops: Option<u64>,
    /// Kept.
    pub throughput: Option<u64>,
    /// Its tags.
    pub tags: Tags,
    /// Another request with this token and the same content makes nothing more.
    pub client_token: Option<String>,
}

/// A volume of the caller's, with its attachment and tags.
///
/// # Errors
/// `InvalidVolume.NotFound`.
pub(super) fn own(db: &Connection, scope: &Scope, given: &str) -> Result<Volume, CloudError> {
    let id = lookup::resolve(db, scope, Kind::Volume, "volumes", given)?;
    let query = format!("SELECT {COLUMNS} FROM volumes WHERE id = ?1 AND region = ?2 AND owner = ?3");
    let found = db.query_row(&query, params![id, scope.region, scope.account.as_str()], from_row).optional()?;
    let mut found = found.ok_or(CloudError::NotFound { kind: Kind::Volume, id })?;
    complete(db, &mut found)?;
    Ok(found)
}

fn complete(db: &Connection, volume: &mut Volume) -> Result<(), CloudError> {
    volume.tags = tag::of(db, &volume.volume_id)?;
    volume.availability_zone_id = zone::id(db, &volume.availability_zone)?;
    let mut query = db.prepare_cached(
        "SELECT volume, instance, device, state, attached, delete_on_termination FROM attachments WHERE volume = ?1",
    )?;
    let found = query.query_map([&volume.volume_id], attachment)?;
    volume.attachments = found.collect::<Result<_, _>>()?;
    Ok(())
}

fn attachment(row: &Row<'_>) -> rusqlite::Result<Attachment> {
    Ok(Attachment {
        volume_id: row.get(0)?,
        instance_id: row.get(1)?,
        device: row.get(2)?,
        state: row.get(3)?,
        attach_time: time::format(row.get(4)?),
        delete_on_termination: row.get(5)?,
    })
}

/// The volumes of an instance, in the order of their devices' names.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn of_instance(db: &Connection, instance: &Id) -> Result<Vec<(Attachment, Volume)>, CloudError> {
    let mut query = db.prepare_cached(
        "SELECT volume, instance, device, state, attached, delete_on_termination FROM attachments
         WHERE instance = ?1 ORDER BY device",
    )?;
    let attachments: Vec<Attachment> = query.query_map([instance], attachment)?.collect::<Result<_, _>>()?;
    let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM volumes WHERE id = ?1"))?;
    attachments
        .into_iter()
        .map(|attachment| {
            let volume = find.query_row([&attachment.volume_id], from_row)?;
            Ok((attachment, volume))
        })
        .collect()
}

/// A volume that is about to be made: what the request comes to.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub id: Id,
    pub size_gib: u64,
    pub snapshot: Option<Snapshot>,
    pub zone: String,
    pub volume_type: String,
    pub iops: Option<u64>,
    pub throughput: Option<u64>,
    /// The name of its layer.
    pub layer: String,
}

impl Plan {
    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        self.size_gib.saturating_mul(GIB)
    }
}

/// Checks a request against its snapshot and against what EC2's kinds of volumes allow.
///
/// # Errors
/// `InvalidParameterValue`, `MissingParameter`; `IncorrectState` for a snapshot that is not completed.
pub(super) fn plan(
    cloud_home: &super::home::Home,
    request: &VolumeRequest,
    snapshot: Option<Snapshot>,
    zone: String,
) -> Result<Plan, CloudError> {
    if let Some(pending) = snapshot.as_ref().filter(|snapshot| snapshot.state != "completed") {
        let why = format!("it is {}, not completed", pending.state);
        return Err(CloudError::State { what: pending.snapshot_id.to_string(), why });
    }
    let size_gib = match (request.size, &snapshot) {
        (Some(size), Some(snapshot)) if size < snapshot.volume_size => {
            return Err(CloudError::value(format!(
                "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {}GB",
                snapshot.snapshot_id, snapshot.volume_size
            )));
        }
        (Some(size), _) => size,
        (None, Some(snapshot)) => snapshot.volume_size,
        (None, None) => {
            let message = "The request must contain the parameter size/snapshot".to_owned();
            return Err(CloudError::Parameter { code: "MissingParameter", message });
        }
    };
    let volume_type = request.volume_type.clone().unwrap_or_else(|| DEFAULT_TYPE.into());
    check_size(&volume_type, size_gib)?;
    let id = Id::new(Kind::Volume).map_err(CloudError::host(cloud_home.root(), "cannot make an id"))?;
    let layer = layer::new_id(cloud_home)?;
    let VolumeRequest { iops, throughput, .. } = *request;
    Ok(Plan { id, size_gib, snapshot, zone, volume_type, iops, throughput, layer })
}

/// Refuses a kind of volumes that there is not, and a size that it does not have.
///
/// # Errors
/// `InvalidParameterValue`.
pub(super) fn check_size(volume_type: &str, size_gib: u64) -> Result<(), CloudError> {
    let known = TYPES.iter().find(|(name, ..)| *name == volume_type);
    let &(_, least, most) = known.ok_or_else(|| {
        let names = TYPES.map(|(name, ..)| name).join(", ");
        CloudError::value(format!("Invalid value '{volume_type}' for VolumeType; possible are {names}"))
    })?;
    if (least..=most).contains(&size_gib) {
        return Ok(());
    }
    Err(CloudError::value(format!(
        "Volume of {size_gib}GiB is invalid for type {volume_type}; must be between {least}GiB and {most}GiB"
    )))
}

/// Writes down a volume whose layer is about to be made.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn insert(
    tx: &Transaction<'_>,
    scope: &Scope,
    plan: &Plan,
    operation: &Operation,
) -> Result<(), CloudError> {
    let below = plan.snapshot.as_ref().and_then(|snapshot| snapshot.layer.as_deref());
    layer::insert(tx, &plan.layer, plan.size(), below, operation)?;
    tx.execute(
        "INSERT INTO volumes (id, region, owner, zone, layer, size_gib, snapshot, volume_type, iops, throughput, state,
             created, operation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'creating', ?11, ?12)",
        params![
            plan.id,
            scope.region,
            scope.account.as_str(),
            plan.zone,
            plan.layer,
            layer::to_sql(plan.size_gib),
            plan.snapshot.as_ref().map(|snapshot| &snapshot.snapshot_id),
            plan.volume_type,
            plan.iops.map(layer::to_sql),
            plan.throughput.map(layer::to_sql),
            time::now(),
            operation.id()
        ],
    )?;
    Ok(())
}

/// Says that a volume is whole: `available` or `in-use`.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn made(tx: &Transaction<'_>, plan: &Plan, state: &str) -> Result<(), CloudError> {
    layer::made(tx, &plan.layer, "open")?;
    tx.execute("UPDATE volumes SET state = ?2, operation = NULL WHERE id = ?1", params![plan.id, state])?;
    Ok(())
}

/// Takes a volume away, with its attachment. Its layers go where nobody else needs them.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn delete(tx: &Transaction<'_>, id: &Id) -> Result<(), CloudError> {
    tx.execute("DELETE FROM attachments WHERE volume = ?1", [id])?;
    tag::remove_all(tx, id)?;
    tx.execute("DELETE FROM volumes WHERE id = ?1", [id])?;
    layer::mark_dead(tx)
}

/// Notes that a volume is at an instance.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn attach(
    tx: &Transaction<'_>,
    volume: &Id,
    instance: &Id,
    device: &str,
    delete_on_termination: bool,
    state: &str,
) -> Result<(), CloudError> {
    tx.execute(
        "INSERT INTO attachments (volume, instance, device, delete_on_termination, state, attached)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![volume, instance, device, delete_on_termination, state, time::now()],
    )?;
    tx.execute("UPDATE volumes SET state = 'in-use' WHERE id = ?1", [volume])?;
    Ok(())
}

/// Notes how far a volume is on its way to an instance, or from it.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn set_attachment(tx: &Transaction<'_>, volume: &Id, state: &str) -> Result<(), CloudError> {
    tx.execute("UPDATE attachments SET state = ?2 WHERE volume = ?1", params![volume, state])?;
    Ok(())
}

/// Notes that a volume is at no instance any more.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn detach(tx: &Transaction<'_>, volume: &Id) -> Result<(), CloudError> {
    tx.execute("DELETE FROM attachments WHERE volume = ?1", [volume])?;
    tx.execute("UPDATE volumes SET state = 'available' WHERE id = ?1", [volume])?;
    Ok(())
}

/// EC2's word for a zone that there is not is another for volumes than for launches.
fn no_zone(error: CloudError, wanted: Option<&str>) -> CloudError {
    match (error, wanted) {
        (CloudError::Parameter { .. }, Some(zone)) => CloudError::Parameter {
            code: "InvalidZone.NotFound",
            message: format!("The zone '{zone}' does not exist."),
        },
        (error, _) => error,
    }
}

impl Cloud {
    /// Makes a volume: empty, or of a snapshot. It takes no room until it is written to.
    ///
    /// # Errors
    /// What [`plan`] says, `InvalidSnapshot.NotFound`, `IdempotentParameterMismatch`, and what the host says.
    pub fn create_volume(&mut self, request: &VolumeRequest) -> Result<Volume, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        let token = Token::new("CreateVolume", request.client_token.as_deref(), request)?;
        self.operation(
            "create-volume",
            |tx, operation| {
                if let Some(before) = token.made_one(tx, &scope)? {
                    return Ok((before, None));
                }
                zone::check_region(tx, &scope.region)?;
                let wanted = request.zone.as_deref();
                let zone = zone::choose(tx, &scope.region, wanted).map_err(|error| no_zone(error, wanted))?;
                let find = |id: &String| snapshot::visible(tx, &scope, &snapshot::resolve(tx, &scope, id)?);
                let snapshot = request.snapshot_id.as_ref().map(find).transpose()?;
                let plan = plan(&home, request, snapshot, zone)?;
                insert(tx, &scope, &plan, operation)?;
                tag::add(tx, &plan.id, &request.tags)?;
                token.keep(tx, &scope, &[&plan.id], Some(operation))?;
                Ok((plan.id.to_string(), Some(plan)))
            },
            |cloud, operation, (id, plan)| {
                if let Some(plan) = &plan {
                    cloud.store().create(&plan.layer, plan.size())?;
                }
                cloud.catalogue.write(|tx| {
                    if let Some(plan) = &plan {
                        made(tx, plan, "available")?;
                    }
                    operation.finish(tx)?;
                    own(tx, &scope, &id)
                })
            },
        )
    }

    /// Deletes a volume that no instance has.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`, `VolumeInUse`, `IncorrectState`.
    pub fn delete_volume(&mut self, id: &str) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let volume = own(tx, &scope, id)?;
            check_idle(&volume)?;
            if let Some(attachment) = volume.attachments.first() {
                let instance = attachment.instance_id.clone();
                return Err(CloudError::VolumeInUse { volume: volume.volume_id, instance });
            }
            delete(tx, &volume.volume_id)
        })?;
        self.tidy()
    }
}

/// Refuses a volume that something else works on.
///
/// # Errors
/// `IncorrectState`.
pub(super) fn check_idle(volume: &Volume) -> Result<(), CloudError> {
    if volume.operation.is_none() && volume.state != "creating" {
        return Ok(());
    }
    Err(CloudError::Busy { what: volume.volume_id.to_string(), state: volume.state.clone() })
}
