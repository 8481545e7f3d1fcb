//! Which files of this host may be imported.
//!
//! A file is read as whoever started the server, and who reaches the API is another: without these rules a URL as in
//! `file:///home/somebody/.ssh/id_ed25519` would make a snapshot of it. So files are read only below directories that the
//! server's owner names.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::error::ApiError;
use crate::cloud::home::Home;
use crate::cloud::local_path;

/// Why a directory cannot be one that files are imported from.
#[derive(Debug, Error)]
pub enum ImportDirError {
    /// The host does not find it.
    #[error("--import-from {}: {cause}", path.display())]
    Host {
        /// The directory.
        path: PathBuf,
        /// What the host says.
        cause: io::Error,
    },
    /// It is something else.
    #[error("--import-from {}: this is no directory", path.display())]
    NoDirectory {
        /// What it is to be.
        path: PathBuf,
    },
}

/// A directory, as its owner wrote it and as it is.
#[derive(Debug)]
struct Dir {
    named: PathBuf,
    real: PathBuf,
}

/// The directories that disk files may be imported from.
#[derive(Debug, Default)]
pub struct ImportDirs {
    dirs: Vec<Dir>,
    /// The directory of the catalogue: nobody imports other accounts' disks from it, only what is in buckets.
    home: Option<PathBuf>,
}

impl ImportDirs {
    /// Those named; relative ones are below the working directory.
    ///
    /// # Errors
    /// Where one is not there, or is no directory.
    pub fn new(named: &[PathBuf], home: &Home) -> Result<Self, ImportDirError> {
        let real = |path: &Path| {
            let host = |cause| ImportDirError::Host { path: path.to_owned(), cause };
            let real = path.canonicalize().map_err(host)?;
            match real.metadata().map_err(host)?.is_dir() {
                true => Ok(real),
                false => Err(ImportDirError::NoDirectory { path: path.to_owned() }),
            }
        };
        let dir = |path: &PathBuf| {
            let host = |cause| ImportDirError::Host { path: path.clone(), cause };
            Ok(Dir { named: std::path::absolute(path).map_err(host)?, real: real(path)? })
        };
        Ok(Self { dirs: named.iter().map(dir).collect::<Result<_, _>>()?, home: Some(real(home.root())?) })
    }

    /// The file that a URL means, with nothing left of the links that lead to it.
    ///
    /// Files outside are refused before they are looked for, so that nobody learns which there are.
    ///
    /// # Errors
    /// `UnsupportedOperation` for other URLs than of files, and where no files are imported; `InvalidParameterValue` for a
    /// file that is not below one of the directories, is not there, or is no regular file.
    pub fn file(&self, url: &str) -> Result<PathBuf, ApiError> {
        if ["s3://", "http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(no_buckets());
        }
        let path = local_path(url)?;
        if self.dirs.is_empty() {
            let mend = "start amiboot serve with --import-from DIRECTORY, and give a URL of a file in it";
            return Err(ApiError::unsupported(format!("Files of this host are not imported: {mend}")));
        }
        let refuse = || {
            let why = "it is no file below a directory that amiboot serve may --import-from";
            ApiError::value(format!("The URL {url} cannot be imported: {why}"))
        };
        let is_below = |dir: &Dir| path.starts_with(&dir.named) || path.starts_with(&dir.real);
        let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
        if climbs || !self.dirs.iter().any(is_below) {
            return Err(refuse());
        }
        let real = path.canonicalize().map_err(|_| refuse())?;
        let is_file = real.metadata().is_ok_and(|meta| meta.is_file());
        if !is_file || !self.dirs.iter().any(|dir| real.starts_with(&dir.real)) || self.is_kept(&real) {
            return Err(refuse());
        }
        Ok(real)
    }

    /// Whether a file is one of the catalogue's own.
    fn is_kept(&self, real: &Path) -> bool {
        let Some(home) = &self.home else { return false };
        real.starts_with(home) && !real.starts_with(home.join(Home::BUCKETS))
    }
}

/// Why an object of a bucket is not imported.
#[must_use]
pub fn no_buckets() -> ApiError {
    ApiError::unsupported(
        "Objects of S3 are not imported: give a Url of a file on the server's host, as in file:///home/me/images/disk.vmdk",
    )
}

/// The URL of a file (RFC 8089, appendix B), as [`local_path`] reads it.
#[must_use]
pub fn file_url(path: &str) -> String {
    use std::fmt::Write;
    let mut url = String::from("file://");
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests;
