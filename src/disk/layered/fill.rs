//! A layer made of what a disk of any kind holds.

use std::io;
use std::ops::{ControlFlow, Range};

use vm_memory::VolatileSlice;

use super::stack::pieces;
use super::top::Top;
use super::{LayerError, LayerFiles, UNIT, UNIT_LEN, bitmap};
use crate::disk::{Disk, HostCache, file_io};

/// Is told how many bytes are done, of how many; may have it broken off.
pub type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// Fills a new, empty layer with what is on `disk`, and seals it: durable when this returns. The layer is to be the lowest of
/// its chains: what is zero on the disk does not get into it. It may be larger than the disk.
///
/// # Errors
/// [`LayerError::NotEmpty`], [`LayerError::Sealed`], [`LayerError::SizesDoNotFit`]; [`LayerError::BrokenOff`]; or what the
/// host said, of the disk or of the layer. What is in the layer then is no use; it is to be removed.
pub fn fill(files: &LayerFiles, disk: &dyn Disk, progress: &mut Progress<'_>) -> Result<(), LayerError> {
    let top = Top::open(files.try_clone()?, HostCache::Used)?;
    if !top.is_empty() {
        return Err(LayerError::NotEmpty { path: files.stem.clone() });
    }
    let (size, total) = (top.size(), disk.size());
    if size < total {
        return Err(LayerError::SizesDoNotFit { path: files.stem.clone(), size, place: "in", other: total });
    }
    let read = |error| LayerError::host("the disk".as_ref(), "cannot read it")(error);
    let write = |error| LayerError::host(&files.data_path(), "cannot write to it")(error);
    let mut buf = vec![0; usize::try_from(CHUNK).unwrap_or(UNIT_LEN)];
    let mut at = 0;
    while let Some(data) = disk.next_data(at).map_err(read)? {
        // Whole units, but for the end of the disk; what was done already is not done again.
        let start = (data.start - data.start % UNIT).max(at);
        let end = data.end.next_multiple_of(UNIT).min(total).min(start + CHUNK - start % CHUNK);
        let Some(chunk) = usize::try_from(end - start).ok().and_then(|len| buf.get_mut(..len)) else { break };
        disk.read_exact_at(start, chunk).map_err(read)?;
        write_data(&top, start, chunk).map_err(write)?;
        at = end;
        if progress(at, total).is_break() {
            return Err(LayerError::BrokenOff);
        }
    }
    top.seal().map_err(write)?;
    top.share().map_err(write)?;
    let _ = progress(total, total);
    Ok(())
}

/// Brings those units of a chunk into the layer that are not zero.
fn write_data(top: &Top, start: u64, mut chunk: &mut [u8]) -> io::Result<()> {
    let mut at = start;
    while !chunk.is_empty() {
        // A run of units that are all zero, or none of which is.
        let zero = |unit: &[u8]| bitmap::is_zero(unit);
        let mut units = chunk.chunks(UNIT_LEN);
        let first = units.next().is_none_or(zero);
        let more: usize = units.take_while(|unit| zero(unit) == first).map(<[u8]>::len).sum();
        let (run, rest) = chunk.split_at_mut((UNIT_LEN + more).min(chunk.len()));
        let len = run.len() as u64;
        if !first {
            put(top, at..at + len, run)?;
        }
        (at, chunk) = (at + len, rest);
    }
    Ok(())
}

fn put(top: &Top, range: Range<u64>, bytes: &mut [u8]) -> io::Result<()> {
    let start = range.start;
    let bufs = [VolatileSlice::from(bytes)];
    pieces(range).try_for_each(|piece| {
        let part = file_io::window(&bufs, piece.offset - start, piece.len);
        top.bring(&piece.units(), |_| top.layer.write(piece.offset, &part))
    })
}
