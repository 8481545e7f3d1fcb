//! A disk made into a bundle.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha1::{Digest, Sha1};

use super::archive;
use super::cipher::{Encrypting, Secret};
use super::manifest::{Contents, Manifest, Part};
use super::parts::{Splitter, part_name};
use super::{BundleError, Bundler, Description, MAX_IMAGE, PrivateKey, PublicKey};
use crate::disk::foreign::Progress;
use crate::disk::output::{Output, OutputError, Overwrite};
use crate::disk::{Disk, random_bytes};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// For whom a bundle is made.
#[derive(Clone, Copy, Debug)]
pub struct Recipients<'a> {
    /// The user, who also signs it.
    pub user: &'a PrivateKey,
    /// EC2, as far as it is here.
    pub ec2: &'a PublicKey,
}

/// A bundle that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// Its manifest: `NAME.manifest.xml`.
    pub manifest: PathBuf,
    /// How many parts it has: `NAME.part.00` and so on.
    pub parts: usize,
    /// Bytes of all parts.
    pub bundled_size: u64,
}

/// Makes a bundle of `disk` in the directory `dir`, where its parts and then its manifest appear when they are whole and
/// durable. The disk must not be written to meanwhile.
///
/// # Errors
/// See [`BundleError`]; nothing is left of the bundle then. Files of the same name stay, and are an error.
pub fn write(
    disk: &dyn Disk,
    description: &Description,
    recipients: Recipients<'_>,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Bundled, BundleError> {
    check(description)?;
    let size = disk.size();
    if size > MAX_IMAGE {
        return Err(BundleError::TooLarge { size });
    }
    let name = &description.name;
    // Before the work begins.
    let manifest = dir.join(format!("{name}.manifest.xml"));
    let output = Output::create(&manifest, Overwrite::Refuse)?;
    let first = dir.join(part_name(name, 0));
    if first.symlink_metadata().is_ok() {
        return Err(OutputError::Exists { path: first }.into());
    }
    let mut staging = Staging::new(dir)?;
    let secret = Secret::random()?;
    let splitter = Splitter::new(staging.path.clone(), name.clone());
    let (digest, splitter) = pack(disk, name, Encrypting::new(splitter, &secret), progress, &output)?;
    let (parts, bundled_size) = splitter.finish().map_err(|error| output.failed("write a part of it", error))?;
    staging.place(&parts)?;
    let contents = Contents {
        size,
        bundled_size,
        digest,
        for_ec2: secret.seal(recipients.ec2)?,
        for_user: secret.seal(&recipients.user.public())?,
        parts,
    };
    let bundler =
        Bundler { name: "amiboot".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), release: "1".to_owned() };
    let text = Manifest::write(&bundler, description, &contents, |text| recipients.user.sign(text))?;
    output.file().write_all(text.as_bytes()).map_err(|error| output.failed("write to it", error))?;
    output.finish()?;
    staging.keep();
    Ok(Bundled { manifest, parts: contents.parts.len(), bundled_size })
}

/// Refuses a description that would not be read again.
fn check(description: &Description) -> Result<(), BundleError> {
    let bad = |field, value: &str, limit| Err(BundleError::Description { field, value: value.to_owned(), limit });
    let name = &description.name;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@+() ".contains(c);
    if name.is_empty()
        || name.len() > 128
        || name.starts_with('.')
        || name.trim() != name
        || !name.chars().all(is_plain)
    {
        return bad(
            "name",
            name,
            "possible are up to 128 letters, digits and -_.@+() of ASCII, without a dot in front",
        );
    }
    let user = &description.user;
    if user.len() != 12 || !user.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad("user", user, "an account has 12 digits");
    }
    let mapping = description.block_device_mapping.iter();
    let mut fields = vec![("architecture", &description.architecture)];
    fields.extend(mapping.flat_map(|one| [("virtual name", &one.virtual_name), ("device", &one.device)]));
    fields.extend(description.kernel_id.iter().map(|id| ("kernel", id)));
    fields.extend(description.ramdisk_id.iter().map(|id| ("ramdisk", id)));
    fields.extend(description.product_codes.iter().map(|code| ("product code", code)));
    for (field, value) in fields {
        if value.is_empty() || value.len() > 256 || value.trim() != value || value.chars().any(char::is_control) {
            return bad(field, value, "possible are 1 to 256 characters on one line");
        }
    }
    Ok(())
}

/// Writes the disk as an archive, compressed, to `to`; gives the digest of the archive, and what `to` wrote to.
fn pack(
    disk: &dyn Disk,
    name: &str,
    to: Encrypting<Splitter>,
    progress: &mut dyn FnMut(Progress),
    output: &Output,
) -> Result<([u8; 20], Splitter), BundleError> {
    let failed = |error| BundleError::from(output.failed("write a part of it", error));
    let size = disk.size();
    let mut archive = Hashing { to: GzEncoder::new(to, Compression::new(4)), digest: Sha1::new() };
    archive.write_all(&archive::header(name, size)).map_err(failed)?;
    let mut buf = vec![0; PIECE];
    // The run of data that was found last; none is left if it is empty.
    let (mut at, mut data) = (0, 0..0);
    while at < size {
        progress(Progress { done: at, total: size });
        if at >= data.end {
            data = disk.next_data(at).map_err(BundleError::Disk)?.unwrap_or(size..size);
        }
        let (end, is_data) = if at < data.start { (data.start, false) } else { (data.end, true) };
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE);
        let piece = buf.get_mut(..count).unwrap_or_default();
        if is_data {
            disk.read_exact_at(at, piece).map_err(BundleError::Disk)?;
        } else {
            piece.fill(0);
        }
        archive.write_all(piece).map_err(failed)?;
        at += count as u64;
    }
    progress(Progress { done: size, total: size });
    archive::finish(&mut archive, size).map_err(failed)?;
    let digest = archive.digest.finalize().into();
    let splitter = archive.to.finish().and_then(Encrypting::finish).map_err(failed)?;
    Ok((digest, splitter))
}

/// Makes a digest of what is written.
struct Hashing<W> {
    to: W,
    digest: Sha1,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.digest.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A hidden directory in which the parts are until all of them are whole.
struct Staging {
    path: PathBuf,
    dir: PathBuf,
    /// Parts that have their place already.
    placed: Vec<PathBuf>,
}

impl Staging {
    fn new(dir: &Path) -> Result<Self, BundleError> {
        let host = |source| BundleError::Host { path: dir.into(), operation: "cannot make a directory in it", source };
        let id = uuid::Uuid::from_bytes(random_bytes().map_err(host)?);
        let path = dir.join(format!(".amiboot-{}", id.simple()));
        fs::create_dir(&path).map_err(host)?;
        Ok(Self { path, dir: dir.into(), placed: Vec::new() })
    }

    /// Moves the parts to where they belong.
    fn place(&mut self, parts: &[Part]) -> Result<(), BundleError> {
        for part in parts {
            let (from, path) = (self.path.join(&part.name), self.dir.join(&part.name));
            let moved = match renameat_with(CWD, &from, CWD, &path, RenameFlags::NOREPLACE).map_err(io::Error::from) {
                // Where this cannot be asked for, links can.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => fs::hard_link(&from, &path),
                other => other,
            };
            moved.map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => BundleError::Output(OutputError::Exists { path: path.clone() }),
                _ => BundleError::Host { path: path.clone(), operation: "cannot give it its name", source },
            })?;
            self.placed.push(path);
        }
        let host = |source| BundleError::Host { path: self.dir.clone(), operation: "cannot make it durable", source };
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(host)
    }

    /// The parts stay.
    fn keep(&mut self) {
        self.placed.clear();
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nobody is left to be told.
        for path in &self.placed {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}
