//! The data file of a layer.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::VolatileSlice;

use super::{LayerError, files};
use crate::disk::host_file::HostFile;
use crate::disk::{HostCache, Place, file_io};

/// Bytes of a disk in the data file of a layer; beyond the layer's size they are zero.
#[derive(Debug)]
pub(super) struct Layer {
    file: HostFile,
    size: AtomicU64,
}

impl Layer {
    /// The data file of the layer at `stem`; its lock lasts as long as this.
    ///
    /// # Errors
    /// [`LayerError::NoDirectIo`], or what the host said.
    pub(super) fn new(data: File, stem: &Path, size: u64, write: bool, cache: HostCache) -> Result<Self, LayerError> {
        let path = files::data_path(stem);
        match HostFile::new(data).with_cache(cache, write) {
            Ok(file) => Ok(Self { file, size: AtomicU64::new(size) }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(LayerError::NoDirectIo { path }),
            Err(error) => Err(LayerError::host(&path, "cannot open it past the page cache")(error)),
        }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        self.file.file()
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Says that the file has become so long.
    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Fills `bufs`, of `len` bytes, from the bytes at `offset`.
    pub(super) fn read(&self, offset: u64, bufs: &[VolatileSlice<'_>], len: u64) -> io::Result<()> {
        let from_file = self.size().saturating_sub(offset).min(len);
        if from_file == len {
            return self.file.read(offset, bufs);
        }
        if from_file > 0 {
            self.file.read(offset, &file_io::window(bufs, 0, from_file))?;
        }
        file_io::fill_zero(&file_io::window(bufs, from_file, len - from_file))
    }

    pub(super) fn write(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.file.write(offset, bufs)
    }

    pub(super) fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        file_io::zero_range(self.file(), offset, len, unmap)
    }

    /// The first run in `range` that is no hole.
    pub(super) fn next_data(&self, range: &Range<u64>) -> io::Result<Option<Range<u64>>> {
        file_io::next_data(self.file(), range.start, self.size().min(range.end))
    }

    /// Where bytes are, if all of them are in the file.
    pub(super) fn place(&self, range: &Range<u64>) -> Option<Place> {
        (range.end <= self.size()).then(|| self.file.place(range.start))
    }
}
