//! Which firmware an HVM guest starts with, and where its debug text goes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::vmm::builder::{DiskInterface, Firmware};
use crate::vmm::devices::chipset::TextSink;
use crate::vmm::firmware::{FirmwareError, FirmwareImage};
use crate::vmm::smbios::Identity;

/// What is kept of firmware's debug text, in bytes: a guest can write without end.
const LOG_MAX: u64 = 4 << 20;

/// What `--firmware` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareChoice {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
    /// A file of the host.
    File(PathBuf),
}

impl FromStr for FirmwareChoice {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "bios" => Self::Bios,
            "uefi" => Self::Uefi,
            file => Self::File(file.into()),
        })
    }
}

/// Why there is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareChoiceError {
    /// It is not installed.
    #[error("--firmware {choice}: there is none of {}; install the package {package}, or give a file", paths.join(", "))]
    Missing {
        /// What was asked for.
        choice: &'static str,
        /// Where it was looked for.
        paths: &'static [&'static str],
        /// Debian's package.
        package: &'static str,
    },
    /// The file is no firmware.
    #[error("--firmware: {0}")]
    Image(#[from] FirmwareError),
    /// The log cannot be written.
    #[error("--firmware-log {}: {cause}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the host said.
        cause: std::io::Error,
    },
    /// No random numbers.
    #[error("the host has no random numbers for the instance's UUID: {0}")]
    Random(std::io::Error),
}

const BIOS_PATHS: &[&str] = &["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"];
const UEFI_PATHS: &[&str] = &["/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd"];

fn find(choice: &FirmwareChoice) -> Result<PathBuf, FirmwareChoiceError> {
    let (name, paths, package) = match choice {
        FirmwareChoice::File(path) => return Ok(path.clone()),
        FirmwareChoice::Bios => ("bios", BIOS_PATHS, "seabios"),
        FirmwareChoice::Uefi => ("uefi", UEFI_PATHS, "ovmf"),
    };
    let found = paths.iter().map(Path::new).find(|path| path.exists());
    found.map(Into::into).ok_or(FirmwareChoiceError::Missing { choice: name, paths, package })
}

/// The file of a firmware.
///
/// # Errors
/// [`FirmwareChoiceError::Missing`].
pub fn path(choice: &FirmwareChoice) -> Result<PathBuf, FirmwareChoiceError> {
    find(choice)
}

/// Opens all that firmware needs.
///
/// # Errors
/// [`FirmwareChoiceError`], which names the option and the mend.
pub fn open(
    choice: &FirmwareChoice,
    interface: DiskInterface,
    log: Option<&Path>,
    instance_type: &str,
) -> Result<Firmware, FirmwareChoiceError> {
    let image = FirmwareImage::open(&find(choice)?)?;
    let debug = match log {
        Some(path) => log_to(path)?,
        None => Arc::new(|_: &[u8]| {}),
    };
    let identity = Identity::random(instance_type).map_err(FirmwareChoiceError::Random)?;
    Ok(Firmware { image, interface, identity, debug })
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

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let choice: FirmwareChoice = "/nonexistent/rom".parse().unwrap();
        let error = open(&choice, DiskInterface::Virtio, None, "t3.micro").map(drop).unwrap_err().to_string();
        assert!(error.contains("--firmware") && error.contains("/nonexistent/rom"), "{error}");
    }
}
