//! Images stored as objects, as tasks.

use sha2::{Digest, Sha256};

use super::archive::{MANIFEST, Manifest, StoredImage, StoredSnapshot, VERSION, Writer};
use super::{NewTask, Report, Task, TaskKind, place};
use crate::cloud::error::CloudError;
use crate::cloud::image::{self, Image, RootDeviceType};
use crate::cloud::tag::{self, Tags};
use crate::cloud::token::Token;
use crate::cloud::{BLOCK, Begun, Cloud};
use crate::disk::output::{Output, Overwrite};

impl Cloud {
    /// Stores an image that the caller may launch as an object of a bucket, as a task ("CreateStoreImageTask"); the object's
    /// key is the image's id and `.bin`. An object of that key is replaced when the new one is whole.
    ///
    /// # Errors
    /// As for launching the image; `UnsupportedOperation` for what cannot be restored: an instance-store root, a kernel
    /// image, product codes; `InvalidParameterValue` for a bucket that is none. What the host says: the task says so, too.
    pub fn store_image_task(
        &mut self,
        image: &str,
        bucket: &str,
        tags: &Tags,
        begun: &mut Begun<'_, Task>,
    ) -> Result<Task, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        let token = Token::new("CreateStoreImageTask", None, &image)?;
        self.task(
            TaskKind::StoreImage,
            &token,
            begun,
            |tx, _| {
                let image = image::may_use(tx, &scope, image)?;
                check(&image)?;
                let key = format!("{}.bin", image.image_id);
                Ok(NewTask {
                    resource: Some(image.image_id.to_string()),
                    path: place::object(&home, bucket, &key)?.display().to_string(),
                    bucket: Some(bucket.to_owned()),
                    object_key: Some(key),
                    tags: tags.clone(),
                    ..NewTask::default()
                })
            },
            |cloud, task, report| cloud.store_image(image, task, report).map(|()| None),
        )
    }

    fn store_image(&mut self, image: &str, task: &Task, report: &mut Report) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        let image = self.catalogue.read(|tx| image::may_use(tx, &scope, image))?;
        let (mut snapshots, mut disks) = (Vec::new(), Vec::new());
        for id in image.snapshots() {
            let (snapshot, runs, disk) = self.runs_of(id)?;
            let is_own = snapshot.owner_id == scope.account.as_str();
            let tags = if is_own { self.catalogue.read(|tx| tag::of(tx, &snapshot.snapshot_id))? } else { Tags::new() };
            snapshots.push(StoredSnapshot {
                snapshot_id: snapshot.snapshot_id.to_string(),
                volume_size: snapshot.volume_size,
                description: snapshot.description,
                tags,
                blocks: runs.into_iter().map(|run| (run.start, run.end.saturating_sub(run.start))).collect(),
            });
            disks.push(disk);
        }
        let manifest = Manifest { version: VERSION, image: stored(&image), snapshots };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| CloudError::Damaged(error.to_string()))?;
        let path = std::path::Path::new(&task.path);
        place::make_directory_of(path)?;
        let output = Output::create(path, Overwrite::Replace)?;
        let total: u64 = manifest.snapshots.iter().map(StoredSnapshot::count).sum();
        output.need_room(total.saturating_mul(BLOCK).saturating_add(text.len() as u64))?;
        let failed = |error| CloudError::File(output.failed("write to it", error));
        let mut writer = Writer::new(output.file());
        writer.begin(MANIFEST, text.len() as u64).and_then(|()| writer.put(&text)).map_err(failed)?;
        let mut done = 0;
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        for (snapshot, disk) in manifest.snapshots.iter().zip(&disks) {
            writer.begin(&snapshot.data_name(), snapshot.count().saturating_mul(BLOCK)).map_err(failed)?;
            let mut sum = Sha256::new();
            for index in snapshot.indexes() {
                let read = disk.read_exact_at(u64::from(index).saturating_mul(BLOCK), &mut block);
                read.map_err(CloudError::host(&snapshot.snapshot_id, "cannot read it"))?;
                sum.update(&block);
                writer.put(&block).map_err(failed)?;
                done += 1;
                let _ = report.at(done, total);
            }
            let sum = format!("{:x}\n", sum.finalize());
            writer
                .begin(&snapshot.sum_name(), sum.len() as u64)
                .and_then(|()| writer.put(sum.as_bytes()))
                .map_err(failed)?;
        }
        writer.end().map_err(failed)?;
        Ok(output.finish()?)
    }

    /// Tasks of the caller's that store images: all, or the last of each of `images`.
    ///
    /// # Errors
    /// [`CloudError::Catalogue`].
    pub fn store_image_tasks(&mut self, images: &[String]) -> Result<Vec<Task>, CloudError> {
        let mut all = self.tasks(TaskKind::StoreImage, &[])?;
        if images.is_empty() {
            return Ok(all);
        }
        all.reverse();
        let last = |id: &String| all.iter().find(|task| task.resource_id.as_ref() == Some(id)).cloned();
        Ok(images.iter().filter_map(last).collect())
    }
}

/// Refuses what could not be restored.
fn check(image: &Image) -> Result<(), CloudError> {
    let why = if image.root_device_type != RootDeviceType::Ebs || image.root_device_name.is_none() {
        "its root is no volume"
    } else if image.kernel_id.is_some() || image.ramdisk_id.is_some() {
        "it needs a kernel image"
    } else if !image.product_codes.is_empty() {
        "it has product codes"
    } else {
        return Ok(());
    };
    Err(CloudError::Unsupported(format!("{} cannot be stored: {why}", image.image_id)))
}

fn stored(image: &Image) -> StoredImage {
    StoredImage {
        image_id: image.image_id.to_string(),
        name: image.name.clone(),
        description: image.description.clone(),
        architecture: image.architecture.to_string(),
        virtualization_type: image.virtualization_type.to_string(),
        boot_mode: image.boot_mode.map(|mode| mode.to_string()),
        platform: image.platform.map(|platform| platform.to_string()),
        root_device_name: image.root_device_name.clone().unwrap_or_default(),
        ena_support: image.ena_support,
        imds_support: image.imds_support.clone(),
        login_user: image.login_user.clone(),
        block_device_mappings: image.block_device_mappings.clone(),
        tags: image.tags.clone(),
    }
}
