//! Instances: machines made of images, and the states that they pass through.
//!
//! ```text
//! pending -> running -> stopping -> stopped -> pending ...
//!               |  \                   |
//!               |   -> shutting-down ->|-> terminated
//! ```
//!
//! Each instance's machine is a process of its own (`crate::monitor`), which goes on whatever becomes of the one that
//! started it. What the catalogue says of a machine is compared with the truth whenever the catalogue is opened
//! ([`truth`]).

mod attributes;
mod backend;
mod filters;
mod life;
mod machine;
mod query;
mod reach;
mod run;
#[cfg(test)]
mod tests;
mod truth;
pub(super) mod volumes;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

pub use backend::Backend;
pub use life::{StateChange, StopRequest};
pub(super) use life::{check_idle, claim, release};
pub use run::{Launched, RunRequest};
pub(super) use truth::{Undone, undo};
pub(super) use volumes::settle_attachments;

use super::error::CloudError;
use super::id::{Id, Kind};
use super::network::NetworkInterface;
use super::scope::Scope;
use super::tag::{self, Tags};
use super::volume::{self, Attachment};
use super::{Cloud, lookup, network, time};
use crate::imds::Options;
use crate::launch::network::BackEnd;

/// States, as EC2 names them.
pub mod state {
    /// About to run.
    pub const PENDING: &str = "pending";
    /// Running.
    pub const RUNNING: &str = "running";
    /// Asked to stop.
    pub const STOPPING: &str = "stopping";
    /// Stopped; can be started again.
    pub const STOPPED: &str = "stopped";
    /// Asked to terminate.
    pub const SHUTTING_DOWN: &str = "shutting-down";
    /// Gone, and listed for a while.
    pub const TERMINATED: &str = "terminated";

    /// EC2's number of a state ("InstanceState", `code`).
    #[must_use]
    pub fn code(state: &str) -> u16 {
        match state {
            PENDING => 0,
            RUNNING => 16,
            SHUTTING_DOWN => 32,
            TERMINATED => 48,
            STOPPING => 64,
            _ => 80,
        }
    }
}

/// What EC2 calls the hypervisor of every instance, Nitro's too.
pub const HYPERVISOR: &str = "xen";

/// Why an instance is in its state ("StateReason").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateReason {
    /// EC2's code, as in `Client.UserInitiatedShutdown`.
    pub code: String,
    /// The same in words.
    pub message: String,
}

/// How a machine is started, beside what EC2 says of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineOptions {
    /// `virtio` or `nvme`: how an HVM guest sees its volumes.
    pub disk: Option<String>,
    /// `bios`, `uefi` or a file.
    pub firmware: Option<String>,
    /// Memory in bytes instead of the instance type's.
    pub memory: Option<u64>,
    /// Processors instead of the instance type's.
    pub cpus: Option<u32>,
    /// Words at the end of a PV guest's command line.
    pub append: Vec<String>,
    /// Its network; [`BackEnd::User`], or [`BackEnd::Isolated`] where the host has no program for that, if nothing is said.
    pub net: Option<BackEnd>,
    /// Ports of the host that lead to the guest, as in `8080:80` or `127.0.0.1:5353:53/udp`.
    pub forwards: Vec<String>,
    /// Gives the guest a disk with its metadata, for images that take them from nowhere else (cloud-init's NoCloud).
    pub seed_disk: bool,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// `i-...`
    pub instance_id: Id,
    /// What launched it, with others.
    pub reservation_id: Id,
    /// Its number among them.
    pub ami_launch_index: u32,
    /// Who owns it.
    pub owner_id: String,
    /// The image that it was launched from.
    pub image_id: String,
    /// As in `t3.micro`.
    pub instance_type: String,
    /// See [`state`].
    pub state: String,
    /// Why.
    pub state_reason: Option<StateReason>,
    /// When the last change of state was.
    pub state_transition_time: String,
    /// When it was launched, or last started.
    pub launch_time: String,
    /// Its zone.
    pub availability_zone: String,
    /// The zone's id, as in `use1-az1`.
    pub availability_zone_id: Option<String>,
    /// `i386`, `x86_64`.
    pub architecture: String,
    /// `hvm`, `paravirtual`.
    pub virtualization_type: String,
    /// As the image's.
    pub boot_mode: Option<String>,
    /// `windows`, or nothing: as the image's.
    pub platform: Option<String>,
    /// As in `Linux/UNIX`: the image's.
    pub platform_details: Option<String>,
    /// Whether the image says that its guest has a driver for EC2's network cards.
    pub ena_support: bool,
    /// `ebs`, `instance-store`.
    pub root_device_type: String,
    /// As in `/dev/sda1`.
    pub root_device_name: String,
    /// The volumes that it has.
    pub block_device_mappings: Vec<Attachment>,
    /// The kernel image, of a PV instance that names one.
    pub kernel_id: Option<String>,
    /// The ramdisk image.
    pub ramdisk_id: Option<String>,
    /// Its key pair's name.
    pub key_name: Option<String>,
    /// Its network interface; none once it is terminated.
    pub network_interface: Option<NetworkInterface>,
    /// How its metadata service answers.
    pub metadata_options: Options,
    /// `stop`, `terminate`: what it means when the guest switches itself off.
    pub instance_initiated_shutdown_behavior: String,
    /// Whether it can be terminated by a request.
    pub disable_api_termination: bool,
    /// Whether it can be stopped by a request.
    pub disable_api_stop: bool,
    /// Its tags.
    pub tags: Tags,
    /// What its launch was known by.
    pub client_token: Option<String>,
    /// How its machine is started.
    pub machine: MachineOptions,
    /// What it runs on.
    pub backend: Backend,
    /// The operation that works on it.
    #[serde(skip)]
    pub(super) operation: Option<String>,
}

impl Instance {
    /// Its name, which is a tag.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.tags.get("Name").map(String::as_str)
    }

    /// Whether its root is lost with its machine.
    #[must_use]
    pub fn is_instance_store(&self) -> bool {
        self.root_device_type == "instance-store"
    }

    /// How its machine starts ("currentInstanceBootMode"): `legacy-bios` or `uefi`.
    #[must_use]
    pub fn current_boot_mode(&self) -> &'static str {
        match self.boot_mode.as_deref() {
            Some("uefi" | "uefi-preferred") => "uefi",
            _ => "legacy-bios",
        }
    }

    /// What EC2 would bill ("usageOperation").
    #[must_use]
    pub fn usage_operation(&self) -> &'static str {
        if self.platform.is_some() { "RunInstances:0002" } else { "RunInstances" }
    }

    /// Who or what changed its state last, and when, in EC2's words ("reason"); empty while it runs.
    #[must_use]
    pub fn state_transition_reason(&self) -> String {
        let Some(reason) = &self.state_reason else { return String::new() };
        if reason.code != "Client.UserInitiatedShutdown" {
            return reason.message.clone();
        }
        let second = self.state_transition_time.get(..19).unwrap_or_default().replace('T', " ");
        format!("User initiated ({second} GMT)")
    }
}

const COLUMNS: &str = "id, reservation, launch_index, owner, image, instance_type, state, reason_code, reason, changed,
    launched, zone, architecture, virtualization_type, boot_mode, root_device_type, root_device_name, kernel, ramdisk,
    key_name, shutdown_behavior, api_termination_disabled, api_stop_disabled, client_token, options, operation,
    metadata_options, backend";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Instance> {
    let reason: Option<String> = row.get(8)?;
    let code: Option<String> = row.get(7)?;
    let options: String = row.get(24)?;
    let metadata: String = row.get(26)?;
    Ok(Instance {
        instance_id: row.get(0)?,
        reservation_id: row.get(1)?,
        ami_launch_index: row.get(2)?,
        owner_id: row.get(3)?,
        image_id: row.get(4)?,
        instance_type: row.get(5)?,
        state: row.get(6)?,
        state_reason: code.zip(reason).map(|(code, message)| StateReason { code, message }),
        state_transition_time: time::format(row.get(9)?),
        launch_time: time::format(row.get(10)?),
        availability_zone: row.get(11)?,
        architecture: row.get(12)?,
        virtualization_type: row.get(13)?,
        boot_mode: row.get(14)?,
        root_device_type: row.get(15)?,
        root_device_name: row.get(16)?,
        kernel_id: row.get(17)?,
        ramdisk_id: row.get(18)?,
        key_name: row.get(19)?,
        instance_initiated_shutdown_behavior: row.get(20)?,
        disable_api_termination: row.get(21)?,
        disable_api_stop: row.get(22)?,
        client_token: row.get(23)?,
        machine: serde_json::from_str(&options).unwrap_or_default(),
        operation: row.get(25)?,
        metadata_options: serde_json::from_str(&metadata).unwrap_or_default(),
        availability_zone_id: None,
        platform: None,
        platform_details: None,
        ena_support: false,
        backend: row.get(27)?,
        network_interface: None,
        block_device_mappings: Vec::new(),
        tags: Tags::new(),
    })
}

fn complete(db: &Connection, instance: &mut Instance) -> Result<(), CloudError> {
    query::complete(db, instance)?;
    instance.tags = tag::of(db, &instance.instance_id)?;
    instance.network_interface = network::of_instance(db, &instance.instance_id)?;
    let volumes = volume::of_instance(db, &instance.instance_id)?;
    instance.block_device_mappings = volumes.into_iter().map(|(attachment, _)| attachment).collect();
    Ok(())
}

/// The id that a person means: a whole one, the beginning of one, or the name of an instance that is not terminated.
///
/// # Errors
/// `InvalidInstanceID.NotFound`, `.Malformed`, or [`CloudError::Ambiguous`].
pub(super) fn resolve(db: &Connection, scope: &Scope, given: &str) -> Result<String, CloudError> {
    if given.starts_with(Kind::Instance.prefix()) {
        match lookup::resolve(db, scope, Kind::Instance, "instances", given) {
            Err(CloudError::NotFound { .. } | CloudError::Malformed { .. }) => {}
            found => return found,
        }
    }
    let mut query = db.prepare(
        "SELECT id FROM instances JOIN tags ON resource = id
         WHERE region = ?1 AND owner = ?2 AND state <> 'terminated' AND key = 'Name' AND value = ?3 LIMIT 5",
    )?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str(), given], |row| row.get(0))?;
    let found: Vec<String> = found.collect::<Result<_, _>>()?;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] if given.starts_with(Kind::Instance.prefix()) => Id::parse(Kind::Instance, given).map(|id| id.to_string()),
        [] => Err(CloudError::NotFound { kind: Kind::Instance, id: given.to_owned() }),
        _ => Err(CloudError::Ambiguous { kind: Kind::Instance, given: given.to_owned(), found }),
    }
}

/// An instance of the caller's.
///
/// # Errors
/// `InvalidInstanceID.NotFound`.
pub(super) fn own(db: &Connection, scope: &Scope, given: &str) -> Result<Instance, CloudError> {
    let id = resolve(db, scope, given)?;
    let query = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1 AND region = ?2 AND owner = ?3");
    let found = db.query_row(&query, params![id, scope.region, scope.account.as_str()], from_row).optional()?;
    let mut found = found.ok_or(CloudError::NotFound { kind: Kind::Instance, id })?;
    complete(db, &mut found)?;
    Ok(found)
}

/// Any instance, whoever asks.
pub(super) fn any(db: &Connection, id: &str) -> Result<Instance, CloudError> {
    let found = db.query_row(&format!("SELECT {COLUMNS} FROM instances WHERE id = ?1"), [id], from_row).optional()?;
    let mut found = found.ok_or_else(|| CloudError::NotFound { kind: Kind::Instance, id: id.to_owned() })?;
    complete(db, &mut found)?;
    Ok(found)
}

/// Notes another state, and why.
pub(super) fn set_state(
    tx: &Transaction<'_>,
    id: &Id,
    state: &str,
    reason: Option<(&str, &str)>,
) -> Result<(), CloudError> {
    let (code, message) = reason.unzip();
    tx.execute(
        "UPDATE instances SET state = ?2, reason_code = ?3, reason = ?4, changed = ?5 WHERE id = ?1",
        params![id, state, code, message, time::now()],
    )?;
    Ok(())
}

/// What of an instance can be changed.
#[derive(Clone, Debug, Default)]
pub struct InstanceChange {
    /// Protects it against termination, or no longer.
    pub disable_api_termination: Option<bool>,
    /// Protects it against being stopped, or no longer.
    pub disable_api_stop: Option<bool>,
    /// `stop` or `terminate`.
    pub shutdown_behavior: Option<String>,
    /// Its type; while it is stopped.
    pub instance_type: Option<String>,
    /// Its user data; while it is stopped.
    pub user_data: Option<Vec<u8>>,
    /// Its security groups, by their ids.
    pub security_groups: Option<Vec<String>>,
}

impl Cloud {
    /// Changes attributes of an instance.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`, `IncorrectInstanceState`, `InvalidParameterValue`, `InvalidGroup.NotFound`; for groups what
    /// its process says.
    pub fn modify_instance(&mut self, id: &str, change: &InstanceChange) -> Result<Instance, CloudError> {
        let scope = self.scope.clone();
        let changed = self.catalogue.write(|tx| {
            let instance = own(tx, &scope, id)?;
            let id = &instance.instance_id;
            let needs_stop = change.instance_type.is_some() || change.user_data.is_some();
            if instance.state == state::TERMINATED || needs_stop && instance.state != state::STOPPED {
                let verb = "modified";
                return Err(CloudError::InstanceState { id: id.clone(), state: instance.state, verb });
            }
            if let Some(behavior) = &change.shutdown_behavior {
                run::check_shutdown_behavior(behavior, instance.is_instance_store())?;
            }
            if let Some(name) = &change.instance_type {
                super::instance_type::find(name)?;
            }
            if let Some(data) = &change.user_data {
                run::check_user_data(data)?;
            }
            tx.execute(
                "UPDATE instances SET api_termination_disabled = coalesce(?2, api_termination_disabled),
                     api_stop_disabled = coalesce(?3, api_stop_disabled),
                     shutdown_behavior = coalesce(?4, shutdown_behavior),
                     instance_type = coalesce(?5, instance_type), user_data = coalesce(?6, user_data) WHERE id = ?1",
                params![
                    id,
                    change.disable_api_termination,
                    change.disable_api_stop,
                    change.shutdown_behavior,
                    change.instance_type,
                    change.user_data
                ],
            )?;
            if let Some(groups) = &change.security_groups {
                network::set_groups(tx, &scope, id, groups)?;
            }
            own(tx, &scope, id.as_str())
        })?;
        if change.security_groups.is_some() {
            self.tell_metadata(&changed.instance_id)?;
        }
        Ok(changed)
    }
}
