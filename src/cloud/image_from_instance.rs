//! An image made of an instance: a snapshot of each of its volumes, registered under the devices' names.

use std::collections::HashSet;

use rusqlite::{Transaction, params};

use super::error::CloudError;
use super::id::{Id, Kind};
use super::image::{self, Image, NewImage, RootDeviceType};
use super::instance::{self, Instance, StopRequest, state};
use super::mapping::{BlockDevice, Ebs, Target};
use super::operation::Operation;
use super::scope::Scope;
use super::snapshot::take::{self, Taken, Taking};
use super::tag::{self, Tags};
use super::volume::{self, Attachment, Volume};
use super::{Begun, Cloud};
use crate::monitor::protocol::FileSystems;

/// What is to be made of an instance.
#[derive(Clone, Debug, Default)]
pub struct CreateImageRequest {
    /// The instance.
    pub instance: String,
    /// The image's name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// Takes the snapshots while the guest runs: what it had flushed is in them, and where its agent has frozen the file
    /// systems, all that was written to these. Else the guest is asked to switch itself off
    /// first, and started again afterwards.
    pub no_reboot: bool,
    /// How the guest is asked.
    pub stop: StopRequest,
    /// Entries that change the image's mapping: whether a volume goes with its instance, one that is left out, one more.
    pub mapping: Vec<BlockDevice>,
    /// Tags of the image.
    pub tags: Tags,
    /// Tags of its snapshots; those of the image where nothing is said.
    pub snapshot_tags: Option<Tags>,
}

/// What was written down.
struct Plan {
    image: Id,
    instance: Instance,
    /// Was it running?
    was_running: bool,
    volumes: Vec<(Attachment, Volume, Taking)>,
    more: Vec<BlockDevice>,
}

impl Cloud {
    /// Makes an image of an instance. It is `pending` until its snapshots are taken, and `failed`, with the reason, where that
    /// could not be done; an instance that ran runs afterwards, either way.
    ///
    /// # Errors
    /// `IncorrectInstanceState`, `UnsupportedOperation` for instance-store roots, `InvalidAMIName.*`,
    /// `InvalidBlockDeviceMapping`; what the host or the machine's process says.
    pub fn create_image(&mut self, request: &CreateImageRequest) -> Result<Taken<Image>, CloudError> {
        self.create_image_with(request, &mut |_| {})
    }

    /// The same; `begun` is told of the pending image.
    ///
    /// # Errors
    /// As [`Cloud::create_image`].
    pub fn create_image_with(
        &mut self,
        request: &CreateImageRequest,
        begun: &mut Begun<'_, Image>,
    ) -> Result<Taken<Image>, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.operation(
            "create-image",
            |tx, operation| plan(tx, &scope, &home, request, operation),
            |cloud, operation, plan| {
                begun(&cloud.image(plan.image.as_str())?);
                let made = cloud.make_image(&plan, request);
                let file_systems = match made {
                    Ok(file_systems) => file_systems,
                    Err(error) => {
                        let reason = format!("Server.InternalError: {error}");
                        cloud.catalogue.write(|tx| image::fail(tx, &plan.image, &reason))?;
                        // The instance, if it was stopped, is started again by what is undone now.
                        return Err(error);
                    }
                };
                if plan.was_running && !cloud.runs(&plan.instance.instance_id)? {
                    cloud.start_machine(&plan.instance.instance_id, operation)?;
                }
                cloud.catalogue.write(|tx| {
                    let free = "UPDATE instances SET operation = NULL WHERE id = ?1 AND operation = ?2";
                    tx.execute(free, params![plan.instance.instance_id, operation.id()])?;
                    operation.finish(tx)
                })?;
                cloud.notice(&plan.instance.instance_id);
                Ok(Taken { made: cloud.image(plan.image.as_str())?, file_systems })
            },
        )
    }

    fn make_image(&mut self, plan: &Plan, request: &CreateImageRequest) -> Result<Vec<(Id, FileSystems)>, CloudError> {
        let id = &plan.instance.instance_id;
        if plan.was_running && !request.no_reboot {
            self.end_machine(id, request.stop)?;
        }
        let takings: Vec<_> = plan.volumes.iter().map(|(.., taking)| (Some(id.clone()), taking.clone())).collect();
        let file_systems = self.take(&takings)?;
        let takings: Vec<Taking> = takings.into_iter().map(|(_, taking)| taking).collect();
        self.catalogue.write(|tx| {
            take::taken(tx, &takings)?;
            image::complete(tx, &plan.image, &mapping(plan), None)
        })?;
        Ok(file_systems)
    }
}

/// Checks the request and writes down what it makes.
fn plan(
    tx: &Transaction<'_>,
    scope: &Scope,
    home: &super::home::Home,
    request: &CreateImageRequest,
    operation: &Operation,
) -> Result<Plan, CloudError> {
    let instance = instance::own(tx, scope, &request.instance)?;
    instance::check_idle(&instance)?;
    if instance.is_instance_store() {
        return Err(CloudError::Unsupported(format!(
            "The instance '{}' has an instance-store root, of which no image can be made; export and bundle it instead",
            instance.instance_id
        )));
    }
    if !matches!(instance.state.as_str(), state::RUNNING | state::STOPPED) {
        let (id, state) = (instance.instance_id, instance.state);
        return Err(CloudError::InstanceState { id, state, verb: "made an image of" });
    }
    let attached = volume::of_instance(tx, &instance.instance_id)?;
    let (changed, more) = change(&instance, attached, &request.mapping)?;
    let more = image::check_mapping(tx, scope, &more)?;
    let mut new = new_image(tx, scope, &instance, request)?;
    // Kept with the image from now on, so that nobody deletes what it will be made of.
    new.mapping.clone_from(&more);
    let image = new.insert(tx, scope, Some(operation))?;
    let volumes: Vec<Volume> = changed.iter().map(|(_, volume)| volume.clone()).collect();
    let description = format!("Created by CreateImage({}) for {image}", instance.instance_id);
    let takings = take::begin(tx, home, scope, &volumes, &description, operation)?;
    let snapshot_tags = request.snapshot_tags.as_ref().unwrap_or(&request.tags);
    takings.iter().try_for_each(|taking| tag::add(tx, &taking.snapshot, snapshot_tags))?;
    instance::claim(tx, &instance.instance_id, operation)?;
    let volumes = changed.into_iter().zip(takings).map(|((at, volume), taking)| (at, volume, taking)).collect();
    let was_running = instance.state == state::RUNNING;
    Ok(Plan { image, instance, was_running, volumes, more })
}

/// The image, as far as it is known before its snapshots are.
fn new_image(
    tx: &Transaction<'_>,
    scope: &Scope,
    instance: &Instance,
    request: &CreateImageRequest,
) -> Result<NewImage, CloudError> {
    let id = Id::parse(Kind::Image, &instance.image_id)?;
    let origin = image::any(tx, scope, &id)?;
    let text = |what: &str| CloudError::Damaged(format!("{}: {what} is not known", instance.instance_id));
    let mut new = NewImage::new(
        request.name.clone(),
        instance.architecture.parse().map_err(|_| text("its architecture"))?,
        instance.virtualization_type.parse().map_err(|_| text("its virtualization type"))?,
        RootDeviceType::Ebs,
    );
    new.description.clone_from(&request.description);
    new.root_device_name = Some(instance.root_device_name.clone());
    new.boot_mode = instance.boot_mode.as_deref().and_then(|mode| mode.parse().ok());
    new.kernel = instance.kernel_id.as_deref().map(|id| Id::parse(Kind::KernelImage, id)).transpose()?;
    new.ramdisk = instance.ramdisk_id.as_deref().map(|id| Id::parse(Kind::RamdiskImage, id)).transpose()?;
    new.source_instance = Some(instance.instance_id.clone());
    new.tags = request.tags.clone();
    if let Some(origin) = origin {
        new.platform = origin.platform;
        new.ena_support = origin.ena_support;
        new.imds_support = origin.imds_support;
        new.login_user = origin.login_user;
        new.product_codes = origin.product_codes;
    }
    Ok(new)
}

type Attached = Vec<(Attachment, Volume)>;

/// The attached volumes that get into the image, and what the request adds.
fn change(
    instance: &Instance,
    attached: Attached,
    changes: &[BlockDevice],
) -> Result<(Attached, Vec<BlockDevice>), CloudError> {
    let bad = |device: &str, why: &str| CloudError::Mapping(format!("block device mapping of {device}: {why}"));
    let mut attached = attached;
    let mut more = Vec::new();
    let mut seen = HashSet::new();
    for entry in changes {
        let device = entry.device_name.as_str();
        if !seen.insert(device) {
            return Err(bad(device, "it is there twice"));
        }
        let place = attached.iter().position(|(at, _)| at.device == device);
        match (&entry.target, place) {
            (Target::NoDevice, Some(_)) if device == instance.root_device_name => {
                return Err(bad(device, "this is the root, which cannot be left out"));
            }
            (Target::NoDevice, Some(at)) => drop(attached.remove(at)),
            (Target::NoDevice, None) => {}
            (Target::Ebs(ebs), Some(_)) if ebs.snapshot_id.is_some() || ebs.volume_size.is_some() => {
                return Err(bad(
                    device,
                    "of a volume that is attached only whether it goes with its instance can be changed",
                ));
            }
            (Target::Ebs(ebs), Some(at)) => {
                if let (Some(goes), Some((attachment, _))) = (ebs.delete_on_termination, attached.get_mut(at)) {
                    attachment.delete_on_termination = goes;
                }
            }
            (Target::Ephemeral(_), Some(_)) => return Err(bad(device, "a volume is attached there")),
            (Target::Ebs(ebs), None) if ebs.snapshot_id.is_none() && ebs.volume_size.is_none() => {
                return Err(bad(device, "a further volume needs a size or a snapshot"));
            }
            (_, None) => more.push(entry.clone()),
        }
    }
    if !attached.iter().any(|(at, _)| at.device == instance.root_device_name) {
        let why = format!("no volume is attached at the root device, {}", instance.root_device_name);
        return Err(CloudError::State { what: instance.instance_id.to_string(), why });
    }
    Ok((attached, more))
}

/// The image's mapping, the root first.
fn mapping(plan: &Plan) -> Vec<BlockDevice> {
    let volumes = plan.volumes.iter().map(|(at, volume, taking)| BlockDevice {
        device_name: at.device.clone(),
        target: Target::Ebs(Ebs {
            snapshot_id: Some(taking.snapshot.to_string()),
            volume_size: Some(volume.size),
            volume_type: Some(volume.volume_type.clone()),
            delete_on_termination: Some(at.delete_on_termination),
            iops: volume.iops,
            throughput: volume.throughput,
        }),
    });
    let mut mapping: Vec<BlockDevice> = volumes.chain(plan.more.iter().cloned()).collect();
    mapping.sort_by_key(|entry| (entry.device_name != plan.instance.root_device_name, entry.device_name.clone()));
    mapping
}
