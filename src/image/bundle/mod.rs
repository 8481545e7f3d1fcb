//! Instance-store bundles: images as EC2 keeps them outside of volumes, in parts, encrypted and signed.
//!
//! A disk becomes the one member of a tar archive; that is compressed by gzip, encrypted by AES-128-CBC and split into
//! parts. A manifest names the parts with their digests, says what the image is, and holds the AES key twice: once for
//! EC2, once for the user, each encrypted by RSA. The user signs it.
//!
//! [`read`] opens a bundle whose disk [`Bundle::unpack`] then writes to a file; [`write()`] makes one. Keys are [`PrivateKey`] and
//! [`PublicKey`]; EC2's own, which only EC2 has, is another pair here ([`PrivateKey::generate`]), so that bundles made
//! for this endpoint open without the user's.

mod archive;
mod cipher;
pub(crate) mod der;
mod error;
mod keys;
mod manifest;
mod parts;
mod reading;
#[cfg(test)]
mod tests;
mod writing;
mod xml;

pub(crate) use archive::header as tar_header;
pub use error::{BundleError, Damage};
pub use keys::{KeyError, PrivateKey, PublicKey, certificate_bytes};
pub use manifest::{Bundler, Description, DeviceMapping, Kind, ManifestError};
pub use reading::{Bundle, Trust, read};
pub use writing::{Bundled, Recipients, write};

/// The largest image, in bytes: the 10 GiB that EC2 allows.
pub const MAX_IMAGE: u64 = 10 << 30;
