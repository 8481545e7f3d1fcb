//! The throw-away layer: copy-on-write over a disk that is never changed.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vm_memory::VolatileSlice;

use super::{Disk, HostCache, MAX_SIZE, Place, Raw, SECTOR_SIZE, Transfer, check_range, file_io, scratch};

/// The unit of copy-on-write, in bytes: the block of nearly every file system and the page of the host, so that what
/// guests write is nearly always whole units and nothing has to be copied up.
const UNIT: u64 = UNIT_LEN as u64;
const UNIT_LEN: usize = 4096;

/// Units that share one lock and one piece of bitmap.
const UNITS_PER_REGION: u64 = 32 * 1024;

/// Bytes that a region covers: 128 MiB.
const REGION: u64 = UNIT * UNITS_PER_REGION;

/// Words of a region's bitmap.
const WORDS: usize = 512;

/// A disk over `base` whose writes go to a layer and which leaves `base` as it is.
///
/// The layer is a sparse file without a name, so nothing is left of it however the process ends. It may be larger than
/// the base: what is beyond reads as zero.
///
/// Which units are in the layer is kept in memory: 40 bytes for each region of 128 MiB (320 KiB for 1 TiB), and 4 KiB more
/// for a region that is written to in part (32 MiB for 1 TiB written all over). Reads take no lock. A write takes the
/// lock of its region only if some unit of it is not in the layer yet. A unit, once in the layer, stays there.
///
/// [`Disk::flush`] does nothing: no power cut can be survived by what is not to survive the process.
pub struct Overlay {
    base: Arc<dyn Disk>,
    layer: Arc<dyn Disk>,
    size: u64,
    regions: Box<[Region]>,
}

/// What of a region is in the layer.
#[derive(Default)]
struct Region {
    /// All of it: then the bitmap does not count.
    whole: AtomicBool,
    /// One bit for each unit; made with the first write.
    units: OnceLock<Box<[AtomicU64; WORDS]>>,
    /// Held while units enter the layer.
    entering: Mutex<()>,
}

impl Region {
    /// Whether a unit, counted from the start of the region, is in the layer. What was written to it can then be read.
    fn has(&self, unit: u64) -> bool {
        if self.whole.load(Ordering::Acquire) {
            return true;
        }
        let Some((word, bit)) = self.units.get().and_then(|words| place(words, unit)) else { return false };
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Notes that units are in the layer.
    fn enter(&self, units: std::ops::Range<u64>) {
        if units.start == 0 && units.end >= UNITS_PER_REGION {
            self.whole.store(true, Ordering::Release);
            return;
        }
        let words = self.units.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        for (word, bit) in units.filter_map(|unit| place(words, unit)) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data of its own: what a thread that died left undone is a unit not yet entered.
        self.entering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The word and the bit of a unit.
fn place(words: &[AtomicU64; WORDS], unit: u64) -> Option<(&AtomicU64, u64)> {
    let word = words.get(usize::try_from(unit / 64).ok()?)?;
    Some((word, 1 << (unit % 64)))
}

/// A piece of a request that lies in one region.
struct Piece<'a> {
    region: &'a Region,
    /// Bytes between the start of the request and of the piece.
    skip: u64,
    /// Where the piece is on the disk.
    offset: u64,
    len: u64,
}

impl Piece<'_> {
    /// The units that the piece touches, counted from the start of the region.
    fn units(&self) -> std::ops::Range<u64> {
        let start = self.offset % REGION;
        start / UNIT..(start + self.len).div_ceil(UNIT)
    }

    fn is_in_layer(&self) -> bool {
        self.units().all(|unit| self.region.has(unit))
    }
}

impl Overlay {
    /// A layer in a file without a name in directory `dir`, over `base`; `size` bytes, at least those of the base.
    ///
    /// # Errors
    /// `InvalidInput` for a size that is smaller than the base, no multiple of [`SECTOR_SIZE`] or above [`MAX_SIZE`]; else
    /// what the host said when the file was made.
    pub fn new(base: Arc<dyn Disk>, size: u64, dir: &Path, cache: HostCache) -> io::Result<Self> {
        check_size(&*base, size)?;
        let layer = Raw::new(scratch::unnamed_file(dir, size)?, false)?.with_cache(cache)?;
        Self::over(base, Arc::new(layer), size)
    }

    /// The same over any `layer` of `size` bytes that nobody else uses and that reads as zero.
    fn over(base: Arc<dyn Disk>, layer: Arc<dyn Disk>, size: u64) -> io::Result<Self> {
        check_size(&*base, size)?;
        let regions = (0..size.div_ceil(REGION)).map(|_| Region::default()).collect();
        Ok(Self { base, layer, size, regions })
    }

    /// Cuts a range, which lies inside the disk, where regions meet.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece<'_>> {
        let mut skip = 0;
        std::iter::from_fn(move || {
            let at = offset + skip;
            let region = self.regions.get(usize::try_from(at / REGION).ok()?)?;
            let piece = Piece { region, skip, offset: at, len: (len - skip).min(REGION - at % REGION) };
            skip += piece.len;
            (piece.len > 0).then_some(piece)
        })
    }

    /// Reads from the base, and zeroes where it ends.
    fn read_base(&self, offset: u64, bufs: &[VolatileSlice<'_>], len: u64) -> io::Result<()> {
        let from_base = self.base.size().saturating_sub(offset).min(len);
        if from_base == len {
            return self.base.read_at(offset, bufs);
        }
        if from_base > 0 {
            self.base.read_at(offset, &file_io::window(bufs, 0, from_base))?;
        }
        file_io::fill_zero(&file_io::window(bufs, from_base, len - from_base))
    }

    /// Brings a unit, which contains `offset`, into the layer as it is in the base. The region must be locked.
    fn copy_up(&self, region: &Region, offset: u64) -> io::Result<()> {
        let start = offset - offset % UNIT;
        let unit = start % REGION / UNIT;
        if region.has(unit) {
            return Ok(());
        }
        let len = UNIT.min(self.size - start);
        let mut buf = [0; UNIT_LEN];
        let bufs = file_io::window(&[VolatileSlice::from(&mut buf[..])], 0, len);
        self.read_base(start, &bufs, len)?;
        self.layer.write_at(start, &bufs)?;
        region.enter(unit..unit + 1);
        Ok(())
    }

    /// Makes a change to the layer, whose units are afterwards in it.
    ///
    /// Where all of them are already, nothing is locked. Else the units at both ends, if the piece does not cover them,
    /// are copied up first; if the change fails, those between still read as the base.
    fn change(&self, piece: &Piece<'_>, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if piece.is_in_layer() {
            return change();
        }
        let _entering = piece.region.lock();
        let end = piece.offset + piece.len;
        if !piece.offset.is_multiple_of(UNIT) {
            self.copy_up(piece.region, piece.offset)?;
        }
        if !end.is_multiple_of(UNIT) && end != self.size {
            self.copy_up(piece.region, end)?;
        }
        change()?;
        piece.region.enter(piece.units());
        Ok(())
    }
}

/// Refuses a size that no layer over `base` can have.
fn check_size(base: &dyn Disk, size: u64) -> io::Result<()> {
    if size >= base.size() && size <= MAX_SIZE && size.is_multiple_of(SECTOR_SIZE) {
        return Ok(());
    }
    let base = base.size();
    let why = format!("a layer of {size} bytes over {base} bytes: not a multiple of 512 between these and {MAX_SIZE}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

impl Disk for Overlay {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        let total = file_io::total_len(bufs)?;
        check_range(self.size, offset, total)?;
        for piece in self.pieces(offset, total) {
            let mut units = piece.units().peekable();
            let mut skip = piece.skip;
            // One transfer for each run of units that lie in the same place.
            while let Some(first) = units.next() {
                let in_layer = piece.region.has(first);
                let mut next = first + 1;
                while units.next_if(|unit| piece.region.has(*unit) == in_layer).is_some() {
                    next += 1;
                }
                let at = offset + skip;
                let end = (at - at % REGION + next * UNIT).min(piece.offset + piece.len);
                let len = end - at;
                let part = if len == total { bufs } else { &file_io::window(bufs, skip, len) };
                if in_layer {
                    self.layer.read_at(at, part)?;
                } else {
                    self.read_base(at, part, len)?;
                }
                skip += len;
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        let total = file_io::total_len(bufs)?;
        check_range(self.size, offset, total)?;
        for piece in self.pieces(offset, total) {
            let part = if piece.len == total { bufs } else { &file_io::window(bufs, piece.skip, piece.len) };
            self.change(&piece, || self.layer.write_at(piece.offset, part))?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Of the layer or of the base, whichever all of it is in. A unit that enters the layer meanwhile is one that is written
    /// to while it is read. What is written to a unit that is not in the layer has to enter it too.
    fn place(&self, transfer: Transfer, offset: u64, len: u64) -> Option<Place> {
        check_range(self.size, offset, len).ok()?;
        let mut units =
            self.pieces(offset, len).flat_map(|piece| piece.units().map(move |unit| piece.region.has(unit)));
        let in_layer = units.next()?;
        if units.any(|unit| unit != in_layer) || (transfer == Transfer::Write && !in_layer) {
            return None;
        }
        let disk = if in_layer { &self.layer } else { &self.base };
        check_range(disk.size(), offset, len).ok()?;
        disk.place(transfer, offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        check_range(self.size, offset, len)?;
        for piece in self.pieces(offset, len) {
            self.change(&piece, || self.layer.write_zeroes(piece.offset, piece.len, unmap))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::disk::tests::{Memory, read, write};

    /// A layer that is full after so many writes.
    struct Filling {
        inner: Memory,
        left: AtomicUsize,
    }

    impl Disk for Filling {
        fn size(&self) -> u64 {
            self.inner.size()
        }
        fn is_read_only(&self) -> bool {
            false
        }
        fn read_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
            self.inner.read_at(offset, bufs)
        }
        fn write_at(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                // What a file system does: some of it is written, then there is no room.
                let half = file_io::total_len(bufs)? / 2;
                self.inner.write_at(offset, &file_io::window(bufs, 0, half))?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.inner.write_at(offset, bufs)
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
            self.inner.discard(offset, len)
        }
        fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
            self.inner.write_zeroes(offset, len, unmap)
        }
    }

    #[test]
    fn a_full_file_system_leaves_what_was_there() {
        let base = Arc::new(Memory::filled(64 * UNIT, 1));
        let layer = Filling { inner: Memory::filled(64 * UNIT, 0), left: AtomicUsize::new(3) };
        let disk = Overlay::over(base, Arc::new(layer), 64 * UNIT).unwrap();
        write(&disk, 0, &[2; 4096]).unwrap();
        // Two more writes to the layer: the copy of the unit, then the data.
        write(&disk, 2 * UNIT + 512, &[3; 512]).unwrap();
        for (offset, len) in [(4 * UNIT, 8 * UNIT), (20 * UNIT + 100, 1000), (30 * UNIT - 7, UNIT)] {
            let error = write(&disk, offset, &vec![9; usize::try_from(len).unwrap()]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        let mut expected = vec![1; 64 * 4096];
        expected[..4096].fill(2);
        expected[2 * 4096 + 512..2 * 4096 + 1024].fill(3);
        assert!(read(&disk, 0, 64 * 4096) == expected);
    }

    #[test]
    fn a_large_disk_costs_little_memory_and_discards_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Overlay::new(Arc::new(Memory::filled(1 << 20, 5)), 1 << 40, dir.path(), HostCache::Used).unwrap();
        disk.discard(0, 1 << 40).unwrap();
        assert!(disk.regions.iter().all(|region| region.units.get().is_none()));
        assert!(size_of::<Region>() <= 40, "the documentation says 40 bytes: {}", size_of::<Region>());
        assert_eq!(read(&disk, 0, 1 << 20), vec![0; 1 << 20]);
        write(&disk, (1 << 40) - 512, &[8; 512]).unwrap();
        assert_eq!(read(&disk, (1 << 40) - 1024, 1024)[512..], [8; 512]);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 4096, 8192 + 1, MAX_SIZE + 512] {
            let made = Overlay::new(Arc::new(Memory::filled(8192, 5)), size, dir.path(), HostCache::Used);
            assert_eq!(made.err().unwrap().kind(), io::ErrorKind::InvalidInput, "{size}");
        }
    }

    #[test]
    fn a_failing_base_fails_the_read_and_the_partial_write_only() {
        struct Broken;
        impl Disk for Broken {
            fn size(&self) -> u64 {
                8192
            }
            fn is_read_only(&self) -> bool {
                true
            }
            fn read_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            fn write_at(&self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
                unreachable!("the base is never written")
            }
            fn flush(&self) -> io::Result<()> {
                unreachable!("the base is never flushed")
            }
            fn discard(&self, _: u64, _: u64) -> io::Result<()> {
                unreachable!("the base is never discarded")
            }
            fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
                unreachable!("the base is never zeroed")
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = Overlay::new(Arc::new(Broken), 8192, dir.path(), HostCache::Used).unwrap();
        assert_eq!(disk.read_exact_at(0, &mut [0; 512]).unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(write(&disk, 512, &[1; 512]).unwrap_err().raw_os_error(), Some(libc::EIO));
        write(&disk, 0, &[1; 4096]).unwrap();
        assert_eq!(read(&disk, 0, 4096), [1; 4096]);
    }
}
