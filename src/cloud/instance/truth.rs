//! What the catalogue says of machines, compared with the truth.
//!
//! A machine may end by itself, be killed, or go down with its host, while nobody looks. Its process's lock tells whether it
//! lives, its exit file how it ended; the catalogue follows.

use rusqlite::{Transaction, params};

use super::machine::{Files, drop_own_volumes};
use super::{Instance, any, set_state, state};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::Id;
use crate::cloud::{Cloud, layer, tag, time, volume};
use crate::monitor::client::{self, Life, Reason};

/// How long terminated instances stay listed, in milliseconds.
const LISTED: i64 = 3_600_000;

/// EC2's codes and messages of what a person asked for.
pub(super) const BY_USER: (&str, &str) =
    ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown");

impl Cloud {
    /// Brings instances whose machines have ended, and that nobody is working on, to the state that this means; forgets those
    /// that were terminated long ago.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(in crate::cloud) fn settle(&mut self) -> Result<(), CloudError> {
        let candidates: Vec<Id> = self.catalogue.read(|tx| {
            let mut query = tx.prepare(
                "SELECT id FROM instances WHERE operation IS NULL
                     AND (state IN ('pending', 'running', 'stopping', 'shutting-down') OR state = 'terminated' AND changed < ?1)",
            )?;
            let ids = query.query_map([time::now() - LISTED], |row| row.get(0))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })?;
        for id in candidates {
            self.settle_instance(&id)?;
        }
        Ok(())
    }

    /// The same for one instance.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(in crate::cloud) fn settle_instance(&mut self, id: &Id) -> Result<(), CloudError> {
        let files = Files::of(&self.home, id.as_str());
        if is_alive(&files)? {
            return Ok(());
        }
        let home = self.home.clone();
        let gone = self.catalogue.write(|tx| {
            let instance = match any(tx, id.as_str()) {
                Err(CloudError::NotFound { .. }) => return Ok(false),
                other => other?,
            };
            // Looked at once more under the lock: another may have started it meanwhile, or settled this.
            if instance.operation.is_some() || is_alive(&files)? {
                return Ok(false);
            }
            if instance.state == state::TERMINATED {
                return forget(tx, &instance.instance_id);
            }
            if instance.state != state::STOPPED {
                follow(tx, &home, &instance)?;
            }
            Ok(false)
        })?;
        if gone {
            let dir = files.dir();
            match std::fs::remove_dir_all(dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CloudError::host(dir, "cannot remove the instance's directory")(e));
                }
                _ => {}
            }
        }
        self.remove_dead_layers()
    }
}

/// Whether an instance's process lives.
pub(super) fn is_alive(files: &Files) -> Result<bool, CloudError> {
    let path = files.alive();
    let life = client::is_alive(&path).map_err(CloudError::host(&path, "cannot see whether the instance lives"))?;
    Ok(matches!(life, Life::Alive { .. }))
}

/// Notes what it means that the machine of an instance has ended.
pub(super) fn follow(tx: &Transaction<'_>, home: &Home, instance: &Instance) -> Result<(), CloudError> {
    let files = Files::of(home, instance.instance_id.as_str());
    let (code, message) = reason(instance, &files);
    let is_final = match instance.state.as_str() {
        state::SHUTTING_DOWN => true,
        state::STOPPING => false,
        _ => instance.is_instance_store() || instance.instance_initiated_shutdown_behavior == "terminate",
    };
    if is_final {
        terminated(tx, instance, (code, &message))
    } else {
        drop_own_volumes(tx, &instance.instance_id)?;
        set_state(tx, &instance.instance_id, state::STOPPED, Some((code, &message)))
    }
}

/// What becomes of an instance that a dead process was working on; tells whether its machine is to be started again.
pub(in crate::cloud) fn undo_start(
    tx: &Transaction<'_>,
    home: &Home,
    instance: &Instance,
    what: &str,
) -> Result<bool, CloudError> {
    let lives = is_alive(&Files::of(home, instance.instance_id.as_str()))?;
    let told = instance.state_reason.as_ref().map(|reason| reason.message.as_str());
    let cut_off = "Server.InternalError: its start was cut off before its machine ran";
    let why = ("Server.InternalError", told.unwrap_or(cut_off));
    match (instance.state.as_str(), lives) {
        (state::PENDING, true) => set_state(tx, &instance.instance_id, state::RUNNING, None)?,
        (state::PENDING, false) if what == "run-instances" => terminated(tx, instance, why)?,
        (state::PENDING, false) => {
            drop_own_volumes(tx, &instance.instance_id)?;
            set_state(tx, &instance.instance_id, state::STOPPED, Some(why))?;
        }
        (state::RUNNING, false) => return Ok(true),
        _ => {}
    }
    Ok(false)
}

/// Notes that an instance is gone: volumes that go with it are deleted, the others are free.
pub(super) fn terminated(tx: &Transaction<'_>, instance: &Instance, reason: (&str, &str)) -> Result<(), CloudError> {
    let id = &instance.instance_id;
    for attachment in &instance.block_device_mappings {
        if attachment.delete_on_termination {
            volume::delete(tx, &attachment.volume_id)?;
        } else {
            volume::detach(tx, &attachment.volume_id)?;
        }
    }
    tx.execute("DELETE FROM instance_store WHERE instance = ?1", [id])?;
    layer::mark_dead(tx)?;
    set_state(tx, id, state::TERMINATED, Some(reason))
}

/// Forgets an instance that was terminated long ago; tells whether it was.
fn forget(tx: &Transaction<'_>, id: &Id) -> Result<bool, CloudError> {
    let delete = "DELETE FROM instances WHERE id = ?1 AND state = 'terminated' AND changed < ?2";
    let is_gone = tx.execute(delete, params![id, time::now() - LISTED])? > 0;
    if is_gone {
        tag::remove_all(tx, id)?;
    }
    Ok(is_gone)
}

/// EC2's code for how a machine ended, and the same in words.
fn reason(instance: &Instance, files: &Files) -> (&'static str, String) {
    if matches!(instance.state.as_str(), state::STOPPING | state::SHUTTING_DOWN) {
        return (BY_USER.0, BY_USER.1.to_owned());
    }
    let internal = |why: &str| ("Server.InternalError", format!("Server.InternalError: {why}"));
    match client::read_exit(&files.exit()) {
        Ok(Some(exit)) => match exit.reason {
            Reason::PoweredOff | Reason::ResetRefused => (
                "Client.InstanceInitiatedShutdown",
                "Client.InstanceInitiatedShutdown: Instance initiated shutdown".into(),
            ),
            Reason::Crashed(how) => internal(&format!("the guest crashed: {how}")),
            Reason::Forced => internal("its process was told to end"),
            Reason::Error(why) => internal(&why),
        },
        Ok(None) => internal("its process was killed, or the host went down"),
        Err(error) => internal(&error.to_string()),
    }
}
