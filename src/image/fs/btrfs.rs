//! btrfs, through `lambutter`.
//!
//! What is seen is the subvolume that the system runs from: the default one or, where that is only the top level with
//! the system in a subvolume of it, the one of the names that installers use. A path that is not there is then looked
//! up from the top level, which is how GRUB writes its paths (`/root/boot/vmlinuz-...`).

use lambutter::{Error, Path};

use super::{FileSystem, FsError, Kind, Sink, Stat, read_in_pieces};
use crate::image::window::Window;

/// The subvolume id of the top level.
const TOP_LEVEL: u64 = 5;
/// Where Fedora, Ubuntu and Debian put the system.
const SYSTEM_SUBVOLUMES: [&str; 3] = ["/root", "/@", "/@rootfs"];

pub(super) struct Btrfs {
    /// The views in the order in which a path is looked up.
    views: Vec<lambutter::Btrfs<Window>>,
}

impl Btrfs {
    pub fn open(window: &Window) -> Result<Self, FsError> {
        let len = window.len();
        let mut default = lambutter::Btrfs::open(window.clone(), len).map_err(|e| cause(&e, "the superblock"))?;
        let mut views = Vec::new();
        if default.subvolume() == TOP_LEVEL {
            if default.resolve(Path::from("/etc")).is_err() && default.resolve(Path::from("/usr")).is_err() {
                let system = SYSTEM_SUBVOLUMES
                    .iter()
                    .find_map(|path| lambutter::Btrfs::open_subvol_path(window.clone(), len, Path::from(*path)).ok());
                views.extend(system);
            }
            views.push(default);
        } else {
            views.push(default);
            views.extend(lambutter::Btrfs::open_subvol_id(window.clone(), len, TOP_LEVEL).ok());
        }
        Ok(Self { views })
    }

    /// Runs `operation` on the first view that has the path.
    fn first<T>(
        &mut self,
        path: &str,
        mut operation: impl FnMut(&mut lambutter::Btrfs<Window>) -> Result<T, Error>,
    ) -> Result<T, FsError> {
        for view in &mut self.views {
            match operation(view) {
                Err(Error::NotFound) => {}
                other => return other.map_err(|e| cause(&e, path)),
            }
        }
        Err(FsError::NotFound(path.to_owned()))
    }
}

impl FileSystem for Btrfs {
    fn stat(&mut self, path: &str) -> Result<Stat, FsError> {
        let found = self.first(path, |view| {
            let inode = view.resolve(Path::from(path))?;
            view.metadata(&inode)
        })?;
        let kind = match found {
            m if m.is_file() => Kind::File,
            m if m.is_dir() => Kind::Directory,
            m if m.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Stat { kind, size: found.size })
    }

    fn read_link(&mut self, path: &str) -> Result<String, FsError> {
        let target = self.first(path, |view| view.read_link(Path::from(path)))?;
        String::from_utf8(target).map_err(|_| FsError::NotFound(format!("{path} (its target is not UTF-8)")))
    }

    fn list(&mut self, path: &str, limit: usize) -> Result<Vec<String>, FsError> {
        let entries = self.first(path, |view| view.read_dir(Path::from(path)))?;
        Ok(entries.into_iter().take(limit).filter_map(|e| String::from_utf8(e.name).ok()).collect())
    }

    fn read(&mut self, path: &str, size: u64, sink: &mut Sink<'_>) -> Result<(), FsError> {
        for view in &mut self.views {
            let inode = match view.resolve(Path::from(path)) {
                Err(Error::NotFound) => continue,
                other => other.map_err(|e| cause(&e, path))?,
            };
            return read_in_pieces(size, sink, |offset, buf| {
                view.read_file_at(&inode, offset, buf).map_err(|e| cause(&e, path))
            });
        }
        Err(FsError::NotFound(path.to_owned()))
    }
}

fn cause(error: &Error, path: &str) -> FsError {
    match error {
        Error::NotFound => FsError::NotFound(path.to_owned()),
        Error::UnsupportedFeature(what) | Error::UnsupportedProfile(what) | Error::UnsupportedChecksum(what) => {
            FsError::Unsupported(format!("{path}: btrfs {what}"))
        }
        Error::BadCompression { algorithm } => {
            FsError::Unsupported(format!("{path}: a btrfs extent packed with {algorithm} cannot be unpacked"))
        }
        other => FsError::Damaged(format!("{path}: btrfs: {other}")),
    }
}
