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
/// The largest firmware that fits below 4 GiB beside what else is there.
const FIRMWARE_MAX: u64 = 16 << 20;

/// In rising rank: a file hides those of the same name in directories before its own.
const DESCRIPTOR_DIRS: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

/// What a directory of the person's own ([`OWN_DIR`]) is looked through for, best first.
const OWN_FILES: [Known; 3] = [
    Known(FirmwareKind::Bios, "bios-256k.bin", None),
    Known(FirmwareKind::Uefi, "OVMF_CODE_4M.fd", Some("OVMF_VARS_4M.fd")),
    Known(FirmwareKind::Uefi, "OVMF.fd", None),
];

/// Where distributions put firmware, best first.
const PATHS: [Known; 11] = [
    Known(FirmwareKind::Bios, "/usr/share/seabios/bios-256k.bin", None),
    Known(FirmwareKind::Bios, "/usr/share/qemu/bios-256k.bin", None),
    Known(FirmwareKind::Bios, "/usr/share/seabios/bios.bin", None),
    Known(FirmwareKind::Uefi, "/usr/share/OVMF/OVMF_CODE_4M.fd", Some("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    Known(FirmwareKind::Uefi, "/usr/share/OVMF/OVMF_CODE.fd", Some("/usr/share/OVMF/OVMF_VARS.fd")),
    Known(FirmwareKind::Uefi, "/usr/share/edk2/ovmf/OVMF_CODE.fd", Some("/usr/share/edk2/ovmf/OVMF_VARS.fd")),
    Known(FirmwareKind::Uefi, "/usr/share/edk2/x64/OVMF_CODE.4m.fd", Some("/usr/share/edk2/x64/OVMF_VARS.4m.fd")),
    Known(FirmwareKind::Uefi, "/usr/share/qemu/edk2-x86_64-code.fd", Some("/usr/share/qemu/edk2-i386-vars.fd")),
    Known(FirmwareKind::Uefi, "/usr/share/qemu/ovmf-x86_64-code.bin", Some("/usr/share/qemu/ovmf-x86_64-vars.bin")),
    Known(FirmwareKind::Uefi, "/usr/share/ovmf/OVMF.fd", None),
    Known(FirmwareKind::Uefi, "/usr/share/qemu/OVMF.fd", None),
];

/// The environment variable that names a directory of the person's own, in which firmware is looked for first.
pub const OWN_DIR: &str = "AMIBOOT_FIRMWARE_PATH";

/// A file that is firmware by its name, and the template of its variables where it does not hold them itself.
struct Known(FirmwareKind, &'static str, Option<&'static str>);

/// Which firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareKind {
    /// Legacy BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl FirmwareKind {
    /// What `--firmware` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }

    /// Debian's package.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Bios => "seabios",
            Self::Uefi => "ovmf",
        }
    }

    /// Where distributions put it.
    #[must_use]
    pub fn known_paths(self) -> Vec<&'static str> {
        PATHS.iter().filter(|known| known.0 == self).map(|known| known.1).collect()
    }
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
    /// What its variables begin as: a file of its own that lies below the firmware in the guest. Nothing where it has
    /// no variables, or holds them itself.
    pub variables: Option<PathBuf>,
    /// The descriptor that names it; nothing where it was found at a well-known path.
    pub descriptor: Option<PathBuf>,
    /// Whether it demands signed boot loaders or system management mode, so that it does not fit every guest.
    pub secure: bool,
    /// Whether it demands system management mode, which no machine here has.
    pub needs_smm: bool,
}

/// The directory that [`OWN_DIR`] names.
#[must_use]
pub fn own_dir() -> Option<PathBuf> {
    std::env::var_os(OWN_DIR).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// All firmware found, best first: what fits every guest before what does not, and then that of the directory `own`,
/// that of the descriptors in their rank, that at well-known paths.
#[must_use]
pub fn find(root: &Root, own: Option<&Path>) -> Vec<Firmware> {
    let mut found: Vec<Firmware> = Vec::new();
    let in_own = own.into_iter().flat_map(|dir| {
        OWN_FILES.iter().filter_map(|Known(kind, name, variables)| {
            let variables = variables.map(|name| dir.join(name));
            usable(*kind, &dir.join(name), variables.as_deref(), Path::to_path_buf)
        })
    });
    let described = descriptors(root).into_iter().filter_map(|path| from_descriptor(root, &path));
    let known = PATHS.iter().filter_map(|Known(kind, path, variables)| {
        usable(*kind, Path::new(path), variables.map(Path::new), |path| root.path(path))
    });
    for firmware in in_own.chain(described).chain(known) {
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
    #[serde(rename_all = "kebab-case")]
    Flash {
        #[serde(default)]
        mode: FlashMode,
        executable: FlashFile,
        #[serde(default)]
        nvram_template: Option<FlashFile>,
    },
    Memory {
        filename: PathBuf,
    },
    #[serde(other)]
    Other,
}

/// Where the variables are: in a file of their own, in the executable, or nowhere.
#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum FlashMode {
    #[default]
    Split,
    Combined,
    Stateless,
}

#[derive(Deserialize)]
struct FlashFile {
    filename: PathBuf,
    #[serde(default)]
    format: Option<String>,
}

impl FlashFile {
    /// The file, where it holds just the bytes.
    fn raw(self) -> Option<PathBuf> {
        self.format.as_deref().is_none_or(|f| f == "raw").then_some(self.filename)
    }
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    #[serde(default)]
    machines: Vec<String>,
}

impl Target {
    /// Whether it is the machine that guests have here, a PC with the 440FX chipset.
    fn is_ours(&self) -> bool {
        let ours = |glob: &String| ["pc", "pc-*", "*"].contains(&glob.as_str()) || glob.starts_with("pc-i440fx");
        self.machines.is_empty() || self.machines.iter().any(ours)
    }
}

fn from_descriptor(root: &Root, descriptor: &Path) -> Option<Firmware> {
    // An empty file hides one of the same name, and is not JSON.
    let parsed: Descriptor = serde_json::from_str(&root.read(descriptor, DESCRIPTOR_MAX).ok()?).ok()?;
    let kind = parsed.interface_types.iter().find_map(|name| match name.as_str() {
        "uefi" => Some(FirmwareKind::Uefi),
        "bios" => Some(FirmwareKind::Bios),
        _ => None,
    })?;
    let has = |feature| parsed.features.iter().any(|f| f == feature);
    let needs_smm = has("requires-smm");
    let secure = needs_smm || has("secure-boot");
    // What is secure is for another machine anyway, and is only shown.
    let mut targets = parsed.targets.iter().filter(|t| t.architecture == "x86_64");
    if !targets.any(|t| secure || t.is_ours()) {
        return None;
    }
    let (path, variables) = match parsed.mapping {
        Mapping::Flash { mode: FlashMode::Split, executable, nvram_template } => {
            (executable.raw()?, Some(nvram_template?.raw()?))
        }
        Mapping::Flash { executable, .. } => (executable.raw()?, None),
        Mapping::Memory { filename } => (filename, None),
        Mapping::Other => return None,
    };
    let found = usable(kind, &path, variables.as_deref(), |path| root.path(path))?;
    Some(Firmware { descriptor: Some(descriptor.into()), secure, needs_smm, ..found })
}

/// Firmware of files that are there and of a possible size; `real` says where a path is.
fn usable(
    kind: FirmwareKind,
    path: &Path,
    variables: Option<&Path>,
    real: impl Fn(&Path) -> PathBuf,
) -> Option<Firmware> {
    let size = |path: &Path| {
        let meta = fs::metadata(real(path)).ok()?;
        (meta.is_file() && (1..=FIRMWARE_MAX).contains(&meta.len())).then_some(meta.len())
    };
    let absolute = |path: &Path| path.is_absolute() || real(path) == path;
    if !absolute(path) || !variables.is_none_or(absolute) {
        return None;
    }
    let variables_size = variables.map_or(Some(0), size)?;
    let size = size(path)?;
    let fits = size.checked_add(variables_size)? <= FIRMWARE_MAX;
    fits.then(|| Firmware {
        kind,
        path: path.into(),
        size,
        variables: variables.map(Into::into),
        descriptor: None,
        secure: false,
        needs_smm: false,
    })
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
        described(file, architecture, features, r#""mode": "combined""#)
    }

    fn described(file: &str, architecture: &str, features: &str, flash: &str) -> String {
        format!(
            r#"{{"description": "d", "interface-types": ["uefi"], "targets": [{{"architecture": "{architecture}",
            "machines": ["pc-i440fx-*", "pc-q35-*"]}}],
            "mapping": {{"device": "flash", {flash}, "executable": {{"filename": "{file}", "format": "raw"}}}},
            "features": [{features}], "tags": [], "later": {{}}}}"#
        )
    }

    #[test]
    fn a_bare_host_has_none() {
        let (_dir, root) = host(&[]);
        assert_eq!(find(&root, None), []);
    }

    #[test]
    fn descriptors_rank_before_well_known_paths_and_what_is_secure_comes_last() {
        let (_dir, root) = host(&[
            ("/fw/secure", "1"),
            ("/fw/plain", "12"),
            ("/fw/arm", "1"),
            ("/usr/share/OVMF/OVMF_CODE_4M.fd", "123"),
            ("/usr/share/OVMF/OVMF_VARS_4M.fd", "1"),
            ("/usr/share/OVMF/OVMF_CODE.fd", "a template of its variables is not there"),
            ("/usr/share/seabios/bios-256k.bin", "1234"),
            ("/usr/share/qemu/firmware/10-a.json", &descriptor("/fw/arm", "aarch64", "")),
            ("/usr/share/qemu/firmware/40-b.json", &descriptor("/fw/secure", "x86_64", r#""acpi-s3", "secure-boot""#)),
            ("/usr/share/qemu/firmware/60-c.json", &descriptor("/fw/plain", "x86_64", "")),
            ("/usr/share/qemu/firmware/70-d.json", &descriptor("/fw/none", "x86_64", "")),
            ("/usr/share/qemu/firmware/80-e.json", &descriptor("fw/plain", "x86_64", "")),
            ("/usr/share/qemu/firmware/readme", "no"),
        ]);
        let found = find(&root, None);
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
        assert_eq!(find(&root, None).iter().map(|f| f.path.as_path()).collect::<Vec<_>>(), [Path::new("/fw/b")]);
    }

    #[test]
    fn what_cannot_be_firmware_is_passed_over() {
        let (dir, root) = host(&[("/usr/share/seabios/bios.bin", ""), ("/usr/share/ovmf/OVMF.fd/x", "a directory")]);
        let huge = fs::File::create(dir.path().join("usr/share/seabios/bios-256k.bin")).unwrap();
        huge.set_len(FIRMWARE_MAX + 1).unwrap();
        assert_eq!(find(&root, None), []);
    }

    #[test]
    fn variables_have_a_template_where_the_firmware_does_not_hold_them() {
        let template = |file: &str, format: &str| {
            let template = format!(r#""nvram-template": {{"filename": "{file}", "format": "{format}"}}"#);
            described("/fw/code", "x86_64", "", &template)
        };
        let find_with = |descriptor: &str| {
            let files = [("/fw/code", "12"), ("/fw/vars", "1"), ("/etc/qemu/firmware/1.json", descriptor)];
            let (_dir, root) = host(&files);
            find(&root, None)
        };
        let found = find_with(&template("/fw/vars", "raw"));
        assert_eq!(found[0].variables.as_deref(), Some(Path::new("/fw/vars")));
        assert_eq!(find_with(&descriptor("/fw/code", "x86_64", ""))[0].variables, None);
        for wrong in [template("/fw/none", "raw"), template("/fw/vars", "qcow2"), template("fw/vars", "raw")] {
            assert_eq!(find_with(&wrong), []);
        }
        // Split is what is meant where nothing is said, and then there must be one.
        assert_eq!(find_with(&described("/fw/code", "x86_64", "", r#""x": 1"#)), []);
    }

    #[test]
    fn firmware_for_other_machines_is_passed_over() {
        let microvm = descriptor("/fw/a", "x86_64", "").replace("pc-i440fx-*", "microvm").replace("pc-q35-*", "x");
        let q35 = descriptor("/fw/b", "x86_64", "").replace("pc-i440fx-*", "pc-q35-8.0");
        let smm = descriptor("/fw/c", "x86_64", r#""requires-smm""#).replace("pc-i440fx-*", "pc-q35-8.0");
        let (_dir, root) = host(&[
            ("/fw/a", "1"),
            ("/fw/b", "1"),
            ("/fw/c", "1"),
            ("/etc/qemu/firmware/1.json", &microvm),
            ("/etc/qemu/firmware/2.json", &q35),
            ("/etc/qemu/firmware/3.json", &smm),
        ]);
        let found = find(&root, None);
        assert_eq!(
            found.iter().map(|f| (f.path.to_str().unwrap(), f.needs_smm)).collect::<Vec<_>>(),
            [("/fw/c", true)]
        );
    }

    #[test]
    fn a_directory_of_one_s_own_comes_first() {
        let (dir, root) = host(&[
            ("/own/bios-256k.bin", "1"),
            ("/own/OVMF_CODE_4M.fd", "1"),
            ("/own/OVMF.fd", "1"),
            ("/usr/share/seabios/bios-256k.bin", "1"),
        ]);
        let own = dir.path().join("own");
        let names = || {
            let found = find(&root, Some(&own));
            let name = |f: &Firmware| f.path.strip_prefix(dir.path()).unwrap_or(&f.path).display().to_string();
            found.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["own/bios-256k.bin", "own/OVMF.fd", "/usr/share/seabios/bios-256k.bin"]);
        fs::write(own.join("OVMF_VARS_4M.fd"), "1").unwrap();
        assert_eq!(names()[1], "own/OVMF_CODE_4M.fd");
        assert_eq!(find(&root, Some(&dir.path().join("none"))).len(), 1);
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
            prop_assert!(find(&root, None).iter().all(|f| f.path == Path::new("/fw/plain")));
        }
    }
}
