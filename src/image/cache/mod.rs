//! The host's cache of what was taken out of disk images: extracted kernels, joined initrds, and the plans to boot with
//! them, so that the second boot of an unchanged disk file reads, unpacks and hashes nothing.
//!
//! ```text
//! blobs/elf-<sha256>-<length>   content, named by the kind, the hash of what it was made from, and its length
//! index/<sha256>.json           a plan, named by the disk file's identity and the caller's selection
//! tmp/                          files being written; each is locked (flock) by its writer
//! ```
//!
//! A blob or plan is written to `tmp`, made durable and renamed: it is whole or not there, whatever is killed or full.
//! A leftover in `tmp` is one that nobody locks; [`Cache::open`] removes it. Blobs that have not been used for longest
//! give way when the cache outgrows its limit; whoever has one open keeps it.

mod plan;
mod store;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use plan::FileIdentity;

/// The size in bytes that the blobs of a cache may have together, where the caller does not say.
pub const DEFAULT_LIMIT: u64 = 2 << 30;

/// Why the cache cannot be used. Every one of them can be met by doing without it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}")]
pub struct Error {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the host said.
    pub source: io::Error,
}

impl Error {
    fn new(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { operation, path, source }
    }
}

/// A directory of blobs and plans. Any number of processes may use it at once.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    limit: u64,
}

/// The name of a blob: its kind, the SHA-256 of what it was made from, and its length. It can be kept in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobId(String);

/// A blob, open for reading.
#[derive(Debug)]
pub struct Blob {
    /// Its name.
    pub id: BlobId,
    /// The content. It stays whole as long as this is open, also when the cache drops it.
    pub file: File,
    /// Length in bytes.
    pub len: u64,
}

/// What a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// The ELF file out of a kernel; the hash is that of the kernel file as it was in the image.
    Elf,
    /// Bytes as they were; the hash is that of the content.
    Raw,
}

impl BlobKind {
    fn name(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::Raw => "raw",
        }
    }
}

impl BlobId {
    fn new(kind: BlobKind, hash: &str, len: u64) -> Self {
        Self(format!("{}-{hash}-{len}", kind.name()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length that the name gives; `None` where it is no blob's name.
    fn len(&self) -> Option<u64> {
        let mut parts = self.0.split('-');
        let (kind, hash, len) = (parts.next()?, parts.next()?, parts.next()?);
        let known = matches!(kind, "elf" | "raw") && hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        (known && parts.next().is_none()).then(|| len.parse().ok())?
    }
}

impl Cache {
    /// Opens the cache in `dir`, which is made if need be, and removes what dead processes have left half written.
    ///
    /// # Errors
    /// Where the directories cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with_limit(dir, DEFAULT_LIMIT)
    }

    /// As [`Cache::open`], with another limit in bytes for all blobs together.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn open_with_limit(dir: &Path, limit: u64) -> Result<Self, Error> {
        let cache = Self { root: dir.to_owned(), limit };
        for part in ["blobs", "index", "tmp"] {
            store::make_directory(&cache.path(part))?;
        }
        store::remove_leftovers(&cache.path("tmp"))?;
        Ok(cache)
    }

    /// Refuses a cache that another user could have put something into: for one in a directory that all may write to.
    ///
    /// # Errors
    /// Where a directory of it is not this user's, or others may write to it.
    pub fn require_own(&self) -> Result<(), Error> {
        let me = rustix::process::geteuid().as_raw();
        for path in [self.root.clone(), self.path("blobs"), self.path("index"), self.path("tmp")] {
            let meta = std::fs::symlink_metadata(&path).map_err(Error::new("look at", &path))?;
            if !meta.is_dir() || meta.uid() != me || meta.mode() & 0o022 != 0 {
                let why = io::Error::new(io::ErrorKind::PermissionDenied, "another user may write to it");
                return Err(Error::new("trust", &path)(why));
            }
        }
        Ok(())
    }

    /// The blob of that name, if it is there with the length that its name gives.
    #[must_use]
    pub fn blob(&self, id: &BlobId) -> Option<Blob> {
        let len = id.len()?;
        let path = self.path("blobs").join(&id.0);
        let file = File::open(&path).ok()?;
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.len() != len {
            return None;
        }
        // When it was last used, for the choice of what gives way. That it fails on a foreign file does no harm.
        let _ = file.set_modified(SystemTime::now());
        Some(Blob { id: id.clone(), file, len })
    }

    /// The blob made from something with the SHA-256 `source`, or, where there is none, what `fill` writes.
    ///
    /// # Errors
    /// What `fill` says, or the cache's own error. Nothing is left behind.
    pub fn get_or_insert<E: From<Error>>(
        &self,
        kind: BlobKind,
        source: &[u8; 32],
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Blob, E> {
        let hash = hex(source);
        match self.find(kind, &hash) {
            Some(blob) => Ok(blob),
            None => self.insert(kind, Some(hash), fill),
        }
    }

    /// A blob with what `fill` writes, named by the hash of that.
    ///
    /// # Errors
    /// What `fill` says, or the cache's own error. Nothing is left behind.
    pub fn insert_content<E: From<Error>>(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Blob, E> {
        self.insert(BlobKind::Raw, None, fill)
    }

    fn find(&self, kind: BlobKind, hash: &str) -> Option<Blob> {
        let start = format!("{}-{hash}-", kind.name());
        let names = std::fs::read_dir(self.path("blobs")).ok()?;
        let names = names.filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter(|n| n.starts_with(&start)).find_map(|name| self.blob(&BlobId(name)))
    }

    fn insert<E: From<Error>>(
        &self,
        kind: BlobKind,
        hash: Option<String>,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Blob, E> {
        let mut temporary = store::Temporary::create(&self.path("tmp"))?;
        let mut out = Hashed { out: &mut temporary, hash: hash.is_none().then(Sha256::new), len: 0 };
        fill(&mut out)?;
        let (hasher, len) = (out.hash.take(), out.len);
        let hash = hash.or_else(|| hasher.map(|h| hex(&h.finalize().into()))).unwrap_or_default();
        let id = BlobId::new(kind, &hash, len);
        if let (BlobKind::Raw, Some(blob)) = (kind, self.blob(&id)) {
            return Ok(blob);
        }
        let path = self.path("blobs").join(&id.0);
        let file = temporary.publish(&path, 0o444)?;
        store::shrink(&self.path("blobs"), self.limit, OsStr::new(&id.0));
        Ok(Blob { id, file, len })
    }

    fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }
}

/// Counts and hashes what goes through.
struct Hashed<'a> {
    out: &'a mut store::Temporary,
    hash: Option<Sha256>,
    len: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write_all(buf)?;
        if let Some(hash) = &mut self.hash {
            hash.update(buf);
        }
        self.len += u64::try_from(buf.len()).map_err(io::Error::other)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a file of at most `limit` bytes; a larger one is an error.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|len| len <= limit);
    if fits { Ok(bytes) } else { Err(io::Error::from(io::ErrorKind::FileTooLarge)) }
}

#[cfg(test)]
mod tests;
