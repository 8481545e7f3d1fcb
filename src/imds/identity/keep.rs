//! The key and its certificate, kept in files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Signer, SignerError, generate_certificate};
use crate::disk::output::{OutputError, write_private};
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
    let text = load_or_make(&key_path, || PrivateKey::generate()?.to_pem())?;
    let key = PrivateKey::from_pem(&text).map_err(|error| kept(&key_path, error.into()))?;
    let path = directory.join(CERTIFICATE);
    let certificate = load_or_make(&path, || generate_certificate(&key))?;
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
fn load_or_make(path: &Path, make: impl FnOnce() -> Result<String, KeyError>) -> Result<String, SignerError> {
    match load(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map_err(failed("read", path)),
    }
    match write_private(path, make()?.as_bytes()) {
        // Whoever was first has made it.
        Ok(()) | Err(OutputError::Exists { .. }) => load(path).map_err(failed("read", path)),
        Err(OutputError::Host { source, .. }) => Err(failed("write", path)(source)),
        Err(error) => Err(failed("write", path)(io::Error::other(error))),
    }
}

fn load(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}
