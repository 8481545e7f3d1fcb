//! The host's page cache made cold: how far that goes depends on who asks.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// What empties the whole page cache (Linux, `Documentation/admin-guide/sysctl/vm.rst`, `drop_caches`).
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// Pages, directory entries and inodes.
const EVERYTHING: &str = "3";

/// How the page cache is made cold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColdBy {
    /// The files that a run reads are advised out of it. Anybody may do that.
    Files,
    /// All of it is dropped, which the rest of the host feels too. Only root may do that.
    WholeHost,
}

impl ColdBy {
    /// What is done, for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Files => {
                "new kernel cache; image and firmware files advised out of the page cache (posix_fadvise DONTNEED)"
            }
            Self::WholeHost => "new kernel cache; the host's whole page cache dropped (/proc/sys/vm/drop_caches)",
        }
    }

    /// Whether it can be done here.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self) -> io::Result<()> {
        match self {
            Self::Files => Ok(()),
            Self::WholeHost => File::options().write(true).open(DROP_CACHES).map(drop),
        }
    }

    /// Does it. A file that is not there is passed over: a run will say so better.
    ///
    /// # Errors
    /// What the host says.
    pub fn drop_pages<'a>(self, files: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
        for path in files {
            let Ok(file) = File::open(path) else { continue };
            // Pages that are not written back yet stay otherwise.
            let _ = file.sync_data();
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        if self == Self::WholeHost {
            fs::write(DROP_CACHES, EVERYTHING)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        ColdBy::Files.check().unwrap();
        ColdBy::Files.drop_pages([path.as_path(), Path::new("/nonexistent")]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    }
}
