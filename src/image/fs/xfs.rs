//! XFS, through `lamxfs`, which replays a version 5 log in memory.

use lamxfs::{Error, Path, SuperblockReason};

use super::{FileSystem, FsError, Kind, Sink, Stat, read_in_pieces};
use crate::image::window::Window;

pub(super) struct Xfs(lamxfs::Xfs<Window>);

impl Xfs {
    pub fn open(window: Window) -> Result<Self, FsError> {
        let len = window.len();
        lamxfs::Xfs::open(window, len).map(Self).map_err(|e| cause(&e, "the superblock or log"))
    }
}

impl FileSystem for Xfs {
    fn stat(&mut self, path: &str) -> Result<Stat, FsError> {
        let inode = self.0.resolve(Path::new(path.as_bytes())).map_err(|e| cause(&e, path))?;
        let found = self.0.metadata(&inode).map_err(|e| cause(&e, path))?;
        let kind = match found {
            m if m.is_file() => Kind::File,
            m if m.is_dir() => Kind::Directory,
            m if m.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Stat { kind, size: found.size() })
    }

    fn read_link(&mut self, path: &str) -> Result<String, FsError> {
        let target = self.0.read_link(Path::new(path.as_bytes())).map_err(|e| cause(&e, path))?;
        String::from_utf8(target).map_err(|_| FsError::NotFound(format!("{path} (its target is not UTF-8)")))
    }

    fn list(&mut self, path: &str, limit: usize) -> Result<Vec<String>, FsError> {
        let entries = self.0.read_dir(Path::new(path.as_bytes())).map_err(|e| cause(&e, path))?;
        Ok(entries.into_iter().take(limit).filter_map(|e| String::from_utf8(e.name).ok()).collect())
    }

    fn read(&mut self, path: &str, size: u64, sink: &mut Sink<'_>) -> Result<(), FsError> {
        let inode = self.0.resolve(Path::new(path.as_bytes())).map_err(|e| cause(&e, path))?;
        read_in_pieces(size, sink, |offset, buf| self.0.read_file_at(&inode, offset, buf).map_err(|e| cause(&e, path)))
    }
}

fn cause(error: &Error, path: &str) -> FsError {
    match error {
        Error::NotFound { .. } => FsError::NotFound(path.to_owned()),
        Error::UnsupportedFeature(what) => FsError::Unsupported(format!("XFS feature {what}")),
        Error::BadSuperblock(SuperblockReason::DirtyLog) => FsError::Unsupported(
            "the XFS log holds changes that cannot be replayed here; mount the file system once to clean it".to_owned(),
        ),
        Error::BadSuperblock(SuperblockReason::ExternalLog) => {
            FsError::Unsupported("the XFS log is on another device".to_owned())
        }
        Error::BadSuperblock(SuperblockReason::RealtimeDevice) => {
            FsError::Unsupported("XFS with a realtime device".to_owned())
        }
        Error::Io { token, offset } => {
            FsError::Damaged(format!("{path}: XFS metadata points to byte {offset}, which cannot be read ({token})"))
        }
        other => FsError::Damaged(format!("{path}: XFS: {}", other.token())),
    }
}
