//! What the catalogue says of machines, compared with the truth.
//!
//! A machine may end by itself, be killed, or go down with its host, while nobody looks. Its process's lock tells whether it
//! lives, its exit file how it ended; the catalogue follows.

use std::time::{Duration, Instant};

use rusqlite::{Transaction, params};

use super::machine::{Files, drop_own_volumes};
use super::{Backend, Instance, any, set_state, state};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::Id;
use crate::cloud::{Cloud, layer, network, tag, time, volume};
use crate::monitor::client::{self, Client, ClientError, Life, Reason};
use crate::monitor::protocol::{State, Status};

/// How long terminated instances stay listed, in milliseconds.
const LISTED: i64 = 3_600_000;

/// How long a process has to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a process that answers no more has to end: it writes a small file.
const LAST: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// EC2's codes and messages of what a person asked for.
pub(super) const BY_USER: (&str, &str) =
    ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown");

/// The same of a guest that has switched itself off.
const BY_GUEST: (&str, &str) =
    ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown");

impl Cloud {
    /// Brings instances whose machines have ended, and that nobody is working on, to the state that this means; forgets those
    /// that were terminated long ago.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(in crate::cloud) fn settle(&mut self) -> Result<(), CloudError> {
        let candidates: Vec<(Id, String)> = self.catalogue.read(|tx| {
            let mut query = tx.prepare(
                "SELECT id, state FROM instances WHERE operation IS NULL
                     AND (state IN ('pending', 'running', 'stopping', 'shutting-down') OR state = 'terminated' AND changed < ?1)
                     AND NOT (state = 'running' AND backend = ?2)",
            )?;
            let values = params![time::now() - LISTED, Backend::Stub];
            let found = query.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(found.collect::<Result<_, _>>()?)
        })?;
        for (id, state) in candidates {
            match self.settle_instance(&id) {
                Err(error @ CloudError::Catalogue(_)) => return Err(error),
                // What is wrong with one instance is told to whoever asks for something of it.
                Err(_) => continue,
                Ok(()) => {}
            }
            if matches!(state.as_str(), state::STOPPING | state::SHUTTING_DOWN) {
                self.remind(&id);
            }
        }
        Ok(())
    }

    /// Asks a machine to end that was to be asked by a process which was killed before.
    fn remind(&self, id: &Id) {
        let files = Files::of(&self.home, id.as_str());
        if !is_ending(&files) {
            // It is asked with the longest time; who is about to ask it with a shorter one will have that. What it
            // answers, the next look shows.
            let _ = Client::connect(&files.socket())
                .and_then(|client| client.with_patience(PATIENCE))
                .and_then(|mut client| client.stop(None));
        }
    }

    /// Notes the end of a machine that was just started, if it has ended already: its own process could not, while an
    /// operation worked on it. What stands in the way of that is told by the next look.
    pub(in crate::cloud) fn notice(&mut self, id: &Id) {
        let _ = self.settle_instance(id);
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
        self.catalogue.write(|tx| {
            let instance = match any(tx, id.as_str()) {
                Err(CloudError::NotFound { .. }) => return Ok(()),
                other => other?,
            };
            // Looked at once more under the lock: another may have started it meanwhile, or settled this.
            if instance.operation.is_some() || is_alive(&files)? {
                return Ok(());
            }
            match instance.state.as_str() {
                state::TERMINATED => forget(tx, &instance.instance_id, &files),
                state::STOPPED => Ok(()),
                // Of these the catalogue alone tells.
                state::RUNNING if instance.backend == Backend::Stub => Ok(()),
                _ => follow(tx, &home, &instance),
            }
        })?;
        self.remove_dead_layers()
    }
}

/// Whether an instance's process lives.
pub(super) fn is_alive(files: &Files) -> Result<bool, CloudError> {
    let path = files.alive();
    let life = client::is_alive(&path).map_err(CloudError::host(&path, "cannot see whether the instance lives"))?;
    Ok(matches!(life, Life::Alive { .. }))
}

/// What the process of a machine says of it, if it does so soon.
pub(super) fn status(files: &Files) -> Result<Status, ClientError> {
    Client::connect(&files.socket())?.with_patience(PATIENCE)?.status()
}

/// Whether a machine was asked to end, as far as its process says.
fn is_ending(files: &Files) -> bool {
    match status(files) {
        Ok(status) => matches!(status.state, State::Stopping | State::Ended),
        // It goes away just now.
        Err(ClientError::NotRunning { .. } | ClientError::Ended) => true,
        Err(_) => false,
    }
}

/// Waits for the last that a process does: one that answers no more still writes how it ended, and has its lock until then.
pub(super) fn wait_for_last(files: &Files) -> Result<(), CloudError> {
    let deadline = Instant::now() + LAST;
    while is_alive(files)? && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Notes what it means that the machine of an instance has ended.
pub(super) fn follow(tx: &Transaction<'_>, home: &Home, instance: &Instance) -> Result<(), CloudError> {
    let files = Files::of(home, instance.instance_id.as_str());
    let (code, message) = reason(instance, &files);
    let is_final = match instance.state.as_str() {
        state::SHUTTING_DOWN => true,
        state::STOPPING => false,
        // Only the guest's own power-off is one: nobody asked for volumes to go with a process or a host.
        _ if instance.instance_initiated_shutdown_behavior == "terminate" && code == BY_GUEST.0 => true,
        _ => instance.is_instance_store(),
    };
    if is_final {
        terminated(tx, instance, (code, &message))
    } else {
        drop_own_volumes(tx, &instance.instance_id)?;
        set_state(tx, &instance.instance_id, state::STOPPED, Some((code, &message)))
    }
}

/// What became of the work on an instance that was undone.
pub(in crate::cloud) enum Undone {
    /// There is nothing more to do.
    Done,
    /// Its machine was ended for a while, and is to be started again.
    ToRestart,
    /// Its machine was asked to end, and has not yet; then it is to be started again.
    Later,
}

/// Operations that end a machine and start it again.
const WITH_PAUSE: [&str; 3] = ["create-image", "reboot-instance", "restart-instance"];

/// What becomes of an instance that a dead process was working on.
pub(in crate::cloud) fn undo(
    tx: &Transaction<'_>,
    home: &Home,
    instance: &Instance,
    what: &str,
) -> Result<Undone, CloudError> {
    let files = Files::of(home, instance.instance_id.as_str());
    // What the dead process has started may be about to run, and would when the instance has long been something else.
    let lives = matches!(
        client::withdraw(&files.alive(), &files.config())
            .map_err(CloudError::host(files.dir(), "cannot take the instance's start back"))?,
        Life::Alive { .. }
    );
    let told = instance.state_reason.as_ref().map(|reason| reason.message.as_str());
    let cut_off = "Server.InternalError: its start was cut off before its machine ran";
    let why = ("Server.InternalError", told.unwrap_or(cut_off));
    match (instance.state.as_str(), lives) {
        (state::PENDING, true) => set_state(tx, &instance.instance_id, state::RUNNING, None)?,
        (state::PENDING, false) if what == "run-instances" => {
            // Nobody was told of its volumes.
            for attachment in &instance.block_device_mappings {
                volume::delete(tx, &attachment.volume_id)?;
            }
            let without = Instance { block_device_mappings: Vec::new(), ..instance.clone() };
            terminated(tx, &without, why)?;
        }
        (state::PENDING, false) => {
            drop_own_volumes(tx, &instance.instance_id)?;
            set_state(tx, &instance.instance_id, state::STOPPED, Some(why))?;
        }
        (state::RUNNING, false) if WITH_PAUSE.contains(&what) => return Ok(Undone::ToRestart),
        (state::RUNNING, true) if WITH_PAUSE.contains(&what) && is_ending(&files) => return Ok(Undone::Later),
        _ => {}
    }
    Ok(Undone::Done)
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
    network::detach(tx, id)?;
    set_state(tx, id, state::TERMINATED, Some(reason))?;
    layer::mark_dead(tx)
}

/// Forgets an instance that was terminated long ago. Its directory goes before its row does, so that none is left.
fn forget(tx: &Transaction<'_>, id: &Id, files: &Files) -> Result<(), CloudError> {
    let delete = "DELETE FROM instances WHERE id = ?1 AND state = 'terminated' AND changed < ?2";
    if tx.execute(delete, params![id, time::now() - LISTED])? == 0 {
        return Ok(());
    }
    tag::remove_all(tx, id)?;
    match std::fs::remove_dir_all(files.dir()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CloudError::host(files.dir(), "cannot remove the instance's directory")(e))
        }
        _ => Ok(()),
    }
}

/// EC2's code for how a machine ended, and the same in words.
fn reason(instance: &Instance, files: &Files) -> (&'static str, String) {
    if matches!(instance.state.as_str(), state::STOPPING | state::SHUTTING_DOWN) {
        return match &instance.state_reason {
            // A launch that did not come to its end.
            Some(told) if told.code == "Server.InternalError" => ("Server.InternalError", told.message.clone()),
            _ => (BY_USER.0, BY_USER.1.to_owned()),
        };
    }
    let internal = |why: &str| ("Server.InternalError", format!("Server.InternalError: {why}"));
    match client::read_exit(&files.exit()) {
        Ok(Some(exit)) => match exit.reason {
            Reason::PoweredOff | Reason::ResetRefused => (BY_GUEST.0, BY_GUEST.1.to_owned()),
            Reason::Crashed(how) => internal(&format!("the guest crashed: {how}")),
            Reason::Forced => internal("its process was told to end"),
            Reason::Error(why) => internal(&why),
        },
        Ok(None) => internal("its process was killed, or the host went down"),
        Err(error) => internal(&error.to_string()),
    }
}
