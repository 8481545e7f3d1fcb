//! Launches: an image and a request become instances.

use std::net::Ipv4Addr;

use rusqlite::{OptionalExtension, Transaction, params};
use sha2::{Digest, Sha256};

use super::{Backend, Instance, MachineOptions, StopRequest, own, set_state, state};
use crate::cloud::error::CloudError;
use crate::cloud::id::{Id, Kind};
use crate::cloud::image::{self, Image, RootDeviceType};
use crate::cloud::instance_type::{self, InstanceType};
use crate::cloud::mapping::{self, BlockDevice, Launch, Merged, Target};
use crate::cloud::metadata::{self, MetadataChange};
use crate::cloud::network::{self, Place, Wanted};
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::cloud::volume::{self, VolumeRequest};
use crate::cloud::{Begun, Cloud, key_pair, layer, snapshot, time};

/// Most instances of one launch, as in EC2's first quota.
const MAX_COUNT: u32 = 100;
/// Bytes of user data, before any encoding.
const MAX_USER_DATA: usize = 16 << 10;
/// Bytes of a GB, in which instance types tell their disks' sizes.
const GB: u64 = 1_000_000_000;

/// What is to be launched.
#[derive(Clone, Debug, Default)]
pub struct RunRequest {
    /// The image: its id, the beginning of it, or its name.
    pub image: String,
    /// How many instances.
    pub count: u32,
    /// Their type; [`instance_type::DEFAULT`] where not said.
    pub instance_type: Option<String>,
    /// Entries that change the image's mapping.
    pub mapping: Vec<BlockDevice>,
    /// Their zone.
    pub zone: Option<String>,
    /// Their subnet, by its id; the default one of the zone where not said.
    pub subnet: Option<String>,
    /// Their address, of a launch of one.
    pub private_address: Option<Ipv4Addr>,
    /// Their security groups, by their ids; the default one where neither these nor names are said.
    pub security_groups: Vec<String>,
    /// Their security groups, by their names.
    pub security_group_names: Vec<String>,
    /// The key pair's name.
    pub key_name: Option<String>,
    /// User data.
    pub user_data: Option<Vec<u8>>,
    /// How their metadata services answer.
    pub metadata: MetadataChange,
    /// `stop` or `terminate`; `stop` where not said.
    pub shutdown_behavior: Option<String>,
    /// Protected against termination by requests.
    pub disable_api_termination: bool,
    /// Another request with this token and the same content launches nothing, but answers the same.
    pub client_token: Option<String>,
    /// Tags of the instances.
    pub tags: Tags,
    /// Tags of their volumes.
    pub volume_tags: Tags,
    /// How the machines are started.
    pub machine: MachineOptions,
}

impl RunRequest {
    fn place(&self) -> Wanted<'_> {
        Wanted {
            zone: self.zone.as_deref(),
            subnet: self.subnet.as_deref(),
            groups: &self.security_groups,
            group_names: &self.security_group_names,
            address: self.private_address,
            count: self.count,
        }
    }
}

/// Instances that were launched.
#[derive(Clone, Debug)]
pub struct Launched {
    /// They.
    pub instances: Vec<Instance>,
    /// What is probably not meant.
    pub hints: Vec<String>,
}

/// What was written down of a launch.
struct Plan {
    instances: Vec<Id>,
    volumes: Vec<volume::Plan>,
    /// Layers of instance-store volumes, with their sizes.
    own_layers: Vec<(String, u64)>,
    hints: Vec<String>,
    /// Launched before, with the same token.
    before: bool,
}

impl Cloud {
    /// Launches instances of an image, and waits until their machines run.
    ///
    /// # Errors
    /// Whatever stands in the way: then nothing is left of the launch but, where machines did not come up, terminated
    /// instances that say why.
    pub fn run_instances(&mut self, request: &RunRequest) -> Result<Launched, CloudError> {
        self.run_instances_with(request, &mut |_| {})
    }

    /// The same; `begun` is told of the pending instances.
    ///
    /// # Errors
    /// As [`Cloud::run_instances`].
    pub fn run_instances_with(
        &mut self,
        request: &RunRequest,
        begun: &mut Begun<'_, Launched>,
    ) -> Result<Launched, CloudError> {
        let (scope, home, backend) = (self.scope.clone(), self.home.clone(), self.backend);
        self.operation(
            "run-instances",
            |tx, operation| plan(tx, &scope, &home, request, backend, operation),
            |cloud, operation, plan| {
                begun(&cloud.launched(&plan)?);
                if !plan.before {
                    cloud.make_layers(&plan)?;
                    cloud.catalogue.write(|tx| {
                        plan.volumes.iter().try_for_each(|volume| volume::made(tx, volume, "in-use"))?;
                        plan.own_layers.iter().try_for_each(|(id, _)| layer::made(tx, id, "open"))
                    })?;
                    cloud.start_all(&plan.instances, operation)?;
                }
                cloud.catalogue.write(|tx| operation.finish(tx))?;
                plan.instances.iter().for_each(|id| cloud.notice(id));
                cloud.launched(&plan)
            },
        )
    }

    /// The instances of a launch, as they are now.
    fn launched(&mut self, plan: &Plan) -> Result<Launched, CloudError> {
        let scope = self.scope.clone();
        let instances =
            self.catalogue.read(|tx| plan.instances.iter().map(|id| own(tx, &scope, id.as_str())).collect())?;
        Ok(Launched { instances, hints: plan.hints.clone() })
    }

    /// Starts the machines of a launch; where one does not come up, those that did are ended again.
    fn start_all(&mut self, ids: &[Id], operation: &Operation) -> Result<(), CloudError> {
        for (at, id) in ids.iter().enumerate() {
            let Err(error) = self.start_machine(id, operation) else { continue };
            let reason = format!("Server.InternalError: {error}");
            for started in ids.iter().take(at) {
                let reason = Some(("Server.InternalError", reason.as_str()));
                let noted = self.catalogue.write(|tx| set_state(tx, started, state::SHUTTING_DOWN, reason));
                // One that cannot be asked now is asked by the next command; the others are not to wait for that.
                let _ = noted.and_then(|()| self.end_machine(started, StopRequest { force: true, grace: None }));
            }
            return Err(error);
        }
        Ok(())
    }

    fn make_layers(&self, plan: &Plan) -> Result<(), CloudError> {
        let volumes = plan.volumes.iter().map(|volume| (volume.layer.as_str(), volume.size()));
        let own = plan.own_layers.iter().map(|(id, size)| (id.as_str(), *size));
        volumes.chain(own).try_for_each(|(id, size)| self.store().create(id, size).map(|_| ()))
    }
}

/// Checks the request and writes down all that it makes.
fn plan(
    tx: &Transaction<'_>,
    scope: &Scope,
    home: &crate::cloud::home::Home,
    request: &RunRequest,
    backend: Backend,
    operation: &Operation,
) -> Result<Plan, CloudError> {
    if let Some(instances) = launched_before(tx, scope, request)? {
        return Ok(Plan { instances, volumes: Vec::new(), own_layers: Vec::new(), hints: Vec::new(), before: true });
    }
    let id = image::resolve(tx, scope, &request.image)?;
    let image = image::may_launch(tx, scope, id.as_str())?;
    let kind = instance_type::find(request.instance_type.as_deref().unwrap_or(instance_type::DEFAULT))?;
    check(request, &image)?;
    let place = Place::choose(tx, home, scope, &request.place())?;
    let zone = place.zone.clone();
    let root_device = image.root_device_name.clone().unwrap_or_else(|| "/dev/sda1".into());
    let merged = mapping::merge(&Launch {
        image: &image.block_device_mappings,
        call: &request.mapping,
        root_device: &root_device,
        root_is_ebs: image.root_device_type == RootDeviceType::Ebs,
    })?;
    let key = request.key_name.as_deref().map(|name| key_pair::find(tx, scope, name)).transpose()?;
    let options = request.metadata.applied_to(metadata::defaults(image.imds_support.as_deref()))?;
    metadata::check_tags(&options, &request.tags)?;
    let metadata = serde_json::to_string(&options).map_err(|e| CloudError::Damaged(e.to_string()))?;
    let new_id = |kind| Id::new(kind).map_err(CloudError::host(home.root(), "cannot make an id"));
    let reservation = new_id(Kind::Reservation)?;
    let mut plan = Plan {
        instances: Vec::new(),
        volumes: Vec::new(),
        own_layers: Vec::new(),
        hints: merged.hints.clone(),
        before: false,
    };
    for index in 0..request.count {
        let id = new_id(Kind::Instance)?;
        let row = NewRow {
            id: &id,
            reservation: &reservation,
            index,
            zone: &zone,
            root_device: &root_device,
            public_key: key.as_ref().map(|pair| pair.public_key.as_str()),
            metadata: &metadata,
            backend,
        };
        insert(tx, scope, request, &image, kind, &row, operation)?;
        tag::add(tx, &id, &request.tags)?;
        network::attach_at(tx, home, &id, &place)?;
        let maker = Maker { tx, scope, home, request, image: &image, kind, zone: &zone, operation };
        maker.volumes(&id, &root_device, &merged, &mut plan)?;
        plan.instances.push(id);
    }
    Ok(plan)
}

/// Refuses what does not go together.
fn check(request: &RunRequest, image: &Image) -> Result<(), CloudError> {
    if request.count == 0 {
        return Err(CloudError::value(
            "Value (0) for parameter minCount is invalid: at least one instance is launched",
        ));
    }
    if request.count > MAX_COUNT {
        return Err(CloudError::InstanceLimit { asked: request.count, limit: MAX_COUNT });
    }
    if let Some(behavior) = &request.shutdown_behavior {
        check_shutdown_behavior(behavior, image.root_device_type == RootDeviceType::InstanceStore)?;
    }
    request.user_data.as_deref().map_or(Ok(()), check_user_data)
}

/// Refuses what is no shutdown behaviour, or not one of this kind of instances.
pub(super) fn check_shutdown_behavior(behavior: &str, is_instance_store: bool) -> Result<(), CloudError> {
    match behavior {
        "stop" if is_instance_store => {
            Err(CloudError::Unsupported("an instance-store instance cannot be stopped: its root is lost".into()))
        }
        "stop" | "terminate" => Ok(()),
        other => Err(CloudError::value(format!(
            "Value ({other}) for parameter instanceInitiatedShutdownBehavior is invalid: stop or terminate"
        ))),
    }
}

/// Refuses more user data than instances have.
pub(super) fn check_user_data(data: &[u8]) -> Result<(), CloudError> {
    if data.len() <= MAX_USER_DATA {
        return Ok(());
    }
    Err(CloudError::value(format!("User data is limited to {MAX_USER_DATA} bytes, and these are {}", data.len())))
}

/// What a token stands for: everything that the request says.
fn hash(request: &RunRequest) -> String {
    let hash = Sha256::digest(format!("{request:?}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The instances that the same request launched before, if its token is known.
fn launched_before(tx: &Transaction<'_>, scope: &Scope, request: &RunRequest) -> Result<Option<Vec<Id>>, CloudError> {
    let Some(token) = &request.client_token else { return Ok(None) };
    let mut query = tx.prepare(
        "SELECT id, request_hash FROM instances WHERE owner = ?1 AND client_token = ?2 AND region = ?3 ORDER BY launch_index",
    )?;
    let found =
        query.query_map([scope.account.as_str(), token, &scope.region], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(Id, Option<String>)> = found.collect::<Result<_, _>>()?;
    let wanted = Some(hash(request));
    match found.first() {
        None => Ok(None),
        Some((_, hash)) if *hash != wanted => Err(CloudError::TokenMismatch),
        Some(_) => Ok(Some(found.into_iter().map(|(id, _)| id).collect())),
    }
}

/// What is an instance's own in its row.
struct NewRow<'a> {
    id: &'a Id,
    reservation: &'a Id,
    index: u32,
    zone: &'a str,
    root_device: &'a str,
    public_key: Option<&'a str>,
    /// As JSON.
    metadata: &'a str,
    backend: Backend,
}

fn insert(
    tx: &Transaction<'_>,
    scope: &Scope,
    request: &RunRequest,
    image: &Image,
    kind: &InstanceType,
    row: &NewRow<'_>,
    operation: &Operation,
) -> Result<(), CloudError> {
    let is_store = image.root_device_type == RootDeviceType::InstanceStore;
    let behavior = request.shutdown_behavior.as_deref().unwrap_or(if is_store { "terminate" } else { "stop" });
    let options = serde_json::to_string(&request.machine).unwrap_or_else(|_| "{}".into());
    let now = time::now();
    tx.execute(
        "INSERT INTO instances (id, region, owner, zone, reservation, launch_index, image, instance_type, state, launched,
             changed, architecture, virtualization_type, boot_mode, root_device_type, root_device_name, kernel, ramdisk,
             key_name, user_data, shutdown_behavior, api_termination_disabled, options, client_token, request_hash, operation,
             public_key, metadata_options, backend)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
             ?23, ?24, ?25, ?26, ?27, ?28)",
        params![
            row.id,
            scope.region,
            scope.account.as_str(),
            row.zone,
            row.reservation,
            row.index,
            image.image_id,
            kind.name,
            state::PENDING,
            now,
            image.architecture,
            image.virtualization_type,
            image.boot_mode,
            image.root_device_type,
            row.root_device,
            image.kernel_id,
            image.ramdisk_id,
            request.key_name,
            request.user_data,
            behavior,
            request.disable_api_termination,
            options,
            request.client_token,
            request.client_token.as_ref().map(|_| hash(request)),
            operation.id(),
            row.public_key,
            row.metadata,
            row.backend
        ],
    )?;
    Ok(())
}

/// Writes down the volumes of a launch.
struct Maker<'a> {
    tx: &'a Transaction<'a>,
    scope: &'a Scope,
    home: &'a crate::cloud::home::Home,
    request: &'a RunRequest,
    image: &'a Image,
    kind: &'a InstanceType,
    zone: &'a str,
    operation: &'a Operation,
}

impl Maker<'_> {
    fn volumes(&self, instance: &Id, root: &str, merged: &Merged, plan: &mut Plan) -> Result<(), CloudError> {
        let has_root = merged.devices.iter().any(|device| device.device_name == root);
        if let Some(template) = self.image.template.as_deref() {
            self.own_volume(instance, root, None, Some(template), self.template_size(template)?, plan)?;
        } else if !has_root {
            return Err(CloudError::Mapping(format!("the image has no volume at its root device, {root}")));
        }
        for device in &merged.devices {
            match &device.target {
                Target::Ebs(ebs) => {
                    let snapshot = ebs.snapshot_id.as_deref().map(|id| self.snapshot(id)).transpose()?;
                    let request = VolumeRequest {
                        size: ebs.volume_size,
                        volume_type: ebs.volume_type.clone(),
                        iops: ebs.iops,
                        throughput: ebs.throughput,
                        ..VolumeRequest::default()
                    };
                    let made = volume::plan(self.home, &request, snapshot, self.zone.to_owned());
                    let made = made.map_err(|error| of_device(&device.device_name, error))?;
                    volume::insert(self.tx, self.scope, &made, self.operation)?;
                    let goes = ebs.delete_on_termination.unwrap_or(true);
                    volume::attach(self.tx, &made.id, instance, &device.device_name, goes, "attached")?;
                    tag::add(self.tx, &made.id, &self.request.volume_tags)?;
                    plan.volumes.push(made);
                }
                // Types without so many disks ignore the entry, as EC2 does.
                Target::Ephemeral(number) if *number < self.kind.disks => {
                    let size = self.kind.disk_gb.saturating_mul(GB).next_multiple_of(1 << 20);
                    self.own_volume(instance, &device.device_name, Some(*number), None, size, plan)?;
                }
                Target::Ephemeral(_) if !plan.instances.is_empty() => {}
                Target::Ephemeral(number) => plan.hints.push(format!(
                    "{}: {} has {} instance-store disks, so there is no ephemeral{number}",
                    device.device_name, self.kind.name, self.kind.disks
                )),
                Target::NoDevice => {}
            }
        }
        Ok(())
    }

    /// A snapshot that the image is made of, or one that the caller names.
    fn snapshot(&self, id: &str) -> Result<snapshot::Snapshot, CloudError> {
        let of_image = self
            .image
            .block_device_mappings
            .iter()
            .filter_map(BlockDevice::ebs)
            .any(|ebs| ebs.snapshot_id.as_deref() == Some(id));
        if of_image { snapshot::any(self.tx, id) } else { snapshot::visible(self.tx, self.scope, id) }
    }

    fn template_size(&self, template: &str) -> Result<u64, CloudError> {
        let size =
            self.tx.query_row("SELECT size FROM layers WHERE id = ?1", [template], |row| row.get(0)).optional()?;
        let missing = || CloudError::Damaged(format!("the catalogue has no layer {template}, the image's template"));
        size.map(layer::from_sql).ok_or_else(missing)
    }

    /// A volume that is the instance's own.
    fn own_volume(
        &self,
        instance: &Id,
        device: &str,
        ephemeral: Option<u8>,
        below: Option<&str>,
        size: u64,
        plan: &mut Plan,
    ) -> Result<(), CloudError> {
        let id = layer::new_id(self.home)?;
        layer::insert(self.tx, &id, size, below, self.operation)?;
        self.tx.execute(
            "INSERT INTO instance_store (instance, device, ephemeral, layer, size) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![instance, device, ephemeral, id, layer::to_sql(size)],
        )?;
        plan.own_layers.push((id, size));
        Ok(())
    }
}

/// An error of a volume as one of the mapping.
fn of_device(device: &str, error: CloudError) -> CloudError {
    match error {
        CloudError::Parameter { message, .. } => CloudError::Mapping(format!("{device}: {message}")),
        other => other,
    }
}
