//! The map of a VHD.

use std::fs::File;
use std::io;

use super::structures::*;
use crate::disk::SECTOR_SIZE;
use crate::disk::foreign::Flaw;
use crate::disk::foreign::fields::{self, Fields, structure};
use crate::disk::foreign::laid::{Layout, Run};

/// A disk in a VHD file.
pub(in crate::disk::foreign) struct Vhd {
    file: File,
    size: u64,
    blocks: Option<Blocks>,
}

/// The blocks of a dynamic disk.
struct Blocks {
    /// Where the table of them begins.
    table: u64,
    /// Bytes of one, a power of two.
    len: u64,
    /// How many the disk has.
    count: u64,
}

/// Blocks are whole sectors, and 2 MiB with every writer known.
const BLOCK_BITS: std::ops::RangeInclusive<u32> = 9..=30;

/// Whether a sector looks like a footer.
pub(in crate::disk::foreign) fn is_footer(sector: &[u8]) -> bool {
    sector.starts_with(FOOTER_MAGIC)
}

impl Vhd {
    /// The disk in `file`, which has `file_len` bytes.
    ///
    /// # Errors
    /// See [`Flaw`].
    pub fn new(file: File, file_len: u64) -> Result<Self, Flaw> {
        let end = file_len.saturating_sub(FOOTER as u64);
        let footer = structure(&file, file_len, "the footer", end, FOOTER)?;
        if !is_footer(&footer) {
            let head = structure(&file, file_len, "the footer", 0, FOOTER)?;
            // A dynamic disk begins with a copy of it.
            let offset = file_len;
            return Err(if is_footer(&head) {
                Flaw::CutOff { what: "the footer", offset, file_len }
            } else {
                Flaw::Magic("footer")
            });
        }
        if checksum(&footer, FOOTER_CHECKSUM) != Fields(&footer).be32(FOOTER_CHECKSUM) {
            return Err(Flaw::Checksum("footer"));
        }
        let footer = Fields(&footer);
        Flaw::unless(footer.be32(12) >> 16 == 1, "File Format Version", footer.be32(12), "possible is 0x10000")?;
        // Current Size, also where the geometry comes to less: what lies beyond it may be used.
        let size = footer.be64(48);
        Flaw::unless_size("Current Size", size)?;
        let blocks = match footer.be32(60) {
            FIXED => {
                if size > end {
                    return Err(Flaw::CutOff { what: "the last sector", offset: size - SECTOR_SIZE, file_len: end });
                }
                None
            }
            DYNAMIC => Some(Blocks::new(&file, end, footer.be64(16), size)?),
            DIFFERENCING => {
                return Err(Flaw::Unsupported {
                    what: "holds only what differs from a parent disk".to_owned(),
                    mend: "merge it with its parent (Hyper-V's Merge-VHD), or give the parent",
                });
            }
            other => {
                Flaw::unless(false, "Disk Type", other, "possible are 2 (fixed) and 3 (dynamic)")?;
                None
            }
        };
        Ok(Self { file, size, blocks })
    }
}

impl Blocks {
    /// The blocks of a disk of `size` bytes, whose header is at `offset` of a file with `end` bytes before the footer.
    fn new(file: &File, end: u64, offset: u64, size: u64) -> Result<Self, Flaw> {
        let header = structure(file, end, "the dynamic disk header", offset, HEADER)?;
        if !header.starts_with(HEADER_MAGIC) {
            return Err(Flaw::Magic("dynamic disk header"));
        }
        if checksum(&header, HEADER_CHECKSUM) != Fields(&header).be32(HEADER_CHECKSUM) {
            return Err(Flaw::Checksum("dynamic disk header"));
        }
        let header = Fields(&header);
        let block = header.be32(32);
        let possible = block.is_power_of_two() && BLOCK_BITS.contains(&block.trailing_zeros());
        Flaw::unless(possible, "Block Size", block, "possible are powers of two from 512 to 1 GiB")?;
        let len = u64::from(block);
        let count = size.div_ceil(len);
        let entries = header.be32(28);
        let limit = || format!("too few for a disk of {size} bytes in blocks of {len}");
        Flaw::unless(u64::from(entries) >= count, "Max Table Entries", entries, limit())?;
        let table = header.be64(16);
        if table.checked_add(count * 4).is_none_or(|table_end| table_end > end) {
            return Err(Flaw::CutOff { what: "the block allocation table", offset: table, file_len: end });
        }
        Ok(Self { table, len, count })
    }

    /// What is at `offset` of the disk, and how many bytes of it.
    fn run<'a>(&self, file: &'a File, offset: u64) -> io::Result<(Run<'a>, u64)> {
        let (index, inside) = (offset / self.len, offset % self.len);
        let entries = fields::entries::<4>(file, self.table + index * 4, self.count - index)?;
        let entries = entries.into_iter().map(u32::from_be_bytes);
        let unused = entries.clone().take_while(|entry| *entry == UNUSED).count() as u64;
        if unused > 0 {
            return Ok((Run::Zeroes, unused * self.len - inside));
        }
        let sector = u64::from(entries.into_iter().next().unwrap_or(UNUSED));
        // The bitmap says which sectors were written; the others of a block that is there are zeroes.
        let start = sector * SECTOR_SIZE + bitmap_len(self.len) + inside;
        Ok((Run::Stored { file, offset: start }, self.len - inside))
    }
}

impl Layout for Vhd {
    fn size(&self) -> u64 {
        self.size
    }

    fn run(&self, offset: u64) -> io::Result<(Run<'_>, u64)> {
        match &self.blocks {
            Some(blocks) => blocks.run(&self.file, offset),
            None => Ok((Run::Stored { file: &self.file, offset }, self.size - offset)),
        }
    }
}
