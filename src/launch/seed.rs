//! A disk with what an instance is told of itself, for images whose cloud-init looks for nothing else (NoCloud).
//!
//! It is a FAT file system labelled `CIDATA`: cloud-init asks for that label in small and in capital letters, and the label of FAT
//! has capital ones only. It is made in memory at each start of the instance's process, and is as what the instance was told then.

use std::fs::File;
use std::io::{self, Cursor, Write};
use std::sync::Arc;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};

use crate::disk::{Disk, Raw};
use crate::imds::Document;
use crate::vmm::builder::DiskConfig;

/// Bytes of the disk: user data are 16 KiB at the most, and keys a few.
const SIZE: usize = 1 << 20;
/// The file system's label.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// The disk, for an instance that has disks at these devices.
///
/// # Errors
/// Where the host has no memory for it, or it has no room.
pub fn disk(document: &Document, taken: &[DiskConfig]) -> io::Result<DiskConfig> {
    let name = Sha256::digest(format!("{} seed", document.instance_id));
    let digits: String = name.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let is_free = |device: &String| taken.iter().all(|disk| disk.device != *device);
    // From the end: people begin at the beginning.
    let device = ('b'..='z').rev().map(|letter| format!("/dev/sd{letter}")).find(is_free);
    Ok(DiskConfig {
        disk: contents(document)?,
        serial: format!("vol0{digits}"),
        device: device.ok_or_else(|| io::Error::other("the machine has no device free for the seed disk"))?,
        ephemeral: None,
    })
}

fn contents(document: &Document) -> io::Result<Arc<dyn Disk>> {
    let bytes = format(&[
        ("meta-data", &meta_data(document)),
        ("user-data", &document.decoded_user_data().unwrap_or_default()),
        ("vendor-data", b""),
    ])?;
    let mut file = File::from(memfd_create("seed", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    Ok(Arc::new(Raw::new(file, true)?))
}

/// A file system with these files.
fn format(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(vec![0; SIZE]);
    fatfs::format_volume(&mut bytes, FormatVolumeOptions::new().volume_label(LABEL))?;
    {
        let system = FileSystem::new(&mut bytes, FsOptions::new())?;
        let root = system.root_dir();
        for (name, content) in files {
            let mut file = root.create_file(name)?;
            file.write_all(content)?;
            file.flush()?;
        }
    }
    Ok(bytes.into_inner())
}

/// What NoCloud takes for the metadata: JSON, which is YAML too, so that no name can be mistaken for anything else.
fn meta_data(document: &Document) -> Vec<u8> {
    let keys: Vec<&str> = document.public_keys.iter().map(|key| key.openssh.as_str()).collect();
    let [a, b, c, d] = document.interface.private_ipv4.octets();
    let told = serde_json::json!({
        "instance-id": document.instance_id,
        "local-hostname": format!("ip-{a}-{b}-{c}-{d}"),
        "instance-type": document.instance_type,
        "ami-id": document.image_id,
        "availability-zone": document.placement.availability_zone,
        "region": document.placement.region,
        "public-keys": keys,
    });
    let mut text = serde_json::to_vec_pretty(&told).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use base64ct::{Base64, Encoding};
    use proptest::prelude::*;
    use vm_memory::VolatileSlice;

    use super::*;
    use crate::imds::PublicKey;

    fn document(user_data: Option<&[u8]>, key: &str) -> Document {
        Document {
            user_data: user_data.map(Base64::encode_string),
            public_keys: vec![PublicKey { name: "k".into(), openssh: key.into() }],
            ..crate::imds::testing::document()
        }
    }

    fn all_of(disk: &dyn Disk) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        disk.read_at(0, &[VolatileSlice::from(&mut bytes[..])]).unwrap();
        bytes
    }

    fn read(disk: &dyn Disk, name: &str) -> Vec<u8> {
        use std::io::Read;
        let mut bytes = Cursor::new(all_of(disk));
        let system = FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
        let mut content = Vec::new();
        system.root_dir().open_file(name).unwrap().read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn the_hosts_tools_find_it_whole_and_by_its_label() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let disk = disk(&document(Some(b"#!/bin/sh\n"), "ssh-rsa A"), &[]).unwrap();
        assert_eq!((disk.device.as_str(), disk.disk.is_read_only()), ("/dev/sdz", true));
        std::fs::write(&path, all_of(disk.disk.as_ref())).unwrap();
        let path_var = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let run = |words: &[&str]| {
            let output = Command::new(words[0]).args(&words[1..]).arg(&path).env("PATH", &path_var).output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (is_whole, said) = run(&["fsck.fat", "-n"]);
        assert!(is_whole, "{said}");
        let (_, said) = run(&["blkid", "-p", "-o", "export"]);
        assert!(said.contains("LABEL=CIDATA") && said.contains("TYPE=vfat"), "{said}");
        let (_, said) = run(&["mdir", "-b", "-i"]);
        for name in ["meta-data", "user-data", "vendor-data"] {
            assert!(said.contains(name), "{said}");
        }
    }

    #[test]
    fn it_takes_a_device_that_is_free() {
        let document = document(None, "ssh-rsa A");
        let first = disk(&document, &[]).unwrap();
        let second = disk(&document, std::slice::from_ref(&first)).unwrap();
        assert_eq!(second.device, "/dev/sdy");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_an_instance_is_told_is_on_it(data in proptest::collection::vec(any::<u8>(), 1..16 << 10), key in "\\PC{0,400}") {
            let disk = disk(&document(Some(&data), &key), &[]).unwrap();
            prop_assert_eq!(read(disk.disk.as_ref(), "user-data"), data);
            prop_assert_eq!(read(disk.disk.as_ref(), "vendor-data"), b"");
            let told: serde_json::Value = serde_json::from_slice(&read(disk.disk.as_ref(), "meta-data")).unwrap();
            prop_assert_eq!(&told["public-keys"][0], &serde_json::Value::from(key));
        }
    }
}
