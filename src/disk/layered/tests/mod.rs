//! Chains of layers against models, with the helpers that these tests share.

mod barrier;
mod bench;
mod crash;
mod files;
mod full;
mod hostile;
mod model;

use std::path::{Path, PathBuf};

use super::{LayerAccess, LayerError, LayerFiles, Layered};
use crate::disk::HostCache;

/// A directory for small layers: in memory where that can be, since they are flushed again and again.
fn test_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Repeats what found a layer locked. Another test may just be starting a program: its child shares all locks of this
/// process until it has become that program.
fn when_free<T>(mut attempt: impl FnMut() -> Result<T, LayerError>) -> Result<T, LayerError> {
    loop {
        match attempt() {
            Err(LayerError::Locked { .. }) => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn open_layer(stem: &Path, access: LayerAccess) -> LayerFiles {
    when_free(|| LayerFiles::open(stem, access)).unwrap()
}

/// The layers at these stems, bottom first, all of them sealed but, unless `read_only`, the last.
fn open_chain(stems: &[PathBuf], size: u64, read_only: bool, cache: HostCache) -> Layered {
    let access = |at: usize| {
        let writable = !read_only && at + 1 == stems.len();
        if writable { LayerAccess::Writable } else { LayerAccess::Sealed }
    };
    let chain = stems.iter().enumerate().map(|(at, stem)| open_layer(stem, access(at))).collect();
    Layered::open(chain, size, read_only, cache).unwrap()
}
