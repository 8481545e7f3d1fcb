//! Public keys that people bring, in the forms that EC2 takes: OpenSSH's, SSH2's (RFC 4716) and PEM.

use base64ct::{Base64, Encoding};
use md5::Md5;
use rsa::RsaPublicKey;
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha256};
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

use super::KeyType;
use crate::cloud::error::CloudError;

/// Most bytes of a key's text.
const TEXT_MAX: usize = 16 << 10;
/// Bits of RSA keys that are taken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=16_384;

/// A public key.
pub struct Public {
    /// What kind.
    pub key_type: KeyType,
    /// As EC2 makes it for imported keys.
    pub fingerprint: String,
    key: PublicKey,
}

impl Public {
    /// The key in a text.
    ///
    /// # Errors
    /// `InvalidKey.Format`.
    pub fn parse(text: &str) -> Result<Self, CloudError> {
        if text.len() > TEXT_MAX {
            return Err(format(&format!("a public key has at most {TEXT_MAX} bytes")));
        }
        let text = text.trim();
        if text.contains("PRIVATE KEY-----") {
            return Err(format(
                "this is a private key: give the public half, which ends in .pub (ssh-keygen -y -f KEY)",
            ));
        }
        let key = match text.lines().next().unwrap_or_default() {
            first if first.starts_with("---- BEGIN SSH2 PUBLIC KEY") => of_ssh2(text),
            first if first.starts_with("-----BEGIN PUBLIC KEY-----") => {
                RsaPublicKey::from_public_key_pem(text).ok().and_then(|key| of_rsa(&key))
            }
            first => PublicKey::from_openssh(first).ok(),
        };
        let key = key.ok_or_else(|| format("it is no public key of OpenSSH, SSH2 (RFC 4716) or PEM"))?;
        let (key_type, fingerprint) = match key.key_data() {
            KeyData::Ed25519(_) => (KeyType::Ed25519, sha256(&key).map_err(|e| format(&e.to_string()))?),
            KeyData::Rsa(data) => {
                let rsa = RsaPublicKey::try_from(data).map_err(|_| format("the RSA key in it is none"))?;
                let bits = rsa.n().bits();
                if !RSA_BITS.contains(&bits) {
                    return Err(format(&format!("it has {bits} bits; RSA keys of 1024 to 16384 bits are taken")));
                }
                let der = rsa.to_public_key_der().map_err(|e| format(&e.to_string()))?;
                (KeyType::Rsa, with_colons(&Md5::digest(der.as_bytes())))
            }
            other => {
                return Err(format(&format!("it is of the kind {}; RSA and Ed25519 are taken", other.algorithm())));
            }
        };
        Ok(Self { key_type, fingerprint, key })
    }

    /// In the form of OpenSSH, in one line; with the key pair's name where it has no comment of its own.
    #[must_use]
    pub fn openssh_for(&self, name: &str) -> String {
        let mut key = self.key.clone();
        if key.comment().is_empty() {
            key.set_comment(name);
        }
        // It was read from one: it can be written as one.
        key.to_openssh().unwrap_or_default()
    }
}

/// `InvalidKey.Format`.
fn format(why: &str) -> CloudError {
    CloudError::Parameter {
        code: "InvalidKey.Format",
        message: format!("Key is not in valid OpenSSH public key format: {why}"),
    }
}

fn of_rsa(key: &RsaPublicKey) -> Option<PublicKey> {
    ssh_key::public::RsaPublicKey::try_from(key).ok().map(PublicKey::from)
}

/// A key in the form of RFC 4716: headers, which may go on over lines that end in a backslash, and the key as base64.
fn of_ssh2(text: &str) -> Option<PublicKey> {
    let mut encoded = String::new();
    let mut in_header = false;
    for line in text.lines().skip(1).map(str::trim) {
        if line.starts_with("---- END") {
            let bytes = Base64::decode_vec(&encoded).ok()?;
            return PublicKey::from_bytes(&bytes).ok();
        }
        if in_header || line.contains(':') {
            in_header = line.ends_with('\\');
        } else {
            encoded.push_str(line);
        }
    }
    None
}

/// Bytes as EC2 writes fingerprints: pairs of digits with colons between them.
pub(super) fn with_colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// SHA-256 of a key, as base64.
pub(super) fn sha256(key: &PublicKey) -> Result<String, ssh_key::Error> {
    Ok(Base64::encode_string(&Sha256::digest(key.to_bytes()?)))
}
