//! A stream-optimized VMDK: compressed grains, each behind a marker, and behind every 512 of them the table that says where
//! they are; at the end the directory of the tables, and a copy of the header that says where that is.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::thread;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::sparse::{COMPRESSED, GRAIN_MARKER, Header, MARKERS, NEWLINES, PER_TABLE, TABLE_ENTRIES};
use crate::disk::SECTOR_SIZE;
use crate::disk::foreign::export::{ExportError, Units};
use crate::disk::foreign::fields::{SECTOR, put};
use crate::disk::output::Output;
use crate::disk::random_bytes;

/// Sectors of a grain, as all others have it too.
const GRAIN: u64 = 128;
const GRAIN_LEN: u64 = GRAIN * SECTOR_SIZE;
/// Sectors for the descriptor.
const DESCRIPTOR: u64 = 20;
/// Grains that are compressed at a time, on several processors.
const BATCH: usize = 64;
/// More processors than this would wait for the disk.
const MAX_THREADS: usize = 8;

/// Types of markers.
const TABLE: u32 = 1;
const DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// Writes the disk, which the descriptor says is in a file of this name; gives the bytes of it that are in the file.
///
/// # Errors
/// See [`ExportError`].
pub(in crate::disk::foreign) fn write(source: &mut Units<'_>, output: &Output, name: &str) -> Result<u64, ExportError> {
    let failed = |error| ExportError::from(output.failed("write to it", error));
    let mut file = Stream { output, len: 0 };
    let capacity = source.size() / SECTOR_SIZE;
    let header = Header {
        flags: NEWLINES | COMPRESSED | MARKERS,
        capacity,
        grain: GRAIN,
        descriptor: (1, DESCRIPTOR),
        directory: u64::MAX,
        overhead: GRAIN,
    };
    file.put(&header.to_bytes()).map_err(failed)?;
    let mut text = descriptor(capacity, name).map_err(failed)?.into_bytes();
    text.resize(usize::try_from((GRAIN - 1) * SECTOR_SIZE).unwrap_or_default(), 0);
    file.put(&text).map_err(failed)?;

    let tables = capacity.div_ceil(GRAIN * TABLE_ENTRIES);
    let mut tables = Tables { directory: vec![0; usize::try_from(tables).unwrap_or_default()], open: None };
    let mut data = 0;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        let mut buf = Vec::new();
        while batch.len() < BATCH
            && let Some(start) = source.next(GRAIN_LEN, &mut buf)?
        {
            data += buf.len() as u64;
            buf.resize(usize::try_from(GRAIN_LEN).unwrap_or_default(), 0);
            batch.push((start, std::mem::take(&mut buf)));
        }
        if batch.is_empty() {
            break;
        }
        compress(&mut batch).map_err(failed)?;
        for (start, packed) in &batch {
            tables.grain(&mut file, *start, packed).map_err(failed)?;
        }
    }
    let directory = tables.finish(&mut file).map_err(failed)?;
    file.marker(1, FOOTER).map_err(failed)?;
    file.put(&Header { directory, ..header }.to_bytes()).map_err(failed)?;
    file.put(&[0; SECTOR]).map_err(failed)?;
    Ok(data)
}

/// Replaces the bytes of each grain by what it is in the file.
fn compress(batch: &mut [(u64, Vec<u8>)]) -> io::Result<()> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_THREADS);
    let share = batch.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut shares = batch.chunks_mut(share);
        // The first share is this thread's own.
        let own = shares.next();
        let others: Vec<_> = shares.map(|share| scope.spawn(|| share.iter_mut().try_for_each(pack))).collect();
        let mut done = own.unwrap_or_default().iter_mut().try_for_each(pack);
        for other in others {
            let other = other.join().unwrap_or_else(|_| Err(io::Error::other("a thread that compresses has ended")));
            done = done.and(other);
        }
        done
    })
}

/// One grain with its marker.
fn pack((start, bytes): &mut (u64, Vec<u8>)) -> io::Result<()> {
    let mut packed = Vec::with_capacity(bytes.len() / 2);
    packed.resize(GRAIN_MARKER, 0);
    let mut encoder = ZlibEncoder::new(packed, Compression::new(4));
    encoder.write_all(bytes)?;
    let mut packed = encoder.finish()?;
    let len = u32::try_from(packed.len() - GRAIN_MARKER).map_err(io::Error::other)?;
    put(&mut packed, 0, &(*start / SECTOR_SIZE).to_le_bytes());
    put(&mut packed, 8, &len.to_le_bytes());
    *bytes = packed;
    Ok(())
}

/// A file that grows in whole sectors.
struct Stream<'a> {
    output: &'a Output,
    len: u64,
}

impl Stream<'_> {
    /// Puts bytes to the end, filled up with zeroes; gives the sector that they begin in.
    fn put(&mut self, bytes: &[u8]) -> io::Result<u32> {
        let sector = u32::try_from(self.len / SECTOR_SIZE).map_err(|_| {
            io::Error::new(io::ErrorKind::FileTooLarge, "a VMDK of one file has at most 2 TiB; choose raw or qcow2")
        })?;
        self.output.file().write_all_at(bytes, self.len)?;
        self.len += (bytes.len() as u64).next_multiple_of(SECTOR_SIZE);
        Ok(sector)
    }

    /// Puts the marker of what follows, which has so many sectors.
    fn marker(&mut self, sectors: u64, kind: u32) -> io::Result<()> {
        let mut marker = [0; SECTOR];
        put(&mut marker, 0, &sectors.to_le_bytes());
        put(&mut marker, 12, &kind.to_le_bytes());
        self.put(&marker).map(|_| ())
    }

    /// Puts a table of sectors behind its marker; gives the sector that it begins in.
    fn table(&mut self, entries: &[u32], kind: u32) -> io::Result<u32> {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        self.marker(bytes.len() as u64 / SECTOR_SIZE, kind)?;
        self.put(&bytes)
    }
}

/// Which sectors of the file hold what.
struct Tables {
    /// The sector of each table; 0 where there is none.
    directory: Vec<u32>,
    /// The number of the table that is being filled, and the sectors of its grains.
    open: Option<(usize, [u32; PER_TABLE])>,
}

impl Tables {
    /// Puts a packed grain, which begins at `start` of the disk.
    fn grain(&mut self, file: &mut Stream<'_>, start: u64, packed: &[u8]) -> io::Result<()> {
        let number = start / GRAIN_LEN;
        let table = usize::try_from(number / TABLE_ENTRIES).map_err(io::Error::other)?;
        if self.open.as_ref().is_some_and(|(open, _)| *open != table) {
            self.close(file)?;
        }
        let sector = file.put(packed)?;
        let (_, grains) = self.open.get_or_insert((table, [0; PER_TABLE]));
        let index = usize::try_from(number % TABLE_ENTRIES).map_err(io::Error::other)?;
        if let Some(entry) = grains.get_mut(index) {
            *entry = sector;
        }
        Ok(())
    }

    /// Puts the open table.
    fn close(&mut self, file: &mut Stream<'_>) -> io::Result<()> {
        if let Some((table, grains)) = self.open.take() {
            let sector = file.table(&grains, TABLE)?;
            if let Some(entry) = self.directory.get_mut(table) {
                *entry = sector;
            }
        }
        Ok(())
    }

    /// Puts what is left and the directory; gives the sector of it.
    fn finish(mut self, file: &mut Stream<'_>) -> io::Result<u64> {
        self.close(file)?;
        file.table(&self.directory, DIRECTORY).map(u64::from)
    }
}

/// The text that says what the disk is made of.
fn descriptor(capacity: u64, name: &str) -> io::Result<String> {
    let [a, b, c, d, ..] = random_bytes()?;
    // All ones would mean that there is none.
    let id = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
    // A name ends at its quotation mark or line; nothing depends on it.
    let name: String = name.chars().filter(|c| !c.is_control() && *c != '"').take(200).collect();
    let cylinders = capacity.div_ceil(255 * 63).min(65535);
    Ok(format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID={id:08x}\n\
         parentCID=ffffffff\n\
         createType=\"streamOptimized\"\n\
         \n\
         # Extent description\n\
         RW {capacity} SPARSE \"{name}\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\n\
         ddb.adapterType = \"lsilogic\"\n"
    ))
}
