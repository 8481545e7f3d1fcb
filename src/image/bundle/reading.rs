//! A bundle opened, and the disk in it unpacked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use sha1::{Digest, Sha1};

use super::archive::{self, Failure};
use super::cipher::{Decrypting, Secret};
use super::manifest::{self, Manifest};
use super::parts::{self, Parts};
use super::{BundleError, Bundler, Damage, Description, ManifestError, PrivateKey, PublicKey};
use crate::disk::foreign::{Progress, directory_of, is_zero};

/// Bytes of an archive besides those of the image at most: headers, and zeroes at the end.
const MAX_AROUND: u64 = 64 << 20;
/// Bytes that are a hole in the file where they are zero.
const HOLE: usize = 4096;

/// Whose signature a manifest must have.
#[derive(Clone, Debug)]
pub enum Trust {
    /// That of the private half of this key: the user's, out of a certificate, or [`PrivateKey::public`] where the same key
    /// opens the bundle.
    SignedBy(PublicKey),
    /// No signature is looked at. Whoever can change the bundle, and knows the public key that it is opened with, can then
    /// put any image into it; the digests only find damage.
    Unchecked,
}

/// A bundle that was opened.
pub struct Bundle {
    path: PathBuf,
    dir: PathBuf,
    manifest: Manifest,
    secret: Secret,
    lens: Vec<u64>,
}

/// Opens the bundle whose manifest is at `path`, with the parts beside it. `key` is the user's or EC2's.
///
/// # Errors
/// See [`BundleError`]: the manifest, its signature, the key, then the presence and lengths of the parts are checked, in this
/// order.
pub fn read(path: &Path, key: &PrivateKey, trust: &Trust) -> Result<Bundle, BundleError> {
    let flaw = |source| BundleError::Manifest { path: path.into(), source };
    let text = read_text(path)?;
    let manifest = Manifest::parse(&text.map_err(flaw)?).map_err(flaw)?;
    if let Trust::SignedBy(signer) = trust {
        let Some(signature) = &manifest.signature else { return Err(BundleError::Unsigned { path: path.into() }) };
        if !manifest.signed.iter().any(|text| signer.has_signed(text, signature)) {
            return Err(BundleError::Signature { path: path.into() });
        }
    }
    let sealed = [&manifest.contents.for_ec2, &manifest.contents.for_user];
    let secret = sealed.into_iter().find_map(|sealed| Secret::open(sealed, key));
    let wrong_key = || BundleError::WrongKey { path: path.into(), user: manifest.description.user.clone() };
    let secret = secret.ok_or_else(wrong_key)?;
    let host = |source| BundleError::Host { path: path.into(), operation: "cannot find its directory", source };
    let dir = directory_of(path).map_err(host)?;
    let lens = parts::check(path, &dir, &manifest.contents)?;
    Ok(Bundle { path: path.into(), dir, manifest, secret, lens })
}

/// The text of a manifest.
fn read_text(path: &Path) -> Result<Result<String, ManifestError>, BundleError> {
    let host = |operation| move |source| BundleError::Host { path: path.into(), operation, source };
    let meta = std::fs::metadata(path).map_err(host("cannot look at it"))?;
    if !meta.is_file() {
        return Err(host("cannot read it")(io::Error::other("it is no regular file")));
    }
    if meta.len() > manifest::MAX_LEN {
        return Ok(Err(ManifestError::TooLong(meta.len())));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(host("cannot open it"))?;
    file.take(manifest::MAX_LEN).read_to_end(&mut bytes).map_err(host("cannot read it"))?;
    Ok(String::from_utf8(bytes).map_err(|_| ManifestError::NotText))
}

impl Bundle {
    /// What the manifest says of the image.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.manifest.description
    }

    /// The program that made the bundle, as the manifest says.
    #[must_use]
    pub fn bundler(&self) -> &Bundler {
        &self.manifest.bundler
    }

    /// Bytes of the image, at most 10 GiB.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.manifest.contents.size
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bundled_size(&self) -> u64 {
        self.manifest.contents.bundled_size
    }

    /// Writes the image to `file`, which must be a new one: what is zero becomes a hole. Gives the bytes that were
    /// written. The file is not made durable.
    ///
    /// # Errors
    /// See [`BundleError`]. What was written then is not to be used: that it is the right image is known at the end only.
    pub fn unpack(&self, file: &File, progress: &mut dyn FnMut(Progress)) -> Result<u64, BundleError> {
        let contents = &self.manifest.contents;
        file.set_len(contents.size).map_err(BundleError::Sink)?;
        let parts = Parts::new(&self.path, &self.dir, contents, &self.lens, progress);
        let packed = BufReader::new(Decrypting::new(parts, &self.secret));
        let mut archive =
            Hashing { from: GzDecoder::new(packed), digest: Sha1::new(), left: contents.size + MAX_AROUND };
        let mut written = 0;
        let read = archive::read(&mut archive, contents.size, |at, bytes| put(file, at, bytes, &mut written));
        read.map_err(|failure| self.failed(failure))?;
        // Zeroes up to the end of the archive, over which the digest is too.
        io::copy(&mut archive, &mut io::sink()).map_err(|error| self.failed(error.into()))?;
        let mut packed = archive.from.into_inner();
        if !packed.fill_buf().map_err(|error| self.failed(error.into()))?.is_empty() {
            return Err(self.damaged(Damage::Packing("there is something after its end".to_owned())));
        }
        if archive.digest.finalize()[..] != contents.digest {
            return Err(self.damaged(Damage::Digest));
        }
        Ok(written)
    }

    fn damaged(&self, source: Damage) -> BundleError {
        BundleError::Content { path: self.path.clone(), source }
    }

    fn failed(&self, failure: Failure) -> BundleError {
        match failure {
            Failure::Damage(damage) => self.damaged(damage),
            Failure::Sink(error) => BundleError::Sink(error),
            // What was wrong with a part is inside.
            Failure::Read(error) => match error.downcast::<BundleError>() {
                Ok(error) => error,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.damaged(Damage::Packing("it ends too early".to_owned()))
                }
                Err(error) => self.damaged(Damage::Packing(error.to_string())),
            },
        }
    }
}

/// Writes what is not zero.
fn put(file: &File, at: u64, bytes: &[u8], written: &mut u64) -> io::Result<()> {
    for (piece, at) in bytes.chunks(HOLE).zip((at..).step_by(HOLE)).filter(|(piece, _)| !is_zero(piece)) {
        file.write_all_at(piece, at)?;
        *written += piece.len() as u64;
    }
    Ok(())
}

/// Makes a digest of what is read, which is bounded.
struct Hashing<R> {
    from: R,
    digest: Sha1,
    left: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        self.digest.update(buf.get(..count).unwrap_or_default());
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it goes on far behind its end"))?;
        Ok(count)
    }
}
