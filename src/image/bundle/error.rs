//! What can be wrong with a bundle.

use std::io;
use std::path::PathBuf;

use super::{KeyError, ManifestError};
use crate::disk::output::OutputError;

/// Why a bundle is not read or written. Every message names the file, and the mend where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The manifest cannot be understood.
    #[error("{}: this manifest {source}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// Nobody has signed it.
    #[error("{}: this manifest is not signed; if it is trusted all the same, ask for its signature not to be checked", path.display())]
    Unsigned {
        /// The manifest.
        path: PathBuf,
    },
    /// Something was changed in it, or another has signed it.
    #[error(
        "{}: the signature of this manifest is not that of the key it is checked by: it was changed, or another has signed it; \
         get it again, or give the certificate of who has made the bundle",
        path.display()
    )]
    Signature {
        /// The manifest.
        path: PathBuf,
    },
    /// It was made for other keys.
    #[error(
        "{}: this bundle was encrypted for another key; give the private key of the user who has made it ({user})",
        path.display()
    )]
    WrongKey {
        /// The manifest.
        path: PathBuf,
        /// The account in it.
        user: String,
    },
    /// A part has a name that leads elsewhere.
    #[error("{}: the part {name:?} is not used: {why}", path.display())]
    PartName {
        /// The manifest.
        path: PathBuf,
        /// The name in it.
        name: String,
        /// Why not.
        why: String,
    },
    /// A part is not there.
    #[error("{}: this part of the bundle is not there; copy all parts beside the manifest", path.display())]
    PartMissing {
        /// The part.
        path: PathBuf,
    },
    /// A part has more or fewer bytes than it should.
    #[error(
        "{}: this part of the bundle has {len} bytes and should have {expected}; was a copy or a download broken off?",
        path.display()
    )]
    PartLength {
        /// The part.
        path: PathBuf,
        /// Bytes that it has.
        len: u64,
        /// Bytes that it should have.
        expected: u64,
    },
    /// A part has other bytes than the one that was bundled.
    #[error("{}: this part of the bundle was changed or damaged: its SHA1 digest is not that in the manifest; get it again", path.display())]
    PartDigest {
        /// The part.
        path: PathBuf,
    },
    /// All parts are as they were, and what is in them is not what the manifest says.
    #[error("{}: the image in this bundle {source}", path.display())]
    Content {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: Damage,
    },
    /// Larger than EC2 allows.
    #[error("an image of {size} bytes is larger than a bundle can hold, 10 GiB; export it as a disk of another format")]
    TooLarge {
        /// Bytes of the image.
        size: u64,
    },
    /// A field of the description that cannot be written.
    #[error("{field} {value:?}: {limit}")]
    Description {
        /// The field.
        field: &'static str,
        /// What was asked for.
        value: String,
        /// What it can be.
        limit: &'static str,
    },
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The disk to be bundled cannot be read.
    #[error("cannot read the disk: {0}")]
    Disk(#[source] io::Error),
    /// A file of the bundle cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The image that is unpacked cannot be written.
    #[error("cannot write the image: {0}")]
    Sink(#[source] io::Error),
    /// The host refused something.
    #[error("{}: {operation}: {source}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// What is wrong with the image in a bundle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It cannot be decrypted or unpacked.
    #[error("cannot be unpacked: {0}")]
    Packing(String),
    /// It is no archive of one file.
    #[error("is not the one file of a tar archive: {0}")]
    Archive(String),
    /// Another size.
    #[error("has {len} bytes, and the manifest says {expected}")]
    Size {
        /// Bytes that it has.
        len: u64,
        /// Bytes that it should have.
        expected: u64,
    },
    /// Another digest.
    #[error("has another SHA1 digest than the manifest says")]
    Digest,
}
