//! Which units of the disk are in a layer that is written to: in memory, read without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::bitmap::{self, WORDS, Words};
use super::{REGION, UNITS_PER_REGION, crc32c};
use crate::disk::MAX_SIZE;

/// Regions that are made at once: those of 128 GiB.
const CHUNK: usize = 1024;

/// Chunks of the largest disk. So a disk can grow and nothing has to be moved.
const CHUNKS: usize = {
    let chunks = MAX_SIZE / REGION / CHUNK as u64;
    assert!(chunks <= 512);
    512
};

/// The regions of a disk. Those that nothing was ever in do not exist: 8 KiB for the smallest disk, and 40 KiB more for
/// each 128 GiB of it that something is in.
#[derive(Debug)]
pub(super) struct Regions {
    chunks: Box<[OnceLock<Box<[Region]>>]>,
}

/// What of a region is in the layer.
#[derive(Debug, Default)]
pub(super) struct Region {
    /// One bit for each unit: 4 KiB, made when the first enters.
    units: OnceLock<Box<[AtomicU64; WORDS]>>,
    /// Whether there are units of which the map file does not know.
    dirty: AtomicBool,
    /// The checksum of the page in the map file, and above it whether there is a page.
    sum: AtomicU64,
    /// Held while units enter the layer. Whether the map file has room for the page.
    entering: Mutex<bool>,
}

const HAS_PAGE: u64 = 1 << 32;

impl Region {
    /// Notes that units, counted from the start of the region, are in the layer, and that the map file does not know of
    /// them. What was written to them before can be read by whoever sees that.
    pub(super) fn enter(&self, units: Range<u64>) {
        let words = self.units.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        for (word, first) in words.iter().zip((0..).step_by(64)) {
            let (from, to) = (units.start.max(first), units.end.min(first + 64));
            if from < to {
                word.fetch_or(u64::MAX >> (64 - (to - from)) << (from - first), Ordering::Release);
            }
        }
        // Always a change, also from true to true: either whoever writes the map out next finds it, or has seen the bits.
        self.dirty.swap(true, Ordering::AcqRel);
    }

    /// What a map file says of the region.
    pub(super) fn load(&self, page: &[u8; super::PAGE_LEN]) {
        let loaded = bitmap::words(page);
        let words = self.units.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        for (word, value) in words.iter().zip(loaded) {
            word.store(value, Ordering::Release);
        }
        self.wrote(page);
        *self.lock() = true;
    }

    /// Takes the mark that the map file does not know of all units; tells whether it was there.
    pub(super) fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::AcqRel)
    }

    pub(super) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Notes that the map file has this page.
    pub(super) fn wrote(&self, page: &[u8; super::PAGE_LEN]) {
        self.sum.store(u64::from(crc32c::sum(page)) | HAS_PAGE, Ordering::Release);
    }

    /// The checksum of the page that the map file has.
    pub(super) fn page_sum(&self) -> Option<u32> {
        let sum = self.sum.load(Ordering::Acquire);
        (sum & HAS_PAGE != 0).then(|| u32::try_from(sum & !HAS_PAGE).unwrap_or_default())
    }

    /// The bits as they are now; nothing where there is none.
    pub(super) fn words(&self) -> Option<Words> {
        let units = self.units.get()?;
        let mut words = [0; WORDS];
        for (word, unit) in words.iter_mut().zip(units.iter()) {
            *word = unit.load(Ordering::Acquire);
        }
        Some(words)
    }

    /// Whether units may enter: what is behind the lock tells whether the map file has room for the page.
    pub(super) fn lock(&self) -> MutexGuard<'_, bool> {
        // What a thread that died left undone is a unit not yet entered.
        self.entering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a unit, counted from the start of the region, is in the layer, and the end of the run of those of which the
    /// same is true.
    fn run(&self, unit: u64, limit: u64) -> (bool, u64) {
        let Some(words) = self.units.get() else { return (false, limit) };
        let index = usize::try_from(unit / 64).unwrap_or(usize::MAX);
        let mut words = words.iter().skip(index).map(|word| word.load(Ordering::Acquire));
        let Some(first) = words.next() else { return (false, limit) };
        let has = first >> (unit % 64) & 1 == 1;
        let others = |word: u64| if has { !word } else { word };
        let mut found = others(first) >> (unit % 64) << (unit % 64);
        let mut start = unit - unit % 64;
        while found == 0 {
            start += 64;
            if start >= limit {
                return (has, limit);
            }
            match words.next() {
                Some(word) => found = others(word),
                None => return (has, limit),
            }
        }
        (has, (start + u64::from(found.trailing_zeros())).min(limit))
    }
}

impl Regions {
    pub(super) fn new() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }

    fn get(&self, region: u64) -> Option<&Region> {
        let region = usize::try_from(region).ok()?;
        self.chunks.get(region / CHUNK)?.get()?.get(region % CHUNK)
    }

    /// The region, which is made if it does not exist; nothing beyond the largest disk.
    pub(super) fn make(&self, region: u64) -> Option<&Region> {
        let region = usize::try_from(region).ok()?;
        let chunk = self.chunks.get(region / CHUNK)?;
        chunk.get_or_init(|| (0..CHUNK).map(|_| Region::default()).collect()).get(region % CHUNK)
    }

    /// Those that something is in, with their numbers and in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Region)> {
        let chunks = self.chunks.iter().enumerate().filter_map(|(number, chunk)| Some((number, chunk.get()?)));
        let regions = chunks.flat_map(|(chunk, regions)| (chunk * CHUNK..).zip(regions.iter()));
        let used = regions.filter(|(_, region)| region.units.get().is_some());
        used.map(|(number, region)| (u32::try_from(number).unwrap_or(u32::MAX), region))
    }

    /// Whether a unit of the disk is in the layer, and the end of the run of those of which the same is true, as far as
    /// it was looked for: at most `limit`.
    pub(super) fn run(&self, unit: u64, limit: u64) -> (bool, u64) {
        let start = unit - unit % UNITS_PER_REGION;
        let limit = limit.min(start + UNITS_PER_REGION);
        match self.get(unit / UNITS_PER_REGION) {
            None => (false, limit),
            Some(region) => {
                let (has, end) = region.run(unit - start, limit - start);
                (has, start + end)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_the_bits() {
        let regions = Regions::new();
        let region = regions.make(1).unwrap();
        let mut model = vec![false; 32768];
        for (from, to) in [(0, 1), (63, 65), (100, 356), (512, 576), (1000, 1001), (32704, 32768), (20000, 20000)] {
            region.enter(from..to);
            model[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(true);
        }
        for (start, limit) in [(0, 32768), (0, 300), (5, 64), (64, 128), (576, 20000)] {
            let mut at = start;
            while at < limit {
                let (has, end) = regions.run(32768 + at, 32768 + limit);
                let end = end - 32768;
                assert!(at < end && end <= limit);
                let wanted = usize::try_from(at).unwrap()..usize::try_from(end).unwrap();
                assert!(model[wanted].iter().all(|bit| *bit == has), "{at}..{end}: {has}");
                assert!(end == limit || model[usize::try_from(end).unwrap()] != has);
                at = end;
            }
        }
        assert_eq!(regions.run(5, 1 << 40), (false, 32768));
        assert_eq!(regions.run(3 * 32768 + 5, 1 << 40), (false, 4 * 32768));
        assert!(regions.make(1 << 19).is_none());
        assert!(size_of::<Region>() <= 40, "the documentation says 40 KiB: {}", size_of::<Region>());
    }
}
