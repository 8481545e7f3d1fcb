//! Firmware files: a ROM that ends at 4 GiB, and what its variables begin as.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::devices::flash::BLOCK_SIZE;
use super::machine::hvm::{ROM_MAX, firmware_bases};

/// A ROM is made of pieces of this size, in bytes.
const ROM_UNIT: u64 = 64 << 10;
/// The least that firmware has, in bytes: the end of it is seen below 1 MiB too.
const ROM_MIN: u64 = 128 << 10;

/// `EFI_SYSTEM_NV_DATA_FV_GUID`, the kind of firmware volume that holds variables, as its header has it at byte 16, and
/// the header's signature at byte 40 (UEFI Platform Initialization 1.7, volume 3, section 3.2.1).
const VARIABLES_GUID: [u8; 16] =
    [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50];
const VOLUME_SIGNATURE: &[u8] = b"_FVH";

/// Firmware, read and of a possible size; shared by handle.
#[derive(Debug, Clone)]
pub struct FirmwareImage(Arc<[u8]>);

/// Why a file is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// It cannot be read.
    #[error("firmware {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What the host said.
        cause: io::Error,
    },
    /// It is no regular file.
    #[error("firmware {path}: this is no regular file")]
    Kind {
        /// The file.
        path: String,
    },
    /// It has a size that a ROM does not have.
    #[error(
        "firmware {path}: its size is {size} bytes; a ROM has a multiple of 64 KiB, at least {} KiB and at most {} MiB",
        ROM_MIN >> 10, ROM_MAX >> 20
    )]
    Size {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// It has a size that firmware with variables in another file does not have.
    #[error(
        "firmware {path}: its size is {size} bytes; firmware whose variables are in another file has a multiple of 4 KiB, \
         at least {} KiB and at most {} MiB", ROM_MIN >> 10, ROM_MAX >> 20
    )]
    CodeSize {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// It has a size that variables do not have.
    #[error("{path}: its size is {size} bytes; UEFI variables have a multiple of 4 KiB, at most {} MiB", ROM_MAX >> 20)]
    VariablesSize {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// It does not begin as variables do.
    #[error("{path}: this is no store of UEFI variables (the header of a firmware volume of that kind is missing)")]
    NoVariables {
        /// The file.
        path: String,
    },
    /// Both together do not fit.
    #[error("firmware {path} and its variables have {size} bytes together; at most {} MiB fit", ROM_MAX >> 20)]
    TooLarge {
        /// The firmware's file.
        path: String,
        /// Bytes of both.
        size: u64,
    },
}

/// The bytes of a regular file, and one more than there may be at the most of one that is too large.
fn read(path: &Path) -> Result<Vec<u8>, FirmwareError> {
    let fail = |cause| FirmwareError::Read { path: path.display().to_string(), cause };
    // Not waiting for the other end of a pipe.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(FirmwareError::Kind { path: path.display().to_string() });
    }
    let mut bytes = Vec::new();
    file.take(ROM_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// Whether bytes begin as a store of UEFI variables does.
#[must_use]
pub fn are_variables(bytes: &[u8]) -> bool {
    bytes.get(16..32) == Some(&VARIABLES_GUID) && bytes.get(40..44) == Some(VOLUME_SIGNATURE)
}

/// Reads what a firmware's variables begin as.
///
/// # Errors
/// [`FirmwareError`], which names the file.
pub fn read_variables(path: &Path) -> Result<Vec<u8>, FirmwareError> {
    let bytes = read(path)?;
    let size = bytes.len() as u64;
    if size == 0 || size > ROM_MAX || !size.is_multiple_of(BLOCK_SIZE) {
        return Err(FirmwareError::VariablesSize { path: path.display().to_string(), size });
    }
    if !are_variables(&bytes) {
        return Err(FirmwareError::NoVariables { path: path.display().to_string() });
    }
    Ok(bytes)
}

impl FirmwareImage {
    /// Reads a file that is all of a firmware.
    ///
    /// # Errors
    /// [`FirmwareError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, FirmwareError> {
        let bytes = read(path)?;
        let size = bytes.len() as u64;
        if !size.is_multiple_of(ROM_UNIT) || !(ROM_MIN..=ROM_MAX).contains(&size) {
            return Err(FirmwareError::Size { path: path.display().to_string(), size });
        }
        Ok(Self(bytes.into()))
    }

    /// Reads a file of firmware whose variables have `variables_len` bytes in another.
    ///
    /// # Errors
    /// [`FirmwareError`], which names the file.
    pub fn open_code(path: &Path, variables_len: u64) -> Result<Self, FirmwareError> {
        let bytes = read(path)?;
        let name = || path.display().to_string();
        let size = bytes.len() as u64;
        if !size.is_multiple_of(BLOCK_SIZE) || !(ROM_MIN..=ROM_MAX).contains(&size) {
            return Err(FirmwareError::CodeSize { path: name(), size });
        }
        match firmware_bases(size, variables_len) {
            Some(_) => Ok(Self(bytes.into())),
            None => Err(FirmwareError::TooLarge { path: name(), size: size.saturating_add(variables_len) }),
        }
    }

    /// Whether it holds its variables itself, in its beginning.
    #[must_use]
    pub fn holds_variables(&self) -> bool {
        are_variables(&self.0)
    }

    /// Whether a text is in it. Of firmware that is packed nothing is seen.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        memchr::memmem::find(&self.0, text.as_bytes()).is_some()
    }

    /// The ROM's contents: a multiple of 4 KiB, from 128 KiB to 16 MiB.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_size_that_no_rom_has_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rom.bin");
        for (size, good) in [
            (0, false),
            (64 << 10, false),
            (128 << 10, true),
            ((256 << 10) - 1, false),
            (4 << 20, true),
            (16 << 20, true),
            ((16 << 20) + (64 << 10), false),
        ] {
            File::create(&path).unwrap().set_len(size).unwrap();
            let opened = FirmwareImage::open(&path);
            assert_eq!(opened.is_ok(), good, "{size}");
            if let Err(e) = opened {
                assert!(e.to_string().contains("rom.bin"), "{e}");
            }
        }
        assert!(matches!(FirmwareImage::open(dir.path()), Err(FirmwareError::Kind { .. })));
        assert!(matches!(FirmwareImage::open(Path::new("/dev/zero")), Err(FirmwareError::Kind { .. })));
        assert!(matches!(FirmwareImage::open(&dir.path().join("none")), Err(FirmwareError::Read { .. })));
    }

    #[test]
    fn firmware_and_variables_fit_together_or_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code.fd");
        let open = |size: u64, variables| {
            File::create(&path).unwrap().set_len(size).unwrap();
            FirmwareImage::open_code(&path, variables)
        };
        assert!(open(0x37_c000, 0x8_4000).is_ok());
        assert!(open((16 << 20) - 4096, 4096).is_ok());
        assert!(matches!(open(16 << 20, 4096), Err(FirmwareError::TooLarge { .. })));
        assert!(matches!(open(128 << 10, u64::MAX), Err(FirmwareError::TooLarge { .. })));
        for size in [0, 64 << 10, (128 << 10) + 1, 17 << 20] {
            assert!(matches!(open(size, 4096), Err(FirmwareError::CodeSize { .. })), "{size}");
        }
    }

    #[test]
    fn variables_are_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vars.fd");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_variables(&path)
        };
        let mut good = vec![0xff; 8192];
        good[16..32].copy_from_slice(&VARIABLES_GUID);
        good[40..44].copy_from_slice(VOLUME_SIGNATURE);
        assert_eq!(read(&good).unwrap(), good);
        assert!(matches!(read(&good[..8191]), Err(FirmwareError::VariablesSize { size: 8191, .. })));
        assert!(matches!(read(&[]), Err(FirmwareError::VariablesSize { .. })));
        assert!(matches!(read(&[0; 4096]), Err(FirmwareError::NoVariables { .. })));
        assert!(matches!(read(&vec![0; (16 << 20) + 4096]), Err(FirmwareError::VariablesSize { .. })));
    }
}
