//! What a person does to instances: stop, start, reboot, terminate, and their consoles.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::machine::Files;
use super::truth::{BY_USER, is_alive, terminated, wait_for_last};
use super::{Instance, own, set_state, state};
use crate::cloud::error::CloudError;
use crate::cloud::id::Id;
use crate::cloud::operation::Operation;
use crate::cloud::{Cloud, layer, network};
use crate::imds::Document;
use crate::monitor::client::{self, Client, ClientError, Console};
use crate::monitor::protocol::FileSystems;

/// How a stop is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopRequest {
    /// Does not ask the guest.
    pub force: bool,
    /// How long the guest has to switch itself off; two minutes where not said.
    pub grace: Option<Duration>,
}

/// An instance's state before and after a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StateChange {
    /// The instance.
    pub instance_id: Id,
    /// What it was.
    pub previous_state: String,
    /// What it is.
    pub current_state: String,
}

impl Cloud {
    /// Asks instances to stop. Does not wait: [`Cloud::wait_for_end`] does.
    ///
    /// # Errors
    /// `IncorrectInstanceState`, `UnsupportedOperation` for instance-store roots, `OperationNotPermitted`; then none is asked.
    pub fn stop_instances(&mut self, ids: &[String], request: StopRequest) -> Result<Vec<StateChange>, CloudError> {
        let scope = self.scope.clone();
        let instances: Vec<Instance> = self.catalogue.write(|tx| {
            let instances: Vec<Instance> = ids.iter().map(|id| own(tx, &scope, id)).collect::<Result<_, _>>()?;
            for instance in &instances {
                check_stop(instance)?;
                if instance.state == state::RUNNING {
                    set_state(tx, &instance.instance_id, state::STOPPING, Some(BY_USER))?;
                }
            }
            Ok(instances)
        })?;
        for instance in instances.iter().filter(|instance| instance.state != state::STOPPED) {
            self.ask_to_end(instance, request)?;
        }
        self.changes(&instances)
    }

    /// Asks instances to terminate; stopped ones are gone when this returns. Does not wait for the others.
    ///
    /// # Errors
    /// `OperationNotPermitted` where one is protected: then none is asked.
    pub fn terminate_instances(
        &mut self,
        ids: &[String],
        request: StopRequest,
    ) -> Result<Vec<StateChange>, CloudError> {
        let scope = self.scope.clone();
        let instances: Vec<Instance> = self.catalogue.write(|tx| {
            let instances: Vec<Instance> = ids.iter().map(|id| own(tx, &scope, id)).collect::<Result<_, _>>()?;
            if let Some(guarded) =
                instances.iter().find(|one| one.disable_api_termination && one.state != state::TERMINATED)
            {
                return Err(CloudError::Protected { id: guarded.instance_id.clone() });
            }
            for instance in &instances {
                check_idle(instance)?;
                match instance.state.as_str() {
                    state::TERMINATED | state::SHUTTING_DOWN => {}
                    state::STOPPED => terminated(tx, instance, BY_USER)?,
                    _ => set_state(tx, &instance.instance_id, state::SHUTTING_DOWN, Some(BY_USER))?,
                }
            }
            Ok(instances)
        })?;
        self.tidy()?;
        for instance in instances.iter().filter(|one| !matches!(one.state.as_str(), state::STOPPED | state::TERMINATED))
        {
            self.ask_to_end(instance, request)?;
        }
        self.changes(&instances)
    }

    /// Asks the process of an instance to end its machine; one that is gone already has done so.
    fn ask_to_end(&mut self, instance: &Instance, request: StopRequest) -> Result<(), CloudError> {
        let files = Files::of(&self.home, instance.instance_id.as_str());
        let asked = Client::connect(&files.socket()).and_then(|mut client| match request.force {
            true => client.force_stop(),
            false => client.stop(request.grace),
        });
        match asked {
            Ok(()) => Ok(()),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => {
                wait_for_last(&files)?;
                self.settle_instance(&instance.instance_id)
            }
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// Waits until the process of an instance has ended, and notes what that means.
    ///
    /// # Errors
    /// What the host says.
    pub fn wait_for_end(&mut self, id: &Id) -> Result<Instance, CloudError> {
        let files = Files::of(&self.home, id.as_str());
        match Client::connect(&files.socket()).and_then(Client::wait_for_end) {
            Ok(()) | Err(ClientError::NotRunning { .. } | ClientError::Ended) => wait_for_last(&files)?,
            Err(error) => return Err(monitor(id, &error)),
        }
        self.settle_instance(id)?;
        self.tidy()?;
        self.catalogue.read(|tx| super::any(tx, id.as_str()))
    }

    /// Starts stopped instances, and waits until their machines run.
    ///
    /// # Errors
    /// `IncorrectInstanceState`; where a machine does not come up, why.
    pub fn start_instances(&mut self, ids: &[String]) -> Result<Vec<StateChange>, CloudError> {
        let scope = self.scope.clone();
        let instances: Vec<Instance> =
            self.catalogue.read(|tx| ids.iter().map(|id| own(tx, &scope, id)).collect::<Result<_, _>>())?;
        for instance in &instances {
            self.start_instance(&instance.instance_id)?;
        }
        self.changes(&instances)
    }

    pub(in crate::cloud) fn start_instance(&mut self, id: &Id) -> Result<(), CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.operation(
            "start-instance",
            |tx, operation| {
                let instance = own(tx, &scope, id.as_str())?;
                check_idle(&instance)?;
                if instance.state == state::RUNNING {
                    return Ok(None);
                }
                if instance.state != state::STOPPED {
                    let (id, state) = (id.clone(), instance.state);
                    return Err(CloudError::InstanceState { id, state, verb: "started" });
                }
                let root = &instance.root_device_name;
                if !instance.is_instance_store() && !instance.block_device_mappings.iter().any(|at| at.device == *root)
                {
                    let why = format!("it has no volume at its root device, {root}; attach one first");
                    return Err(CloudError::State { what: id.to_string(), why });
                }
                // One from before there were networks gets its interface now.
                network::attach(tx, &home, &scope, id, &instance.availability_zone)?;
                set_state(tx, id, state::PENDING, None)?;
                claim(tx, id, operation)?;
                new_own_layers(tx, &home, id, operation).map(Some)
            },
            |cloud, operation, layers| {
                if let Some(layers) = layers {
                    layers.iter().try_for_each(|(id, size)| cloud.store().create(id, *size).map(|_| ()))?;
                    cloud.catalogue.write(|tx| layers.iter().try_for_each(|(id, _)| layer::made(tx, id, "open")))?;
                    cloud.start_machine(id, operation)?;
                }
                cloud.catalogue.write(|tx| operation.finish(tx))?;
                cloud.notice(id);
                Ok(())
            },
        )
    }

    /// Reboots instances: each guest is asked to switch itself off, ended where it does not, and started again with all that
    /// it has. Waits until they run.
    ///
    /// # Errors
    /// `IncorrectInstanceState`.
    pub fn reboot_instances(&mut self, ids: &[String], request: StopRequest) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        let instances: Vec<Instance> =
            self.catalogue.read(|tx| ids.iter().map(|id| own(tx, &scope, id)).collect::<Result<_, _>>())?;
        for instance in instances {
            let id = instance.instance_id;
            self.operation(
                "reboot-instance",
                |tx, operation| claim_running(tx, &own(tx, &scope, id.as_str())?, operation, "rebooted"),
                |cloud, operation, ()| {
                    cloud.end_machine(&id, request)?;
                    cloud.start_machine(&id, operation)?;
                    cloud.catalogue.write(|tx| operation.finish(tx))?;
                    cloud.notice(&id);
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Ends the machine of an instance that an operation has claimed, and waits for that.
    pub(in crate::cloud) fn end_machine(&mut self, id: &Id, request: StopRequest) -> Result<(), CloudError> {
        let files = Files::of(&self.home, id.as_str());
        let ended = Client::connect(&files.socket()).and_then(|mut client| {
            if request.force {
                client.force_stop()?;
            } else {
                client.stop(request.grace)?;
            }
            client.wait_for_end()
        });
        match ended {
            Ok(()) | Err(ClientError::NotRunning { .. } | ClientError::Ended) => wait_for_last(&files),
            Err(error) => Err(monitor(id, &error)),
        }
    }

    /// The console of a running instance, at first up to `replay` bytes of what was written before.
    ///
    /// # Errors
    /// `IncorrectInstanceState`.
    pub fn attach_console(&mut self, id: &str, replay: u64) -> Result<(Instance, Console), CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        let files = Files::of(&self.home, instance.instance_id.as_str());
        match Client::connect(&files.socket()).and_then(|client| client.attach(replay)) {
            Ok(console) => Ok((instance, console)),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => {
                let (id, state) = (instance.instance_id, instance.state);
                Err(CloudError::InstanceState { id, state, verb: "attached to" })
            }
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// The newest of what an instance has written to its console, whether it runs or not; nothing before it has.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; what the host says.
    pub fn console_output(&mut self, id: &str, max: u64) -> Result<(Instance, Vec<u8>), CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        let path = Files::of(&self.home, instance.instance_id.as_str()).console();
        match client::read_log(&path, max) {
            Ok(output) => Ok((instance, output)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((instance, Vec::new())),
            Err(e) => Err(CloudError::host(&path, "cannot read the console's output")(e)),
        }
    }

    /// What the process of a running instance says of it.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; what the process answers.
    pub fn machine_status(&mut self, id: &str) -> Result<Option<crate::monitor::protocol::Status>, CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        let files = Files::of(&self.home, instance.instance_id.as_str());
        match Client::connect(&files.socket()).and_then(|mut client| client.status()) {
            Ok(status) => Ok(Some(status)),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => Ok(None),
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// Has the process of a running machine put new layers on volumes: for each its id, and the layer's data and map. The
    /// guest's agent, where there is one, freezes the file systems meanwhile; tells what they were.
    ///
    /// # Errors
    /// What the process says.
    pub(in crate::cloud) fn ask_for_snapshots(
        &self,
        id: &Id,
        volumes: &[(&str, [BorrowedFd<'_>; 2])],
    ) -> Result<FileSystems, CloudError> {
        let socket = Files::of(&self.home, id.as_str()).socket();
        let asked = Client::connect(&socket).and_then(|mut client| client.snapshot(volumes, true));
        asked.map_err(|error| monitor(id, &error))
    }

    /// A connection to a TCP port of a running instance's guest; it is closed where the guest does not take it.
    ///
    /// # Errors
    /// `IncorrectInstanceState`; what the process says.
    pub fn dial(&mut self, id: &str, port: u16) -> Result<(Instance, UnixStream), CloudError> {
        let scope = self.scope.clone();
        let instance = self.catalogue.read(|tx| own(tx, &scope, id))?;
        let files = Files::of(&self.home, instance.instance_id.as_str());
        match Client::connect(&files.socket()).and_then(|mut client| client.dial(port)) {
            Ok(stream) => Ok((instance, stream)),
            Err(ClientError::NotRunning { .. } | ClientError::Ended) => {
                let (id, state) = (instance.instance_id, instance.state);
                Err(CloudError::InstanceState { id, state, verb: "connected to" })
            }
            Err(error) => Err(monitor(&instance.instance_id, &error)),
        }
    }

    /// Where the ssh keys of an instance's guest are kept.
    #[must_use]
    pub fn known_hosts_file(&self, id: &Id) -> std::path::PathBuf {
        Files::of(&self.home, id.as_str()).dir().join("known_hosts")
    }

    /// Has the process of an instance tell its guest this of itself; nothing where none runs.
    pub(in crate::cloud) fn ask_for_metadata(&self, id: &Id, document: Document) -> Result<(), CloudError> {
        let socket = Files::of(&self.home, id.as_str()).socket();
        match Client::connect(&socket).and_then(|mut client| client.tell_metadata(document)) {
            Ok(()) | Err(ClientError::NotRunning { .. } | ClientError::Ended) => Ok(()),
            Err(error) => Err(monitor(id, &error)),
        }
    }

    fn changes(&mut self, before: &[Instance]) -> Result<Vec<StateChange>, CloudError> {
        self.catalogue.read(|tx| {
            let change = |before: &Instance| {
                let now = super::any(tx, before.instance_id.as_str())?;
                Ok(StateChange {
                    instance_id: now.instance_id,
                    previous_state: before.state.clone(),
                    current_state: now.state,
                })
            };
            before.iter().map(change).collect()
        })
    }

    /// Whether the process of an instance lives.
    pub(in crate::cloud) fn runs(&self, id: &Id) -> Result<bool, CloudError> {
        is_alive(&Files::of(&self.home, id.as_str()))
    }
}

/// Gives a stopped instance its own volumes again, empty.
fn new_own_layers(
    tx: &Transaction<'_>,
    home: &crate::cloud::home::Home,
    id: &Id,
    operation: &Operation,
) -> Result<Vec<(String, u64)>, CloudError> {
    let mut query = tx.prepare("SELECT device, size FROM instance_store WHERE instance = ?1 AND layer IS NULL")?;
    let lost = query.query_map([id], |row| Ok((row.get(0)?, layer::from_sql(row.get(1)?))))?;
    let lost: Vec<(String, u64)> = lost.collect::<Result<_, _>>()?;
    let mut layers = Vec::new();
    for (device, size) in lost {
        let layer = layer::new_id(home)?;
        layer::insert(tx, &layer, size, None, operation)?;
        let update = "UPDATE instance_store SET layer = ?3 WHERE instance = ?1 AND device = ?2";
        tx.execute(update, params![id, device, layer])?;
        layers.push((layer, size));
    }
    Ok(layers)
}

/// Notes that an operation works on an instance.
pub(in crate::cloud) fn claim(tx: &Transaction<'_>, id: &Id, operation: &Operation) -> Result<(), CloudError> {
    tx.execute("UPDATE instances SET operation = ?2 WHERE id = ?1", params![id, operation.id()])?;
    Ok(())
}

/// Notes that it does no longer.
pub(in crate::cloud) fn release(tx: &Transaction<'_>, operation: &Operation) -> Result<(), CloudError> {
    tx.execute("UPDATE instances SET operation = NULL WHERE operation = ?1", [operation.id()])?;
    Ok(())
}

/// The same for a running instance that nothing else works on.
fn claim_running(
    tx: &Transaction<'_>,
    instance: &Instance,
    operation: &Operation,
    verb: &'static str,
) -> Result<(), CloudError> {
    check_idle(instance)?;
    if instance.state != state::RUNNING {
        let (id, state) = (instance.instance_id.clone(), instance.state.clone());
        return Err(CloudError::InstanceState { id, state, verb });
    }
    claim(tx, &instance.instance_id, operation)
}

/// Refuses an instance that something else works on.
pub(in crate::cloud) fn check_idle(instance: &Instance) -> Result<(), CloudError> {
    if instance.operation.is_none() {
        return Ok(());
    }
    let why = format!("it is {}, and something else works on it; try again when that is done", instance.state);
    Err(CloudError::State { what: instance.instance_id.to_string(), why })
}

fn check_stop(instance: &Instance) -> Result<(), CloudError> {
    check_idle(instance)?;
    if instance.is_instance_store() {
        return Err(CloudError::Unsupported(format!(
            "The instance '{}' does not have an 'ebs' root device type and cannot be stopped.",
            instance.instance_id
        )));
    }
    if instance.disable_api_stop {
        return Err(CloudError::StopProtected { id: instance.instance_id.clone() });
    }
    match instance.state.as_str() {
        state::RUNNING | state::STOPPING | state::STOPPED => Ok(()),
        _ => {
            let (id, state) = (instance.instance_id.clone(), instance.state.clone());
            Err(CloudError::InstanceState { id, state, verb: "stopped" })
        }
    }
}

/// What an instance's process said.
pub(in crate::cloud) fn monitor(id: &Id, error: &ClientError) -> CloudError {
    use crate::monitor::protocol::FailureKind;
    match error {
        ClientError::Refused(failure) if failure.kind == FailureKind::Unsupported => {
            CloudError::Unsupported(format!("{id}: {failure}"))
        }
        other => CloudError::State { what: id.to_string(), why: other.to_string() },
    }
}
