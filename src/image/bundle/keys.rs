//! RSA keys, and the text forms that they are kept in.

use std::time::SystemTime;

use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::pkcs1v15::{Signature, SigningKey, VerifyingKey};
use rsa::pkcs8::der::Document;
use rsa::pkcs8::der::pem::LineEnding;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::rand_core::OsRng;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Verifier};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::Sha256;

use super::der;
use crate::disk::random_bytes;

/// Bits of the keys that are made.
const BITS: usize = 2048;
/// Bytes of the modulus of keys that are used: from 1024 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 128..=1024;
/// Characters of a key at most.
const MAX_TEXT: usize = 64 * 1024;

/// Why a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not in the text form.
    #[error("this is no PEM file (there is no -----BEGIN ...-----); give the key or certificate in that form")]
    NotPem,
    /// Another thing than was asked for.
    #[error("this PEM file holds a {found:?}, and a {wanted} is needed")]
    Other {
        /// What is in it.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A passphrase is needed.
    #[error("this private key is encrypted; make a copy without passphrase: openssl rsa -in KEY -out NEW")]
    Encrypted,
    /// The bytes in it make no RSA key.
    #[error("the {0} in this PEM file is damaged, or is no RSA key")]
    Damaged(&'static str),
    /// Too short to be safe, or too long to be used.
    #[error("this RSA key has {bits} bits; possible are 1024 to 8192")]
    Size {
        /// Bits that it has.
        bits: usize,
    },
    /// The host has no random numbers, or the key cannot be used for this.
    #[error("cannot use the RSA key: {0}")]
    Use(String),
}

impl From<rsa::Error> for KeyError {
    fn from(error: rsa::Error) -> Self {
        Self::Use(error.to_string())
    }
}

/// A private RSA key, which signs manifests and opens bundles. It is never shown by `Debug`.
pub struct PrivateKey(RsaPrivateKey);

/// A public RSA key, for which bundles are made, and which checks their signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(RsaPublicKey);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// A new key of 2048 bits.
    ///
    /// # Errors
    /// [`KeyError::Use`].
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(RsaPrivateKey::new(&mut OsRng, BITS)?))
    }

    /// The key in a PEM text: `PRIVATE KEY` (PKCS#8) or `RSA PRIVATE KEY` (PKCS#1), not encrypted.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const WHAT: &str = "private key";
        let block = Block::first(text, "PRIVATE KEY")?;
        if block.is_encrypted() {
            return Err(KeyError::Encrypted);
        }
        let document = block.decode(WHAT)?;
        let key = match &*block.label {
            "PRIVATE KEY" => RsaPrivateKey::from_pkcs8_der(document.as_bytes()).ok(),
            "RSA PRIVATE KEY" => RsaPrivateKey::from_pkcs1_der(document.as_bytes()).ok(),
            _ => return Err(KeyError::Other { found: block.label, wanted: "private RSA key" }),
        };
        let key = key.ok_or(KeyError::Damaged(WHAT))?;
        check_size(&key)?;
        key.validate().map_err(|_| KeyError::Damaged(WHAT))?;
        Ok(Self(key))
    }

    /// The key as a PEM text (PKCS#8). It is a secret: keep it in a file that nobody else can read.
    ///
    /// # Errors
    /// [`KeyError::Use`].
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let text = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|error| KeyError::Use(error.to_string()))?;
        Ok(text.as_str().to_owned())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_public_key())
    }

    /// A certificate of the public half as a PEM text, signed by this key itself, made out to `name`, good for 20 years.
    ///
    /// # Errors
    /// [`KeyError::Use`].
    pub fn certificate(&self, name: &str) -> Result<String, KeyError> {
        let used = |error: &dyn std::fmt::Display| KeyError::Use(error.to_string());
        let key = self.0.to_public_key().to_public_key_der().map_err(|error| used(&error))?;
        let serial = random_bytes().map_err(|error| used(&error))?;
        let body = der::certificate_body(key.as_bytes(), name, serial, SystemTime::now());
        let certificate = der::certificate(&body, &self.sign_sha256(&body)?);
        let document = Document::try_from(certificate).map_err(|error| used(&error))?;
        document.to_pem("CERTIFICATE", LineEnding::LF).map_err(|error| used(&error))
    }

    /// A signature by RSA with SHA-256 (RFC 8017, PKCS #1 v1.5).
    ///
    /// # Errors
    /// [`KeyError::Use`].
    pub fn sign_sha256(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signer = SigningKey::<Sha256>::new(self.0.clone());
        let signature = signer.try_sign_with_rng(&mut OsRng, text).map_err(|error| KeyError::Use(error.to_string()))?;
        Ok(signature.to_vec())
    }

    /// Opens what was encrypted for this key; `None` if it was not.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, sealed).ok()
    }

    /// A signature by RSA with SHA-1, as manifests have it.
    pub(super) fn sign(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signer = SigningKey::<Sha1>::new(self.0.clone());
        let signature = signer.try_sign_with_rng(&mut OsRng, text).map_err(|error| KeyError::Use(error.to_string()))?;
        Ok(signature.to_vec())
    }
}

impl PublicKey {
    /// The key in a PEM text: `CERTIFICATE` (X.509), `PUBLIC KEY` or `RSA PUBLIC KEY`. Nothing but the key is looked at in a
    /// certificate: not whose it is, nor until when.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const WHAT: &str = "public key";
        let block = Block::first(text, "")?;
        let document = block.decode(WHAT)?;
        let bytes = document.as_bytes();
        let key = match &*block.label {
            "CERTIFICATE" => der::public_key_of(bytes).and_then(|key| RsaPublicKey::from_public_key_der(key).ok()),
            "PUBLIC KEY" => RsaPublicKey::from_public_key_der(bytes).ok(),
            "RSA PUBLIC KEY" => RsaPublicKey::from_pkcs1_der(bytes).ok(),
            _ => return Err(KeyError::Other { found: block.label, wanted: "certificate or public RSA key" }),
        };
        let key = key.ok_or(KeyError::Damaged(WHAT))?;
        check_size(&key)?;
        Ok(Self(key))
    }

    /// Encrypts a few bytes so that only the private half opens them.
    pub(super) fn seal(&self, bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.0.encrypt(&mut OsRng, Pkcs1v15Encrypt, bytes)?)
    }

    /// Whether the private half has signed this text.
    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        let key = VerifyingKey::<Sha1>::new(self.0.clone());
        Signature::try_from(signature).is_ok_and(|signature| key.verify(text, &signature).is_ok())
    }
}

/// The bytes of the certificate in a PEM text.
///
/// # Errors
/// See [`KeyError`].
pub fn certificate_bytes(text: &str) -> Result<Vec<u8>, KeyError> {
    Ok(Block::first(text, "CERTIFICATE")?.decode("certificate")?.as_bytes().to_vec())
}

fn check_size(key: &impl PublicKeyParts) -> Result<(), KeyError> {
    if MODULUS.contains(&key.size()) { Ok(()) } else { Err(KeyError::Size { bits: key.size() * 8 }) }
}

/// What is to be found by a label's end.
fn wanted(label_end: &str) -> &'static str {
    if label_end == "CERTIFICATE" { "certificate" } else { "private RSA key" }
}

/// What stands between `BEGIN` and `END` in a PEM text.
struct Block {
    label: String,
    lines: Vec<String>,
}

impl Block {
    /// The first block whose label ends like this.
    fn first(text: &str, label_end: &str) -> Result<Self, KeyError> {
        let mut found: Option<Self> = None;
        let mut other = None;
        for line in text.get(..MAX_TEXT.min(text.len())).unwrap_or_default().lines().map(str::trim) {
            let marker = |kind: &str| line.strip_prefix(kind).and_then(|rest| rest.strip_suffix("-----"));
            if let Some(label) = marker("-----BEGIN ") {
                if label.ends_with(label_end) {
                    found = Some(Self { label: label.to_owned(), lines: Vec::new() });
                } else {
                    other = Some(label.to_owned());
                }
            } else if let Some(block) = &mut found {
                if marker("-----END ") == Some(&block.label) {
                    break;
                }
                block.lines.push(line.to_owned());
            }
        }
        match (found, other) {
            (Some(found), _) => Ok(found),
            (None, Some(found)) => Err(KeyError::Other { found, wanted: wanted(label_end) }),
            (None, None) => Err(KeyError::NotPem),
        }
    }

    fn is_encrypted(&self) -> bool {
        self.label.contains("ENCRYPTED") || self.lines.iter().any(|line| line.contains("ENCRYPTED"))
    }

    /// The bytes, whatever the length of its lines, which some programs make longer than the standard.
    fn decode(&self, what: &'static str) -> Result<Document, KeyError> {
        let characters = self.lines.concat();
        let mut text = format!("-----BEGIN {}-----\n", self.label);
        for (number, character) in characters.chars().enumerate() {
            if number > 0 && number % 64 == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str(&format!("\n-----END {}-----\n", self.label));
        Document::from_pem(&text).map(|(_, document)| document).map_err(|_| KeyError::Damaged(what))
    }
}
