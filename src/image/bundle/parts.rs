//! The parts of a bundle, one after the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use super::BundleError;
use super::manifest::{Contents, Part};
use crate::disk::foreign::{BesideError, Progress, open_beside};

/// Bytes of a part that is written: the 10 MiB that all others write.
const PART: u64 = 10 << 20;
/// Bytes of a part that is read at most; it is read into memory.
const MAX_PART: u64 = 128 << 20;

/// Opens a part, which must be right beside the manifest.
fn open(manifest: &Path, dir: &Path, part: &Part) -> Result<File, BundleError> {
    let path = dir.join(&part.name);
    open_beside(dir, &part.name).map_err(|error| match error {
        BesideError::Missing => BundleError::PartMissing { path },
        BesideError::Host(source) => BundleError::Host { path, operation: "cannot open it", source },
        other => BundleError::PartName { path: manifest.into(), name: part.name.clone(), why: other.to_string() },
    })
}

fn len_of(file: &File, path: PathBuf) -> Result<u64, BundleError> {
    let meta = file.metadata();
    Ok(meta.map_err(|source| BundleError::Host { path, operation: "cannot tell its size", source })?.len())
}

/// Refuses a bundle of which a part is not there, or has another length than it must have: all but the last have the same, and
/// together they have as many bytes as the manifest says. Gives the length of each.
///
/// # Errors
/// See [`BundleError`].
pub(super) fn check(manifest: &Path, dir: &Path, contents: &Contents) -> Result<Vec<u64>, BundleError> {
    let mut lens = Vec::with_capacity(contents.parts.len());
    for part in &contents.parts {
        lens.push(len_of(&open(manifest, dir, part)?, dir.join(&part.name))?);
    }
    let longest = lens.iter().copied().max().unwrap_or(0);
    let whole = if contents.bundled_size.div_ceil(PART) == lens.len() as u64 { PART } else { longest };
    let mut left = contents.bundled_size;
    for (number, (part, &len)) in contents.parts.iter().zip(&lens).enumerate() {
        let is_last = number + 1 == lens.len();
        let expected = if is_last { left } else { left.min(whole) }.min(MAX_PART);
        if len != expected {
            return Err(BundleError::PartLength { path: dir.join(&part.name), len, expected });
        }
        left -= expected;
    }
    Ok(lens)
}

/// Reads all parts. Each is checked before any byte of it is given out; an error of it is inside the [`io::Error`].
pub(super) struct Parts<'a> {
    manifest: &'a Path,
    dir: &'a Path,
    left: std::iter::Zip<std::slice::Iter<'a, Part>, std::slice::Iter<'a, u64>>,
    bytes: Vec<u8>,
    given: usize,
    progress: &'a mut dyn FnMut(Progress),
    told: Progress,
}

impl<'a> Parts<'a> {
    pub fn new(
        manifest: &'a Path,
        dir: &'a Path,
        contents: &'a Contents,
        lens: &'a [u64],
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        let told = Progress { done: 0, total: contents.bundled_size };
        progress(told);
        Self { manifest, dir, left: contents.parts.iter().zip(lens), bytes: Vec::new(), given: 0, progress, told }
    }

    /// Reads a part of `len` bytes into memory.
    fn load(&mut self, part: &Part, len: u64) -> Result<(), BundleError> {
        let path = self.dir.join(&part.name);
        let file = open(self.manifest, self.dir, part)?;
        self.bytes.clear();
        self.given = 0;
        let read = file.take(len + 1).read_to_end(&mut self.bytes);
        read.map_err(|source| BundleError::Host { path: path.clone(), operation: "cannot read it", source })?;
        if self.bytes.len() as u64 != len {
            return Err(BundleError::PartLength { path, len: self.bytes.len() as u64, expected: len });
        }
        if Sha1::digest(&self.bytes)[..] != part.digest {
            return Err(BundleError::PartDigest { path });
        }
        self.told.done += len;
        (self.progress)(self.told);
        Ok(())
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.bytes.len() {
            let Some((part, len)) = self.left.next() else { return Ok(0) };
            self.load(part, *len).map_err(io::Error::other)?;
        }
        let rest = self.bytes.get(self.given..).unwrap_or_default();
        let count = (&mut &*rest).read(buf)?;
        self.given += count;
        Ok(count)
    }
}

/// Writes parts into a directory.
pub(super) struct Splitter {
    dir: PathBuf,
    name: String,
    open: Option<(File, Sha1, u64)>,
    done: Vec<Part>,
    /// Bytes of all parts.
    len: u64,
}

impl Splitter {
    /// Parts called `name` with a number behind it.
    pub fn new(dir: PathBuf, name: String) -> Self {
        Self { dir, name, open: None, done: Vec::new(), len: 0 }
    }

    /// Ends the part that is being written.
    fn close(&mut self) -> io::Result<()> {
        if let Some((file, digest, len)) = self.open.take() {
            file.sync_all()?;
            let name = part_name(&self.name, self.done.len());
            self.done.push(Part { name, digest: digest.finalize().into() });
            self.len += len;
        }
        Ok(())
    }

    /// The parts, and the bytes that they have together.
    ///
    /// # Errors
    /// What the host said.
    pub fn finish(mut self) -> io::Result<(Vec<Part>, u64)> {
        self.close()?;
        Ok((self.done, self.len))
    }
}

/// What a part is called.
pub(super) fn part_name(name: &str, number: usize) -> String {
    format!("{name}.part.{number:02}")
}

impl Write for Splitter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.as_ref().is_some_and(|(_, _, len)| *len == PART) {
            self.close()?;
        }
        if self.open.is_none() {
            let path = self.dir.join(part_name(&self.name, self.done.len()));
            self.open = Some((File::create_new(path)?, Sha1::new(), 0));
        }
        let Some((file, digest, len)) = &mut self.open else { return Ok(0) };
        let room = usize::try_from(PART - *len).unwrap_or(usize::MAX);
        let count = file.write(bytes.get(..bytes.len().min(room)).unwrap_or_default())?;
        digest.update(bytes.get(..count).unwrap_or_default());
        *len += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
