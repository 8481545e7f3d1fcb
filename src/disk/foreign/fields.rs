//! Numbers in the structures of files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Flaw;

/// Bytes of a sector, as the length of a buffer.
pub(super) const SECTOR: usize = 512;

/// A structure as it lies in a file. What is asked for beyond its end reads as zero; structures are read whole, so
/// nothing is.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    pub fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// An identifier of 16 bytes.
    pub fn guid(&self, at: usize) -> [u8; 16] {
        self.array(at)
    }
}

/// Puts `bytes` into a structure that is made.
pub(super) fn put(structure: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = structure.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// A structure of `len` bytes at `offset` of a file that has `file_len`.
///
/// # Errors
/// [`Flaw::CutOff`] where the file ends before it, and what the host said.
pub(super) fn structure(
    file: &File,
    file_len: u64,
    what: &'static str,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, Flaw> {
    if offset.checked_add(len as u64).is_none_or(|end| end > file_len) {
        return Err(Flaw::CutOff { what, offset, file_len });
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Fills `buf` from the bytes at `offset`.
///
/// # Errors
/// What the host said; where the file ends first, in words of this room.
pub(super) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buf, offset).map_err(|error| cut_off(error, file, offset))
}

/// The error of a read at `offset`, in words of this room where it was beyond the end of the file.
pub(super) fn cut_off(error: io::Error, file: &File, offset: u64) -> io::Error {
    if error.kind() != io::ErrorKind::UnexpectedEof {
        return error;
    }
    let file_len = file.metadata().map(|meta| meta.len()).unwrap_or_default();
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!(
            "something lies at byte {offset} of the file, and the file ends at {file_len}; was a copy or a download broken off?"
        ),
    )
}

/// Reads up to `want` entries of a table, from that at `offset` on.
pub(super) fn entries<const N: usize>(file: &File, offset: u64, want: u64) -> io::Result<Vec<[u8; N]>> {
    /// What one look-up reads at most.
    const AT_ONCE: u64 = 512;
    let count = usize::try_from(want.min(AT_ONCE)).unwrap_or_default();
    let mut bytes = vec![0; count * N];
    read_exact_at(file, &mut bytes, offset)?;
    Ok(bytes.as_chunks().0.to_vec())
}
