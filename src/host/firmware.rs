//! Firmware for HVM guests on this host: SeaBIOS and OVMF, found through QEMU's published descriptors
//! (`docs/interop/firmware.json` of QEMU) and at the paths where distributions put them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::root::Root;

/// A descriptor is about 1 KiB.
const DESCRIPTOR_MAX: u64 = 64 << 10;
/// Files looked at in one directory of descriptors.
const DESCRIPTORS_MAX: usize = 256;
/// The largest firmware that fits below 4 GiB with room for anything else.
const FIRMWARE_MAX: u64 = 64 << 20;

/// In rising rank: a file hides those of the same name in directories before its own.
const DESCRIPTOR_DIRS: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

const BIOS_PATHS: [&str; 3] =
    ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin", "/usr/share/seabios/bios.bin"];

const UEFI_PATHS: [&str; 7] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    "/usr/share/qemu/edk2-x86_64-code.fd",
    "/usr/share/qemu/ovmf-x86_64-code.bin",
];

/// Which firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareKind {
    /// Legacy BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// A firmware file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Which it is.
    pub kind: FirmwareKind,
    /// The file, on this host.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The descriptor that names it; nothing where it was found at a well-known path.
    pub descriptor: Option<PathBuf>,
    /// Whether it demands signed boot loaders or system management mode, so that it does not fit every guest.
    pub secure: bool,
}

/// All firmware found, best first: what fits every guest before what does not, and then in the order in which the
/// descriptors rank it.
#[must_use]
pub fn find(root: &Root) -> Vec<Firmware> {
    let mut found: Vec<Firmware> = Vec::new();
    let described = descriptors(root).into_iter().filter_map(|path| from_descriptor(root, &path));
    let known = |kind, paths: &'static [&str]| {
        paths.iter().filter_map(move |path| usable(root, Path::new(path), kind, None, false))
    };
    let all = described.chain(known(FirmwareKind::Bios, &BIOS_PATHS)).chain(known(FirmwareKind::Uefi, &UEFI_PATHS));
    for firmware in all {
        if !found.iter().any(|f| f.path == firmware.path) {
            found.push(firmware);
        }
    }
    found.sort_by_key(|f| f.secure);
    found
}

/// The descriptors' files in their rank, which is that of their names.
fn descriptors(root: &Root) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for dir in DESCRIPTOR_DIRS {
        let Ok(entries) = fs::read_dir(root.path(dir)) else { continue };
        for entry in entries.flatten().take(DESCRIPTORS_MAX) {
            let name = entry.file_name();
            if Path::new(&name).extension().is_some_and(|e| e == "json") {
                by_name.insert(name.clone(), Path::new(dir).join(name));
            }
        }
    }
    by_name.into_values().collect()
}

/// What is read of a descriptor. What is not there or not known does no harm.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "device", rename_all = "kebab-case")]
enum Mapping {
    Flash {
        executable: FlashFile,
    },
    Memory {
        filename: PathBuf,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct FlashFile {
    filename: PathBuf,
    #[serde(default)]
    format: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
}

fn from_descriptor(root: &Root, descriptor: &Path) -> Option<Firmware> {
    // An empty file hides one of the same name, and is not JSON.
    let parsed: Descriptor = serde_json::from_str(&root.read(descriptor, DESCRIPTOR_MAX).ok()?).ok()?;
    if !parsed.targets.iter().any(|t| t.architecture == "x86_64") {
        return None;
    }
    let kind = parsed.interface_types.iter().find_map(|name| match name.as_str() {
        "uefi" => Some(FirmwareKind::Uefi),
        "bios" => Some(FirmwareKind::Bios),
        _ => None,
    })?;
    let path = match parsed.mapping {
        Mapping::Flash { executable } if executable.format.as_deref().is_none_or(|f| f == "raw") => executable.filename,
        Mapping::Memory { filename } => filename,
        Mapping::Flash { .. } | Mapping::Other => return None,
    };
    let secure = parsed.features.iter().any(|f| f == "secure-boot" || f == "requires-smm");
    usable(root, &path, kind, Some(descriptor), secure)
}

fn usable(root: &Root, path: &Path, kind: FirmwareKind, descriptor: Option<&Path>, secure: bool) -> Option<Firmware> {
    if !path.is_absolute() {
        return None;
    }
    let meta = fs::metadata(root.path(path)).ok()?;
    let fits = meta.is_file() && (1..=FIRMWARE_MAX).contains(&meta.len());
    fits.then(|| Firmware { kind, path: path.into(), size: meta.len(), descriptor: descriptor.map(Into::into), secure })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn host(files: &[(&str, &str)]) -> (TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        for (path, text) in files {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (dir, root)
    }

    fn descriptor(file: &str, architecture: &str, features: &str) -> String {
        format!(
            r#"{{"description": "d", "interface-types": ["uefi"], "targets": [{{"architecture": "{architecture}"}}],
            "mapping": {{"device": "flash", "mode": "split", "executable": {{"filename": "{file}", "format": "raw"}}}},
            "features": [{features}], "tags": [], "later": {{}}}}"#
        )
    }

    #[test]
    fn a_bare_host_has_none() {
        let (_dir, root) = host(&[]);
        assert_eq!(find(&root), []);
    }

    #[test]
    fn descriptors_rank_before_well_known_paths_and_what_is_secure_comes_last() {
        let (_dir, root) = host(&[
            ("/fw/secure", "1"),
            ("/fw/plain", "12"),
            ("/fw/arm", "1"),
            ("/usr/share/OVMF/OVMF_CODE_4M.fd", "123"),
            ("/usr/share/seabios/bios-256k.bin", "1234"),
            ("/usr/share/qemu/firmware/10-a.json", &descriptor("/fw/arm", "aarch64", "")),
            ("/usr/share/qemu/firmware/40-b.json", &descriptor("/fw/secure", "x86_64", r#""acpi-s3", "secure-boot""#)),
            ("/usr/share/qemu/firmware/60-c.json", &descriptor("/fw/plain", "x86_64", "")),
            ("/usr/share/qemu/firmware/70-d.json", &descriptor("/fw/none", "x86_64", "")),
            ("/usr/share/qemu/firmware/80-e.json", &descriptor("fw/plain", "x86_64", "")),
            ("/usr/share/qemu/firmware/readme", "no"),
        ]);
        let found = find(&root);
        let paths: Vec<&str> = found.iter().map(|f| f.path.to_str().unwrap()).collect();
        let [code, bios] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/seabios/bios-256k.bin"];
        assert_eq!(paths, ["/fw/plain", bios, code, "/fw/secure"]);
        assert_eq!((found[0].size, found[0].kind), (2, FirmwareKind::Uefi));
        assert_eq!(found[0].descriptor.as_deref(), Some(Path::new("/usr/share/qemu/firmware/60-c.json")));
    }

    #[test]
    fn the_host_s_own_descriptors_hide_the_distribution_s() {
        let (_dir, root) = host(&[
            ("/fw/a", "1"),
            ("/fw/b", "1"),
            ("/usr/share/qemu/firmware/60-x.json", &descriptor("/fw/a", "x86_64", "")),
            ("/usr/share/qemu/firmware/70-y.json", &descriptor("/fw/a", "x86_64", "")),
            ("/etc/qemu/firmware/60-x.json", &descriptor("/fw/b", "x86_64", "")),
            ("/etc/qemu/firmware/70-y.json", ""),
        ]);
        assert_eq!(find(&root).iter().map(|f| f.path.as_path()).collect::<Vec<_>>(), [Path::new("/fw/b")]);
    }

    #[test]
    fn what_cannot_be_firmware_is_passed_over() {
        let (dir, root) = host(&[("/usr/share/seabios/bios.bin", ""), ("/usr/share/ovmf/OVMF.fd/x", "a directory")]);
        let huge = fs::File::create(dir.path().join("usr/share/seabios/bios-256k.bin")).unwrap();
        huge.set_len(FIRMWARE_MAX + 1).unwrap();
        assert_eq!(find(&root), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_mangled_descriptor_names_no_other_file(at in 0usize..300, with in any::<u8>(), cut in 0usize..400) {
            let mut text = descriptor("/fw/plain", "x86_64", "").into_bytes();
            let at = at % text.len();
            text[at] = with;
            text.truncate(cut);
            let (dir, root) = host(&[("/fw/plain", "1")]);
            fs::create_dir_all(dir.path().join("etc/qemu/firmware")).unwrap();
            fs::write(dir.path().join("etc/qemu/firmware/1.json"), text).unwrap();
            prop_assert!(find(&root).iter().all(|f| f.path == Path::new("/fw/plain")));
        }
    }
}
