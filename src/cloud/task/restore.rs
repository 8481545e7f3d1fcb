//! Images restored from objects.

use std::collections::BTreeMap;
use std::str::FromStr;

use rusqlite::Transaction;
use sha2::{Digest, Sha256};
use vm_memory::VolatileSlice;

use super::archive::{Manifest, Reader, StoredSnapshot};
use super::place;
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::{Id, Kind};
use crate::cloud::image::{self, Image, NewImage, RootDeviceType};
use crate::cloud::mapping::{BlockDevice, Ebs, GIB, Target};
use crate::cloud::operation::Operation;
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::cloud::{BLOCK, Begun, Cloud, layer, snapshot};
use crate::disk::layered::Layered;
use crate::disk::{Disk, HostCache};

/// An image that is to be restored ("CreateRestoreImageTask").
#[derive(Clone, Debug, Default)]
pub struct RestoreRequest {
    /// The bucket.
    pub bucket: String,
    /// The key of the object.
    pub object_key: String,
    /// The image's name; the stored one's where empty.
    pub name: String,
    /// Tags of the image, beside those that were stored.
    pub tags: Tags,
    /// Tags of its snapshots, beside those that were stored with each.
    pub snapshot_tags: Tags,
}

/// A snapshot that is being restored.
struct Restoring {
    snapshot: Id,
    layer: String,
}

struct Plan {
    image: Id,
    /// One for each of the manifest's.
    snapshots: Vec<Restoring>,
    mapping: Vec<BlockDevice>,
}

impl Cloud {
    /// Restores an image from an object. It is `pending` until its snapshots are, and `failed`, with the reason, where that
    /// could not be done; `begun` is told of the pending image.
    ///
    /// # Errors
    /// `InvalidParameterValue` for an object that is not there, or is none; `InvalidAMIName.*`; `InsufficientVolumeCapacity`;
    /// what the host says.
    pub fn restore_image(
        &mut self,
        request: &RestoreRequest,
        begun: &mut Begun<'_, Image>,
    ) -> Result<Image, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        let mut reader = Reader::open(&place::object(&home, &request.bucket, &request.object_key)?)?;
        let manifest = reader.manifest()?;
        let need = manifest.snapshots.iter().map(StoredSnapshot::count).sum::<u64>().saturating_mul(BLOCK);
        let have = home.free_for_layers()?;
        if need > have {
            return Err(CloudError::NoSpace { path: home.root().to_owned(), need, have });
        }
        let new = describe(&manifest, request).map_err(|why| reader.flaw(why))?;
        self.operation(
            "restore-image",
            |tx, operation| plan(tx, (&scope, &home), &manifest, (&new, &request.snapshot_tags), operation),
            |cloud, operation, plan| {
                begun(&cloud.image(plan.image.as_str())?);
                if let Err(error) = cloud.fill(&mut reader, &manifest, &plan) {
                    let reason = format!("Server.InternalError: {error}");
                    cloud.catalogue.write(|tx| image::fail(tx, &plan.image, &reason))?;
                    return Err(error);
                }
                cloud.catalogue.write(|tx| {
                    for part in &plan.snapshots {
                        layer::made(tx, &part.layer, "sealed")?;
                        snapshot::complete(tx, &part.snapshot, &part.layer)?;
                    }
                    image::complete(tx, &plan.image, &plan.mapping, None)?;
                    operation.finish(tx)
                })?;
                cloud.image(plan.image.as_str())
            },
        )
    }

    /// Makes the layers of what comes next in the archive.
    fn fill(&self, reader: &mut Reader, manifest: &Manifest, plan: &Plan) -> Result<(), CloudError> {
        for (stored, part) in manifest.snapshots.iter().zip(&plan.snapshots) {
            let size = stored.volume_size.saturating_mul(GIB);
            let layer = Layered::open(vec![self.store().create(&part.layer, size)?], size, false, HostCache::Used)?;
            let found = reader.begin(&stored.data_name())?;
            if found != stored.count().saturating_mul(BLOCK) {
                return Err(reader.flaw(format!("{} has {found} bytes", stored.data_name())));
            }
            let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
            let mut sum = Sha256::new();
            for index in stored.indexes() {
                reader.read(&mut block)?;
                sum.update(&block);
                let at = u64::from(index).saturating_mul(BLOCK);
                let written = layer.write_at(at, &[VolatileSlice::from(&mut block[..])]);
                written.map_err(CloudError::host(self.store().stem(&part.layer), "cannot write to it"))?;
            }
            layer.flush().map_err(CloudError::host(self.store().stem(&part.layer), "cannot make it durable"))?;
            drop(layer);
            let mut text = [0; 65];
            if reader.begin(&stored.sum_name())? != 65 {
                return Err(reader.flaw(format!("{} is no checksum", stored.sum_name())));
            }
            reader.read(&mut text)?;
            if text != *format!("{:x}\n", sum.finalize()).as_bytes() {
                return Err(reader.flaw(format!("the checksum of {} is another", stored.data_name())));
            }
            self.store().seal(&part.layer)?;
        }
        Ok(())
    }
}

/// The image that a manifest and a request describe; why there can be none such.
fn describe(manifest: &Manifest, request: &RestoreRequest) -> Result<NewImage, String> {
    let stored = &manifest.image;
    let name = if request.name.is_empty() { &stored.name } else { &request.name };
    let mut new = NewImage::new(
        name.clone(),
        word(&stored.architecture)?,
        word(&stored.virtualization_type)?,
        RootDeviceType::Ebs,
    );
    new.boot_mode = stored.boot_mode.as_deref().map(word).transpose()?;
    new.platform = stored.platform.as_deref().map(word).transpose()?;
    image::check_boot_mode(new.virtualization_type, new.architecture, new.boot_mode).map_err(|e| e.to_string())?;
    match stored.imds_support.as_deref() {
        None | Some("v2.0") => new.imds_support.clone_from(&stored.imds_support),
        Some(other) => return Err(format!("imds support {other:?}")),
    }
    new.description.clone_from(&stored.description);
    new.root_device_name = Some(stored.root_device_name.clone());
    new.ena_support = stored.ena_support;
    new.login_user.clone_from(&stored.login_user);
    new.tags = stored.tags.clone();
    new.tags.extend(request.tags.clone());
    let has_root = |entry: &BlockDevice| {
        entry.device_name == stored.root_device_name && entry.ebs().is_some_and(|ebs| ebs.snapshot_id.is_some())
    };
    if !stored.block_device_mappings.iter().any(has_root) {
        return Err(format!("it has no snapshot at its root device, {:?}", stored.root_device_name));
    }
    for entry in &stored.block_device_mappings {
        let Some(Ebs { snapshot_id: Some(id), volume_size, .. }) = entry.ebs() else { continue };
        let found = manifest.snapshots.iter().find(|snapshot| snapshot.snapshot_id == *id);
        let least = found.ok_or_else(|| format!("{id:?} is mapped and not there"))?.volume_size;
        if volume_size.is_some_and(|size| size < least) {
            return Err(format!("the volume of {id:?} is smaller than it"));
        }
    }
    Ok(new)
}

fn word<T: FromStr<Err = CloudError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: CloudError| error.to_string())
}

/// Writes down what the object becomes.
fn plan(
    tx: &Transaction<'_>,
    (scope, home): (&Scope, &Home),
    manifest: &Manifest,
    (new, snapshot_tags): (&NewImage, &Tags),
    operation: &Operation,
) -> Result<Plan, CloudError> {
    let mut ids = BTreeMap::new();
    let mut snapshots = Vec::new();
    let image = new.insert(tx, scope, Some(operation))?;
    for stored in &manifest.snapshots {
        let id = Id::new(Kind::Snapshot).map_err(CloudError::host(home.root(), "cannot make an id"))?;
        let row =
            snapshot::New { id: &id, volume: None, size_gib: stored.volume_size, description: &stored.description };
        snapshot::insert(tx, scope, &row, operation.id())?;
        let mut tags = stored.tags.clone();
        tags.extend(snapshot_tags.clone());
        tag::add(tx, &id, &tags)?;
        let layer = layer::new_id(home)?;
        layer::insert(tx, &layer, stored.volume_size.saturating_mul(GIB), None, operation)?;
        ids.insert(stored.snapshot_id.clone(), (id.to_string(), stored.volume_size));
        snapshots.push(Restoring { snapshot: id, layer });
    }
    // Without the snapshots, which are none yet: all else of the entries is looked at.
    let bare = manifest.image.block_device_mappings.iter().map(|entry| match &entry.target {
        Target::Ebs(ebs) => {
            let least = ebs.snapshot_id.as_ref().and_then(|id| ids.get(id)).map(|(_, size)| *size);
            let ebs = Ebs { snapshot_id: None, volume_size: ebs.volume_size.or(least), ..ebs.clone() };
            BlockDevice { device_name: entry.device_name.clone(), target: Target::Ebs(ebs) }
        }
        _ => entry.clone(),
    });
    let mut mapping = image::check_mapping(tx, scope, &bare.collect::<Vec<_>>())?;
    for entry in &mut mapping {
        let same = |stored: &&BlockDevice| stored.device_name == entry.device_name;
        let stored = manifest.image.block_device_mappings.iter().find(same);
        let id = stored.and_then(BlockDevice::ebs).and_then(|ebs| ids.get(ebs.snapshot_id.as_ref()?));
        if let (Target::Ebs(ebs), Some((id, _))) = (&mut entry.target, id) {
            ebs.snapshot_id = Some(id.clone());
        }
    }
    Ok(Plan { image, snapshots, mapping })
}
