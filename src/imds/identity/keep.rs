//! The key and its certificate, kept in files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Signer, SignerError, generate_certificate};
use crate::image::bundle::{KeyError, PrivateKey};

/// The key's file.
const KEY: &str = "identity-key.pem";
/// The certificate's file.
const CERTIFICATE: &str = "identity-certificate.pem";
/// The longest file, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// The key and certificate in a directory that is there already; they are made where they are not yet. Any number of processes
/// may do that at once and have the same; each file is whole or not there, and nobody but its owner can read it.
///
/// # Errors
/// What the host says of the files; what is in them that is not usable.
pub fn load_or_create(directory: &Path) -> Result<Signer, SignerError> {
    let key_path = directory.join(KEY);
    let text = load_or_make(directory, &key_path, || PrivateKey::generate()?.to_pem())?;
    let key = PrivateKey::from_pem(&text).map_err(|error| kept(&key_path, error.into()))?;
    let path = directory.join(CERTIFICATE);
    let certificate = load_or_make(directory, &path, || generate_certificate(&key))?;
    Signer::new(key, certificate).map_err(|error| kept(&path, error))
}

fn kept(path: &Path, source: SignerError) -> SignerError {
    SignerError::Kept { path: path.to_owned(), source: Box::new(source) }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SignerError {
    let path = path.to_owned();
    move |source| SignerError::File { operation, path, source }
}

/// What is in a file; if there is none, makes it first.
fn load_or_make(
    directory: &Path,
    path: &Path,
    make: impl FnOnce() -> Result<String, KeyError>,
) -> Result<String, SignerError> {
    match load(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map_err(failed("read", path)),
    }
    let text = make()?;
    write_once(directory, path, &text).map_err(failed("write", path))?;
    // Whoever was first has made it.
    load(path).map_err(failed("read", path))
}

fn load(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes a file, whole and durable, unless there is one.
fn write_once(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(rustix::fs::CWD, from, rustix::fs::CWD, path, rustix::fs::AtFlags::SYMLINK_FOLLOW) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => File::open(directory)?.sync_all(),
        Err(error) => Err(error.into()),
    }
}
