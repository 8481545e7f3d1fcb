//! Block device mappings, as EC2 keeps them with images and joins them at a launch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::CloudError;
use crate::launch::bdm::{BdmEntry, BdmSource, DeviceName};

/// Bytes of a GiB.
pub const GIB: u64 = 1 << 30;

/// The volume of an entry ("EbsBlockDevice").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ebs {
    /// What it is made of; empty otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Its size; that of the snapshot where not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<u64>,
    /// `gp2`, `gp3`, `io1`, `io2`, `st1`, `sc1`, `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Whether it goes with the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
    /// Kept, and without meaning here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Kept, and without meaning here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u64>,
}

/// What an entry puts at its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A volume.
    Ebs(Ebs),
    /// An instance-store volume, by its number.
    Ephemeral(u8),
    /// Nothing, whatever the image has there.
    NoDevice,
}

/// An entry of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct BlockDevice {
    /// The device, as in `/dev/sda1`.
    pub device_name: String,
    /// What is there.
    #[serde(flatten)]
    pub target: Target,
}

/// An entry as it is kept. Reading it so takes a third of the time that a flattened enum takes, which listings feel.
#[derive(Deserialize)]
struct Kept {
    device_name: String,
    ebs: Option<Ebs>,
    ephemeral: Option<u8>,
}

impl From<Kept> for BlockDevice {
    fn from(kept: Kept) -> Self {
        let target = match (kept.ebs, kept.ephemeral) {
            (Some(ebs), _) => Target::Ebs(ebs),
            (None, Some(number)) => Target::Ephemeral(number),
            (None, None) => Target::NoDevice,
        };
        Self { device_name: kept.device_name, target }
    }
}

impl BlockDevice {
    /// The volume that it puts at its device, if it does.
    #[must_use]
    pub fn ebs(&self) -> Option<&Ebs> {
        match &self.target {
            Target::Ebs(ebs) => Some(ebs),
            _ => None,
        }
    }

    /// An entry as a person writes it on the command line.
    ///
    /// # Errors
    /// [`CloudError::Mapping`] for what instances of the catalogue do not have: volumes over files of their own.
    pub fn from_entry(entry: &BdmEntry) -> Result<Self, CloudError> {
        let device = &entry.device;
        let fail = |why: &str| CloudError::Mapping(format!("block device mapping of {device}: {why}"));
        if entry.read_only {
            return Err(fail("read-only: volumes of instances can be written to; leave it out"));
        }
        let ebs = |snapshot: Option<&String>| -> Result<Ebs, CloudError> {
            Ok(Ebs {
                snapshot_id: snapshot.cloned(),
                volume_size: entry.size.map(|size| whole_gib(size).ok_or_else(|| fail(NOT_GIB))).transpose()?,
                delete_on_termination: entry.delete_on_termination,
                ..Ebs::default()
            })
        };
        let target = match &entry.source {
            BdmSource::Snapshot(id) => Target::Ebs(ebs(Some(id))?),
            BdmSource::Blank => Target::Ebs(ebs(None)?),
            BdmSource::Ephemeral(_) if entry.size.is_some() => {
                return Err(fail(
                    "size: the instance type says how large its instance-store volumes are; leave it out",
                ));
            }
            BdmSource::Ephemeral(number) => Target::Ephemeral(*number),
            BdmSource::Nothing => Target::NoDevice,
            BdmSource::File(path) => {
                let path = path.display();
                return Err(fail(&format!(
                    "an instance's volumes are the catalogue's, and {path} is a file; first make a snapshot of it: \
                     amiboot snapshot import {path}"
                )));
            }
        };
        Ok(Self { device_name: device.to_string(), target })
    }
}

const NOT_GIB: &str = "size: a volume has whole GiB, as in /dev/sdf=10G";

fn whole_gib(size: u64) -> Option<u64> {
    size.is_multiple_of(GIB).then_some(size / GIB).filter(|gib| *gib > 0)
}

/// What the mapping of a launch is joined from.
pub struct Launch<'a> {
    /// The image's entries.
    pub image: &'a [BlockDevice],
    /// The call's.
    pub call: &'a [BlockDevice],
    /// The root device's name.
    pub root_device: &'a str,
    /// Whether the root is a volume (else it is an instance-store image's template).
    pub root_is_ebs: bool,
}

/// A launch's mapping, and what a person should know of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// The root first, the rest in the order of the device names.
    pub devices: Vec<BlockDevice>,
    /// What is probably not meant.
    pub hints: Vec<String>,
}

/// Joins the image's mapping with the call's, entry by entry by their exact device names, as RunInstances does.
///
/// # Errors
/// [`CloudError::Mapping`], `InvalidParameterCombination`.
pub fn merge(launch: &Launch<'_>) -> Result<Merged, CloudError> {
    let mut devices: BTreeMap<String, Target> = BTreeMap::new();
    for entry in launch.image {
        devices.insert(entry.device_name.clone(), entry.target.clone());
    }
    let mut hints = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for entry in launch.call {
        let name = &entry.device_name;
        let device: DeviceName =
            name.parse().map_err(|_| bad(name, "is not a device name of a block device mapping"))?;
        if device.as_str() != name {
            return Err(bad(name, &format!("write it as {device}")));
        }
        if !seen.insert(name) {
            return Err(bad(name, "is there twice in the block device mapping"));
        }
        let is_root = name == launch.root_device;
        let joined = match (devices.get(name), &entry.target) {
            (_, Target::NoDevice) if is_root => {
                return Err(bad(name, "is the root device, without which nothing boots"));
            }
            (_, Target::NoDevice) => None,
            (Some(Target::Ebs(of_image)), Target::Ebs(of_call)) => {
                Some(Target::Ebs(join(name, is_root, of_image, of_call)?))
            }
            (_, Target::Ebs(_)) if is_root && !launch.root_is_ebs => {
                return Err(bad(
                    name,
                    "is the root device of an instance-store image, whose size and source are fixed",
                ));
            }
            (Some(_), Target::Ebs(ebs)) if ebs.snapshot_id.is_some() && ebs.volume_size.is_none() => {
                Some(Target::Ebs(ebs.clone()))
            }
            (_, Target::Ebs(ebs)) if ebs.snapshot_id.is_none() && ebs.volume_size.is_none() => {
                return Err(bad(name, "has neither a size nor a snapshot"));
            }
            (_, Target::Ephemeral(_)) if is_root => {
                return Err(bad(name, "is the root device, which cannot become an instance-store volume"));
            }
            (_, target) => Some(target.clone()),
        };
        hints.extend(hint(name, launch.root_device));
        match joined {
            Some(target) => devices.insert(name.clone(), target),
            None => devices.remove(name),
        };
    }
    devices.retain(|_, target| *target != Target::NoDevice);
    default_deletion(&mut devices);
    let mut devices: Vec<_> =
        devices.into_iter().map(|(device_name, target)| BlockDevice { device_name, target }).collect();
    devices.sort_by_key(|device| device.device_name != launch.root_device);
    Ok(Merged { devices, hints })
}

/// Volumes of a launch go with their instance, unless the mapping says otherwise.
fn default_deletion(devices: &mut BTreeMap<String, Target>) {
    for target in devices.values_mut() {
        if let Target::Ebs(ebs) = target {
            ebs.delete_on_termination.get_or_insert(true);
        }
    }
}

/// A call's entry over the image's for the same device.
fn join(name: &str, is_root: bool, image: &Ebs, call: &Ebs) -> Result<Ebs, CloudError> {
    if let Some(other) = call.snapshot_id.as_ref().filter(|other| image.snapshot_id.as_ref() != Some(other)) {
        if is_root {
            return Err(bad(name, &format!("is the root device, whose snapshot cannot be changed to {other}")));
        }
        return Ok(call.clone());
    }
    Ok(Ebs {
        snapshot_id: image.snapshot_id.clone(),
        volume_size: call.volume_size.or(image.volume_size),
        volume_type: call.volume_type.clone().or_else(|| image.volume_type.clone()),
        delete_on_termination: call.delete_on_termination.or(image.delete_on_termination),
        iops: call.iops.or(image.iops),
        throughput: call.throughput.or(image.throughput),
    })
}

/// The classic mistake: the root by its other name adds a disk.
fn hint(name: &str, root: &str) -> Option<String> {
    let is_first = |name: &str| matches!(name, "/dev/sda" | "/dev/sda1" | "/dev/xvda");
    (name != root && is_first(name) && is_first(root)).then(|| {
        format!("{name} is not the root device of this image, which is {root}: it becomes another disk beside the root")
    })
}

fn bad(device: &str, why: &str) -> CloudError {
    CloudError::Mapping(format!("Invalid device name or mapping: {device} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ebs(device: &str, snapshot: Option<&str>, size: Option<u64>) -> BlockDevice {
        let snapshot_id = snapshot.map(str::to_owned);
        let target = Target::Ebs(Ebs { snapshot_id, volume_size: size, ..Ebs::default() });
        BlockDevice { device_name: device.into(), target }
    }

    fn with(device: &str, target: Target) -> BlockDevice {
        BlockDevice { device_name: device.into(), target }
    }

    fn merge_over(image: &[BlockDevice], call: &[BlockDevice]) -> Result<Merged, CloudError> {
        merge(&Launch { image, call, root_device: "/dev/sda1", root_is_ebs: true })
    }

    fn image() -> Vec<BlockDevice> {
        vec![
            ebs("/dev/sda1", Some("snap-1"), Some(8)),
            ebs("/dev/sdf", Some("snap-2"), Some(2)),
            with("/dev/sdb", Target::Ephemeral(0)),
        ]
    }

    #[test]
    fn entries_are_kept_as_ec2_writes_them() {
        let mut all = image();
        all.push(with("/dev/sdc", Target::NoDevice));
        let text = serde_json::to_string(&all).unwrap();
        assert!(
            text.contains(r#"{"device_name":"/dev/sdf","ebs":{"snapshot_id":"snap-2","volume_size":2}}"#),
            "{text}"
        );
        assert!(
            text.contains(r#"{"device_name":"/dev/sdb","ephemeral":0},{"device_name":"/dev/sdc","no_device":null}"#)
        );
        assert_eq!(serde_json::from_str::<Vec<BlockDevice>>(&text).unwrap(), all);
    }

    #[test]
    fn the_image_alone() {
        let merged = merge_over(&image(), &[]).unwrap();
        let names: Vec<_> = merged.devices.iter().map(|d| d.device_name.as_str()).collect();
        assert_eq!(names, ["/dev/sda1", "/dev/sdb", "/dev/sdf"]);
        assert!(merged.devices.iter().filter_map(BlockDevice::ebs).all(|e| e.delete_on_termination == Some(true)));
    }

    #[test]
    fn entries_of_the_call_change_add_and_remove() {
        let call = [
            ebs("/dev/sda1", None, Some(20)),
            ebs("/dev/sdf", Some("snap-9"), None),
            with("/dev/sdb", Target::NoDevice),
            ebs("/dev/sdg", None, Some(3)),
            with("/dev/sdh", Target::NoDevice),
        ];
        let merged = merge_over(&image(), &call).unwrap();
        let seen: Vec<_> = merged
            .devices
            .iter()
            .filter_map(|d| d.ebs().map(|e| (d.device_name.as_str(), e.snapshot_id.as_deref(), e.volume_size)))
            .collect();
        assert_eq!(
            seen,
            [("/dev/sda1", Some("snap-1"), Some(20)), ("/dev/sdf", Some("snap-9"), None), ("/dev/sdg", None, Some(3))]
        );
        assert_eq!(merged.devices.len(), 3);
    }

    #[test]
    fn what_cannot_be() {
        for (call, words) in [
            (vec![with("/dev/sda1", Target::NoDevice)], "root"),
            (vec![with("/dev/sda1", Target::Ephemeral(0))], "root"),
            (vec![ebs("/dev/sda1", Some("snap-9"), None)], "root"),
            (vec![ebs("/dev/sdg", None, None)], "neither"),
            (vec![ebs("/dev/sdg", None, Some(1)), ebs("/dev/sdg", None, Some(1))], "twice"),
            (vec![ebs("sdg", None, Some(1))], "/dev/sdg"),
            (vec![ebs("/dev/nvme1", None, Some(1))], "device name"),
        ] {
            let error = merge_over(&image(), &call).unwrap_err();
            assert_eq!(error.code(), "InvalidBlockDeviceMapping");
            assert!(error.to_string().contains(words), "{error}");
        }
        let store = Launch {
            image: &[],
            call: &[ebs("/dev/sda1", None, Some(9))],
            root_device: "/dev/sda1",
            root_is_ebs: false,
        };
        assert!(merge(&store).unwrap_err().to_string().contains("instance-store"));
    }

    #[test]
    fn the_roots_other_name_is_another_disk_with_a_hint() {
        let merged = merge_over(&image(), &[ebs("/dev/xvda", None, Some(9))]).unwrap();
        assert_eq!(merged.devices.len(), 4);
        assert!(merged.hints[0].contains("/dev/sda1"), "{:?}", merged.hints);
    }
}
