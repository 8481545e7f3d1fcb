//! A chain of layers as a disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use vm_memory::VolatileSlice;

use super::chain::{Chain, MAX_LAYERS, Run, Sealed};
use super::top::{Entering, Top};
use super::{LayerError, LayerFiles, REGION, UNIT, UNIT_LEN, header};
use crate::disk::gate::Gate;
use crate::disk::{Disk, Hold, HostCache, Place, Transfer, check_range, check_writable, file_io};

/// A disk of layers, of which the topmost is written to.
///
/// To find who has a unit takes the same time whatever the number of layers. Reads take no lock that a writer or a flush
/// holds for long. A write takes the lock of its region of 128 MiB only if some unit of it is not in the top yet; a unit,
/// once in the top, stays there.
///
/// In memory it keeps: which units are in the top, 4 KiB for each region that something of is (32 MiB for 1 TiB written all
/// over); and whose each unit below is, 24 bytes for each region and 4 bytes for each run of units in one layer, at most
/// 64 KiB for a region (512 MiB for 1 TiB in which no two neighbours are in the same layer). Each layer has its data file
/// open (two descriptors past the page cache), the top its map file too.
pub struct Layered {
    current: RwLock<Arc<Chain>>,
    /// Changes go through it, so that a top can be left behind at a moment when none is under way.
    pub(super) gate: Gate,
    size: AtomicU64,
    read_only: bool,
    pub(super) cache: HostCache,
    /// Held by whoever changes what the chain is made of.
    pub(super) remaking: Mutex<()>,
}

impl std::fmt::Debug for Layered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let chain = self.chain();
        f.debug_struct("Layered").field("size", &chain.size).field("layers", &chain.layers()).finish_non_exhaustive()
    }
}

/// A piece of a range that lies in one region.
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Piece {
    /// The units that it touches.
    pub(super) fn units(&self) -> Range<u64> {
        self.offset / UNIT..(self.offset + self.len).div_ceil(UNIT)
    }
}

/// Cuts a range where regions meet.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = Piece> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let piece = Piece { offset: at, len: range.end.saturating_sub(at).min(REGION - at % REGION) };
        at += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

impl Layered {
    /// The disk of `size` bytes that a chain of layers is, bottom first. All but the last must be sealed, and none larger
    /// than one above it or than the disk. The last, unless `read_only`, must be open and writable, and is made larger if
    /// it is smaller than the disk. With `read_only` nothing is written to any.
    ///
    /// # Errors
    /// What is wrong with one of the layers, or with how they lie on each other.
    pub fn open(chain: Vec<LayerFiles>, size: u64, read_only: bool, cache: HostCache) -> Result<Self, LayerError> {
        check_chain(&chain, size)?;
        let mut below = chain;
        let top = if read_only { None } else { below.pop() };
        let top = top.map(|files| Top::open(files, cache)).transpose()?;
        let sealed = Sealed::open(below, cache)?;
        if let Some(top) = &top
            && top.size() < size
        {
            top.grow(size).map_err(LayerError::host(top.stem(), "cannot make the layer larger"))?;
        }
        let chain = Chain { size, top: top.map(Arc::new), frozen: None, sealed };
        Ok(Self {
            current: RwLock::new(Arc::new(chain)),
            gate: Gate::default(),
            size: AtomicU64::new(size),
            read_only,
            cache,
            remaking: Mutex::default(),
        })
    }

    /// How many layers the chain has.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.chain().layers()
    }

    pub(super) fn chain(&self) -> Arc<Chain> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes it another chain, for all that is asked from now on.
    pub(super) fn replace(&self, chain: Chain) {
        self.size.store(chain.size, Ordering::Release);
        let new = Arc::new(chain);
        let old = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), new);
        // Only now, outside of the lock: it may be the last handle to something large.
        drop(old);
    }

    /// Makes a change to the top, whose units are afterwards in it.
    ///
    /// Where all of them are already, nothing is locked. Else the units at both ends, if the piece does not cover them,
    /// are copied up first; if the change fails, those between are still as below.
    fn change(chain: &Chain, piece: &Piece, change: impl FnOnce(&Top) -> io::Result<()>) -> io::Result<()> {
        let Some(top) = &chain.top else { return Err(io::ErrorKind::ReadOnlyFilesystem.into()) };
        let units = piece.units();
        if top.has(&units) {
            return change(top);
        }
        top.bring(&units, |entering| {
            let end = piece.offset + piece.len;
            if !piece.offset.is_multiple_of(UNIT) {
                Self::copy_up(chain, top, entering, units.start)?;
            }
            if !end.is_multiple_of(UNIT) && end != chain.size {
                Self::copy_up(chain, top, entering, units.end - 1)?;
            }
            change(top)
        })
    }

    /// Brings a unit into the top as it is below.
    fn copy_up(chain: &Chain, top: &Top, entering: &Entering<'_>, unit: u64) -> io::Result<()> {
        let units = unit..unit + 1;
        if top.has(&units) {
            return Ok(());
        }
        let start = unit * UNIT;
        let len = UNIT.min(chain.size - start);
        let mut buf = [0; UNIT_LEN];
        let bufs = file_io::window(&[VolatileSlice::from(&mut buf[..])], 0, len);
        chain.read(start, &bufs, len, true)?;
        top.layer.write(start, &bufs)?;
        entering.note(&units);
        Ok(())
    }
}

/// Whether layers can lie on each other as they do.
pub(super) fn check_chain(chain: &[LayerFiles], size: u64) -> Result<(), LayerError> {
    if chain.is_empty() || chain.len() > MAX_LAYERS {
        return Err(LayerError::Count { count: chain.len() });
    }
    let mut below = 0;
    for (above, files) in (1..=chain.len()).rev().zip(chain) {
        let header = files.header()?;
        let path = || files.stem.clone();
        if above > 1 && header.sealed.is_none() {
            return Err(LayerError::NotSealed { path: path() });
        }
        if header.size < below {
            return Err(LayerError::SizesDoNotFit { path: path(), size: header.size, place: "above", other: below });
        }
        if header.size > size {
            return Err(LayerError::SizesDoNotFit { path: path(), size: header.size, place: "in", other: size });
        }
        below = header.size;
    }
    match chain.last() {
        Some(top) if !header::is_size(size) => Err(LayerError::BadSize { path: top.stem.clone(), size }),
        _ => Ok(()),
    }
}

impl Disk for Layered {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        let (chain, len) = (self.chain(), file_io::total_len(bufs)?);
        check_range(chain.size, offset, len)?;
        chain.read(offset, bufs, len, false)
    }

    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        let hold = self.gate.enter();
        self.write_holding(&hold, offset, bufs)
    }

    fn write_holding(&self, _hold: &Hold, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        check_writable(self.read_only)?;
        // With the hold the top stays the top.
        let (chain, len) = (self.chain(), file_io::total_len(bufs)?);
        check_range(chain.size, offset, len)?;
        for piece in pieces(offset..offset + len) {
            let part = if piece.len == len { bufs } else { &file_io::window(bufs, piece.offset - offset, piece.len) };
            Self::change(&chain, &piece, |top| top.layer.write(piece.offset, part))?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        // What was answered before is in this top, or in one that was made durable before this became the top.
        self.chain().top.as_ref().map_or(Ok(()), |top| top.flush())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let chain = self.chain();
        for Run { layer, range } in chain.runs(offset..chain.size.max(offset), false) {
            if let Some(found) = layer.map(|layer| layer.next_data(&range)).transpose()?.flatten() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn place(&self, transfer: Transfer, offset: u64, len: u64) -> Option<Place> {
        // Before the look, so that the top stays the top.
        let hold = match transfer {
            Transfer::Read => None,
            Transfer::Write => Some(self.gate.try_enter()?),
        };
        let chain = self.chain();
        check_range(chain.size, offset, len).ok()?;
        let Run { layer, range } = chain.runs(offset..offset + len, false).next()?;
        let layer = layer.filter(|_| range.end - range.start == len)?;
        let writable = || chain.top.as_ref().is_some_and(|top| Arc::ptr_eq(&top.layer, layer));
        if transfer == Transfer::Write && !writable() {
            return None;
        }
        Some(Place { hold, ..layer.place(&range)? })
    }

    fn durable_file(&self) -> Option<Arc<File>> {
        self.chain().top.as_ref()?.durable_file()
    }

    fn keeps_waiting(&self) -> bool {
        self.gate.is_closed()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    /// What no layer has is not brought into the top to be freed: it reads as zero and takes no room.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        check_writable(self.read_only)?;
        let _hold = self.gate.enter();
        let chain = self.chain();
        check_range(chain.size, offset, len)?;
        let zero = |range: Range<u64>| {
            pieces(range).try_for_each(|piece| {
                Self::change(&chain, &piece, |top| top.layer.zero(piece.offset, piece.len, unmap))
            })
        };
        if !unmap {
            return zero(offset..offset + len);
        }
        let mut runs = chain.runs(offset..offset + len, false).filter(|run| run.layer.is_some());
        runs.try_for_each(|run| zero(run.range))
    }
}
