//! A file of the host as disks use it: through its page cache, or past it where a request allows that.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::{HostCache, Place, Transfer, file_io};

/// A file, and the way past the page cache if that is wanted. Clones share both.
#[derive(Clone, Debug)]
pub(super) struct HostFile {
    file: Arc<File>,
    /// The same file, past the page cache.
    direct: Option<Arc<File>>,
}

impl HostFile {
    /// Used through the page cache.
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file), direct: None }
    }

    /// The same with another use of the page cache.
    ///
    /// # Errors
    /// `InvalidInput` where the file system cannot go past the page cache; else what the host said.
    pub(super) fn with_cache(self, cache: HostCache, write: bool) -> io::Result<Self> {
        let direct = match cache {
            HostCache::Used => None,
            HostCache::Bypassed => Some(Arc::new(file_io::reopen_direct(&self.file, write)?)),
        };
        Ok(Self { direct, ..self })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Fills `bufs` from the bytes at `offset`.
    ///
    /// # Errors
    /// As [`file_io::read_exact`].
    pub(super) fn read(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        if self.past_cache(offset, bufs, Transfer::Read)? {
            return Ok(());
        }
        file_io::read_exact(&self.file, offset, bufs)
    }

    /// Writes `bufs` to the bytes at `offset`.
    ///
    /// # Errors
    /// As [`file_io::write_all`].
    pub(super) fn write(&self, offset: u64, bufs: &[VolatileSlice<'_>]) -> io::Result<()> {
        if self.past_cache(offset, bufs, Transfer::Write)? {
            return Ok(());
        }
        file_io::write_all(&self.file, offset, bufs)
    }

    /// Transfers past the page cache, if that is wanted and can be done; tells whether it was.
    fn past_cache(&self, offset: u64, bufs: &[VolatileSlice<'_>], transfer: Transfer) -> io::Result<bool> {
        let Some(direct) = self.direct.as_ref().filter(|_| file_io::is_aligned(offset, bufs)) else { return Ok(false) };
        let done = match transfer {
            Transfer::Read => file_io::read_exact(direct, offset, bufs),
            Transfer::Write => file_io::write_all(direct, offset, bufs),
        };
        match done {
            // What is asked of a disk with larger sectors than a request has.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// The bytes from `offset` on, for whoever transfers them.
    pub(super) fn place(&self, offset: u64) -> Place {
        Place { file: self.file.clone(), direct: self.direct.clone(), offset, hold: None }
    }
}
