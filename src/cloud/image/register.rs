//! Registration: an image made of snapshots that there are.

use std::collections::HashSet;

use rusqlite::{Connection, Transaction};

use super::new::NewImage;
use super::{Architecture, BootMode, Image, ImageType, Platform, RootDeviceType, VirtualizationType, access};
use crate::cloud::error::CloudError;
use crate::cloud::mapping::{BlockDevice, Ebs, Target};
use crate::cloud::scope::Scope;
use crate::cloud::tag::Tags;
use crate::cloud::{Cloud, Id, snapshot, volume};
use crate::launch::bdm::DeviceName;

/// Instance-store volumes have numbers below this.
const EPHEMERALS: u8 = 24;

/// What an image is to be ("RegisterImage").
#[derive(Clone, Debug, Default)]
pub struct RegisterRequest {
    /// 3 to 128 letters, digits, spaces and `( ) [ ] . / - ' @ _`.
    pub name: String,
    /// At most 255 characters.
    pub description: Option<String>,
    /// `i386` where not said, as EC2 has it.
    pub architecture: Option<Architecture>,
    /// `paravirtual` where not said, as EC2 has it.
    pub virtualization_type: Option<VirtualizationType>,
    /// For HVM images.
    pub boot_mode: Option<BootMode>,
    /// The system, where it is Windows.
    pub platform: Option<Platform>,
    /// Which of the mapping's devices is the root.
    pub root_device_name: Option<String>,
    /// The root's entry, which names a snapshot, and others.
    pub block_device_mappings: Vec<BlockDevice>,
    /// For PV images whose kernel is not in the image itself.
    pub kernel_id: Option<String>,
    /// Goes with a kernel.
    pub ramdisk_id: Option<String>,
    /// Kept.
    pub ena_support: bool,
    /// `v2.0`, or nothing.
    pub imds_support: Option<String>,
    /// The manifest of an instance-store image: those are imported.
    pub image_location: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl Cloud {
    /// Registers an image of snapshots.
    ///
    /// # Errors
    /// `InvalidAMIName.Malformed`, `.Duplicate`; `MissingParameter`, `InvalidParameterValue`, `InvalidParameterCombination`;
    /// `InvalidBlockDeviceMapping`; `InvalidSnapshot.NotFound`, and `IncorrectState` for a snapshot that is not completed;
    /// of kernel and ramdisk what [`Cloud::launchable_image`] says; `UnsupportedOperation` for instance-store images.
    pub fn register_image(&mut self, request: &RegisterRequest) -> Result<Image, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let id = plan(tx, &scope, request)?.insert(tx, &scope, None)?;
            access::own(tx, &scope, id.as_str())
        })
    }
}

/// What a request comes to.
fn plan(tx: &Transaction<'_>, scope: &Scope, request: &RegisterRequest) -> Result<NewImage, CloudError> {
    if request.image_location.as_ref().is_some_and(|location| !location.is_empty()) {
        let why = "instance-store images are made from their bundle: amiboot image import MANIFEST --name NAME";
        return Err(CloudError::Unsupported(why.into()));
    }
    let architecture = request.architecture.unwrap_or(Architecture::I386);
    let virtualization_type = request.virtualization_type.unwrap_or(VirtualizationType::Paravirtual);
    check_boot_mode(virtualization_type, architecture, request.boot_mode)?;
    if let Some(other) = request.imds_support.as_ref().filter(|support| *support != "v2.0") {
        return Err(CloudError::value(format!("Invalid value '{other}' for imds support; possible is v2.0")));
    }
    let named = (request.kernel_id.as_deref(), request.ramdisk_id.as_deref());
    let (kernel, ramdisk) = find_kernel(tx, scope, named, virtualization_type, architecture)?;
    let root = root_device(request)?;
    let mapping = check_mapping(tx, scope, &request.block_device_mappings)?;
    let entry = mapping.iter().find(|entry| entry.device_name == root);
    if entry.and_then(BlockDevice::ebs).is_none_or(|ebs| ebs.snapshot_id.is_none()) {
        let why = format!("The root device {root} has to be in the block device mapping, with a snapshot");
        return Err(CloudError::Mapping(why));
    }
    Ok(NewImage {
        description: request.description.clone().unwrap_or_default(),
        boot_mode: request.boot_mode,
        platform: request.platform,
        root_device_name: Some(root),
        mapping,
        kernel,
        ramdisk,
        ena_support: request.ena_support,
        imds_support: request.imds_support.clone(),
        tags: request.tags.clone(),
        ..NewImage::new(&request.name, architecture, virtualization_type, RootDeviceType::Ebs)
    })
}

/// Refuses a boot mode that the guest would not come up in.
pub(in crate::cloud) fn check_boot_mode(
    virtualization_type: VirtualizationType,
    architecture: Architecture,
    boot_mode: Option<BootMode>,
) -> Result<(), CloudError> {
    match (virtualization_type, architecture, boot_mode) {
        (VirtualizationType::Paravirtual, _, Some(mode)) => Err(CloudError::combination(format!(
            "boot mode {mode}: a paravirtual image is started without firmware; leave it out, or make the image hvm"
        ))),
        (_, Architecture::I386, Some(mode @ (BootMode::Uefi | BootMode::UefiPreferred))) => {
            Err(CloudError::combination(format!("boot mode {mode}: an i386 image cannot be started by UEFI")))
        }
        _ => Ok(()),
    }
}

/// The kernel and ramdisk images that the caller names, for an image of this kind.
///
/// # Errors
/// `InvalidParameterCombination`, `InvalidParameterValue`; as for using an image.
pub(in crate::cloud) fn find_kernel(
    db: &Connection,
    scope: &Scope,
    (kernel, ramdisk): (Option<&str>, Option<&str>),
    virtualization_type: VirtualizationType,
    architecture: Architecture,
) -> Result<(Option<Id>, Option<Id>), CloudError> {
    let (kernel, ramdisk) = (kernel.filter(|id| !id.is_empty()), ramdisk.filter(|id| !id.is_empty()));
    if virtualization_type == VirtualizationType::Hvm && (kernel.is_some() || ramdisk.is_some()) {
        let why = "an hvm image starts the kernel that is on its disk: leave kernel and ramdisk out";
        return Err(CloudError::combination(why));
    }
    if ramdisk.is_some() && kernel.is_none() {
        return Err(CloudError::combination("a ramdisk goes with a kernel: give the kernel, too"));
    }
    let find = |id: Option<&str>, image_type: ImageType| {
        let Some(id) = id else { return Ok(None) };
        let image = access::may_use(db, scope, id)?;
        if image.image_type != image_type {
            return Err(CloudError::value(format!("{id} is not a {image_type}, but a {}", image.image_type)));
        }
        // A 32-bit image may name no 64-bit kernel, nor the other way round.
        if image.architecture != architecture {
            let why = format!("the {image_type} {id} is for {}, and the image for {architecture}", image.architecture);
            return Err(CloudError::combination(why));
        }
        Ok(Some(image.image_id))
    };
    Ok((find(kernel, ImageType::Kernel)?, find(ramdisk, ImageType::Ramdisk)?))
}

fn root_device(request: &RegisterRequest) -> Result<String, CloudError> {
    let missing = |what: &str| {
        let message = format!("The request must contain the parameter {what}");
        CloudError::Parameter { code: "MissingParameter", message }
    };
    if request.block_device_mappings.is_empty() {
        return Err(missing("blockDeviceMapping"));
    }
    let name = request.root_device_name.as_ref().filter(|name| !name.is_empty());
    name.cloned().ok_or_else(|| missing("rootDeviceName"))
}

/// The mapping as it is kept: with sizes and kinds of volumes, and without devices that are not there.
///
/// # Errors
/// `InvalidBlockDeviceMapping`; what is wrong with a snapshot.
pub(in crate::cloud) fn check_mapping(
    db: &Connection,
    scope: &Scope,
    mapping: &[BlockDevice],
) -> Result<Vec<BlockDevice>, CloudError> {
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for entry in mapping {
        let name = &entry.device_name;
        let fail = |why: &str| CloudError::Mapping(format!("Invalid device name or mapping: {name} {why}"));
        let device: DeviceName = name.parse().map_err(|_| fail("is not a device name of a block device mapping"))?;
        if device.as_str() != name {
            return Err(fail(&format!("write it as {device}")));
        }
        if !seen.insert(name) {
            return Err(fail("is there twice in the block device mapping"));
        }
        let target = match &entry.target {
            Target::Ebs(ebs) => Target::Ebs(check_volume(db, scope, name, ebs)?),
            Target::Ephemeral(number) if *number >= EPHEMERALS => {
                return Err(fail(&format!("ephemeral{number}: there are ephemeral0 to ephemeral{}", EPHEMERALS - 1)));
            }
            Target::Ephemeral(number) => Target::Ephemeral(*number),
            Target::NoDevice => continue,
        };
        kept.push(BlockDevice { device_name: name.clone(), target });
    }
    Ok(kept)
}

fn check_volume(db: &Connection, scope: &Scope, device: &str, ebs: &Ebs) -> Result<Ebs, CloudError> {
    let fail = |why: String| Err(CloudError::Mapping(why));
    let snapshot = ebs.snapshot_id.as_ref().map(|id| snapshot::visible(db, scope, id)).transpose()?;
    if let Some(pending) = snapshot.as_ref().filter(|snapshot| snapshot.state != "completed") {
        let why = format!("it is {}, and has to be completed for that", pending.state);
        return Err(CloudError::State { what: pending.snapshot_id.to_string(), why });
    }
    let size = match (ebs.volume_size, &snapshot) {
        (Some(size), Some(snapshot)) if size < snapshot.volume_size => {
            return fail(format!(
                "Volume of size {size}GB is smaller than snapshot '{}', expect size >= {}GB",
                snapshot.snapshot_id, snapshot.volume_size
            ));
        }
        (Some(size), _) => size,
        (None, Some(snapshot)) => snapshot.volume_size,
        (None, None) => {
            return fail(format!("Invalid device name or mapping: {device} has neither a size nor a snapshot"));
        }
    };
    let volume_type = ebs.volume_type.clone().unwrap_or_else(|| volume::DEFAULT_TYPE.into());
    volume::check_size(&volume_type, size)?;
    Ok(Ebs {
        snapshot_id: snapshot.map(|snapshot| snapshot.snapshot_id.to_string()),
        volume_size: Some(size),
        volume_type: Some(volume_type),
        delete_on_termination: Some(ebs.delete_on_termination.unwrap_or(true)),
        iops: ebs.iops,
        throughput: ebs.throughput,
    })
}
