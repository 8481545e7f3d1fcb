//! VHDX, Hyper-V's disks ("[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format"), version 1: fixed and dynamic.
//!
//! In the first MiB there are two headers, of which the one with the higher number counts, and two equal tables of regions.
//! One region holds metadata (sizes), another the table of where each block of the disk lies. A log, if it is not empty,
//! has to be replayed first; that is left to those who wrote it.

mod regions;

use std::fs::File;
use std::io;

#[cfg(test)]
pub(super) use self::regions::checksum;
use self::regions::{Metadata, Regions, check_log};
use super::Flaw;
use super::fields::{Fields, entries, structure};
use super::laid::{Layout, Run};

/// What the file begins with.
pub(super) const MAGIC: &[u8] = b"vhdxfile";

/// Blocks and regions lie at whole MiB.
const MIB: u64 = 1 << 20;

/// A disk in a VHDX file.
pub(super) struct Vhdx {
    file: File,
    size: u64,
    /// Where the table of blocks begins.
    table: u64,
    /// Bytes of a block.
    block: u64,
    /// Blocks before each entry that is about a bitmap (section 2.5).
    chunk: u64,
}

impl Vhdx {
    /// The disk in `file`, which has `file_len` bytes.
    ///
    /// # Errors
    /// See [`Flaw`].
    pub fn new(file: File, file_len: u64) -> Result<Self, Flaw> {
        if !structure(&file, file_len, "the file identifier", 0, MAGIC.len())?.starts_with(MAGIC) {
            return Err(Flaw::Magic("file identifier"));
        }
        check_log(&file, file_len)?;
        let regions = Regions::read(&file, file_len)?;
        let metadata = Metadata::read(&file, file_len, &regions.metadata)?;
        let Metadata { block, size, sector } = metadata;
        let chunk = (sector << 23) / block;
        let last = size.div_ceil(block) - 1;
        let needed = (last + last / chunk + 1) * 8;
        let limit = || format!("too few bytes for a disk of {size} bytes in blocks of {block}");
        Flaw::unless(
            regions.blocks.len >= needed,
            "Length of the block allocation table",
            regions.blocks.len,
            limit(),
        )?;
        Ok(Self { file, size, table: regions.blocks.offset, block, chunk })
    }
}

/// What an entry of the table says of its block (section 2.5.1.1).
enum Block {
    Zeroes,
    /// From this byte of the file on.
    At(u64),
}

fn block_of(entry: u64) -> io::Result<Block> {
    match entry & 7 {
        // Not present, undefined, zero, unmapped: without a parent all of them read as zeroes.
        0..=3 => Ok(Block::Zeroes),
        6 => Ok(Block::At((entry >> 20) * MIB)),
        state => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the block allocation table gives a block the state {state}, possible are 0 to 3 and 6"),
        )),
    }
}

impl Layout for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }

    fn run(&self, offset: u64) -> io::Result<(Run<'_>, u64)> {
        let (index, inside) = (offset / self.block, offset % self.block);
        // Up to the next entry about a bitmap.
        let together = (self.chunk - index % self.chunk).min(self.size.div_ceil(self.block) - index);
        let found = entries::<8>(&self.file, self.table + (index + index / self.chunk) * 8, together)?;
        let mut found = found.iter().map(|entry| block_of(Fields(entry).le64(0)));
        let first = found.next().unwrap_or(Ok(Block::Zeroes))?;
        let mut blocks = 1;
        // What cannot be understood further on is reported when it comes to its turn.
        match first {
            Block::Zeroes => {
                blocks += found.take_while(|next| matches!(next, Ok(Block::Zeroes))).count() as u64;
                Ok((Run::Zeroes, blocks * self.block - inside))
            }
            Block::At(start) => {
                for next in found {
                    match next {
                        Ok(Block::At(at)) if at == start.saturating_add(blocks * self.block) => blocks += 1,
                        _ => break,
                    }
                }
                let offset = start.checked_add(inside).ok_or(io::ErrorKind::InvalidData)?;
                Ok((Run::Stored { file: &self.file, offset }, blocks * self.block - inside))
            }
        }
    }
}
