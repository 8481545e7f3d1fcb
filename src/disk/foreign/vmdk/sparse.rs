//! A sparse extent: a file with grains.

use std::fs::File;
use std::io;

use super::descriptor::MAX_LEN;
use super::{CONVERT, other_kind};
use crate::disk::SECTOR_SIZE;
use crate::disk::foreign::Flaw;
use crate::disk::foreign::fields::{Fields, entries, put, read_exact_at, structure};
use crate::disk::foreign::laid::{Grain, Run};

/// What it begins with.
pub(super) const MAGIC: &[u8] = b"KDMV";
/// Bytes of the header.
pub(super) const HEADER: usize = 512;
/// Bits of `flags`: the four characters that transfers as text damage are there; grains are compressed; markers stand
/// before grains and tables.
pub(super) const NEWLINES: u32 = 1;
pub(super) const COMPRESSED: u32 = 1 << 16;
pub(super) const MARKERS: u32 = 1 << 17;
/// Where those characters are, and which.
const NEWLINES_AT: usize = 73;
const NEWLINES_ARE: &[u8] = b"\n \r\n";
/// In `gdOffset`: the directory is where the copy of the header at the end of the file says.
const AT_END: u64 = u64::MAX;
/// Bytes of the marker before a compressed grain: its first sector on the disk, and its compressed length.
pub(super) const GRAIN_MARKER: usize = 12;
/// Entries of a grain table, of every writer known.
pub(super) const PER_TABLE: usize = 512;
pub(super) const TABLE_ENTRIES: u64 = PER_TABLE as u64;
/// The largest grain directory, in bytes. With grains of 64 KiB, a disk of 64 TiB has one of 8 MiB.
const MAX_DIRECTORY: u64 = 128 << 20;

/// The numbers of a header.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub flags: u32,
    /// Sectors of the disk.
    pub capacity: u64,
    /// Sectors of a grain.
    pub grain: u64,
    /// Where the descriptor is, and how long it may be, in sectors.
    pub descriptor: (u64, u64),
    /// Where the grain directory is, in sectors.
    pub directory: u64,
    /// Sectors before the first grain.
    pub overhead: u64,
}

impl Header {
    /// As it is written in a file.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 4, &3u32.to_le_bytes());
        put(&mut bytes, 8, &self.flags.to_le_bytes());
        put(&mut bytes, 12, &self.capacity.to_le_bytes());
        put(&mut bytes, 20, &self.grain.to_le_bytes());
        put(&mut bytes, 28, &self.descriptor.0.to_le_bytes());
        put(&mut bytes, 36, &self.descriptor.1.to_le_bytes());
        put(&mut bytes, 44, &512u32.to_le_bytes());
        put(&mut bytes, 56, &self.directory.to_le_bytes());
        put(&mut bytes, 64, &self.overhead.to_le_bytes());
        put(&mut bytes, NEWLINES_AT, NEWLINES_ARE);
        put(&mut bytes, 77, &u16::from(self.flags & COMPRESSED != 0).to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        if let Some(what) = other_kind(bytes) {
            return Err(Flaw::Unsupported { what: what.to_owned(), mend: CONVERT });
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Flaw::Magic("header of a sparse extent"));
        }
        let fields = Fields(bytes);
        let version = fields.le32(4);
        Flaw::unless((1..=3).contains(&version), "version", version, "possible are 1 to 3")?;
        let flags = fields.le32(8);
        if flags & NEWLINES != 0 && bytes.get(NEWLINES_AT..NEWLINES_AT + 4) != Some(NEWLINES_ARE) {
            let what = "was transferred as text, which has changed bytes of it".to_owned();
            return Err(Flaw::Unsupported { what, mend: "transfer it again, as binary" });
        }
        if flags & COMPRESSED != 0 {
            let method = fields.le16(77);
            Flaw::unless(method == 1, "compressAlgorithm", method, "possible is 1")?;
            if flags & MARKERS == 0 {
                let what = "has compressed grains without markers".to_owned();
                return Err(Flaw::Unsupported { what, mend: CONVERT });
            }
        }
        let capacity = fields.le64(12);
        Flaw::unless_size("capacity", capacity.saturating_mul(SECTOR_SIZE))?;
        let grain = fields.le64(20);
        let possible = grain.is_power_of_two() && (8..=8192).contains(&grain);
        Flaw::unless(possible, "grainSize", grain, "possible are powers of two from 8 to 8192")?;
        let per_table = fields.le32(44);
        Flaw::unless(u64::from(per_table) == TABLE_ENTRIES, "numGTEsPerGT", per_table, "possible is 512")?;
        Ok(Self {
            flags,
            capacity,
            grain,
            descriptor: (fields.le64(28), fields.le64(36)),
            directory: fields.le64(56),
            overhead: fields.le64(64),
        })
    }
}

/// A file with grains.
pub(super) struct Sparse {
    file: File,
    header: Header,
    /// Where the grain directory begins, in bytes.
    directory: u64,
}

impl Sparse {
    /// The extent in `file`, which has `file_len` bytes, and the descriptor that is in it.
    ///
    /// # Errors
    /// See [`Flaw`].
    pub fn new(file: File, file_len: u64) -> Result<(Self, Option<Vec<u8>>), Flaw> {
        let header = Header::parse(&structure(&file, file_len, "the header", 0, HEADER)?)?;
        let mut directory = header.directory;
        if directory == AT_END {
            // The copy is followed by a marker of one sector, which ends the file.
            let footer = structure(&file, file_len, "the footer", file_len.saturating_sub(1024), HEADER)?;
            if !footer.starts_with(MAGIC) {
                return Err(Flaw::CutOff { what: "the footer", offset: file_len, file_len });
            }
            let footer = Header::parse(&footer)?;
            let same =
                footer.capacity == header.capacity && footer.grain == header.grain && footer.flags == header.flags;
            Flaw::unless(same, "capacity of the footer", footer.capacity, "another disk than in the header")?;
            directory = footer.directory;
        }
        let directory = directory.saturating_mul(SECTOR_SIZE);
        let len = header.capacity.div_ceil(header.grain * TABLE_ENTRIES) * 4;
        Flaw::unless(len <= MAX_DIRECTORY, "grainSize", header.grain, "too small for a disk of this capacity")?;
        if directory == 0 || directory.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(Flaw::CutOff { what: "the grain directory", offset: directory, file_len });
        }
        let (at, sectors) = header.descriptor;
        let text = if at > 0 && sectors > 0 {
            let len = usize::try_from(sectors.saturating_mul(SECTOR_SIZE)).unwrap_or(usize::MAX).min(MAX_LEN);
            Some(structure(&file, file_len, "the descriptor", at.saturating_mul(SECTOR_SIZE), len)?)
        } else {
            None
        };
        Ok((Self { file, header, directory }, text))
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.header.capacity * SECTOR_SIZE
    }

    /// What is at `offset`, and how many bytes of it.
    pub fn run(&self, offset: u64) -> io::Result<(Run<'_>, u64)> {
        let grain_len = self.header.grain * SECTOR_SIZE;
        let (number, inside) = (offset / grain_len, offset % grain_len);
        let (table, index) = (number / TABLE_ENTRIES, number % TABLE_ENTRIES);
        let tables = self.header.capacity.div_ceil(self.header.grain * TABLE_ENTRIES);
        let listed = |count| entries::<4>(&self.file, self.directory + table * 4, count);
        let place = listed(1)?.first().copied().map_or(0, u32::from_le_bytes);
        if place == 0 {
            let empty = listed(tables - table)?.iter().take_while(|place| **place == [0; 4]).count() as u64;
            return Ok((Run::Zeroes, (empty * TABLE_ENTRIES - index) * grain_len - inside));
        }
        let table_at = u64::from(place) * SECTOR_SIZE;
        let found = entries::<4>(&self.file, table_at + index * 4, TABLE_ENTRIES - index)?;
        let mut found = found.into_iter().map(u32::from_le_bytes);
        let place = found.next().unwrap_or(0);
        // 1 is a grain of zeroes.
        if place <= 1 {
            let grains = 1 + found.take_while(|place| *place <= 1).count() as u64;
            return Ok((Run::Zeroes, grains * grain_len - inside));
        }
        if self.header.flags & COMPRESSED != 0 {
            let grain = self.grain(place, number)?;
            return Ok((Run::Packed { grain, skip: inside }, grain_len - inside));
        }
        let per_grain = u32::try_from(self.header.grain).unwrap_or(u32::MAX);
        let mut grains = 1;
        let mut last = place;
        for next in found {
            if last.checked_add(per_grain) != Some(next) {
                break;
            }
            (last, grains) = (next, grains + 1);
        }
        let offset = u64::from(place) * SECTOR_SIZE + inside;
        Ok((Run::Stored { file: &self.file, offset }, grains * grain_len - inside))
    }

    /// The compressed grain whose marker is in this sector of the file.
    fn grain(&self, sector: u32, number: u64) -> io::Result<Grain<'_>> {
        let offset = u64::from(sector) * SECTOR_SIZE;
        let mut marker = [0; GRAIN_MARKER];
        read_exact_at(&self.file, &mut marker, offset)?;
        let (first, packed) = (Fields(&marker).le64(0), u64::from(Fields(&marker).le32(8)));
        let expected = number * self.header.grain;
        let len = self.header.grain * SECTOR_SIZE;
        // What cannot be compressed becomes a little longer.
        let most = len + len / 16 + 4096;
        if first != expected || packed == 0 || packed > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the marker at byte {offset} is about sector {first} in {packed} bytes; expected are sector {expected} \
                     and at most {most} bytes"
                ),
            ));
        }
        let packed = usize::try_from(packed).map_err(io::Error::other)?;
        let least = len.min(self.size().saturating_sub(number * len));
        Ok(Grain { file: &self.file, offset: offset + GRAIN_MARKER as u64, packed, least, most: len })
    }
}
