//! Files that appear whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Refuses a path that could not be written, before anything is done.
///
/// # Errors
/// Why it could not be.
pub fn check_path(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory; name a file in it"));
    }
    let parent = parent(path);
    if !parent.is_dir() {
        let why = format!("there is no directory {}", parent.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    Ok(())
}

/// Writes a file, in the place of one that was there.
///
/// # Errors
/// What the host says; what was there is as it was then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A pipe, a terminal, /dev/stdout: there is nothing to replace.
    let is_plain = fs::symlink_metadata(path).map_or(true, |meta| meta.is_file());
    if !is_plain {
        return fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(bytes));
    }
    let temporary = parent(path).join(format!(".amiboot-report-{}", std::process::id()));
    let write = || {
        // A leftover of another process that had the same id, or something that was put there to be written to.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // It may not even have come into being.
        let _ = fs::remove_file(&temporary);
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_cannot_be_written_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_path(&dir.path().join("new")).is_ok() && check_path(Path::new("new")).is_ok());
        assert!(check_path(dir.path()).unwrap_err().to_string().contains("directory"));
        assert!(check_path(&dir.path().join("none/new")).unwrap_err().to_string().contains("no directory"));
        assert!(replace(&dir.path().join("none/new"), b"x").is_err());
    }
}
