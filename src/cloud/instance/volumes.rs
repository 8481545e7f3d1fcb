//! Volumes that come to instances and go from them, also while their machines run.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::life::check_idle;
use super::machine::Files;
use super::reach::monitor;
use super::{Instance, own, state, truth};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::Id;
use crate::cloud::mapping::GIB;
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::volume::{self, Attachment, Volume};
use crate::launch::bdm::DeviceName;
use crate::monitor::client::{Client, ClientError};
use crate::monitor::config::VolumeConfig;
use crate::monitor::protocol::FailureKind;

/// How long a guest may take to let go of a volume before that is told.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most volumes of an instance: as on EC2's Nitro, 28 attachments, of which its network interface is one.
const MAX_VOLUMES: usize = 27;

impl Cloud {
    /// Attaches a volume to an instance: a running HVM one sees it at once.
    ///
    /// # Errors
    /// `VolumeInUse`, `InvalidVolume.ZoneMismatch`, `InvalidParameterValue` for a device that is none or taken,
    /// `IncorrectInstanceState`, `UnsupportedOperation` where the machine cannot.
    pub fn attach_volume(&mut self, volume: &str, instance: &str, device: &str) -> Result<Attachment, CloudError> {
        let scope = self.scope.clone();
        self.operation(
            "attach-volume",
            |tx, operation| {
                let (volume, instance) = (volume::own(tx, &scope, volume)?, own(tx, &scope, instance)?);
                check_attach(tx, &volume, &instance, device)?;
                volume::attach(tx, &volume.volume_id, &instance.instance_id, device, false, "attaching")?;
                claim(tx, &volume.volume_id, &instance.instance_id, operation)?;
                Ok((volume, instance))
            },
            |cloud, operation, (volume, instance)| {
                if instance.has_machine() {
                    cloud.plug(&volume, &instance, device)?;
                }
                cloud.catalogue.write(|tx| {
                    volume::set_attachment(tx, &volume.volume_id, "attached")?;
                    release(tx, operation)?;
                    operation.finish(tx)?;
                    attachment(tx, &scope, &volume.volume_id)
                })
            },
        )
    }

    fn plug(&self, volume: &Volume, instance: &Instance, device: &str) -> Result<(), CloudError> {
        let id = &instance.instance_id;
        let _hold = self.store().hold_shared()?;
        let layer = volume.layer.as_deref().unwrap_or_default();
        let config = VolumeConfig {
            device: device.to_owned(),
            id: volume.volume_id.to_string(),
            read_only: false,
            ephemeral: None,
            source: self.layers(self.catalogue.connection(), layer, volume.size.saturating_mul(GIB))?,
        };
        let socket = Files::of(&self.home, id.as_str()).socket();
        let done = Client::connect(&socket).and_then(|mut client| client.plug(config));
        done.map_err(|error| monitor(id, &error))
    }

    /// Detaches a volume: from a running instance with the guest's consent, or with `force` without.
    ///
    /// # Errors
    /// `InvalidAttachment.NotFound`, `OperationNotPermitted` for the root of a running instance, `IncorrectState` where no
    /// instance has it or the guest does not let it go, `UnsupportedOperation` where the machine cannot.
    pub fn detach_volume(
        &mut self,
        volume: &str,
        instance: Option<&str>,
        force: bool,
    ) -> Result<Attachment, CloudError> {
        let scope = self.scope.clone();
        self.operation(
            "detach-volume",
            |tx, operation| {
                let volume = volume::own(tx, &scope, volume)?;
                volume::check_idle(&volume)?;
                let given = instance.map(|id| own(tx, &scope, id).map(|one| one.instance_id)).transpose()?;
                if volume.attachments.is_empty() {
                    let why = format!("it is in the '{}' state: no instance has it", volume.state);
                    return Err(CloudError::State { what: volume.volume_id.to_string(), why });
                }
                let found =
                    volume.attachments.first().filter(|at| given.as_ref().is_none_or(|id| *id == at.instance_id));
                let Some(found) = found.cloned() else {
                    let instance = given.map_or_else(|| "any".into(), |id| id.to_string());
                    return Err(CloudError::NotAttached { volume: volume.volume_id, instance });
                };
                let instance = own(tx, &scope, found.instance_id.as_str())?;
                check_idle(&instance)?;
                if instance.state == state::RUNNING && found.device == instance.root_device_name {
                    return Err(CloudError::Parameter {
                        code: "OperationNotPermitted",
                        message: format!("{} is the root of {}: stop it first", volume.volume_id, instance.instance_id),
                    });
                }
                if !matches!(instance.state.as_str(), state::RUNNING | state::STOPPED) {
                    let (id, state) = (instance.instance_id, instance.state);
                    return Err(CloudError::InstanceState { id, state, verb: "detached from" });
                }
                volume::set_attachment(tx, &volume.volume_id, "detaching")?;
                claim(tx, &volume.volume_id, &instance.instance_id, operation)?;
                Ok((found, instance))
            },
            |cloud, operation, (found, instance)| {
                if instance.has_machine() {
                    cloud.unplug(&found.volume_id, &instance.instance_id, force)?;
                }
                cloud.catalogue.write(|tx| {
                    volume::detach(tx, &found.volume_id)?;
                    release(tx, operation)?;
                    operation.finish(tx)
                })?;
                Ok(Attachment { state: "detached".into(), ..found })
            },
        )
    }

    fn unplug(&self, volume: &Id, instance: &Id, force: bool) -> Result<(), CloudError> {
        let socket = Files::of(&self.home, instance.as_str()).socket();
        let client = Client::connect(&socket).and_then(|client| client.with_patience(PATIENCE));
        match client.and_then(|mut client| client.unplug(volume.as_str(), force)) {
            Ok(()) | Err(ClientError::NotRunning { .. } | ClientError::Ended) => Ok(()),
            // The guest has let it go since it was last asked.
            Err(ClientError::Refused(failure)) if failure.kind == FailureKind::NotFound => Ok(()),
            Err(ClientError::Silent { .. }) => {
                let why = "the guest has not let it go (it was asked, and still may); try again, or --force".into();
                Err(CloudError::State { what: volume.to_string(), why })
            }
            Err(error) => Err(monitor(instance, &error)),
        }
    }

    /// Has the machine that a volume is at, if one runs, tell its guest how many bytes the volume has.
    ///
    /// # Errors
    /// `UnsupportedOperation` where the machine cannot; what the process says.
    pub(in crate::cloud) fn tell_size(&self, at: &Attachment, size: u64) -> Result<(), CloudError> {
        if !self.runs(&at.instance_id)? {
            return Ok(());
        }
        let socket = Files::of(&self.home, at.instance_id.as_str()).socket();
        let asked = Client::connect(&socket).and_then(|mut client| client.resize(at.volume_id.as_str(), size));
        asked.map_err(|error| monitor(&at.instance_id, &error))
    }
}

fn check_attach(tx: &Transaction<'_>, volume: &Volume, instance: &Instance, device: &str) -> Result<(), CloudError> {
    volume::check_idle(volume)?;
    check_idle(instance)?;
    if let Some(at) = volume.attachments.first() {
        let (volume, instance) = (volume.volume_id.clone(), at.instance_id.clone());
        return Err(CloudError::VolumeInUse { volume, instance });
    }
    if volume.availability_zone != instance.availability_zone {
        let (volume, instance) = (volume.volume_id.clone(), instance.instance_id.clone());
        return Err(CloudError::ZoneMismatch { volume, instance });
    }
    if !matches!(instance.state.as_str(), state::RUNNING | state::STOPPED) {
        let (id, state) = (instance.instance_id.clone(), instance.state.clone());
        return Err(CloudError::InstanceState { id, state, verb: "attached to" });
    }
    let name: DeviceName = device.parse().map_err(|error| CloudError::value(format!("{error}")))?;
    if name.as_str() != device {
        return Err(CloudError::value(format!("Value ({device}) for parameter device is invalid; write it as {name}")));
    }
    let is_own = "SELECT EXISTS (SELECT 1 FROM instance_store WHERE instance = ?1 AND device = ?2)";
    let is_own: bool = tx.query_row(is_own, params![instance.instance_id, device], |row| row.get(0))?;
    let is_taken = is_own || instance.block_device_mappings.iter().any(|at| at.device == device);
    if is_taken {
        return Err(CloudError::value(format!(
            "Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
        )));
    }
    if instance.block_device_mappings.len() >= MAX_VOLUMES {
        let message = format!("{} has {MAX_VOLUMES} volumes, and there is room for no more", instance.instance_id);
        return Err(CloudError::Parameter { code: "AttachmentLimitExceeded", message });
    }
    Ok(())
}

/// Notes that an operation works on a volume and on the instance that has it, or is to: that neither starts, ends nor goes
/// meanwhile.
pub(in crate::cloud) fn claim(
    tx: &Transaction<'_>,
    volume: &Id,
    instance: &Id,
    operation: &Operation,
) -> Result<(), CloudError> {
    claim_volume(tx, volume, operation)?;
    super::claim(tx, instance, operation)
}

/// The same for a volume that no instance has.
pub(in crate::cloud) fn claim_volume(
    tx: &Transaction<'_>,
    volume: &Id,
    operation: &Operation,
) -> Result<(), CloudError> {
    tx.execute("UPDATE volumes SET operation = ?2 WHERE id = ?1", params![volume, operation.id()])?;
    Ok(())
}

/// Notes that it does no longer.
pub(in crate::cloud) fn release(tx: &Transaction<'_>, operation: &Operation) -> Result<(), CloudError> {
    tx.execute("UPDATE volumes SET operation = NULL WHERE operation = ?1", [operation.id()])?;
    tx.execute("UPDATE instances SET operation = NULL WHERE operation = ?1", [operation.id()])?;
    Ok(())
}

/// What became of volumes that a dead process was bringing to instances or taking from them: the machine tells, where one
/// runs. Tells whether all is known: a machine that does not answer is asked again by the next command.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn settle_attachments(
    tx: &Transaction<'_>,
    home: &Home,
    operation: &str,
) -> Result<bool, CloudError> {
    let mut query = tx.prepare(
        "SELECT volume, instance, attachments.state = 'detaching' FROM attachments JOIN volumes ON volumes.id = volume
         WHERE operation = ?1 AND attachments.state IN ('attaching', 'detaching')",
    )?;
    let found = query.query_map([operation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let found: Vec<(Id, Id, bool)> = found.collect::<Result<_, _>>()?;
    for (volume, instance, was_detaching) in found {
        let is_there = match truth::status(&Files::of(home, instance.as_str())) {
            Ok(status) => status.volumes.iter().any(|one| one.id == volume.as_str()),
            // Without a machine nothing was done yet but to write it down.
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => was_detaching,
            Err(_) => return Ok(false),
        };
        if is_there {
            volume::set_attachment(tx, &volume, "attached")?;
        } else {
            volume::detach(tx, &volume)?;
        }
    }
    Ok(true)
}

fn attachment(tx: &Transaction<'_>, scope: &Scope, volume: &Id) -> Result<Attachment, CloudError> {
    let volume = volume::own(tx, scope, volume.as_str())?;
    let gone = || CloudError::Damaged(format!("{} is not where it was just put", volume.volume_id));
    volume.attachments.first().cloned().ok_or_else(gone)
}
