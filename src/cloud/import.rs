//! Disks of files become images and snapshots, and the other way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Transaction;

use super::bundle::{self, BundleKeys};
use super::error::CloudError;
use super::id::{Id, Kind};
use super::image::{
    self, Architecture, BootMode, Image, ImageType, NewImage, Platform, RootDeviceType, VirtualizationType,
};
use super::mapping::{BlockDevice, Ebs, GIB, Target};
use super::operation::Operation;
use super::snapshot::{self, Snapshot};
use super::store::Progress;
use super::tag::{self, Tags};
use super::{Begun, Cloud, layer};
use crate::disk::Disk;
use crate::disk::foreign;
use crate::disk::foreign::import::ImportFormat;
use crate::image::Inspection;
use crate::image::bundle::{Description, Kind as BundleKind};

/// What an image is to be made of, and what is said of it. What is not said comes from inside the disk.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// The disk's file; of a kernel or ramdisk its own.
    pub path: PathBuf,
    /// Its format; looked for in the file where not said.
    pub format: Option<ImportFormat>,
    /// The image's name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// A machine's disk, a kernel, or a ramdisk.
    pub image_type: Option<ImageType>,
    /// The processor.
    pub architecture: Option<Architecture>,
    /// PV or HVM.
    pub virtualization_type: Option<VirtualizationType>,
    /// The firmware of an HVM image.
    pub boot_mode: Option<BootMode>,
    /// The system.
    pub platform: Option<Platform>,
    /// The root's device.
    pub root_device_name: Option<String>,
    /// The root of its instances is made of a template and lost with them, rather than a volume.
    pub instance_store: bool,
    /// The kernel image of a PV image.
    pub kernel_id: Option<String>,
    /// The ramdisk image that goes with it.
    pub ramdisk_id: Option<String>,
    /// How an instance-store bundle is opened, whose manifest the file then is.
    pub bundle: Option<BundleKeys>,
    /// Tags of the image.
    pub tags: Tags,
}

/// What of an import is made: a layer of so many GiB.
struct Plan {
    image: Id,
    snapshot: Option<Id>,
    layer: String,
    size_gib: u64,
}

impl Plan {
    fn size(&self) -> u64 {
        self.size_gib.saturating_mul(GIB)
    }
}

impl Cloud {
    /// Makes an image of a disk file. It appears, `pending`, when the import begins, and is gone again where that fails or is
    /// broken off.
    ///
    /// # Errors
    /// What is wrong with the file; `InvalidAMIName.*`; what does not go together; [`CloudError::NoSpace`].
    pub fn import_image(&mut self, request: &ImportRequest, progress: &mut Progress<'_>) -> Result<Image, CloudError> {
        self.import_image_with(request, progress, &mut |_| {})
    }

    /// The same; `begun` is told of the pending image.
    ///
    /// # Errors
    /// As [`Cloud::import_image`].
    pub fn import_image_with(
        &mut self,
        request: &ImportRequest,
        progress: &mut Progress<'_>,
        begun: &mut Begun<'_, Image>,
    ) -> Result<Image, CloudError> {
        if let Some(keys) = &request.bundle {
            let mut unpacking = |at: foreign::Progress| {
                let _ = progress(at.done, at.total);
            };
            let (disk, said) = bundle::open(&self.home, &request.path, keys, &mut unpacking)?;
            return self.import_disk(&said_by_bundle(request, &said), &disk, progress, begun);
        }
        let is_machine = request.image_type.is_none_or(|kind| kind == ImageType::Machine);
        let format = if is_machine { request.format } else { Some(ImportFormat::Raw) };
        let imported = foreign::import::open(&request.path, format)?;
        self.import_disk(request, &imported.disk, progress, begun)
    }

    fn import_disk(
        &mut self,
        request: &ImportRequest,
        disk: &Arc<dyn Disk>,
        progress: &mut Progress<'_>,
        begun: &mut Begun<'_, Image>,
    ) -> Result<Image, CloudError> {
        let is_machine = request.image_type.is_none_or(|kind| kind == ImageType::Machine);
        let new = if is_machine { describe(request, disk)? } else { describe_part(request) };
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.check_space(disk.as_ref())?;
        let is_ebs = is_machine && !request.instance_store;
        let size_gib = disk.size().div_ceil(GIB).max(1);
        let plan = self.operation(
            "import-image",
            |tx, operation| {
                let mut new = new.clone();
                let named = (request.kernel_id.as_deref(), request.ramdisk_id.as_deref());
                (new.kernel, new.ramdisk) =
                    image::find_kernel(tx, &scope, named, new.virtualization_type, new.architecture)?;
                let image = new.insert(tx, &scope, Some(operation))?;
                let description = format!("Created by ImportImage for {image}");
                let snapshot = is_ebs.then(|| begin_snapshot(tx, &scope, &home, size_gib, &description, operation));
                let layer = layer::new_id(&home)?;
                layer::insert(tx, &layer, size_gib.saturating_mul(GIB), None, operation)?;
                Ok(Plan { image, snapshot: snapshot.transpose()?, layer, size_gib })
            },
            |cloud, operation, plan| {
                begun(&cloud.image(plan.image.as_str())?);
                let size = if is_machine { plan.size() } else { disk.size() };
                cloud.store().fill(&plan.layer, size, disk.as_ref(), progress)?;
                cloud.catalogue.write(|tx| {
                    layer::made(tx, &plan.layer, "sealed")?;
                    if let Some(snapshot) = &plan.snapshot {
                        snapshot::complete(tx, snapshot, &plan.layer)?;
                    }
                    let template = plan.snapshot.is_none().then_some(plan.layer.as_str());
                    image::complete(tx, &plan.image, &mapping(&new, &plan), template)?;
                    operation.finish(tx)
                })?;
                Ok(plan)
            },
        )?;
        self.image(plan.image.as_str())
    }

    /// Makes a snapshot of a disk file.
    ///
    /// # Errors
    /// What is wrong with the file; [`CloudError::NoSpace`].
    pub fn import_snapshot(
        &mut self,
        path: &Path,
        format: Option<ImportFormat>,
        description: &str,
        tags: &Tags,
        progress: &mut Progress<'_>,
    ) -> Result<Snapshot, CloudError> {
        self.import_snapshot_with(path, format, description, tags, progress, &mut |_| {})
    }

    /// The same; `begun` is told of the pending snapshot.
    ///
    /// # Errors
    /// As [`Cloud::import_snapshot`].
    pub fn import_snapshot_with(
        &mut self,
        path: &Path,
        format: Option<ImportFormat>,
        description: &str,
        tags: &Tags,
        progress: &mut Progress<'_>,
        begun: &mut Begun<'_, Snapshot>,
    ) -> Result<Snapshot, CloudError> {
        let imported = foreign::import::open(path, format)?;
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.check_space(imported.disk.as_ref())?;
        let size_gib = imported.disk.size().div_ceil(GIB).max(1);
        let snapshot = self.operation(
            "import-snapshot",
            |tx, operation| {
                let snapshot = begin_snapshot(tx, &scope, &home, size_gib, description, operation)?;
                tag::add(tx, &snapshot, tags)?;
                let layer = layer::new_id(&home)?;
                layer::insert(tx, &layer, size_gib.saturating_mul(GIB), None, operation)?;
                Ok((snapshot, layer))
            },
            |cloud, operation, (snapshot, layer)| {
                begun(&cloud.catalogue.read(|tx| snapshot::visible(tx, &scope, snapshot.as_str()))?);
                let size = size_gib.saturating_mul(GIB);
                cloud.store().fill(&layer, size, imported.disk.as_ref(), progress)?;
                cloud.catalogue.write(|tx| {
                    layer::made(tx, &layer, "sealed")?;
                    snapshot::complete(tx, &snapshot, &layer)?;
                    operation.finish(tx)
                })?;
                Ok(snapshot)
            },
        )?;
        self.catalogue.read(|tx| snapshot::visible(tx, &scope, snapshot.as_str()))
    }

    /// The disk that an image's root is made of, to be read.
    ///
    /// # Errors
    /// As for launching the image; what is wrong with its layers.
    pub fn image_disk(&mut self, id: &str) -> Result<(Image, Arc<dyn Disk>), CloudError> {
        let scope = self.scope.clone();
        let _hold = self.store().hold_shared()?;
        let (image, chain, size) = self.catalogue.read(|tx| {
            let image = image::may_use(tx, &scope, id)?;
            let (top, size_gib) = match (&image.template, image.root_snapshot()) {
                (Some(template), _) => (template.clone(), None),
                (None, Some(id)) => {
                    let snapshot = snapshot::any(tx, id)?;
                    (snapshot.layer.unwrap_or_default(), Some(snapshot.volume_size))
                }
                (None, None) => {
                    return Err(CloudError::Damaged(format!("{}: it has no root to read", image.image_id)));
                }
            };
            let chain = layer::chain(tx, &top)?;
            let size =
                size_gib.map_or_else(|| chain.last().map_or(0, |layer| layer.size), |gib| gib.saturating_mul(GIB));
            Ok((image, chain, size))
        })?;
        let disk = self.store().open(&chain, size)?;
        Ok((image, disk))
    }

    /// The disk of a snapshot, to be read.
    ///
    /// # Errors
    /// `InvalidSnapshot.NotFound`; what is wrong with its layers.
    pub fn snapshot_disk(&mut self, id: &str) -> Result<(Snapshot, Arc<dyn Disk>), CloudError> {
        let scope = self.scope.clone();
        let _hold = self.store().hold_shared()?;
        let (snapshot, chain) = self.catalogue.read(|tx| {
            let snapshot = snapshot::visible(tx, &scope, &snapshot::resolve(tx, &scope, id)?)?;
            let why = format!("it is {}, not completed", snapshot.state);
            let pending = CloudError::State { what: snapshot.snapshot_id.to_string(), why };
            let chain = layer::chain(tx, snapshot.layer.as_deref().ok_or(pending)?)?;
            Ok((snapshot, chain))
        })?;
        let disk = self.store().open(&chain, snapshot.volume_size.saturating_mul(GIB))?;
        Ok((snapshot, disk))
    }

    /// Refuses a disk that there is no room for.
    fn check_space(&self, disk: &dyn Disk) -> Result<(), CloudError> {
        let need = foreign::export::data_len(disk).map_err(CloudError::host("the disk", "cannot read it"))?;
        let have = self.home.free_for_layers()?;
        if need <= have {
            return Ok(());
        }
        Err(CloudError::NoSpace { path: self.home.root().to_owned(), need, have })
    }
}

fn begin_snapshot(
    tx: &Transaction<'_>,
    scope: &super::scope::Scope,
    home: &super::home::Home,
    size_gib: u64,
    description: &str,
    operation: &Operation,
) -> Result<Id, CloudError> {
    let id = Id::new(Kind::Snapshot).map_err(CloudError::host(home.root(), "cannot make an id"))?;
    let new = snapshot::New { id: &id, volume: None, size_gib, description };
    snapshot::insert(tx, scope, &new, operation.id())?;
    Ok(id)
}

fn mapping(new: &NewImage, plan: &Plan) -> Vec<BlockDevice> {
    let (Some(device_name), Some(snapshot)) = (new.root_device_name.clone(), &plan.snapshot) else { return Vec::new() };
    let ebs = Ebs {
        snapshot_id: Some(snapshot.to_string()),
        volume_size: Some(plan.size_gib),
        volume_type: Some(super::volume::DEFAULT_TYPE.into()),
        delete_on_termination: Some(true),
        ..Ebs::default()
    };
    vec![BlockDevice { device_name, target: Target::Ebs(ebs) }]
}

/// What a kernel or ramdisk is.
fn describe_part(request: &ImportRequest) -> NewImage {
    let architecture = request.architecture.unwrap_or(Architecture::X86_64);
    let mut new = NewImage::new(
        request.name.clone(),
        architecture,
        VirtualizationType::Paravirtual,
        RootDeviceType::InstanceStore,
    );
    new.description.clone_from(&request.description);
    new.image_type = request.image_type.unwrap_or(ImageType::Kernel);
    new.tags = request.tags.clone();
    new
}

/// What a bundle says of its image, where the request says nothing.
fn said_by_bundle(request: &ImportRequest, said: &Description) -> ImportRequest {
    let architecture = said.architecture.parse().ok();
    ImportRequest {
        architecture: request.architecture.or(architecture),
        image_type: Some(match said.kind {
            BundleKind::Machine => ImageType::Machine,
            BundleKind::Kernel => ImageType::Kernel,
            BundleKind::Ramdisk => ImageType::Ramdisk,
        }),
        root_device_name: request.root_device_name.clone().or_else(|| {
            let root = said.block_device_mapping.iter().find(|entry| entry.virtual_name == "root")?;
            root.device.parse::<crate::launch::bdm::DeviceName>().ok().map(|name| name.to_string())
        }),
        instance_store: true,
        bundle: None,
        ..request.clone()
    }
}

/// What a disk is, by what is inside it and by what the request says.
fn describe(request: &ImportRequest, disk: &Arc<dyn Disk>) -> Result<NewImage, CloudError> {
    let path = request.path.display();
    let inspected = crate::image::inspect(disk.clone());
    let inspection = inspected.as_ref().ok().map(crate::image::Image::inspection);
    let architecture =
        request.architecture.or_else(|| inspection.and_then(|found| found.architecture).map(Into::into)).ok_or_else(
            || CloudError::value(format!("{path}: what processor it is for cannot be seen in it; say --architecture")),
        )?;
    let virtualization = match request.virtualization_type {
        Some(kind) => kind,
        None => inspection.and_then(|found| virtualization(found, request)).ok_or_else(|| {
            let why = inspection.map_or_else(|| "nothing in it could be read".into(), reasons);
            CloudError::value(format!(
                "{path}: neither a PV nor an HVM image can be seen in it ({why}); say --virtualization-type"
            ))
        })?,
    };
    let is_hvm = virtualization == VirtualizationType::Hvm;
    image::check_boot_mode(virtualization, architecture, request.boot_mode)?;
    let store = if request.instance_store { RootDeviceType::InstanceStore } else { RootDeviceType::Ebs };
    let mut new = NewImage::new(request.name.clone(), architecture, virtualization, store);
    new.description.clone_from(&request.description);
    new.boot_mode = request.boot_mode.or_else(|| inspection.filter(|_| is_hvm).and_then(boot_mode));
    new.platform = request.platform;
    let unpartitioned =
        inspection.is_some_and(|found| found.partition_table == crate::image::partition::TableKind::None);
    let device = if unpartitioned { "/dev/sda1" } else { "/dev/xvda" };
    let device = request.root_device_name.clone().unwrap_or_else(|| device.into());
    let named: crate::launch::bdm::DeviceName =
        device.parse().map_err(|error| CloudError::value(format!("{error}")))?;
    new.root_device_name = Some(named.to_string());
    new.ena_support = is_hvm;
    new.login_user = inspection.and_then(|found| found.login_user.clone());
    new.tags = request.tags.clone();
    Ok(new)
}

/// HVM where firmware finds something to boot, else PV where there is a kernel.
fn virtualization(found: &Inspection, request: &ImportRequest) -> Option<VirtualizationType> {
    let modes = &found.boot_modes;
    if request.kernel_id.is_some() {
        return Some(VirtualizationType::Paravirtual);
    }
    if modes.hvm_bios.possible || modes.hvm_uefi.possible {
        return Some(VirtualizationType::Hvm);
    }
    modes.pv.possible.then_some(VirtualizationType::Paravirtual)
}

/// What the disk can boot by, where that is one way only: with both, the instance type decides, as on EC2.
fn boot_mode(found: &Inspection) -> Option<BootMode> {
    match (found.boot_modes.hvm_bios.possible, found.boot_modes.hvm_uefi.possible) {
        (true, false) => Some(BootMode::LegacyBios),
        (false, true) => Some(BootMode::Uefi),
        _ => None,
    }
}

fn reasons(found: &Inspection) -> String {
    let modes = &found.boot_modes;
    format!("pv: {}; bios: {}; uefi: {}", modes.pv.reason, modes.hvm_bios.reason, modes.hvm_uefi.reason)
}
