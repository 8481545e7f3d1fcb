//! Which firmware an HVM guest starts with, where its variables are kept, and where its debug text goes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::variables::{self, Template, VariablesError};
use crate::host::firmware::{self as available, FirmwareKind};
use crate::vmm::builder::{DiskInterface, Firmware};
use crate::vmm::devices::chipset::TextSink;
use crate::vmm::devices::flash::{Contents, ContentsError};
use crate::vmm::firmware::{FirmwareError, FirmwareImage, read_variables};
use crate::vmm::smbios::Identity;

/// What is kept of firmware's debug text, in bytes: a guest can write without end.
const LOG_MAX: u64 = 4 << 20;

/// What `--firmware` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareChoice {
    /// SeaBIOS or OVMF, wherever this host has it.
    Kind(FirmwareKind),
    /// A file of the host.
    File(PathBuf),
}

impl FirmwareChoice {
    /// Which it is; unknown of a file.
    #[must_use]
    pub fn kind(&self) -> Option<FirmwareKind> {
        match self {
            Self::Kind(kind) => Some(*kind),
            Self::File(_) => None,
        }
    }
}

impl FromStr for FirmwareChoice {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "bios" => Self::Kind(FirmwareKind::Bios),
            "uefi" => Self::Kind(FirmwareKind::Uefi),
            file => Self::File(file.into()),
        })
    }
}

/// What the person asks for beside the firmware itself.
#[derive(Debug, Clone)]
pub struct FirmwareOptions {
    /// How the guest sees its disks.
    pub interface: DiskInterface,
    /// Where UEFI variables are kept; in memory, for one run, where nothing is given.
    pub variables: Option<PathBuf>,
    /// Where debug text goes.
    pub log: Option<PathBuf>,
    /// Who the guest is told that it is.
    pub identity: Identity,
}

/// Why there is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareChoiceError {
    /// It is not installed.
    #[error(
        "no firmware for {}: neither QEMU's descriptors nor {} name{} one; install the package {}, or give a file with \
         --firmware", kind.name(), kind.known_paths().join(", "),
        if *only_secure { " any but Secure Boot's, which is not chosen by itself, as" } else { "" }, kind.package()
    )]
    Missing {
        /// What was looked for.
        kind: FirmwareKind,
        /// Whether there is some that is not chosen unasked.
        only_secure: bool,
    },
    /// It wants what no machine here has.
    #[error(
        "--firmware {}: this firmware needs system management mode, which guests do not have here; take the one without \
         Secure Boot", path.display()
    )]
    NeedsSmm {
        /// The file.
        path: PathBuf,
    },
    /// It has no variables that could be kept.
    #[error("--uefi-vars: {}", match path {
        Some(path) => format!(
            "the firmware {} {}, and nothing of them is kept; OVMF_CODE_4M.fd, for one, has them in another file",
            path.display(), "holds its variables itself"),
        None => "a BIOS has no UEFI variables; add --firmware uefi".into(),
    })]
    NothingToKeep {
        /// The firmware; nothing for a BIOS.
        path: Option<PathBuf>,
    },
    /// The file is no firmware.
    #[error("--firmware: {0}")]
    Image(#[from] FirmwareError),
    /// The variables cannot be kept.
    #[error(transparent)]
    Variables(#[from] VariablesError),
    /// They cannot be had for the run.
    #[error("UEFI variables: {0}")]
    Contents(#[from] ContentsError),
    /// The log cannot be written.
    #[error("--firmware-log {}: {cause}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the host said.
        cause: std::io::Error,
    },
}

/// Firmware that was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    path: PathBuf,
    /// Unknown of a file that only the person knows.
    kind: Option<FirmwareKind>,
    /// What its variables begin as.
    template: Option<PathBuf>,
}

/// Finds firmware among what the host has, best first. What needs Secure Boot is never taken unasked.
fn find(choice: &FirmwareChoice, host: &[available::Firmware]) -> Result<Found, FirmwareChoiceError> {
    match choice {
        FirmwareChoice::Kind(kind) => {
            let of_kind = || host.iter().filter(|f| f.kind == *kind);
            let missing = || FirmwareChoiceError::Missing { kind: *kind, only_secure: of_kind().next().is_some() };
            let found = of_kind().find(|f| !f.secure).ok_or_else(missing)?;
            Ok(Found { path: found.path.clone(), kind: Some(*kind), template: found.variables.clone() })
        }
        FirmwareChoice::File(path) => {
            let same =
                |other: &Path| path == other || real(path).is_some_and(|real_path| Some(real_path) == real(other));
            match host.iter().find(|f| same(&f.path)) {
                Some(known) if known.needs_smm => Err(FirmwareChoiceError::NeedsSmm { path: path.clone() }),
                Some(known) => {
                    Ok(Found { path: path.clone(), kind: Some(known.kind), template: known.variables.clone() })
                }
                None => Ok(Found { path: path.clone(), kind: None, template: template_beside(path) }),
            }
        }
    }
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Of a file as `OVMF_CODE_4M.fd` the template `OVMF_VARS_4M.fd` in the same directory, as all distributions name them.
fn template_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let pairs = [("CODE", "VARS"), ("code", "vars")];
    let other = pairs.iter().find(|(code, _)| name.contains(code)).map(|(code, vars)| name.replacen(code, vars, 1))?;
    Some(path.with_file_name(other)).filter(|template| template.is_file())
}

/// Firmware, open, and what to tell the person of it.
pub struct Opened {
    /// The firmware.
    pub firmware: Firmware,
    /// Its file.
    pub path: PathBuf,
    /// What is worth a word.
    pub notes: Vec<String>,
}

/// Opens all that firmware needs. A file for variables is made where it is not there.
///
/// # Errors
/// [`FirmwareChoiceError`], which names the option and the mend.
pub fn open(choice: &FirmwareChoice, options: &FirmwareOptions) -> Result<Opened, FirmwareChoiceError> {
    let host = available::find(&crate::host::root::Root::default(), available::own_dir().as_deref());
    open_found(&find(choice, &host)?, options)
}

fn open_found(found: &Found, options: &FirmwareOptions) -> Result<Opened, FirmwareChoiceError> {
    let mut notes = Vec::new();
    let template = match &found.template {
        Some(path) => Some((path, read_variables(path)?)),
        None => None,
    };
    let template = template.as_ref().map(|(path, bytes)| Template { path, bytes });
    // Before a file is made for the variables: whether the firmware is any.
    let image = match template {
        Some(template) => FirmwareImage::open_code(&found.path, template.bytes.len() as u64)?,
        None if options.variables.is_some() && found.kind.is_none() => FirmwareImage::open_code(&found.path, 0)?,
        None => FirmwareImage::open(&found.path)?,
    };
    let debug = match &options.log {
        Some(path) => log_to(path)?,
        None => Arc::new(|_: &[u8]| {}),
    };
    let variables = match (&options.variables, template) {
        (Some(_), None) if found.kind == Some(FirmwareKind::Bios) => {
            return Err(FirmwareChoiceError::NothingToKeep { path: None });
        }
        (Some(_), None) if image.holds_variables() => {
            return Err(FirmwareChoiceError::NothingToKeep { path: Some(found.path.clone()) });
        }
        (Some(file), _) => {
            let kept = variables::keep(file, &found.path, template)?;
            let size = image.bytes().len() as u64;
            if crate::vmm::machine::hvm::firmware_bases(size, kept.contents.len()).is_none() {
                let size = size.saturating_add(kept.contents.len());
                return Err(FirmwareError::TooLarge { path: found.path.display().to_string(), size }.into());
            }
            if let (true, Some(template)) = (kept.is_new, template) {
                notes.push(format!("UEFI variables: {} is made from {}", file.display(), template.path.display()));
            }
            Some(kept.contents)
        }
        (None, Some(template)) => Some(Contents::new(template.bytes, None)?),
        (None, None) => None,
    };
    notes.extend(cannot_read_disks(&found.path, found.kind, &image, options.interface));
    let identity = options.identity.clone();
    let firmware = Firmware { image, variables, interface: options.interface, identity, debug };
    Ok(Opened { firmware, path: found.path.clone(), notes })
}

/// SeaBIOS names what it drives; the small build of it (`bios.bin`) leaves NVMe out.
fn cannot_read_disks(
    path: &Path,
    kind: Option<FirmwareKind>,
    image: &FirmwareImage,
    interface: DiskInterface,
) -> Option<String> {
    let is_seabios = kind != Some(FirmwareKind::Uefi) && image.contains("SeaBIOS");
    let (name, driver) = match interface {
        DiskInterface::Nvme => ("nvme", "nvme"),
        DiskInterface::Virtio => ("virtio", "virtio"),
    };
    (is_seabios && !image.contains(driver)).then(|| {
        format!("the firmware {} has no driver for --disk {name}: it will find nothing to boot", path.display())
    })
}

/// Keeps the beginning of the text in a file.
fn log_to(path: &Path) -> Result<TextSink, FirmwareChoiceError> {
    let file = File::create(path).map_err(|cause| FirmwareChoiceError::Log { path: path.into(), cause })?;
    let written = AtomicU64::new(0);
    Ok(Arc::new(move |text: &[u8]| {
        if written.fetch_add(text.len() as u64, Ordering::Relaxed) < LOG_MAX {
            // A full disk costs the log, not the guest.
            let _ = (&file).write_all(text);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let sink = log_to(&path).unwrap();
        for _ in 0..LOG_MAX / 1024 + 100 {
            sink(&[b'x'; 1024]);
        }
        assert_eq!(path.metadata().unwrap().len(), LOG_MAX);
        assert!(matches!(log_to(dir.path()), Err(FirmwareChoiceError::Log { .. })));
    }

    fn options(variables: Option<&Path>) -> FirmwareOptions {
        FirmwareOptions {
            interface: DiskInterface::Virtio,
            variables: variables.map(Into::into),
            log: None,
            identity: Identity::random("t3.micro").unwrap(),
        }
    }

    fn store(len: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; len];
        bytes[16..32].copy_from_slice(&[
            0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
        ]);
        bytes[40..44].copy_from_slice(b"_FVH");
        bytes
    }

    fn listed(kind: FirmwareKind, path: &Path, variables: Option<&Path>, secure: bool) -> available::Firmware {
        available::Firmware {
            kind,
            path: path.into(),
            size: 0,
            variables: variables.map(Into::into),
            descriptor: None,
            secure,
            needs_smm: secure,
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let choice: FirmwareChoice = "/nonexistent/rom".parse().unwrap();
        let error = open(&choice, &options(None)).map(drop).unwrap_err().to_string();
        assert!(error.contains("--firmware") && error.contains("/nonexistent/rom"), "{error}");
    }

    #[test]
    fn what_is_missing_names_its_package_and_secure_boot_is_never_chosen() {
        let missing =
            |text: &str, host: &[available::Firmware]| find(&text.parse().unwrap(), host).unwrap_err().to_string();
        let error = missing("bios", &[]);
        assert!(error.contains("package seabios") && error.contains("/usr/share/seabios/bios-256k.bin"), "{error}");
        let secure = listed(FirmwareKind::Uefi, Path::new("/fw/secure"), None, true);
        let error = missing("uefi", std::slice::from_ref(&secure));
        assert!(error.contains("package ovmf") && error.contains("Secure Boot"), "{error}");
        let error = missing("/fw/secure", &[secure]);
        assert!(error.contains("/fw/secure") && error.contains("system management mode"), "{error}");
    }

    #[test]
    fn a_file_s_template_is_the_one_it_is_known_by_or_the_one_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let [code, vars, own, link] = ["X_CODE.fd", "X_VARS.fd", "own", "link"].map(|name| dir.path().join(name));
        for path in [&code, &vars, &own] {
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink(&code, &link).unwrap();
        let template = |path: &Path, host: &[available::Firmware]| {
            find(&FirmwareChoice::File(path.into()), host).unwrap().template
        };
        assert_eq!(template(&code, &[]), Some(vars.clone()));
        assert_eq!(template(&own, &[]), None);
        assert_eq!(template(&link, &[]), None);
        let known = [listed(FirmwareKind::Uefi, &code, Some(&own), false)];
        assert_eq!(template(&link, &known), Some(own));
        fs::remove_file(&vars).unwrap();
        assert_eq!(template(&code, &[]), None);
    }

    #[test]
    fn variables_live_for_the_run_or_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let [code, vars, file] = ["CODE.fd", "VARS.fd", "kept.fd"].map(|name| dir.path().join(name));
        File::create(&code).unwrap().set_len(0x2_1000).unwrap();
        fs::write(&vars, store(8192)).unwrap();
        let choice = FirmwareChoice::File(code.clone());
        let opened = open(&choice, &options(None)).unwrap();
        assert_eq!(opened.firmware.variables.unwrap().len(), 8192);
        assert!(!file.exists() && opened.notes.is_empty());
        let opened = open(&choice, &options(Some(&file))).unwrap();
        assert!(opened.notes[0].contains("kept.fd") && opened.notes[0].contains("VARS.fd"), "{:?}", opened.notes);
        drop(opened);
        // Without the template the file that is there will do; without both there is nothing.
        fs::remove_file(&vars).unwrap();
        assert_eq!(open(&choice, &options(Some(&file))).unwrap().firmware.variables.unwrap().len(), 8192);
        fs::remove_file(&file).unwrap();
        let error = open(&choice, &options(Some(&file))).map(drop).unwrap_err().to_string();
        assert!(error.contains("no template"), "{error}");
        // Firmware of another size than any has.
        fs::write(&vars, store(8192)).unwrap();
        File::create(&code).unwrap().set_len(1000).unwrap();
        let error = open(&choice, &options(Some(&file))).map(drop).unwrap_err().to_string();
        assert!(error.contains("CODE.fd") && error.contains("1000 bytes") && !file.exists(), "{error}");
    }

    #[test]
    fn firmware_without_variables_of_its_own_file_keeps_none() {
        let dir = tempfile::tempdir().unwrap();
        let [combined, file] = ["OVMF.fd", "kept.fd"].map(|name| dir.path().join(name));
        fs::write(&combined, store(128 << 10)).unwrap();
        let error = open(&FirmwareChoice::File(combined), &options(Some(&file))).map(drop).unwrap_err().to_string();
        assert!(error.contains("--uefi-vars") && error.contains("OVMF.fd"), "{error}");
        let bios = Found { path: dir.path().join("OVMF.fd"), kind: Some(FirmwareKind::Bios), template: None };
        let error = open_found(&bios, &options(Some(&file))).map(drop).unwrap_err().to_string();
        assert!(error.contains("--firmware uefi") && !file.exists(), "{error}");
    }

    #[test]
    fn a_bios_without_a_driver_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bios.bin");
        let notes = |text: &str, interface| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(128 << 10, 0);
            fs::write(&path, bytes).unwrap();
            let options = FirmwareOptions { interface, ..options(None) };
            open(&FirmwareChoice::File(path.clone()), &options).unwrap().notes
        };
        assert!(notes("SeaBIOS virtio", DiskInterface::Nvme)[0].contains("--disk nvme"));
        assert!(notes("SeaBIOS virtio nvme", DiskInterface::Nvme).is_empty());
        assert!(notes("SeaBIOS virtio", DiskInterface::Virtio).is_empty());
        assert!(notes("something else", DiskInterface::Nvme).is_empty());
    }
}
