//! A disk with what an instance is told of itself, for images whose cloud-init looks for nothing else (NoCloud).
//!
//! It is a FAT file system labelled `cidata`: in small letters, because older cloud-inits look for no others. It is made in memory
//! at each start of the instance's process: what is changed later is on it at the next start.

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
const LABEL: [u8; 11] = *b"cidata     ";

/// Its device: a name that no volume of a mapping can have.
const DEVICE: &str = "/dev/xvdzz";

/// The disk.
///
/// # Errors
/// Where the host has no memory for it.
pub fn disk(document: &Document) -> io::Result<DiskConfig> {
    let name = Sha256::digest(format!("{} seed", document.instance_id));
    let digits: String = name.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(DiskConfig {
        disk: contents(document)?,
        serial: format!("vol0{digits}"),
        device: DEVICE.into(),
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

/// What NoCloud takes for the metadata: JSON, so that no name can be mistaken for anything else, in plain ASCII with YAML's escapes:
/// there are characters that JSON may have as they are and YAML's readers refuse, with all that is around them.
fn meta_data(document: &Document) -> Vec<u8> {
    let keys: Vec<&str> = document.public_keys.iter().map(|key| key.openssh.trim_end()).collect();
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
    let mut text = plain(&told.to_string());
    text.push('\n');
    text.into_bytes()
}

/// JSON without blanks, all of whose other characters are in its texts, with escapes for those.
fn plain(json: &str) -> String {
    let mut text = String::new();
    for character in json.chars() {
        match u32::from(character) {
            0x20..=0x7e => text.push(character),
            code @ ..=0xffff => text.push_str(&format!("\\u{code:04x}")),
            code => text.push_str(&format!("\\U{code:08x}")),
        }
    }
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
        let disk = disk(&document(Some(b"#!/bin/sh\n"), "ssh-rsa A")).unwrap();
        assert!(disk.disk.is_read_only() && disk.device.parse::<crate::launch::bdm::DeviceName>().is_err());
        std::fs::write(&path, all_of(disk.disk.as_ref())).unwrap();
        let path_var = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let run = |words: &[&str]| {
            let output = Command::new(words[0]).args(&words[1..]).arg(&path).env("PATH", &path_var).output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (is_whole, said) = run(&["fsck.fat", "-n"]);
        assert!(is_whole, "{said}");
        let (_, said) = run(&["blkid", "-p", "-o", "export"]);
        assert!(said.contains("LABEL=cidata") && said.contains("TYPE=vfat"), "{said}");
        let (_, said) = run(&["mdir", "-b", "-i"]);
        for name in ["meta-data", "user-data", "vendor-data"] {
            assert!(said.contains(name), "{said}");
        }
    }

    #[test]
    fn what_readers_of_yaml_refuse_is_escaped() {
        let told = String::from_utf8(meta_data(&document(None, "k \u{7f}\u{85}\u{fffe}\u{1f600}\"\n \u{e4}"))).unwrap();
        assert!(told.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{told}");
        assert!(told.contains(r#""k \u007f\u0085\ufffe\U0001f600\"\n \u00e4""#), "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_an_instance_is_told_is_on_it(data in proptest::collection::vec(any::<u8>(), 1..16 << 10), key in "[ -~]{0,400}[!-~]") {
            let disk = disk(&document(Some(&data), &key)).unwrap();
            prop_assert_eq!(read(disk.disk.as_ref(), "user-data"), data);
            prop_assert_eq!(read(disk.disk.as_ref(), "vendor-data"), b"");
            let told: serde_json::Value = serde_json::from_slice(&read(disk.disk.as_ref(), "meta-data")).unwrap();
            prop_assert_eq!(&told["public-keys"][0], &serde_json::Value::from(key));
        }
    }
}
