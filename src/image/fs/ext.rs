//! ext2, ext3 and ext4, through `ext4_view`, which replays the journal in memory.
//!
//! Of files in block maps (ext2, ext3) it reads holes, but not one that covers a whole indirect block (4 MiB in blocks
//! of 4 KiB): that is refused, never read wrongly. Packed kernels and initrds have no such holes.

use ext4_view::{Ext4, Ext4Error};

use super::{FileSystem, FsError, Kind, Sink, Stat, read_in_pieces};
use crate::image::window::Window;

pub(super) struct Ext(Ext4);

impl Ext {
    pub fn open(window: Window) -> Result<Self, FsError> {
        Ext4::load(Box::new(window)).map(Self).map_err(|e| cause(e, "the superblock or journal"))
    }
}

impl FileSystem for Ext {
    fn stat(&mut self, path: &str) -> Result<Stat, FsError> {
        let found = self.0.symlink_metadata(path).map_err(|e| cause(e, path))?;
        let kind = match found.file_type() {
            t if t.is_regular_file() => Kind::File,
            t if t.is_dir() => Kind::Directory,
            t if t.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Stat { kind, size: found.len() })
    }

    fn read_link(&mut self, path: &str) -> Result<String, FsError> {
        let target = self.0.read_link(path).map_err(|e| cause(e, path))?;
        let target = target.to_str().map_err(|_| FsError::NotFound(format!("{path} (its target is not UTF-8)")))?;
        Ok(target.to_owned())
    }

    fn list(&mut self, path: &str, limit: usize) -> Result<Vec<String>, FsError> {
        let mut names = Vec::new();
        for entry in self.0.read_dir(path).map_err(|e| cause(e, path))?.take(limit) {
            let entry = entry.map_err(|e| cause(e, path))?;
            if let Ok(name) = entry.file_name().as_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn read(&mut self, path: &str, size: u64, sink: &mut Sink<'_>) -> Result<(), FsError> {
        let mut file = self.0.open(path).map_err(|e| cause(e, path))?;
        read_in_pieces(size, sink, |_, mut buf| {
            // The reader returns at most one block at a time.
            let mut got = 0;
            while !buf.is_empty() {
                let n = file.read_bytes(buf).map_err(|e| cause(e, path))?;
                if n == 0 {
                    break;
                }
                got += n;
                buf = buf.split_at_mut(n).1;
            }
            Ok(got)
        })
    }
}

fn cause(error: Ext4Error, path: &str) -> FsError {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => FsError::NotFound(path.to_owned()),
        Ext4Error::Incompatible(what) => FsError::Unsupported(format!("ext4: {what}")),
        Ext4Error::Encrypted => FsError::Unsupported(format!("{path} is encrypted (ext4 fscrypt)")),
        // Block 0, the superblock's, is never a file's: it stands for an indirect block that is not there.
        Ext4Error::Corrupt(what) if what.to_string().contains("from block 0 (originally 0)") => {
            FsError::Unsupported(format!("{path} has a hole that covers a whole indirect block (ext2, ext3)"))
        }
        Ext4Error::Io(source) => FsError::Io(std::io::Error::other(source)),
        other => FsError::Damaged(format!("{path}: {other}")),
    }
}
