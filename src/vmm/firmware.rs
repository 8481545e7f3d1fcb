//! Firmware files: a ROM that ends at 4 GiB.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::machine::hvm::ROM_MAX;

/// A ROM is made of pieces of this size, in bytes.
const ROM_UNIT: u64 = 64 << 10;
/// The least that firmware has, in bytes: the end of it is seen below 1 MiB too.
const ROM_MIN: u64 = 128 << 10;

/// Firmware, read and of a possible size.
#[derive(Debug, Clone)]
pub struct FirmwareImage(Vec<u8>);

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
}

impl FirmwareImage {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FirmwareError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, FirmwareError> {
        let name = || path.display().to_string();
        let read = |cause| FirmwareError::Read { path: name(), cause };
        let file = File::open(path).map_err(read)?;
        let mut bytes = Vec::new();
        // One byte more than there may be, so that a file without an end is seen to be too large.
        file.take(ROM_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        let size = bytes.len() as u64;
        if !size.is_multiple_of(ROM_UNIT) || !(ROM_MIN..=ROM_MAX).contains(&size) {
            return Err(FirmwareError::Size { path: name(), size });
        }
        Ok(Self(bytes))
    }

    /// The ROM's contents: a multiple of 64 KiB, from 128 KiB to 16 MiB.
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
        assert!(matches!(FirmwareImage::open(dir.path()), Err(FirmwareError::Read { .. })));
        assert!(matches!(FirmwareImage::open(Path::new("/dev/zero")), Err(FirmwareError::Size { .. })));
    }
}
