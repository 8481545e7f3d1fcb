//! Taking snapshots of volumes: at rest, or of a running machine.
//!
//! A volume's top layer becomes the snapshot, and a new one is put on it. The layer of a volume at rest is sealed here; a
//! running machine's process does it itself: it is given the new layer's open files, seals the old one and goes on in the
//! new. If this process is killed meanwhile, whether the old layer is sealed tells whether that was done ([`settle`]).

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::{New, Snapshot, complete, fail, insert, visible};
use crate::cloud::error::CloudError;
use crate::cloud::id::{Id, Kind};
use crate::cloud::instance;
use crate::cloud::mapping::GIB;
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::store::Store;
use crate::cloud::tag::{self, Tags};
use crate::cloud::volume::{self, Volume};
use crate::cloud::{Begun, Cloud, layer};
use crate::disk::layered::LayerFiles;
use crate::monitor::protocol::FileSystems;

/// How often it is looked whether a machine's process has done what a dead one asked for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often at the most: others wait meanwhile. The next command looks again.
const LOOKS: u32 = 200;

/// What was made of snapshots that were taken.
#[derive(Clone, Debug)]
pub struct Taken<T> {
    /// This.
    pub made: T,
    /// What the file systems of each running instance were meanwhile.
    pub file_systems: Vec<(Id, FileSystems)>,
}

/// A snapshot that is being taken.
#[derive(Clone, Debug)]
pub(in crate::cloud) struct Taking {
    /// The snapshot.
    pub snapshot: Id,
    /// Its volume.
    pub volume: Id,
    /// GiB.
    pub size_gib: u64,
    /// The layer that becomes the snapshot.
    pub old: String,
    /// The one that the volume goes on in.
    pub new: String,
}

/// Writes down that snapshots of volumes are being taken.
///
/// # Errors
/// `IncorrectState` for a volume that something else works on.
pub(in crate::cloud) fn begin(
    tx: &Transaction<'_>,
    cloud_home: &crate::cloud::home::Home,
    scope: &Scope,
    volumes: &[Volume],
    description: &str,
    operation: &Operation,
) -> Result<Vec<Taking>, CloudError> {
    let mut all = Vec::new();
    for volume in volumes {
        volume::check_idle(volume)?;
        let damaged = || CloudError::Damaged(format!("the catalogue knows no layer of {}", volume.volume_id));
        let old = volume.layer.clone().ok_or_else(damaged)?;
        let snapshot = Id::new(Kind::Snapshot).map_err(CloudError::host(cloud_home.root(), "cannot make an id"))?;
        let new = layer::new_id(cloud_home)?;
        let size = volume.size.saturating_mul(GIB);
        layer::insert(tx, &new, size, Some(&old), operation)?;
        let row = New { id: &snapshot, volume: Some(&volume.volume_id), size_gib: volume.size, description };
        insert(tx, scope, &row, operation.id())?;
        tx.execute("UPDATE volumes SET operation = ?2 WHERE id = ?1", params![volume.volume_id, operation.id()])?;
        all.push(Taking { snapshot, volume: volume.volume_id.clone(), size_gib: volume.size, old, new });
    }
    Ok(all)
}

/// Writes down that they were taken.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn taken(tx: &Transaction<'_>, all: &[Taking]) -> Result<(), CloudError> {
    for taking in all {
        swap(tx, &taking.volume, &taking.old, &taking.new)?;
        complete(tx, &taking.snapshot, &taking.old)?;
    }
    Ok(())
}

/// Puts the new layer on the old one.
fn swap(tx: &Transaction<'_>, volume: &Id, old: &str, new: &str) -> Result<(), CloudError> {
    layer::made(tx, old, "sealed")?;
    layer::made(tx, new, "open")?;
    tx.execute("UPDATE volumes SET layer = ?2, operation = NULL WHERE id = ?1", params![volume, new])?;
    Ok(())
}

/// What a dead process left of snapshots that it was taking: where the machine's process did what it was asked for, the
/// volume goes on in the new layer. (The snapshots themselves were never told to anybody.) Tells whether that is known: as
/// long as the process has the new layer and has not sealed the old one, it may still do it, and nothing is to be undone.
///
/// # Errors
/// What the catalogue or the host says.
pub(in crate::cloud) fn settle(tx: &Transaction<'_>, store: &Store<'_>, operation: &str) -> Result<bool, CloudError> {
    let mut query = tx.prepare(
        "SELECT volumes.id, old.id, new.id FROM volumes JOIN layers AS old ON old.id = volumes.layer
             JOIN layers AS new ON new.parent = old.id
         WHERE volumes.operation = ?1 AND new.operation = ?1 AND new.state = 'making'",
    )?;
    let found = query.query_map([operation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let found: Vec<(Id, String, String)> = found.collect::<Result<_, _>>()?;
    for (volume, old, new) in found {
        // Whoever was given the new layer holds its lock; nobody does: nobody will use it.
        let mut looks = 0;
        while looks < LOOKS && !store.is_sealed(&old)? && store.is_in_use(&new)? {
            looks += 1;
            std::thread::sleep(LOOK_AGAIN);
        }
        if store.is_sealed(&old)? {
            swap(tx, &volume, &old, &new)?;
        } else if looks == LOOKS {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Cloud {
    /// Takes snapshots of volumes, also of those that running machines have: what a machine had flushed before is in them, and
    /// where its guest's agent has frozen the file systems, all that was written to these.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`, `IncorrectState`; what the host or the machine's process says.
    pub fn create_snapshots(
        &mut self,
        volumes: &[String],
        description: &str,
        tags: &Tags,
    ) -> Result<Taken<Vec<Snapshot>>, CloudError> {
        self.snapshots_of(volumes, description, tags, None)
    }

    /// The same; `begun` is told of the pending snapshots. Where they cannot be taken, they are in the state `error` afterwards,
    /// since they were told of.
    ///
    /// # Errors
    /// As [`Cloud::create_snapshots`].
    pub fn create_snapshots_with(
        &mut self,
        volumes: &[String],
        description: &str,
        tags: &Tags,
        begun: &mut Begun<'_, Vec<Snapshot>>,
    ) -> Result<Taken<Vec<Snapshot>>, CloudError> {
        self.snapshots_of(volumes, description, tags, Some(begun))
    }

    fn snapshots_of(
        &mut self,
        volumes: &[String],
        description: &str,
        tags: &Tags,
        begun: Option<&mut Begun<'_, Vec<Snapshot>>>,
    ) -> Result<Taken<Vec<Snapshot>>, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.operation(
            "create-snapshot",
            |tx, operation| {
                let volumes: Vec<Volume> =
                    volumes.iter().map(|id| volume::own(tx, &scope, id)).collect::<Result<_, _>>()?;
                let mut seen = BTreeSet::new();
                if let Some(twice) = volumes.iter().map(|volume| &volume.volume_id).find(|id| !seen.insert(*id)) {
                    return Err(CloudError::value(format!("The volume '{twice}' is there twice")));
                }
                // Nor do they start or end meanwhile.
                let machines: BTreeSet<&Id> =
                    volumes.iter().flat_map(|volume| &volume.attachments).map(|at| &at.instance_id).collect();
                for machine in machines {
                    instance::check_idle(&instance::any(tx, machine.as_str())?)?;
                    instance::claim(tx, machine, operation)?;
                }
                let all = begin(tx, &home, &scope, &volumes, description, operation)?;
                all.iter().try_for_each(|taking| tag::add(tx, &taking.snapshot, tags))?;
                let machines = volumes.iter().map(|volume| volume.attachments.first().map(|at| at.instance_id.clone()));
                Ok(machines.zip(all).collect::<Vec<_>>())
            },
            |cloud, operation, all| {
                let takings: Vec<Taking> = all.iter().map(|(_, taking)| taking.clone()).collect();
                let is_told = begun.is_some();
                if let Some(begun) = begun {
                    begun(&cloud.of(&takings)?);
                }
                let file_systems = match cloud.take(&all) {
                    Err(error) if is_told => {
                        let why = format!("Server.InternalError: {error}");
                        cloud.catalogue.write(|tx| takings.iter().try_for_each(|one| fail(tx, &one.snapshot, &why)))?;
                        return Err(error);
                    }
                    taken => taken?,
                };
                cloud.catalogue.write(|tx| {
                    taken(tx, &takings)?;
                    instance::release(tx, operation)?;
                    operation.finish(tx)
                })?;
                Ok(Taken { made: cloud.of(&takings)?, file_systems })
            },
        )
    }

    /// The snapshots that are being taken, or were.
    fn of(&mut self, all: &[Taking]) -> Result<Vec<Snapshot>, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| all.iter().map(|taking| visible(tx, &scope, taking.snapshot.as_str())).collect())
    }

    /// Makes the new layers and seals the old ones; of volumes that running machines have, their processes do that. Tells what
    /// the file systems of these were.
    ///
    /// # Errors
    /// What the host or the processes say.
    pub(in crate::cloud) fn take(
        &mut self,
        all: &[(Option<Id>, Taking)],
    ) -> Result<Vec<(Id, FileSystems)>, CloudError> {
        let mut made: Vec<(Option<&Id>, &Taking, LayerFiles)> = Vec::new();
        for (machine, taking) in all {
            let files = self.store().create(&taking.new, taking.size_gib.saturating_mul(GIB))?;
            let machine = match machine {
                Some(id) if self.runs(id)? => Some(id),
                _ => None,
            };
            made.push((machine, taking, files));
        }
        for (_, taking, _) in made.iter().filter(|(machine, ..)| machine.is_none()) {
            self.store().seal(&taking.old)?;
        }
        let mut machines: Vec<&Id> = made.iter().filter_map(|(machine, ..)| *machine).collect();
        machines.sort_unstable();
        machines.dedup();
        let mut file_systems = Vec::new();
        for machine in machines {
            let of_it: Vec<_> = made.iter().filter(|(of, ..)| *of == Some(machine)).collect();
            let requests: Vec<_> = of_it
                .iter()
                .map(|(_, taking, files)| {
                    let (data, map) = files.fds();
                    (taking.volume.as_str(), [data, map])
                })
                .collect();
            file_systems.push((machine.clone(), self.ask_for_snapshots(machine, &requests)?));
        }
        Ok(file_systems)
    }
}
