//! Volumes that become others: larger, of another kind, with other promises of speed; and the record of that.
//!
//! What a volume is to be is so from the first transaction on: a machine that is started then has it so. One that runs is
//! told of the size afterwards.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::{Volume, check_idle, check_size, own};
use crate::cloud::error::CloudError;
use crate::cloud::filter::{Filter, Filters};
use crate::cloud::id::Id;
use crate::cloud::instance::{self, volumes};
use crate::cloud::mapping::GIB;
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::{Cloud, layer, time};

/// What of a volume is to be other ("ModifyVolume"); the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeChange {
    /// GiB; no less than it has.
    pub size: Option<u64>,
    /// Its kind.
    pub volume_type: Option<String>,
    /// Requests a second.
    pub iops: Option<u64>,
    /// MiB a second.
    pub throughput: Option<u64>,
}

/// The last change of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeModification {
    /// The volume.
    pub volume_id: Id,
    /// `modifying`, `completed`.
    pub modification_state: String,
    /// GiB that it was to have.
    pub target_size: u64,
    /// The kind that it was to be of.
    pub target_volume_type: String,
    /// Requests a second, where that was said.
    pub target_iops: Option<u64>,
    /// MiB a second, where that was said.
    pub target_throughput: Option<u64>,
    /// GiB before.
    pub original_size: u64,
    /// Its kind before.
    pub original_volume_type: String,
    /// Requests a second before, where that was said.
    pub original_iops: Option<u64>,
    /// MiB a second before, where that was said.
    pub original_throughput: Option<u64>,
    /// Percent.
    pub progress: u8,
    /// When it was begun.
    pub start_time: String,
    /// When it was done.
    pub end_time: Option<String>,
}

const COLUMNS: &str = "volume, volume_modifications.state, target_size_gib, target_type, target_iops, target_throughput, original_size_gib,
    original_type, original_iops, original_throughput, volume_modifications.started, ended";

fn from_row(row: &Row<'_>) -> rusqlite::Result<VolumeModification> {
    let number = |value: Option<i64>| value.map(layer::from_sql);
    let state: String = row.get(1)?;
    Ok(VolumeModification {
        volume_id: row.get(0)?,
        progress: if state == "completed" { 100 } else { 0 },
        modification_state: state,
        target_size: layer::from_sql(row.get(2)?),
        target_volume_type: row.get(3)?,
        target_iops: number(row.get(4)?),
        target_throughput: number(row.get(5)?),
        original_size: layer::from_sql(row.get(6)?),
        original_volume_type: row.get(7)?,
        original_iops: number(row.get(8)?),
        original_throughput: number(row.get(9)?),
        start_time: time::format(row.get(10)?),
        end_time: row.get::<_, Option<i64>>(11)?.map(time::format),
    })
}

/// What the speed of a kind of volumes can be.
struct Speed {
    volume_type: &'static str,
    /// Requests a second, least and most; of which so many have to be said.
    iops: (u64, u64),
    /// Most of them for each GiB.
    iops_per_gib: u64,
    /// Whether they have to be said.
    has_to_say: bool,
    /// MiB a second, least and most, where they can be said.
    throughput: Option<(u64, u64)>,
}

/// Kinds whose speed can be said, with EC2's bounds.
const SPEEDS: [Speed; 3] = [
    Speed {
        volume_type: "gp3",
        iops: (3000, 80_000),
        iops_per_gib: 500,
        has_to_say: false,
        throughput: Some((125, 2000)),
    },
    Speed { volume_type: "io1", iops: (100, 64_000), iops_per_gib: 50, has_to_say: true, throughput: None },
    Speed { volume_type: "io2", iops: (100, 256_000), iops_per_gib: 1000, has_to_say: true, throughput: None },
];

/// What a volume is to be.
struct Target {
    size: u64,
    volume_type: String,
    iops: Option<u64>,
    throughput: Option<u64>,
}

impl Target {
    fn of(volume: &Volume, change: &VolumeChange) -> Result<Self, CloudError> {
        let volume_type = change.volume_type.clone().unwrap_or_else(|| volume.volume_type.clone());
        let size = change.size.unwrap_or(volume.size);
        check_size(&volume_type, size)?;
        if size < volume.size {
            return Err(CloudError::value(format!(
                "New size cannot be smaller than existing size: {} has {}GiB",
                volume.volume_id, volume.size
            )));
        }
        let speed = SPEEDS.iter().find(|speed| speed.volume_type == volume_type);
        let stays = volume_type == volume.volume_type;
        // What was said of another kind is not said of this one.
        let kept = |was: Option<u64>, can_be: bool| was.filter(|_| stays || can_be);
        let iops = change.iops.or(kept(volume.iops, speed.is_some()));
        let has_throughput = speed.is_some_and(|speed| speed.throughput.is_some());
        let throughput = change.throughput.or(kept(volume.throughput, has_throughput));
        let target = Self { size, volume_type, iops, throughput };
        if !stays || change.iops.is_some() || change.throughput.is_some() {
            target.check_speed(speed)?;
        }
        Ok(target)
    }

    fn check_speed(&self, speed: Option<&Speed>) -> Result<(), CloudError> {
        let kind = &self.volume_type;
        let not_said = |what: &str| {
            Err(CloudError::combination(format!("The parameter {what} is not supported for {kind} volumes.")))
        };
        let Some(speed) = speed else {
            return match (self.iops, self.throughput) {
                (Some(_), _) => not_said("iops"),
                (_, Some(_)) => not_said("throughput"),
                _ => Ok(()),
            };
        };
        let (least, most) = speed.iops;
        match self.iops {
            None if speed.has_to_say => {
                let message = format!("The parameter iops must be specified for {kind} volumes.");
                return Err(CloudError::Parameter { code: "MissingParameter", message });
            }
            Some(iops) if !(least..=most).contains(&iops) => {
                return Err(CloudError::value(format!(
                    "Volume iops of {iops} is invalid: {least} to {most} for {kind}"
                )));
            }
            Some(iops) if iops > self.size.saturating_mul(speed.iops_per_gib).max(least) => {
                return Err(CloudError::value(format!(
                    "Iops to volume size ratio is too high: {iops} for {} GiB; the most for {kind} is {} for each GiB",
                    self.size, speed.iops_per_gib
                )));
            }
            _ => {}
        }
        match (self.throughput, speed.throughput) {
            (Some(_), None) => not_said("throughput"),
            (Some(throughput), Some((least, most))) if !(least..=most).contains(&throughput) => Err(CloudError::value(
                format!("Volume throughput of {throughput} is invalid: {least} to {most} MiBps for {kind}"),
            )),
            (Some(throughput), _) if throughput.saturating_mul(4) > self.iops.unwrap_or(speed.iops.0) => {
                Err(CloudError::value(format!(
                    "Throughput (MiBps) to iops ratio is too high: {throughput} for {}; the most is 0.25",
                    self.iops.unwrap_or(speed.iops.0)
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Cloud {
    /// Makes another of a volume: larger, of another kind, with another speed; also while a machine uses it.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`, `IncorrectState`, `InvalidParameterValue`, `InvalidParameterCombination`, `MissingParameter`;
    /// `UnsupportedOperation` for magnetic volumes, and where the machine cannot tell its guest: then it is so all the same
    /// when the machine is started next.
    pub fn modify_volume(&mut self, volume: &str, change: &VolumeChange) -> Result<VolumeModification, CloudError> {
        let id = self.change_volume(volume, change, |volume| {
            let is_magnetic = |kind: &str| kind == "standard";
            if is_magnetic(&volume.volume_type) || change.volume_type.as_deref().is_some_and(is_magnetic) {
                let id = &volume.volume_id;
                return Err(CloudError::Unsupported(format!("{id}: a volume of type standard cannot be modified")));
            }
            Ok(())
        })?;
        self.catalogue.read(|tx| {
            let query = format!("SELECT {COLUMNS} FROM volume_modifications WHERE volume = ?1");
            Ok(tx.query_row(&query, [&id], from_row)?)
        })
    }

    /// Makes a volume larger, also while a machine uses it. Where its guest could not be told, it is larger all the same when
    /// the machine is started next.
    ///
    /// # Errors
    /// `InvalidParameterValue` for less than it has; `UnsupportedOperation` where the machine cannot tell its guest.
    pub fn grow_volume(&mut self, volume: &str, size_gib: u64) -> Result<Volume, CloudError> {
        let change = VolumeChange { size: Some(size_gib), ..VolumeChange::default() };
        let id = self.change_volume(volume, &change, |_| Ok(()))?;
        let scope = self.scope.clone();
        self.catalogue.read(|tx| own(tx, &scope, id.as_str()))
    }

    fn change_volume(
        &mut self,
        volume: &str,
        change: &VolumeChange,
        check: impl FnOnce(&Volume) -> Result<(), CloudError>,
    ) -> Result<Id, CloudError> {
        let scope = self.scope.clone();
        self.operation(
            "modify-volume",
            |tx, operation| {
                let volume = own(tx, &scope, volume)?;
                check_idle(&volume)?;
                check(&volume)?;
                let target = Target::of(&volume, change)?;
                claim(tx, &scope, &volume, operation)?;
                write(tx, &volume, &target, operation)?;
                Ok((volume, target))
            },
            |cloud, operation, (volume, target)| {
                if let Some(at) = volume.attachments.first().filter(|_| target.size > volume.size) {
                    cloud.tell_size(at, target.size.saturating_mul(GIB))?;
                }
                cloud.catalogue.write(|tx| {
                    settle(tx, operation.id())?;
                    volumes::release(tx, operation)?;
                    operation.finish(tx)
                })?;
                Ok(volume.volume_id)
            },
        )
    }

    /// The last changes of volumes of the caller's: of all that were changed, or of those of `ids`.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`; `InvalidVolumeModification.NotFound` for one that was never changed.
    pub fn volume_modifications(&mut self, ids: &[String]) -> Result<Vec<VolumeModification>, CloudError> {
        self.describe_volume_modifications(ids, &[])
    }

    /// Those that pass `filters` ("DescribeVolumesModifications").
    ///
    /// # Errors
    /// As [`Cloud::volume_modifications`]; what [`Filters::parse`] says.
    pub fn describe_volume_modifications(
        &mut self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<VolumeModification>, CloudError> {
        let filters = Filters::parse::<VolumeModification>(filters)?;
        let mut found = self.all_volume_modifications(ids)?;
        found.retain(|modification| filters.pass(modification));
        Ok(found)
    }

    fn all_volume_modifications(&mut self, ids: &[String]) -> Result<Vec<VolumeModification>, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            if !ids.is_empty() {
                return ids.iter().map(|id| of_volume(tx, &own(tx, &scope, id)?)).collect();
            }
            let query = format!(
                "SELECT {COLUMNS} FROM volume_modifications JOIN volumes ON volumes.id = volume
                 WHERE region = ?1 AND owner = ?2 ORDER BY volume_modifications.started, volume"
            );
            let mut query = tx.prepare(&query)?;
            let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }
}

fn of_volume(db: &Connection, volume: &Volume) -> Result<VolumeModification, CloudError> {
    let query = format!("SELECT {COLUMNS} FROM volume_modifications WHERE volume = ?1");
    let found = db.query_row(&query, [&volume.volume_id], from_row).optional()?;
    found.ok_or_else(|| CloudError::Parameter {
        code: "InvalidVolumeModification.NotFound",
        message: format!("Modification for volume '{}' does not exist.", volume.volume_id),
    })
}

/// Notes that an operation works on the volume, and on the instance that has it.
fn claim(tx: &Transaction<'_>, scope: &Scope, volume: &Volume, operation: &Operation) -> Result<(), CloudError> {
    match volume.attachments.first() {
        None => volumes::claim_volume(tx, &volume.volume_id, operation),
        Some(at) => {
            instance::check_idle(&instance::own(tx, scope, at.instance_id.as_str())?)?;
            volumes::claim(tx, &volume.volume_id, &at.instance_id, operation)
        }
    }
}

/// Writes down what the volume is from now on, and what it was.
fn write(tx: &Transaction<'_>, volume: &Volume, target: &Target, operation: &Operation) -> Result<(), CloudError> {
    let number = |value: Option<u64>| value.map(layer::to_sql);
    tx.execute(
        "INSERT OR REPLACE INTO volume_modifications (volume, state, original_size_gib, original_type, original_iops,
             original_throughput, target_size_gib, target_type, target_iops, target_throughput, started, operation)
         VALUES (?1, 'modifying', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            volume.volume_id,
            layer::to_sql(volume.size),
            volume.volume_type,
            number(volume.iops),
            number(volume.throughput),
            layer::to_sql(target.size),
            target.volume_type,
            number(target.iops),
            number(target.throughput),
            time::now(),
            operation.id()
        ],
    )?;
    // First: a layer that is smaller than its volume is made larger when it is opened, but one that is larger fits into no
    // disk.
    tx.execute(
        "UPDATE volumes SET size_gib = ?2, volume_type = ?3, iops = ?4, throughput = ?5 WHERE id = ?1",
        params![
            volume.volume_id,
            layer::to_sql(target.size),
            target.volume_type,
            number(target.iops),
            number(target.throughput)
        ],
    )?;
    let update = "UPDATE layers SET size = ?2 WHERE id = ?1";
    tx.execute(update, params![volume.layer, layer::to_sql(target.size.saturating_mul(GIB))])?;
    Ok(())
}

/// Says that a change is done: what it was about is so since it was written down, whether a guest could be told or not.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn settle(tx: &Transaction<'_>, operation: &str) -> Result<(), CloudError> {
    let update =
        "UPDATE volume_modifications SET state = 'completed', ended = ?2, operation = NULL WHERE operation = ?1";
    tx.execute(update, params![operation, time::now()])?;
    Ok(())
}
