//! FAT12, FAT16 and FAT32 (the EFI system partition), through `fatfs`. Names match without regard to case.

use std::io::{self, Read};

use fatfs::{Dir, DirEntry, FsOptions};

use super::{FileSystem, FsError, Kind, Sink, Stat, components, read_in_pieces};
use crate::image::window::Window;

/// A directory has at most 65,536 entries of 32 bytes; a chain of clusters that yields more goes round in circles.
const DIRECTORY_BUDGET: u64 = 64 << 20;

pub(super) struct Fat {
    fs: fatfs::FileSystem<Window>,
    window: Window,
}

impl Fat {
    pub fn open(window: Window) -> Result<Self, FsError> {
        let fs = fatfs::FileSystem::new(window.clone(), FsOptions::new()).map_err(|e| cause(e, "the boot sector"))?;
        Ok(Self { fs, window })
    }

    /// The entry at `path`, or `None` for the root directory.
    fn find(&self, path: &str) -> Result<Option<DirEntry<'_, Window>>, FsError> {
        let mut dir: Dir<'_, Window> = self.fs.root_dir();
        let mut found: Option<DirEntry<'_, Window>> = None;
        for name in components(path) {
            if let Some(entry) = found {
                if !entry.is_dir() {
                    return Err(FsError::NotFound(path.to_owned()));
                }
                dir = entry.to_dir();
            }
            self.window.grant(DIRECTORY_BUDGET);
            found = None;
            for entry in dir.iter() {
                let entry = entry.map_err(|e| cause(e, path))?;
                let same = |n: &str| n.to_lowercase() == name.to_lowercase();
                if same(&entry.file_name()) || same(&entry.short_file_name()) {
                    found = Some(entry);
                    break;
                }
            }
            if found.is_none() {
                return Err(FsError::NotFound(path.to_owned()));
            }
        }
        Ok(found)
    }
}

impl FileSystem for Fat {
    fn stat(&mut self, path: &str) -> Result<Stat, FsError> {
        Ok(match self.find(path)? {
            Some(entry) if entry.is_file() => Stat { kind: Kind::File, size: entry.len() },
            _ => Stat { kind: Kind::Directory, size: 0 },
        })
    }

    fn read_link(&mut self, path: &str) -> Result<String, FsError> {
        Err(FsError::WrongKind { path: path.to_owned(), what: "FAT has no symbolic links" })
    }

    fn list(&mut self, path: &str, limit: usize) -> Result<Vec<String>, FsError> {
        let dir = match self.find(path)? {
            None => self.fs.root_dir(),
            Some(entry) if entry.is_dir() => entry.to_dir(),
            Some(_) => return Err(FsError::WrongKind { path: path.to_owned(), what: "not a directory" }),
        };
        self.window.grant(DIRECTORY_BUDGET);
        let names = dir.iter().take(limit).map(|entry| entry.map(|e| e.file_name()));
        names.collect::<io::Result<_>>().map_err(|e| cause(e, path))
    }

    fn read(&mut self, path: &str, size: u64, sink: &mut Sink<'_>) -> Result<(), FsError> {
        let entry = self.find(path)?.filter(DirEntry::is_file);
        let entry = entry.ok_or_else(|| FsError::WrongKind { path: path.to_owned(), what: "not a regular file" })?;
        let mut file = entry.to_file();
        // Each cluster costs a look into the allocation table besides its data.
        self.window.grant(size.saturating_mul(3).saturating_add(DIRECTORY_BUDGET));
        read_in_pieces(size, sink, |_, buf| file.read(buf).map_err(|e| cause(e, path)))
    }
}

fn cause(error: io::Error, path: &str) -> FsError {
    match error.kind() {
        io::ErrorKind::NotFound => FsError::NotFound(path.to_owned()),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            FsError::Damaged(format!("{path}: FAT: {error}"))
        }
        _ => FsError::Io(error),
    }
}
