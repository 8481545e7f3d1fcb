//! From a mapping to volumes: ids, serial numbers, and the disks themselves.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{BdmEntry, BdmError, BdmSource, DeviceName, EPHEMERAL_SIZE};
use crate::disk::{self, Access, Disk, Format, HostCache, Source};

/// The root volume, as the disk file that a run is given says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootVolume {
    /// The name of its device in the mapping.
    pub device: DeviceName,
    /// The disk file.
    pub path: PathBuf,
    /// Its format, if the person said.
    pub format: Option<Format>,
    /// What the guest writes goes to the file itself.
    pub persist: bool,
    /// What it, and the other volumes, do with the host's page cache.
    pub cache: HostCache,
}

impl RootVolume {
    /// A root volume at `/dev/sda1`, as most images name it.
    pub fn new(path: PathBuf, format: Option<Format>, persist: bool) -> Self {
        Self { device: DeviceName::root(), path, format, persist, cache: HostCache::Used }
    }
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// A disk file.
    File {
        /// The file.
        path: PathBuf,
        /// Its format, if the person said.
        format: Option<Format>,
    },
    /// Nothing: it is empty at first and gone afterwards.
    Blank,
}

/// A volume that a machine gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The name of its device in the mapping.
    pub device: DeviceName,
    /// `vol-` and 17 hexadecimal digits. The same for the same file at the same device; new for each empty volume.
    pub id: String,
    /// What it is made of.
    pub source: VolumeSource,
    /// The number of the instance store volume that it is, if it is one.
    pub ephemeral: Option<u8>,
    /// Bytes that it has; `None`: those of the disk in the file.
    pub size: Option<u64>,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// What the guest writes goes to the file itself.
    pub persist: bool,
}

impl VolumeSpec {
    /// The serial number that the guest sees: the id without its dash, the 20 bytes that virtio-blk has room for (virtio 1.2,
    /// section 5.2.6).
    pub fn serial(&self) -> [u8; 20] {
        let mut serial = [0; 20];
        for (to, from) in serial.iter_mut().zip(self.id.bytes().filter(|byte| *byte != b'-')) {
            *to = from;
        }
        serial
    }

    /// The disk of the volume; what is thrown away afterwards takes room in the file system of directory `dir`.
    ///
    /// # Errors
    /// [`BdmError::SmallerThanSnapshot`], or [`BdmError::Disk`] with what is wrong with the file.
    pub fn open(&self, dir: &Path, cache: HostCache) -> Result<Arc<dyn Disk>, BdmError> {
        let failed = |error| match error {
            disk::Error::SizeTooSmall { path, wanted, size } => {
                BdmError::SmallerThanSnapshot { device: self.device.clone(), size: wanted, path, source_size: size }
            }
            source => BdmError::Disk { device: self.device.clone(), source },
        };
        let (path, format) = match &self.source {
            VolumeSource::File { path, format } => (path.clone(), *format),
            VolumeSource::Blank => return disk::blank(self.size.unwrap_or_default(), dir, cache).map_err(failed),
        };
        let access = match (self.persist, self.read_only) {
            (true, _) => Access::Persist,
            (false, true) => Access::ReadOnly,
            (false, false) => Access::Throwaway { dir: dir.into() },
        };
        disk::open(&Source { path, format, access, size: self.size, cache }).map(|opened| opened.disk).map_err(failed)
    }
}

/// Joins the root volume with the entries of a mapping: the root first, the rest in their order.
///
/// # Errors
/// For a device that is there twice, and for an entry that would do more to the root than change its size.
pub fn resolve(root: &RootVolume, entries: &[BdmEntry]) -> Result<Vec<VolumeSpec>, BdmError> {
    let mut seen = HashSet::new();
    if let Some(twice) = entries.iter().find(|entry| !seen.insert(&entry.device)) {
        return Err(BdmError::Duplicate { device: twice.device.clone() });
    }
    let root_entry = entries.iter().find(|entry| entry.device == root.device);
    let mut volumes = vec![VolumeSpec {
        device: root.device.clone(),
        id: file_id(&root.path, &root.device),
        source: VolumeSource::File { path: root.path.clone(), format: root.format },
        ephemeral: None,
        size: root_entry.map(|entry| root_size(root, entry)).transpose()?.flatten(),
        read_only: false,
        persist: root.persist,
    }];
    for entry in entries.iter().filter(|entry| entry.device != root.device) {
        volumes.extend(volume(entry)?);
    }
    Ok(volumes)
}

/// The size that an entry for the root device asks for, if any, which is all that it can ask for.
fn root_size(root: &RootVolume, entry: &BdmEntry) -> Result<Option<u64>, BdmError> {
    let fail = |field, why: &str| BdmError::Field { device: root.device.clone(), field, why: why.to_owned() };
    match &entry.source {
        BdmSource::Blank if entry.delete_on_termination == Some(false) && !root.persist => Err(fail(
            "delete-on-termination",
            "a run keeps nothing of what is written to its root, unless --persist is given; add it, or say true",
        )),
        BdmSource::Blank if entry.delete_on_termination == Some(true) && root.persist => {
            Err(fail("delete-on-termination", "with --persist the root stays; leave out one of the two"))
        }
        BdmSource::Blank => Ok(entry.size),
        BdmSource::Nothing => Err(fail("none", "this is the root device, without which nothing boots")),
        _ => Err(fail(
            "source",
            "this is the root device, which is the disk file that is run; only its size can be changed, as in \
             /dev/sda1=20G",
        )),
    }
}

/// The volume of an entry that is not for the root.
fn volume(entry: &BdmEntry) -> Result<Option<VolumeSpec>, BdmError> {
    let fail = |field, why: &str| BdmError::Field { device: entry.device.clone(), field, why: why.to_owned() };
    let (id, source, size) = match &entry.source {
        BdmSource::Nothing => return Ok(None),
        BdmSource::Blank if entry.size.is_none() => {
            return Err(fail("size", "an empty volume needs one, as in /dev/sdf=10G (VolumeSize in JSON)"));
        }
        BdmSource::Blank if entry.delete_on_termination == Some(false) => {
            return Err(fail(
                "delete-on-termination",
                "a run keeps no volume of its own; make a file (truncate -s 10G FILE) and give it with persist, or say \
                 true",
            ));
        }
        BdmSource::File(path) => {
            let source = VolumeSource::File { path: path.clone(), format: entry.format };
            (file_id(path, &entry.device), source, entry.size)
        }
        BdmSource::Blank => (random_id()?, VolumeSource::Blank, entry.size),
        BdmSource::Ephemeral(_) => (random_id()?, VolumeSource::Blank, entry.size.or(Some(EPHEMERAL_SIZE))),
        BdmSource::Snapshot(id) => {
            let why = format!(
                "{id}: snapshots are for instances of the catalogue (amiboot instance run); give the disk file instead"
            );
            return Err(fail("SnapshotId", &why));
        }
    };
    let ephemeral = match entry.source {
        BdmSource::Ephemeral(number) => Some(number),
        _ => None,
    };
    let &BdmEntry { read_only, persist, .. } = entry;
    Ok(Some(VolumeSpec { device: entry.device.clone(), id, source, ephemeral, size, read_only, persist }))
}

/// An id that is always the same for one file at one device, by whatever name the file is given.
fn file_id(path: &Path, device: &DeviceName) -> String {
    let canonical = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
    let hash = Sha256::new()
        .chain_update(canonical.as_os_str().as_bytes())
        .chain_update([0])
        .chain_update(device.as_str())
        .finalize();
    id(hash.first_chunk().copied().unwrap_or_default())
}

fn random_id() -> Result<String, BdmError> {
    let random = disk::random_bytes().map_err(BdmError::Random)?;
    Ok(id(random.first_chunk().copied().unwrap_or_default()))
}

/// Ids begin with a 0, as all those of EC2 do.
fn id(bytes: [u8; 8]) -> String {
    format!("vol-0{:016x}", u64::from_be_bytes(bytes))
}

/// What EC2 takes without a word but a person seldom means.
pub fn hints(root: &RootVolume, entries: &[BdmEntry]) -> Vec<String> {
    let others = entries.iter().filter(|entry| entry.device != root.device && entry.source != BdmSource::Nothing);
    others
        .filter(|entry| entry.device.letters() == root.device.letters())
        .map(|entry| {
            format!(
                "{} is another volume beside the root, {}; if the root was meant, write {}",
                entry.device, root.device, root.device
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::bdm::parse;

    fn entries(texts: &[&str]) -> Vec<BdmEntry> {
        texts.iter().flat_map(|text| parse(text).unwrap()).collect()
    }

    /// A disk of 1 MiB in a directory of its own.
    fn root() -> (tempfile::TempDir, RootVolume) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        (dir, RootVolume::new(path, None, false))
    }

    #[test]
    fn the_root_is_first_and_the_rest_in_order() {
        let (_dir, root) = root();
        let mapping = entries(&["sdg=1G", "/dev/sda1=2G", "sdb=ephemeral0", "sdh=none", "sdf=data.raw,read-only"]);
        let volumes = resolve(&root, &mapping).unwrap();
        let seen: Vec<_> = volumes.iter().map(|v| (v.device.as_str(), v.size, v.read_only)).collect();
        assert_eq!(
            seen,
            [
                ("/dev/sda1", Some(2 << 30), false),
                ("/dev/sdg", Some(1 << 30), false),
                ("/dev/sdb", Some(EPHEMERAL_SIZE), false),
                ("/dev/sdf", None, true),
            ]
        );
        assert_eq!(resolve(&root, &[]).unwrap()[0].size, None);
        let as_it_is = entries(&[r#"{"DeviceName":"/dev/sda1","Ebs":{"DeleteOnTermination":true}}"#]);
        assert_eq!(resolve(&root, &as_it_is).unwrap(), resolve(&root, &[]).unwrap());
        let persisting = RootVolume { persist: true, ..root };
        assert!(resolve(&persisting, &as_it_is).unwrap_err().to_string().contains("with --persist the root stays"));
    }

    #[test]
    fn ids_are_stable_for_files_and_new_for_empty_volumes() {
        let (dir, root) = root();
        let by_another_name = dir.path().join("link");
        std::os::unix::fs::symlink(&root.path, &by_another_name).unwrap();
        let mapping = entries(&["sdf=1G", "sdg=1G", "sdh=ephemeral0"]);
        let first = resolve(&root, &mapping).unwrap();
        let second = resolve(&RootVolume { path: by_another_name, ..root }, &mapping).unwrap();
        assert_eq!(first[0].id, second[0].id);
        let ids: HashSet<_> = first.iter().chain(&second).map(|volume| volume.id.clone()).collect();
        assert_eq!(ids.len(), 7, "{ids:?}");
        for volume in first {
            let digits = volume.id.strip_prefix("vol-0").unwrap();
            assert!(digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            assert_eq!(volume.serial().as_slice(), volume.id.replace('-', "").as_bytes());
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        let (_dir, root) = root();
        for (mapping, words) in [
            (entries(&["sdf=1G", "/dev/sdf=2G"]), "/dev/sdf is there twice"),
            (entries(&["sda1=2G", "/dev/sda1=3G"]), "/dev/sda1 is there twice"),
            (entries(&["sda1=none"]), "without which nothing boots"),
            (entries(&["sda1=other.raw"]), "only its size"),
            (entries(&["sda1=ephemeral0"]), "only its size"),
            (entries(&["sda1=2G,delete-on-termination=false"]), "unless --persist is given"),
            (entries(&["sdf=2G,delete-on-termination=false"]), "truncate -s"),
            (entries(&[r#"{"DeviceName":"sdf","Ebs":{}}"#]), "an empty volume needs one"),
            (entries(&["sdf=snap-0123456789abcdef0"]), "amiboot instance run"),
            (entries(&[r#"{"DeviceName":"sdf","Ebs":{"SnapshotId":"snap-0123"}}"#]), "amiboot instance run"),
        ] {
            let error = resolve(&root, &mapping).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn another_name_for_the_root_is_another_volume_and_worth_a_hint() {
        let (_dir, root) = root();
        let mapping = entries(&["/dev/xvda=2G", "sdf=1G", "sda=none"]);
        assert_eq!(resolve(&root, &mapping).unwrap().len(), 3);
        let hints = hints(&root, &mapping);
        assert!(hints.len() == 1 && hints[0].contains("/dev/xvda is another volume"), "{hints:?}");
    }

    #[test]
    fn volumes_become_disks() {
        let (dir, root) = root();
        let data = dir.path().join("data.raw");
        std::fs::write(&data, [2; 4096]).unwrap();
        let data = data.display();
        let mapping = entries(&["sda1=2M", "sdf=3M", &format!("sdg={data},read-only"), &format!("sdh={data},size=8K")]);
        let volumes = resolve(&root, &mapping).unwrap();
        let disks: Vec<_> = volumes.iter().map(|volume| volume.open(dir.path(), HostCache::Used).unwrap()).collect();
        let seen: Vec<_> = disks.iter().map(|disk| (disk.size(), disk.is_read_only())).collect();
        assert_eq!(seen, [(2 << 20, false), (3 << 20, false), (4096, true), (8192, false)]);
        let mut sector = [9; 512];
        disks[0].read_exact_at((1 << 20) - 256, &mut sector).unwrap();
        assert_eq!(sector, [[1; 256], [0; 256]].concat()[..]);
    }

    #[test]
    fn a_volume_smaller_than_its_source_is_refused_in_the_words_of_ec2() {
        let (dir, root) = root();
        let volumes = resolve(&root, &entries(&["sda1=512K"])).unwrap();
        let error = volumes[0].open(dir.path(), HostCache::Used).err().unwrap().to_string();
        assert!(error.contains("smaller than snapshot") && error.contains("expect size >= 1GB"), "{error}");
        assert!(error.contains("disk.raw") && error.contains("/dev/sda1"), "{error}");
    }

    #[test]
    fn a_disk_that_cannot_be_opened_is_named_with_its_device() {
        let (dir, root) = root();
        let volumes = resolve(&root, &entries(&["sdf=/no/such/file"])).unwrap();
        let error = volumes[1].open(dir.path(), HostCache::Used).err().unwrap().to_string();
        assert!(error.contains("/dev/sdf") && error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_persisting_volume_is_its_file() {
        let (dir, root) = root();
        let volumes = resolve(&RootVolume { persist: true, ..root.clone() }, &[]).unwrap();
        let disk = volumes[0].open(dir.path(), HostCache::Used).unwrap();
        disk.write_at(0, &[(&mut [7u8; 512][..]).into()]).unwrap();
        assert_eq!(std::fs::read(&root.path).unwrap()[..512], [7; 512]);
        assert!(matches!(volumes[0].open(dir.path(), HostCache::Used), Err(BdmError::Disk { .. })));
    }
}
