//! The header of a map file; its fields are in the documentation of the folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{LayerError, UNIT, crc32c};
use crate::disk::{MAX_SIZE, SECTOR_SIZE};

const MAGIC: [u8; 8] = *b"AMILAYER";
const VERSION: u32 = 1;

/// Bytes of the header.
pub(super) const LEN: usize = 64;

/// Bytes that its own checksum covers.
const SUMMED: usize = 60;

/// What a map file says of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Random, so that no two layers have the same.
    pub id: [u8; 16],
    /// Bytes of the disk.
    pub size: u64,
    /// The checksum of the bitmap, once the layer is sealed.
    pub sealed: Option<u32>,
}

/// Whether a disk can have this many bytes.
pub(super) fn is_size(size: u64) -> bool {
    (SECTOR_SIZE..=MAX_SIZE).contains(&size) && size.is_multiple_of(SECTOR_SIZE)
}

impl Header {
    pub(super) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(field) = bytes.get_mut(at..at + value.len()) {
                field.copy_from_slice(value);
            }
        };
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &u32::from(self.sealed.is_some()).to_le_bytes());
        put(16, &self.id);
        put(32, &self.size.to_le_bytes());
        // 4096 fits.
        put(40, &u32::try_from(UNIT).unwrap_or_default().to_le_bytes());
        put(44, &self.sealed.unwrap_or_default().to_le_bytes());
        let sum = crc32c::sum(&bytes[..SUMMED]);
        bytes[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// # Errors
    /// What is wrong with the header of the map file `path`.
    pub(super) fn decode(bytes: &[u8; LEN], path: &Path) -> Result<Self, LayerError> {
        let path = || path.to_owned();
        let (fields, _) = bytes.as_chunks::<4>();
        let word = |at: usize| fields.get(at / 4).map_or(0, |field| u32::from_le_bytes(*field));
        if !bytes.starts_with(&MAGIC) {
            return Err(LayerError::NotALayer { path: path() });
        }
        // Before the checksum: another version may have it elsewhere.
        if word(8) != VERSION {
            return Err(LayerError::Version { path: path(), version: word(8) });
        }
        let (found, wanted) = (crc32c::sum(&bytes[..SUMMED]), word(SUMMED));
        if found != wanted {
            return Err(LayerError::Checksum { path: path(), part: "header", found, wanted });
        }
        let refuse = |field, value| Err(LayerError::Field { path: path(), field, value });
        let size = u64::from(word(32)) | u64::from(word(36)) << 32;
        if u64::from(word(40)) != UNIT {
            return refuse("a unit of bytes:", word(40).into());
        }
        if !is_size(size) {
            return refuse("a disk of bytes:", size);
        }
        let sealed = match word(12) {
            0 => None,
            1 => Some(word(44)),
            other => return refuse("state", other.into()),
        };
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        Ok(Self { id, size, sealed })
    }

    /// Reads it from the map file `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(map: &File, path: &Path) -> Result<Self, LayerError> {
        let mut bytes = [0; LEN];
        match map.read_exact_at(&mut bytes, 0) {
            Ok(()) => Self::decode(&bytes, path),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let len = map.metadata().map_or(0, |meta| meta.len());
                Err(LayerError::Length { path: path.to_owned(), len, wanted: super::map_len(SECTOR_SIZE) })
            }
            Err(error) => Err(LayerError::host(path, "cannot read its header")(error)),
        }
    }

    /// Writes it; durable once the file is.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn write(&self, map: &File) -> io::Result<()> {
        map.write_all_at(&self.encode(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { id: *b"0123456789abcdef", size: 5 * 512, sealed: Some(0x1234_5678) };

    #[test]
    fn what_was_written_is_read() {
        for header in [HEADER, Header { sealed: None, size: MAX_SIZE, ..HEADER }] {
            assert_eq!(Header::decode(&header.encode(), Path::new("x")).unwrap(), header);
        }
        assert_eq!(&HEADER.encode()[..16], b"AMILAYER\x01\0\0\0\x01\0\0\0");
    }

    #[test]
    fn every_changed_bit_is_seen() {
        for at in 0..LEN * 8 {
            let mut bytes = HEADER.encode();
            bytes[at / 8] ^= 1 << (at % 8);
            Header::decode(&bytes, Path::new("x")).unwrap_err();
        }
    }

    #[test]
    fn fields_that_cannot_be_are_refused_though_their_checksum_is_right() {
        for (at, value) in [(12, 2u32), (32, 0), (32, 513), (36, 1 << 20), (40, 8192), (40, 0)] {
            let mut bytes = HEADER.encode();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let sum = crc32c::sum(&bytes[..SUMMED]);
            bytes[SUMMED..].copy_from_slice(&sum.to_le_bytes());
            let error = Header::decode(&bytes, Path::new("x.map")).unwrap_err();
            assert!(matches!(error, LayerError::Field { .. }), "{at} {value}: {error}");
        }
    }
}
