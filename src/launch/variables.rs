//! A file with the UEFI variables of a guest: made from the firmware's template once, then kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};

use crate::disk;
use crate::vmm::devices::flash::{Contents, ContentsError};
use crate::vmm::firmware::are_variables;
use crate::vmm::machine::hvm::ROM_MAX;

/// What a firmware's variables begin as.
#[derive(Debug, Clone, Copy)]
pub struct Template<'a> {
    /// Its file.
    pub path: &'a Path,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// Why variables cannot be kept in a file.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// The host refused something.
    #[error("--uefi-vars {}: {operation}: {cause}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the host said.
        cause: io::Error,
    },
    /// Something else than a file.
    #[error("--uefi-vars {}: this is no regular file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Another has it.
    #[error("--uefi-vars: {0}")]
    Lock(#[from] disk::Error),
    /// Variables of another firmware, or something else.
    #[error(
        "--uefi-vars {}: its size is {size} bytes, and the variables of this firmware have {expected} ({}); name another \
         file, which is then made", path.display(), template.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What it should be.
        expected: u64,
        /// Where that is from.
        template: PathBuf,
    },
    /// There is nothing to make it from.
    #[error(
        "--uefi-vars {}: there is no such file, and no template for {} to make it from: copy one there, or give firmware \
         that comes with one (named ...CODE... and ...VARS... in one directory)", path.display(), firmware.display()
    )]
    NoTemplate {
        /// The file.
        path: PathBuf,
        /// The firmware.
        firmware: PathBuf,
    },
    /// Something else is in it.
    #[error("--uefi-vars {}: this is no store of UEFI variables", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be used as the contents of a chip.
    #[error("--uefi-vars {}: {cause}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: ContentsError,
    },
}

/// Variables that are kept.
pub struct Kept {
    /// What is in the file; what is written to it goes to the file.
    pub contents: Contents,
    /// Whether the file was made now.
    pub is_new: bool,
}

/// Opens the file, which nobody else may use meanwhile; makes it from the template where it is not there. It is there
/// with all that belongs in it or not at all, whenever this is interrupted.
///
/// # Errors
/// [`VariablesError`], which names the file; it is then as it was.
pub fn keep(path: &Path, firmware: &Path, template: Option<Template<'_>>) -> Result<Kept, VariablesError> {
    let host = |operation| move |cause| VariablesError::Host { path: path.into(), operation, cause };
    let (mut file, is_new) = match open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let no_template = || VariablesError::NoTemplate { path: path.into(), firmware: firmware.into() };
            let template = template.ok_or_else(no_template)?;
            make(path, template.bytes).map_err(host("cannot make it"))?;
            (open(path).map_err(host("cannot open it to read and write"))?, true)
        }
        other => (other.map_err(host("cannot open it to read and write"))?, false),
    };
    if !file.metadata().map_err(host("cannot look at it"))?.is_file() {
        return Err(VariablesError::Kind { path: path.into() });
    }
    disk::claim_for_writing(&file, path)?;
    let mut bytes = Vec::new();
    (&mut file).take(ROM_MAX + 1).read_to_end(&mut bytes).map_err(host("cannot read it"))?;
    match template {
        Some(template) if template.bytes.len() != bytes.len() => {
            return Err(VariablesError::Size {
                path: path.into(),
                size: file.metadata().map_or(bytes.len() as u64, |meta| meta.len()),
                expected: template.bytes.len() as u64,
                template: template.path.into(),
            });
        }
        // A guest may have left anything in its own.
        Some(_) => {}
        None if are_variables(&bytes) => {}
        None => return Err(VariablesError::Foreign { path: path.into() }),
    }
    let contents =
        Contents::new(&bytes, Some(file)).map_err(|cause| VariablesError::Contents { path: path.into(), cause })?;
    Ok(Kept { contents, is_new })
}

/// Does not wait where it is a pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Makes a file with these bytes, durable, where there is none; one that another has made meanwhile stays.
fn make(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match make_by_link(directory, path, bytes) {
        // File systems without files that have no name, or without links; systems without /proc.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EPERM | libc::ENOENT)) => {
            make_by_renaming(path, bytes)?;
        }
        other => other?,
    }
    // It is there now; whether it outlasts the host's end right after is not worth failing for.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Nothing is left of it where the process ends in between.
fn make_by_link(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(directory)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn make_by_renaming(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", uuid::Uuid::from_bytes(disk::random_bytes()?).simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&name)?;
    let made = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
        match renameat_with(CWD, &name, CWD, path, RenameFlags::NOREPLACE) {
            // Where this cannot be asked for, the time between two runs that make the same file is all there is.
            Err(rustix::io::Errno::INVAL) if !path.exists() => fs::rename(&name, path),
            Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    });
    if made.is_err() {
        let _ = fs::remove_file(&name);
    }
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::bus::BusDevice;
    use crate::vmm::devices::flash::Flash;

    fn store(len: usize) -> Vec<u8> {
        let mut bytes = vec![0xff; len];
        bytes[16..32].copy_from_slice(&[
            0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
        ]);
        bytes[40..44].copy_from_slice(b"_FVH");
        bytes
    }

    fn keep_in(path: &Path, bytes: &[u8]) -> Result<Kept, VariablesError> {
        keep(path, Path::new("code.fd"), Some(Template { path: Path::new("template.fd"), bytes }))
    }

    #[test]
    fn the_file_is_made_once_and_then_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vars.fd");
        let template = store(8192);
        let kept = keep_in(&path, &template).unwrap();
        assert!(kept.is_new);
        assert_eq!(fs::read(&path).unwrap(), template);
        let flash = Flash::new(kept.contents, Box::new(|_| Ok(())), std::sync::Arc::new(|_: &str| {}));
        for byte in [0x40, 0x12] {
            flash.write(100, &[byte]);
        }
        // A second run at the same time is refused.
        let error = keep_in(&path, &template).map(drop).unwrap_err().to_string();
        assert!(error.contains("vars.fd") && error.contains("is writing to this file"), "{error}");
        drop(flash);
        let kept = keep_in(&path, &template).unwrap();
        assert!(!kept.is_new);
        assert_eq!(fs::read(&path).unwrap()[100], 0x12);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_the_firmware_s_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vars.fd");
        let says = |template: Option<&[u8]>, words: &[&str]| {
            let template = template.map(|bytes| Template { path: Path::new("template.fd"), bytes });
            let error = keep(&path, Path::new("code.fd"), template).map(drop).unwrap_err().to_string();
            for word in words.iter().chain(&["--uefi-vars", "vars.fd"]) {
                assert!(error.contains(word), "{word}: {error}");
            }
        };
        says(None, &["no template for code.fd"]);
        for bytes in [vec![1; 4096], vec![], store(16384)] {
            fs::write(&path, &bytes).unwrap();
            says(Some(&store(8192)), &[&format!("{} bytes", bytes.len()), "have 8192", "template.fd"]);
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::write(&path, [1; 4096]).unwrap();
        says(None, &["no store of UEFI variables"]);
        fs::write(&path, store(4096 + 1)).unwrap();
        says(None, &["4 KiB"]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        says(Some(&store(8192)), &["cannot open it"]);
    }

    #[test]
    fn both_ways_of_making_it_leave_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for make in [|p: &Path, b: &[u8]| make_by_link(p.parent().unwrap(), p, b), make_by_renaming] {
            let path = dir.path().join("file");
            make(&path, b"one").unwrap();
            make(&path, b"two").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"one");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(make(&dir.path().join("none/file"), b"").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
