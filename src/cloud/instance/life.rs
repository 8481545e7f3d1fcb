//! What a person does to instances: stop, start, reboot, terminate.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::machine::Files;
use super::reach::monitor;
use super::truth::{BY_USER, terminated, wait_for_last};
use super::{Instance, own, set_state, state};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::Id;
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::{Begun, Cloud, layer, network};
use crate::monitor::client::{Client, ClientError};

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
        self.stop_instances_with(ids, request, &mut |_| {})
    }

    /// The same; `begun` is told of the states before any machine was asked.
    ///
    /// # Errors
    /// As [`Cloud::stop_instances`].
    pub fn stop_instances_with(
        &mut self,
        ids: &[String],
        request: StopRequest,
        begun: &mut Begun<'_, Vec<StateChange>>,
    ) -> Result<Vec<StateChange>, CloudError> {
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
        begun(&self.changes(&instances)?);
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
        self.terminate_instances_with(ids, request, &mut |_| {})
    }

    /// The same; `begun` is told of the states before any machine was asked, and before the room of what is gone is freed.
    ///
    /// # Errors
    /// As [`Cloud::terminate_instances`].
    pub fn terminate_instances_with(
        &mut self,
        ids: &[String],
        request: StopRequest,
        begun: &mut Begun<'_, Vec<StateChange>>,
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
        begun(&self.changes(&instances)?);
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
    /// `IncorrectInstanceState`: then none is started; where a machine does not come up, why.
    pub fn start_instances(&mut self, ids: &[String]) -> Result<Vec<StateChange>, CloudError> {
        self.start_instances_with(ids, &mut |_| {})
    }

    /// The same; `begun` is told of the states before any machine runs.
    ///
    /// # Errors
    /// As [`Cloud::start_instances`].
    pub fn start_instances_with(
        &mut self,
        ids: &[String],
        begun: &mut Begun<'_, Vec<StateChange>>,
    ) -> Result<Vec<StateChange>, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.operation(
            "start-instance",
            |tx, operation| {
                let (mut before, mut layers) = (Vec::new(), Vec::new());
                for id in ids {
                    let instance = own(tx, &scope, id)?;
                    if before.iter().any(|seen: &Instance| seen.instance_id == instance.instance_id) {
                        continue;
                    }
                    check_idle(&instance)?;
                    if instance.state != state::RUNNING {
                        layers.extend(begin_start(tx, &home, &scope, &instance, operation)?);
                    }
                    before.push(instance);
                }
                Ok((before, layers))
            },
            |cloud, operation, (before, layers)| {
                begun(&cloud.changes(&before)?);
                layers.iter().try_for_each(|(id, size)| cloud.store().create(id, *size).map(|_| ()))?;
                cloud.catalogue.write(|tx| layers.iter().try_for_each(|(id, _)| layer::made(tx, id, "open")))?;
                for instance in before.iter().filter(|instance| instance.state != state::RUNNING) {
                    cloud.start_machine(&instance.instance_id, operation)?;
                }
                cloud.catalogue.write(|tx| operation.finish(tx))?;
                before.iter().for_each(|instance| cloud.notice(&instance.instance_id));
                cloud.changes(&before)
            },
        )
    }

    /// Reboots instances: each guest is asked to switch itself off, ended where it does not, and started again with all that
    /// it has. Waits until they run.
    ///
    /// # Errors
    /// `IncorrectInstanceState`.
    pub fn reboot_instances(&mut self, ids: &[String], request: StopRequest) -> Result<(), CloudError> {
        self.reboot_instances_with(ids, request, &mut |_| {})
    }

    /// The same; `begun` is told which instances will be rebooted.
    ///
    /// # Errors
    /// As [`Cloud::reboot_instances`].
    pub fn reboot_instances_with(
        &mut self,
        ids: &[String],
        request: StopRequest,
        begun: &mut Begun<'_, Vec<Id>>,
    ) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        self.operation(
            "reboot-instance",
            |tx, operation| {
                let mut all = Vec::new();
                for id in ids {
                    let instance = own(tx, &scope, id)?;
                    if !all.contains(&instance.instance_id) {
                        claim_running(tx, &instance, operation, "rebooted")?;
                        all.push(instance.instance_id);
                    }
                }
                Ok(all)
            },
            |cloud, operation, all| {
                begun(&all);
                for id in &all {
                    cloud.end_machine(id, request)?;
                    cloud.start_machine(id, operation)?;
                }
                cloud.catalogue.write(|tx| operation.finish(tx))?;
                all.iter().for_each(|id| cloud.notice(id));
                Ok(())
            },
        )
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
}

/// Writes down that a stopped instance is about to run; gives the layers that it needs made for that.
fn begin_start(
    tx: &Transaction<'_>,
    home: &Home,
    scope: &Scope,
    instance: &Instance,
    operation: &Operation,
) -> Result<Vec<(String, u64)>, CloudError> {
    let id = &instance.instance_id;
    if instance.state != state::STOPPED {
        let (id, state) = (id.clone(), instance.state.clone());
        return Err(CloudError::InstanceState { id, state, verb: "started" });
    }
    let root = &instance.root_device_name;
    if !instance.is_instance_store() && !instance.block_device_mappings.iter().any(|at| at.device == *root) {
        let why = format!("it has no volume at its root device, {root}; attach one first");
        return Err(CloudError::State { what: id.to_string(), why });
    }
    // One from before there were networks gets its interface now.
    network::attach(tx, home, scope, id, &instance.availability_zone)?;
    set_state(tx, id, state::PENDING, None)?;
    claim(tx, id, operation)?;
    new_own_layers(tx, home, id, operation)
}

/// Gives a stopped instance its own volumes again, empty.
fn new_own_layers(
    tx: &Transaction<'_>,
    home: &Home,
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
    Err(CloudError::Busy { what: instance.instance_id.to_string(), state: instance.state.clone() })
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
