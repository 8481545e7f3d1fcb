//! The layer that is written to.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FallocateFlags;

use super::bitmap::{self, Digest};
use super::header::Header;
use super::layer::Layer;
use super::region::{Region, Regions};
use super::{LayerAccess, LayerError, LayerFiles, PAGE, PAGE_LEN, UNITS_PER_REGION, map_len};
use crate::disk::{HostCache, lock};

/// Pages of the map that are copied, and written, at once.
const BATCH: usize = 256;

/// An open layer, and what is in it: in memory always, in its map file as of the last flush.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) layer: Arc<Layer>,
    regions: Regions,
    /// Whether there may be a region of which the map file does not know all.
    dirty: AtomicBool,
    map: File,
    /// Held by whoever writes to the map file something that is there already.
    state: Mutex<MapState>,
    stem: PathBuf,
}

#[derive(Debug)]
struct MapState {
    header: Header,
    /// Whether the header in the file may be another: it could not be written.
    stale: bool,
}

impl Top {
    /// The layer as its files say. If someone was about to make it larger and did not come to the end, it is as before.
    ///
    /// # Errors
    /// What is wrong with the files; [`LayerError::Sealed`].
    pub(super) fn open(files: LayerFiles, cache: HostCache) -> Result<Self, LayerError> {
        let header = files.header()?;
        if files.access != LayerAccess::Writable || header.sealed.is_some() {
            return Err(LayerError::Sealed { path: files.stem });
        }
        let lengths =
            [(&files.data, files.data_path(), header.size), (&files.map, files.map_path(), map_len(header.size))];
        for (file, path, wanted) in lengths {
            let len = file.metadata().map(|meta| meta.len());
            let cut = len.and_then(|len| if len == wanted { Ok(()) } else { file.set_len(wanted) });
            cut.map_err(LayerError::host(&path, "cannot set its length"))?;
        }
        let regions = Regions::new();
        bitmap::scan(&files.map, &header, &files.map_path(), |number, page| {
            if let Some(region) = regions.make(number.into()) {
                region.load(page);
            }
        })?;
        let LayerFiles { data, map, stem, .. } = files;
        let layer = Arc::new(Layer::new(data, &stem, header.size, true, cache)?);
        let state = Mutex::new(MapState { header, stale: false });
        Ok(Self { layer, regions, dirty: AtomicBool::new(false), map, state, stem })
    }

    pub(super) fn size(&self) -> u64 {
        self.layer.size()
    }

    pub(super) fn stem(&self) -> &Path {
        &self.stem
    }

    pub(super) fn is_empty(&self) -> bool {
        self.regions.iter().next().is_none()
    }

    /// As [`Regions::run`].
    pub(super) fn run(&self, unit: u64, limit: u64) -> (bool, u64) {
        self.regions.run(unit, limit)
    }

    /// Those that something is in, as [`Regions::iter`].
    pub(super) fn regions(&self) -> impl Iterator<Item = (u32, &Region)> {
        self.regions.iter()
    }

    /// Whether all of these units are in the layer.
    pub(super) fn has(&self, units: &Range<u64>) -> bool {
        let mut at = units.start;
        while at < units.end {
            match self.run(at, units.end) {
                (true, end) => at = end,
                (false, _) => return false,
            }
        }
        true
    }

    /// Brings units of one region into the layer by `write`, which sees to it that all of each is in the data file; it
    /// is told which of them were in the layer before, and nobody else brings any into the region meanwhile.
    ///
    /// # Errors
    /// Those of `write`; `StorageFull` where there is no room for the map. Nothing has then entered, but what `write`
    /// noted by [`Entering::note`].
    pub(super) fn bring<F>(&self, units: &Range<u64>, write: F) -> io::Result<()>
    where
        F: FnOnce(&Entering<'_>) -> io::Result<()>,
    {
        let number = units.start / UNITS_PER_REGION;
        let region = self.regions.make(number).ok_or(io::ErrorKind::InvalidInput)?;
        let mut has_room = region.lock();
        if !*has_room {
            self.make_room(number)?;
            *has_room = true;
        }
        let entering = Entering { top: self, region };
        write(&entering)?;
        entering.note(units);
        Ok(())
    }

    /// Sees to it that the page of a region in the map file, which has nothing yet, can be written without more room.
    fn make_room(&self, region: u64) -> io::Result<()> {
        let region = u32::try_from(region).map_err(io::Error::other)?;
        let at = bitmap::page_offset(region);
        loop {
            let made = rustix::fs::fallocate(&self.map, FallocateFlags::KEEP_SIZE, at, PAGE);
            match made.map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    return self.map.write_all_at(&[0; PAGE_LEN], at);
                }
                done => return done,
            }
        }
    }

    /// The data file, if its data being durable makes everything durable: when the map file knows everything.
    pub(super) fn durable_file(&self) -> Option<Arc<File>> {
        // Whoever has the lock may be about to write the map.
        let state = self.state.try_lock().ok()?;
        (!state.stale && !self.dirty.load(Ordering::Acquire)).then(|| self.layer.file().clone())
    }

    /// Makes all that was written, and what of it is in the layer, durable.
    ///
    /// # Errors
    /// What the host said; what the map file does not know is then written the next time.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.flush_to(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, MapState> {
        // A thread that died while it wrote has left the marks of what it has not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_to(&self, state: &mut MapState) -> io::Result<()> {
        let mut written = Vec::new();
        let mut done = self.write_bits(&mut written);
        if done.is_ok() && (state.stale || !written.is_empty()) {
            done = state.write_if_stale(&self.map).and_then(|()| self.map.sync_data());
        }
        match done {
            Ok(()) => state.stale = false,
            Err(_) => {
                for region in written {
                    region.mark_dirty();
                }
                self.dirty.store(true, Ordering::Release);
            }
        }
        done
    }

    /// Makes the data durable and writes the pages of the map that changed before that; notes which.
    fn write_bits<'a>(&'a self, written: &mut Vec<&'a Region>) -> io::Result<()> {
        let changed = self.dirty.swap(false, Ordering::AcqRel);
        let mut regions = self.regions.iter().filter(|_| changed);
        loop {
            // Copies: what enters from now on is not covered by the data being made durable.
            let mut batch = Vec::new();
            for (number, region) in regions.by_ref() {
                if region.take_dirty() {
                    written.push(region);
                    batch.extend(region.words().map(|words| (number, region, bitmap::bytes(&words))));
                }
                if batch.len() == BATCH {
                    break;
                }
            }
            self.layer.file().sync_data()?;
            for (number, region, page) in &batch {
                self.map.write_all_at(page, bitmap::page_offset(*number))?;
                region.wrote(page);
            }
            if batch.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Makes everything durable and the layer sealed: for one who knows that nobody writes to it any more.
    ///
    /// # Errors
    /// What the host said; the layer is then open as before.
    pub(super) fn seal(&self) -> io::Result<()> {
        let mut state = self.lock();
        self.flush_to(&mut state)?;
        let mut digest = Digest::default();
        for (number, region) in self.regions.iter() {
            if let Some(sum) = region.page_sum() {
                digest.add(number, sum);
            }
        }
        state.header.sealed = Some(digest.value());
        let sealed = state.header.write(&self.map).and_then(|()| self.map.sync_data());
        if sealed.is_err() {
            state.header.sealed = None;
            state.stale = true;
            // Should this fail too, the next flush tries again.
            if state.write_if_stale(&self.map).and_then(|()| self.map.sync_data()).is_ok() {
                state.stale = false;
            }
        }
        sealed
    }

    /// Lets others read the layer, once it is sealed.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn share(&self) -> io::Result<()> {
        lock::relax(self.layer.file())
    }

    /// Makes the layer, and its files, larger.
    ///
    /// # Errors
    /// What the host said; the layer then has the size that it had.
    pub(super) fn grow(&self, size: u64) -> io::Result<()> {
        let mut state = self.lock();
        let before = state.header.size;
        self.layer.file().set_len(size)?;
        self.map.set_len(map_len(size))?;
        // A header with the new size must not be found beside files that have the old one.
        self.layer.file().sync_all()?;
        self.map.sync_all()?;
        state.header.size = size;
        let grown = state.header.write(&self.map).and_then(|()| self.map.sync_data());
        match &grown {
            Ok(()) => self.layer.set_size(size),
            Err(_) => (state.header.size, state.stale) = (before, true),
        }
        grown
    }
}

impl MapState {
    fn write_if_stale(&self, map: &File) -> io::Result<()> {
        if self.stale { self.header.write(map) } else { Ok(()) }
    }
}

/// A region of the top while units enter it.
pub(super) struct Entering<'a> {
    top: &'a Top,
    region: &'a Region,
}

impl Entering<'_> {
    /// Notes that units of the region, counted from the start of the disk, are in the layer as a whole.
    pub(super) fn note(&self, units: &Range<u64>) {
        let start = units.start - units.start % UNITS_PER_REGION;
        self.region.enter(units.start - start..units.end.saturating_sub(start).min(UNITS_PER_REGION));
        self.top.dirty.store(true, Ordering::Release);
    }
}
