//! What can be wrong with a disk that a person names.

use std::io;
use std::path::PathBuf;

use super::HeaderError;
use super::lock::{Conflict, Holder};

/// Why a disk cannot be opened or made. Every message names the file, and the mend where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file system has no direct I/O.
    #[error("{}: its file system cannot be used past the page cache; leave out --cache none", path.display())]
    NoDirectIo {
        /// The file, or the directory of the layer.
        path: PathBuf,
    },
    /// A format that is only read through the page cache.
    #[error(
        "{}: --cache none is for raw disks, and this is {format}; leave it out, or convert the disk: qemu-img convert -O raw",
        path.display()
    )]
    CachedFormat {
        /// The file asked for.
        path: PathBuf,
        /// Its format.
        format: super::Format,
    },
    /// Nothing has this name.
    #[error("{}: no such file", path.display())]
    NotFound {
        /// The file asked for.
        path: PathBuf,
    },
    /// Something that is neither a regular file nor a block device.
    #[error("{}: this is {what}, not a disk image; give a regular file or a block device", path.display())]
    NotADisk {
        /// The file asked for.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file without bytes.
    #[error("{}: the file is empty, not a disk image; was a copy or a download broken off?", path.display())]
    Empty {
        /// The file asked for.
        path: PathBuf,
    },
    /// A file shorter than one sector, or of a qcow2 shorter than its header.
    #[error(
        "{}: {len} bytes do not look like a disk image, which has at least one sector of 512 bytes; was a copy or a \
         download broken off?",
        path.display()
    )]
    TooShort {
        /// The file asked for.
        path: PathBuf,
        /// Bytes that it has.
        len: u64,
    },
    /// A file that starts with nothing but printable text.
    #[error("{}: this is text ({start:?}...), not a disk image; if it is one all the same, say --format raw", path.display())]
    Text {
        /// The file asked for.
        path: PathBuf,
        /// Its first characters.
        start: String,
    },
    /// A file of a known kind that cannot be used as it is.
    #[error("{}: this is {what}, which cannot be used as it is; {mend}", path.display())]
    Foreign {
        /// The file asked for.
        path: PathBuf,
        /// Its kind.
        what: &'static str,
        /// What makes a usable file of it.
        mend: String,
    },
    /// A disk larger than any that EC2 has.
    #[error("{}: {size} bytes are more than the largest disk, 64 TiB", path.display())]
    TooLarge {
        /// The file asked for.
        path: PathBuf,
        /// The size of the disk in it.
        size: u64,
    },
    /// The size asked for is less than that of the disk.
    #[error("{}: size {wanted} is smaller than the disk in it, {size} bytes; give at least that", path.display())]
    SizeTooSmall {
        /// The file asked for.
        path: PathBuf,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that the disk has.
        size: u64,
    },
    /// A size was asked for that would need the file itself to grow.
    #[error(
        "{}: only a throw-away layer can be larger than the disk in the file ({size} bytes; {wanted} asked for); make the \
         file larger first: qemu-img resize -f {format} {} {wanted}",
        path.display(),
        path.display()
    )]
    CannotGrow {
        /// The file asked for.
        path: PathBuf,
        /// Its format.
        format: super::Format,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that the disk has.
        size: u64,
    },
    /// A size that is no multiple of a sector, zero, or beyond the largest.
    #[error("size {size}: a disk has a multiple of 512 bytes, at least 512 and at most 64 TiB")]
    BadSize {
        /// Bytes asked for.
        size: u64,
    },
    /// Another has the file.
    #[error("{}: {}", path.display(), locked(*conflict, holders))]
    Locked {
        /// The file asked for.
        path: PathBuf,
        /// What the other does with it.
        conflict: Conflict,
        /// Who it is, as far as this user can see.
        holders: Vec<Holder>,
    },
    /// The file system cannot lock, and writing without a lock could destroy the disk.
    #[error(
        "{}: its file system has no locks, so that a second writer could not be kept out; copy the file to a local one",
        path.display()
    )]
    NoLocks {
        /// The file asked for.
        path: PathBuf,
    },
    /// The header of a qcow2 file says something that is not supported.
    #[error("{}: {source}", path.display())]
    Header {
        /// The file asked for.
        path: PathBuf,
        /// What it says.
        source: HeaderError,
    },
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

/// Who stands in the way, and what to do about it.
fn locked(conflict: Conflict, holders: &[Holder]) -> String {
    let by = match holders {
        [] => "another process".to_owned(),
        [one] => format!("process {} ({})", one.pid, one.name),
        [first, rest @ ..] => format!("process {} ({}) and {} more", first.pid, first.name, rest.len()),
    };
    match conflict {
        Conflict::Written => format!("{by} is writing to this file; wait until it ends, or use a copy of the file"),
        Conflict::Read => format!(
            "{by} is using this file and needs it unchanged; wait until it ends, or leave out --persist so that writes go to \
             a throw-away layer"
        ),
    }
}
