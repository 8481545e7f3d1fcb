//! What can be wrong with layers.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Conflict, Holder};

/// Why a layer cannot be made, opened or used. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A new layer was to have the name of something.
    #[error("{}: there is such a file already; give the layer another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// One of the two files is not there.
    #[error("{}: a file of the layer is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// One of the two is no regular file.
    #[error("{}: no regular file, as the files of a layer are", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A size that no disk has.
    #[error("{}: size {size}: a disk has a multiple of 512 bytes, at least 512 and at most 64 TiB", path.display())]
    BadSize {
        /// The layer.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// The map file does not begin as one.
    #[error("{}: this is not the map of a layer (it does not begin with AMILAYER)", path.display())]
    NotALayer {
        /// The map file.
        path: PathBuf,
    },
    /// The header or the bitmap is not what was written.
    #[error("{}: the {part} is damaged: checksum {found:#010x} instead of {wanted:#010x}", path.display())]
    Checksum {
        /// The map file.
        path: PathBuf,
        /// What of it.
        part: &'static str,
        /// The checksum of what is there.
        found: u32,
        /// The checksum that it should have.
        wanted: u32,
    },
    /// A map of a version that is not known.
    #[error("{}: version {version} of the layer format is not known, only 1; a newer amiboot has made it", path.display())]
    Version {
        /// The map file.
        path: PathBuf,
        /// The version.
        version: u32,
    },
    /// A field of the header has a value that cannot be.
    #[error("{}: its header says {field} {value}, which cannot be", path.display())]
    Field {
        /// The map file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A file has another length than it should.
    #[error("{}: the file has {len} bytes and should have {wanted}: {}", path.display(), if len < wanted { "it was cut off" } else { "it is not of this layer" })]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that it has.
        len: u64,
        /// Bytes that it should have.
        wanted: u64,
    },
    /// The map names units that the disk does not have.
    #[error("{}: the map has units beyond the end of the disk (unit {unit} of {units})", path.display())]
    BeyondEnd {
        /// The map file.
        path: PathBuf,
        /// The first of them.
        unit: u64,
        /// Units of the disk.
        units: u64,
    },
    /// A sealed layer was to be written to.
    #[error("{}: the layer is sealed and cannot be written to; put a new layer on it", path.display())]
    Sealed {
        /// The layer.
        path: PathBuf,
    },
    /// An open layer was to be used as a sealed one.
    #[error("{}: the layer is not sealed: it may still change", path.display())]
    NotSealed {
        /// The layer.
        path: PathBuf,
    },
    /// A layer that should be new has something in it.
    #[error("{}: the layer is not empty", path.display())]
    NotEmpty {
        /// The layer.
        path: PathBuf,
    },
    /// A layer is smaller than one below it, or larger than the disk.
    #[error("{}: the layer is of {size} bytes and cannot lie {place} one of {other}: disks do not shrink", path.display())]
    SizesDoNotFit {
        /// The layer.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// Where it lies: `above` or `in`.
        place: &'static str,
        /// The size of the layer below, or of the disk.
        other: u64,
    },
    /// A chain with no layer, or with more than can be.
    #[error("a chain has between 1 and {} layers, not {count}", super::chain::MAX_LAYERS)]
    Count {
        /// Layers.
        count: usize,
    },
    /// Another has the layer.
    #[error("{}: {}", path.display(), locked(*conflict, holders))]
    Locked {
        /// The data file.
        path: PathBuf,
        /// What the other does with it.
        conflict: Conflict,
        /// Who it is, as far as this user can see.
        holders: Vec<Holder>,
    },
    /// The file system cannot lock.
    #[error("{}: its file system has no locks, so that a second writer could not be kept out; use a local one", path.display())]
    NoLocks {
        /// The data file.
        path: PathBuf,
    },
    /// The file system has no direct I/O.
    #[error("{}: its file system cannot be used past the page cache; leave out --cache none", path.display())]
    NoDirectIo {
        /// The data file.
        path: PathBuf,
    },
    /// Whoever is told of the progress wanted no more.
    #[error("broken off")]
    BrokenOff,
    /// The host refused something.
    #[error("{}: {operation}: {source}", path.display())]
    Host {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl LayerError {
    /// The error of something that was to be done to `path`.
    pub(super) fn host(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Host { path, operation, source }
    }
}

impl From<LayerError> for io::Error {
    /// With the host's code, if it was the host that refused.
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Host { source, .. } if source.raw_os_error().is_some() => source,
            LayerError::Host { source, .. } => Self::new(source.kind(), source.to_string()),
            error => Self::new(io::ErrorKind::InvalidInput, error),
        }
    }
}

/// Who stands in the way.
fn locked(conflict: Conflict, holders: &[Holder]) -> String {
    let by = match holders {
        [] => "another process".to_owned(),
        [one] => format!("process {} ({})", one.pid, one.name),
        [first, rest @ ..] => format!("process {} ({}) and {} more", first.pid, first.name, rest.len()),
    };
    match conflict {
        Conflict::Written => format!("{by} is writing to this layer; wait until it ends"),
        Conflict::Read => format!("{by} is using this layer and needs it unchanged; wait until it ends"),
    }
}
