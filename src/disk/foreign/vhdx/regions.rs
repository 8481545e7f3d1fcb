//! Headers, regions and metadata of a VHDX.

use std::fs::File;

use crate::disk::foreign::Flaw;
use crate::disk::foreign::fields::{Fields, structure};

/// Where the two headers are, and how long each is (section 2.2).
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER: usize = 4096;
/// Where the two tables of regions are, and how long each is.
const TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE: usize = 64 << 10;
/// Entries of a table of regions, or of metadata, at most (sections 2.2.3.1 and 2.6.1.1).
const MAX_ENTRIES: u32 = 2047;
/// Bytes of the metadata table, before the metadata themselves (section 2.6.1).
const METADATA_TABLE: usize = 64 << 10;

/// Identifiers, as they lie in the file.
const BLOCKS: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const FILE_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const DISK_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
const DISK_ID: [u8; 16] = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
const LOGICAL_SECTOR: [u8; 16] = *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
const PHYSICAL_SECTOR: [u8; 16] = *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
const PARENT_LOCATOR: [u8; 16] = *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

/// What each byte does to a CRC-32C.
const STEPS: [u32; 256] = {
    let mut steps = [0; 256];
    let mut byte = 0u32;
    while byte < 256 {
        let (mut crc, mut bit) = (byte, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        steps[byte as usize] = crc;
        byte += 1;
    }
    steps
};

/// CRC-32C (Castagnoli) of a structure, with zeroes for the four bytes at 4 that it is noted in.
pub(in crate::disk::foreign) fn checksum(structure: &[u8]) -> u32 {
    let step = |crc: u32, byte: u8| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ STEPS.get(usize::from(low ^ byte)).copied().unwrap_or_default()
    };
    let (head, rest) = structure.split_at_checked(8).unwrap_or_default();
    let signature = head.iter().take(4).copied();
    !signature.chain([0; 4]).chain(rest.iter().copied()).fold(u32::MAX, step)
}

/// A structure with this signature and a right checksum.
fn checked(
    file: &File,
    file_len: u64,
    what: &'static str,
    offset: u64,
    len: usize,
    signature: &[u8],
) -> Result<Vec<u8>, Flaw> {
    let bytes = structure(file, file_len, what, offset, len)?;
    if !bytes.starts_with(signature) {
        return Err(Flaw::Magic(what));
    }
    if checksum(&bytes) != Fields(&bytes).le32(4) {
        return Err(Flaw::Checksum(what));
    }
    Ok(bytes)
}

/// Refuses a file whose log is not empty.
///
/// # Errors
/// See [`Flaw`].
pub(super) fn check_log(file: &File, file_len: u64) -> Result<(), Flaw> {
    let [first, second] = HEADERS.map(|offset| checked(file, file_len, "header", offset, HEADER, b"head"));
    let header = match (first, second) {
        (Ok(first), Ok(second)) if Fields(&second).le64(8) > Fields(&first).le64(8) => second,
        (Ok(first), _) => first,
        (Err(_), Ok(second)) => second,
        (Err(flaw), Err(_)) => return Err(flaw),
    };
    let header = Fields(&header);
    Flaw::unless(header.le16(66) == 1, "Version", header.le16(66), "possible is 1")?;
    if header.guid(48) != [0; 16] {
        return Err(Flaw::Unsupported {
            what: "was not closed in order: its log has to be replayed".to_owned(),
            mend: "shut its machine down, or let qemu-img check -r all FILE do it",
        });
    }
    Ok(())
}

/// Part of the file.
#[derive(Clone, Copy)]
pub(super) struct Region {
    pub offset: u64,
    pub len: u64,
}

/// The regions that are used.
pub(super) struct Regions {
    /// The table of blocks.
    pub blocks: Region,
    pub metadata: Region,
}

impl Regions {
    /// # Errors
    /// See [`Flaw`].
    pub fn read(file: &File, file_len: u64) -> Result<Self, Flaw> {
        let [first, second] = TABLES.map(|offset| checked(file, file_len, "region table", offset, TABLE, b"regi"));
        let table = first.or_else(|flaw| second.map_err(|_| flaw))?;
        let count = Fields(&table).le32(8);
        Flaw::unless(count <= MAX_ENTRIES, "EntryCount of the region table", count, "possible are 0 to 2047")?;
        let (mut blocks, mut metadata) = (None, None);
        for entry in
            table.get(16..).unwrap_or_default().as_chunks::<32>().0.iter().take(count as usize).map(|e| Fields(e))
        {
            let region = Region { offset: entry.le64(16), len: entry.le32(24).into() };
            if region.offset.checked_add(region.len).is_none_or(|end| end > file_len) {
                return Err(Flaw::CutOff { what: "a region", offset: region.offset, file_len });
            }
            match entry.guid(0) {
                BLOCKS => blocks = Some(region),
                METADATA => metadata = Some(region),
                _ if entry.le32(28) & 1 == 0 => {}
                _ => return Err(needed("region")),
            }
        }
        let blocks = blocks.ok_or(Flaw::Magic("region of the block allocation table"))?;
        Ok(Self { blocks, metadata: metadata.ok_or(Flaw::Magic("region of metadata"))? })
    }
}

/// Something that cannot be left out and is not known.
fn needed(what: &str) -> Flaw {
    Flaw::Unsupported {
        what: format!("needs a {what} that is not known here"),
        mend: "make a disk of another format of it with the program that made it",
    }
}

/// Sizes, in bytes.
pub(super) struct Metadata {
    /// Of a block: a power of two from 1 MiB to 256 MiB.
    pub block: u64,
    /// Of the disk.
    pub size: u64,
    /// Of a sector: 512 or 4096.
    pub sector: u64,
}

impl Metadata {
    /// # Errors
    /// See [`Flaw`].
    pub fn read(file: &File, file_len: u64, region: &Region) -> Result<Self, Flaw> {
        const WHAT: &str = "metadata table";
        let table = structure(file, file_len, WHAT, region.offset, METADATA_TABLE)?;
        if !table.starts_with(b"metadata") {
            return Err(Flaw::Magic(WHAT));
        }
        let count = Fields(&table).le16(10);
        Flaw::unless(
            u32::from(count) <= MAX_ENTRIES,
            "EntryCount of the metadata table",
            count,
            "possible are 0 to 2047",
        )?;
        let (mut block, mut size, mut sector) = (None, None, None);
        for entry in
            table.get(32..).unwrap_or_default().as_chunks::<32>().0.iter().take(count.into()).map(|e| Fields(e))
        {
            let offset = region.offset.saturating_add(entry.le32(16).into());
            let item = |len| structure(file, file_len, "an item of the metadata", offset, len);
            match entry.guid(0) {
                FILE_PARAMETERS => {
                    let item = item(8)?;
                    if Fields(&item).le32(4) & 2 != 0 {
                        return Err(parent());
                    }
                    block = Some(Fields(&item).le32(0));
                }
                DISK_SIZE => size = Some(Fields(&item(8)?).le64(0)),
                LOGICAL_SECTOR => sector = Some(Fields(&item(4)?).le32(0)),
                PARENT_LOCATOR => return Err(parent()),
                DISK_ID | PHYSICAL_SECTOR => {}
                _ if entry.le32(24) & 4 == 0 => {}
                _ => return Err(needed("metadata item")),
            }
        }
        let block = block.ok_or(Flaw::Magic("block size in the metadata"))?;
        let possible = block.is_power_of_two() && (20..=28).contains(&block.trailing_zeros());
        Flaw::unless(possible, "BlockSize", block, "possible are powers of two from 1 MiB to 256 MiB")?;
        let size = size.ok_or(Flaw::Magic("disk size in the metadata"))?;
        Flaw::unless_size("VirtualDiskSize", size)?;
        let sector = sector.ok_or(Flaw::Magic("sector size in the metadata"))?;
        Flaw::unless(matches!(sector, 512 | 4096), "LogicalSectorSize", sector, "possible are 512 and 4096")?;
        Ok(Self { block: block.into(), size, sector: sector.into() })
    }
}

fn parent() -> Flaw {
    Flaw::Unsupported {
        what: "holds only what differs from a parent disk".to_owned(),
        mend: "merge it with its parent (Hyper-V's Merge-VHD), or give the parent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        let mut noted = [0; 32];
        noted[4..8].fill(0xff);
        assert_eq!(checksum(&noted), 0x8a91_36aa);
    }
}
