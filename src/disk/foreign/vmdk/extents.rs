//! A disk out of extents.

use std::fs::File;
use std::io;
use std::path::Path;

use super::descriptor::{Descriptor, Kind, MAX_LEN, is_descriptor};
use super::sparse::Sparse;
use crate::disk::foreign::Flaw;
use crate::disk::foreign::beside::{directory_of, open_beside};
use crate::disk::foreign::fields::structure;
use crate::disk::foreign::laid::{Layout, Run};
use crate::disk::format::file_len as len_of;

/// Extents of a disk at most, each of which is an open file.
const MAX_EXTENTS: usize = 4096;

/// A disk in one VMDK file, or in several.
pub(in crate::disk::foreign) struct Vmdk {
    extents: Vec<Placed>,
    size: u64,
}

/// An extent and where it is.
struct Placed {
    /// The first byte of the disk that is not in it.
    end: u64,
    start: u64,
    content: Content,
}

enum Content {
    Zero,
    Flat { file: File, offset: u64 },
    Sparse(Box<Sparse>),
}

impl Vmdk {
    /// The disk in `file`, which is at `path` and has `file_len` bytes. Each other file that is opened is first given to
    /// `claim`.
    ///
    /// # Errors
    /// See [`Flaw`].
    pub fn new(
        file: File,
        file_len: u64,
        path: &Path,
        claim: &dyn Fn(&File, &Path) -> Result<(), Flaw>,
    ) -> Result<Self, Flaw> {
        let head_len = usize::try_from(file_len).unwrap_or(usize::MAX).min(512);
        if !is_descriptor(&structure(&file, file_len, "the header", 0, head_len)?) {
            let (sparse, text) = Sparse::new(file, file_len)?;
            // The one extent that it names is the file itself.
            text.map_or(Ok(Descriptor::default()), |text| Descriptor::parse(&text))?;
            return Self::of([(sparse.size(), Content::Sparse(Box::new(sparse)))]);
        }
        let len = usize::try_from(file_len).unwrap_or(usize::MAX);
        Flaw::unless(len <= MAX_LEN, "length of the descriptor", file_len, "possible are 4 MiB")?;
        let descriptor = Descriptor::parse(&structure(&file, file_len, "the descriptor", 0, len)?)?;
        let count = descriptor.extents.len();
        let possible = (1..=MAX_EXTENTS).contains(&count);
        Flaw::unless(possible, "number of extents", count as u64, format!("possible are 1 to {MAX_EXTENTS}"))?;
        let dir = directory_of(path)?;
        let mut contents = Vec::with_capacity(count);
        for extent in descriptor.extents {
            contents.push((extent.len, open(&dir, &extent.kind, extent.len, claim)?));
        }
        Self::of(contents)
    }

    fn of(contents: impl IntoIterator<Item = (u64, Content)>) -> Result<Self, Flaw> {
        let mut extents = Vec::new();
        let mut size = 0u64;
        for (len, content) in contents.into_iter().filter(|(len, _)| *len > 0) {
            let start = size;
            size = size.saturating_add(len);
            extents.push(Placed { start, end: size, content });
        }
        Flaw::unless_size("sum of the extents", size)?;
        Ok(Self { extents, size })
    }
}

/// Opens the file of an extent.
fn open(dir: &Path, kind: &Kind, len: u64, claim: &dyn Fn(&File, &Path) -> Result<(), Flaw>) -> Result<Content, Flaw> {
    let name = match kind {
        Kind::Zero => return Ok(Content::Zero),
        Kind::Flat { name, .. } | Kind::Sparse { name } => name.clone(),
    };
    let extent = |why: String| Flaw::Extent { name: name.clone(), why };
    let file = open_beside(dir, &name).map_err(|error| extent(error.to_string()))?;
    let path = dir.join(&name);
    claim(&file, &path)?;
    let file_len = len_of(&file)?;
    match kind {
        &Kind::Flat { offset, .. } => {
            if offset.checked_add(len).is_none_or(|end| end > file_len) {
                return Err(extent(format!(
                    "{len} bytes at {offset} should be in it, and it has {file_len}; was a copy or a download broken off?"
                )));
            }
            Ok(Content::Flat { file, offset })
        }
        _ => {
            let (sparse, text) = Sparse::new(file, file_len).map_err(|flaw| extent(format!("it {flaw}")))?;
            text.map_or(Ok(Descriptor::default()), |text| Descriptor::parse(&text))?;
            if sparse.size() < len {
                return Err(extent(format!("it has {} bytes of a disk, and {len} should be in it", sparse.size())));
            }
            Ok(Content::Sparse(Box::new(sparse)))
        }
    }
}

impl Layout for Vmdk {
    fn size(&self) -> u64 {
        self.size
    }

    fn run(&self, offset: u64) -> io::Result<(Run<'_>, u64)> {
        let index = self.extents.partition_point(|extent| extent.end <= offset);
        let extent = self.extents.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let (inside, left) = (offset - extent.start, extent.end - offset);
        let (run, len) = match &extent.content {
            Content::Zero => (Run::Zeroes, left),
            Content::Flat { file, offset } => (Run::Stored { file, offset: offset + inside }, left),
            Content::Sparse(sparse) => sparse.run(inside)?,
        };
        Ok((run, len.min(left)))
    }
}
