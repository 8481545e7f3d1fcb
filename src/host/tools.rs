//! Programs on this host.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The first file called `name` in the directories of `path`, which is written as `$PATH` is, that this user may
/// execute. Nothing is executed.
#[must_use]
pub fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let candidates = std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    candidates
        .into_iter()
        .find(|file| file.is_file() && accessat(CWD, file.as_path(), Access::EXEC_OK, AtFlags::EACCESS).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_that_can_be_executed_is_found() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let files = dirs.each_ref().map(|dir| dir.path().join("tool"));
        fs::create_dir(&files[0]).unwrap();
        fs::write(&files[1], "").unwrap();
        fs::set_permissions(&files[1], fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&files[2], "").unwrap();
        fs::set_permissions(&files[2], fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths(dirs.iter().map(tempfile::TempDir::path)).unwrap();
        assert_eq!(find("tool", &path).as_deref(), Some(files[2].as_path()));
        assert_eq!(find("other", &path), None);
        assert_eq!(find("tool", OsStr::new("")), None);
    }
}
