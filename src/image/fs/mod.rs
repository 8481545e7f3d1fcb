//! File systems, read only and without mounting: ext2/3/4, XFS, btrfs and FAT behind one small interface.
//!
//! `identify` names what a volume holds, label and UUID included, also where it cannot be read (LUKS, LVM, swap, ...).
//! `open` gives a `FileSystem`; `Tree` adds what all of them need alike: symbolic links that stay inside the
//! file system and end, and limits on everything that is read.

mod btrfs;
mod ext;
mod fat;
mod superblock;
mod xfs;

use std::io::{self, Write};

pub use superblock::Identity;
pub(super) use superblock::identify;

use super::window::Window;

/// Symbolic links followed for one path, as Linux does (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Longest path, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;
/// Directory entries that are listed at most.
const MAX_ENTRIES: usize = 65_536;
/// Bytes that opening may read: the journal's changes and, for XFS, what it takes to find their ends in its log.
const OPEN_BUDGET: u64 = 512 << 20;
/// Bytes of metadata that one operation may read: a directory of [`MAX_ENTRIES`] names has a tenth of it.
const METADATA_BUDGET: u64 = 32 << 20;
/// Size of the pieces in which files are copied.
const PIECE: usize = 1 << 20;

/// Why something cannot be read from a file system.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// There is no such file or directory.
    #[error("{0}: no such file")]
    NotFound(String),
    /// A file where a directory is needed, or the other way round.
    #[error("{path}: {what}")]
    WrongKind {
        /// The path in question.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file is larger than the caller's limit.
    #[error("{path}: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Symbolic links that never end, or a path beyond all measure.
    #[error("{0}: too many levels of symbolic links")]
    Loop(String),
    /// The file system is intact, but uses what cannot be read here.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The file system contradicts itself.
    #[error("the file system is damaged: {0}")]
    Damaged(String),
    /// The disk underneath could not be read.
    #[error("cannot read the disk: {0}")]
    Io(#[from] io::Error),
    /// The caller's output could not be written.
    #[error("cannot write the copy of {path}: {source}")]
    Output {
        /// The file that was being copied.
        path: String,
        /// What the output said.
        source: io::Error,
    },
}

impl FsError {
    /// Whether the path simply is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::WrongKind { .. })
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its kind.
    pub kind: Kind,
    /// Size in bytes; files only.
    pub size: u64,
}

/// What a reader of one file-system format does. All paths are absolute and without `.`, `..` and, but for the last
/// component, without symbolic links: [`Tree`] sees to that.
pub(super) trait FileSystem {
    fn stat(&mut self, path: &str) -> Result<Stat, FsError>;
    fn read_link(&mut self, path: &str) -> Result<String, FsError>;
    /// The names in a directory without `.` and `..`; those that are not UTF-8 are left out. At most `limit`.
    fn list(&mut self, path: &str, limit: usize) -> Result<Vec<String>, FsError>;
    /// Calls `sink` with the file's `size` bytes, in order and in pieces of at most [`PIECE`] bytes.
    fn read(&mut self, path: &str, size: u64, sink: &mut Sink<'_>) -> Result<(), FsError>;
}

type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), FsError> + 'a;

/// A file system whose paths may hold symbolic links, `.` and `..`; none leads out of it.
pub(super) struct Tree {
    fs: Box<dyn FileSystem>,
    window: Window,
}

/// Opens the file system that [`identify`] has named.
///
/// # Errors
/// `Unsupported` with the reason where it cannot be read, `Damaged` where it should be.
pub(super) fn open(window: &Window, identity: &Identity) -> Result<Tree, FsError> {
    if let Some(why) = &identity.unsupported {
        return Err(FsError::Unsupported(why.clone()));
    }
    window.grant(OPEN_BUDGET);
    let fs = guarded(|| -> Result<Box<dyn FileSystem>, FsError> {
        Ok(match identity.kind.as_str() {
            "ext2" | "ext3" | "ext4" => Box::new(ext::Ext::open(window.clone())?),
            "xfs" => Box::new(xfs::Xfs::open(window.clone())?),
            "btrfs" => Box::new(btrfs::Btrfs::open(window)?),
            "vfat" => Box::new(fat::Fat::open(window.clone())?),
            other => return Err(FsError::Unsupported(format!("{other} cannot be read"))),
        })
    })?;
    Ok(Tree { fs, window: window.clone() })
}

/// Runs a file-system reader. The crates below check what they read, but their arithmetic is not all checked: where one
/// panics over a damaged file system, that is an error like any other.
fn guarded<T>(operation: impl FnOnce() -> Result<T, FsError>) -> Result<T, FsError> {
    crate::host::panics::catch(operation)
        .unwrap_or_else(|| Err(FsError::Damaged("its reader stumbled over contradictory metadata".to_owned())))
}

impl Tree {
    /// The path with all symbolic links followed, and what it names.
    pub fn resolve(&mut self, path: &str) -> Result<(String, Stat), FsError> {
        let mut todo: Vec<String> = components(path).rev().map(str::to_owned).collect();
        let mut done = String::new();
        let mut stat = Stat { kind: Kind::Directory, size: 0 };
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                stat = Stat { kind: Kind::Directory, size: 0 };
                continue;
            }
            if stat.kind != Kind::Directory {
                return Err(FsError::WrongKind { path: path.to_owned(), what: "not a directory" });
            }
            let next = format!("{done}/{name}");
            if next.len() > MAX_PATH {
                return Err(FsError::Loop(path.chars().take(200).collect()));
            }
            self.window.grant(METADATA_BUDGET);
            stat = guarded(|| self.fs.stat(&next))?;
            if stat.kind != Kind::Link {
                done = next;
                continue;
            }
            links += 1;
            let target = guarded(|| self.fs.read_link(&next))?;
            if links > MAX_LINKS || target.len() > MAX_PATH {
                return Err(FsError::Loop(path.to_owned()));
            }
            if target.starts_with('/') {
                done.clear();
            }
            todo.extend(components(&target).rev().map(str::to_owned));
            stat = Stat { kind: Kind::Directory, size: 0 };
        }
        if done.is_empty() {
            done.push('/');
        }
        Ok((done, stat))
    }

    /// What `path` names, symbolic links followed; `None` where it is not there.
    pub fn stat(&mut self, path: &str) -> Result<Option<Stat>, FsError> {
        match self.resolve(path) {
            Ok((_, stat)) => Ok(Some(stat)),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether `path` is there and readable as what it is; a damaged one counts as absent.
    pub fn exists(&mut self, path: &str) -> bool {
        matches!(self.stat(path), Ok(Some(_)))
    }

    /// Whether `path` is a directory.
    pub fn is_dir(&mut self, path: &str) -> bool {
        matches!(self.stat(path), Ok(Some(Stat { kind: Kind::Directory, .. })))
    }

    /// The names in the directory, sorted; an empty list where there is none.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, FsError> {
        let path = match self.resolve(path) {
            Ok((path, Stat { kind: Kind::Directory, .. })) => path,
            Ok(_) => return Ok(Vec::new()),
            Err(e) if e.is_absent() => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        self.window.grant(METADATA_BUDGET);
        let mut names = guarded(|| self.fs.list(&path, MAX_ENTRIES))?;
        names.retain(|n| n != "." && n != ".." && !n.is_empty() && !n.contains('/'));
        names.sort_unstable();
        Ok(names)
    }

    /// The whole file, if it is no larger than `limit` bytes.
    pub fn read(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = Vec::new();
        self.copy(path, limit, &mut bytes)?;
        Ok(bytes)
    }

    /// The first `len` bytes of the file, or fewer where it ends.
    pub fn head(&mut self, path: &str, len: u64) -> Result<(Vec<u8>, u64), FsError> {
        let (real, size) = self.file(path)?;
        let mut bytes = Vec::new();
        self.pump(&real, size.min(len), path, &mut bytes)?;
        Ok((bytes, size))
    }

    /// Writes the file to `out`, if it is no larger than `limit` bytes, and returns its size.
    pub fn copy(&mut self, path: &str, limit: u64, out: &mut dyn Write) -> Result<u64, FsError> {
        let (real, size) = self.file(path)?;
        if size > limit {
            return Err(FsError::TooLarge { path: path.to_owned(), size, limit });
        }
        self.pump(&real, size, path, out)?;
        Ok(size)
    }

    fn file(&mut self, path: &str) -> Result<(String, u64), FsError> {
        let (real, stat) = self.resolve(path)?;
        match stat.kind {
            Kind::File => Ok((real, stat.size)),
            Kind::Directory => Err(FsError::WrongKind { path: path.to_owned(), what: "is a directory" }),
            Kind::Link | Kind::Other => Err(FsError::WrongKind { path: path.to_owned(), what: "not a regular file" }),
        }
    }

    fn pump(&mut self, real: &str, size: u64, path: &str, out: &mut dyn Write) -> Result<(), FsError> {
        // Some readers look the metadata up again for every piece, or read whole compressed extents for part of one.
        self.window.grant(size.saturating_mul(8).saturating_add(METADATA_BUDGET));
        let mut written = 0_u64;
        let mut sink = |piece: &[u8]| {
            written = written.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            out.write_all(piece).map_err(|source| FsError::Output { path: path.to_owned(), source })
        };
        guarded(|| self.fs.read(real, size, &mut sink))?;
        if written == size {
            return Ok(());
        }
        Err(FsError::Damaged(format!("{path} holds {written} bytes where its size says {size}")))
    }
}

/// The components of a path without empty ones and `.`.
fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|c| !c.is_empty() && *c != ".")
}

/// Feeds `sink` from a reader that fills a buffer from an offset and says how many bytes it got (0 at the end).
fn read_in_pieces(
    size: u64,
    sink: &mut Sink<'_>,
    mut read_at: impl FnMut(u64, &mut [u8]) -> Result<usize, FsError>,
) -> Result<(), FsError> {
    let mut buf = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
    let mut offset = 0;
    while offset < size {
        let want = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buf.len());
        let Some(piece) = buf.get_mut(..want) else { break };
        let got = read_at(offset, piece)?;
        let Some(filled) = piece.get(..got).filter(|p| !p.is_empty()) else { break };
        sink(filled)?;
        offset += u64::try_from(got).unwrap_or(u64::MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
