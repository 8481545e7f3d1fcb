//! The identity document: what an instance is, signed, so that others can believe it.
//!
//! EC2 signs with keys of its own. Here the key is a local one ([`load_or_create`]); whoever is to believe the documents has its
//! certificate ([`Signer::certificate`]), and checks them as those of EC2:
//!
//! ```text
//! (echo -----BEGIN PKCS7-----; curl -s .../rsa2048; echo; echo -----END PKCS7-----) > signature
//! openssl smime -verify -in signature -inform PEM -content document -certfile certificate -noverify
//! ```

mod keep;
mod pkcs7;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use base64ct::{Base64, Encoding};

pub use keep::load_or_create;

use super::document::{Document, Identity};
use crate::image::bundle::{KeyError, PrivateKey, PublicKey, certificate_bytes, der};

/// Whose the certificate is.
const NAME: &str = "amiboot instance identity";
/// The version of the document's form.
const VERSION: &str = "2017-09-30";
/// Characters of a line of base64: what `openssl base64 -d` takes.
const LINE: usize = 64;

/// Why identity documents cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The key or the certificate is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// They do not belong together.
    #[error("the certificate is not that of the key; remove it, and another is made when it is needed")]
    Mismatch,
    /// A file cannot be used.
    #[error("cannot {operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: std::path::PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// What a file holds is not usable.
    #[error("{path}: {source}")]
    Kept {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: Box<SignerError>,
    },
}

/// Signs identity documents.
#[derive(Debug)]
pub struct Signer {
    key: PrivateKey,
    certificate: String,
    /// What the signatures name the certificate by, in DER.
    issuer: Vec<u8>,
}

/// A certificate of a key, signed by itself, good for 20 years, in PEM.
///
/// # Errors
/// [`KeyError::Use`].
pub fn generate_certificate(key: &PrivateKey) -> Result<String, KeyError> {
    key.certificate(NAME)
}

impl Signer {
    /// With a key and its certificate, in PEM.
    ///
    /// # Errors
    /// [`SignerError::Key`] where the certificate is none, [`SignerError::Mismatch`].
    pub fn new(key: PrivateKey, certificate: String) -> Result<Self, SignerError> {
        if PublicKey::from_pem(&certificate)? != key.public() {
            return Err(SignerError::Mismatch);
        }
        let issuer =
            der::issuer_and_serial(&certificate_bytes(&certificate)?).ok_or(KeyError::Damaged("certificate"))?;
        Ok(Self { key, certificate, issuer })
    }

    /// The certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The identity document of an instance, signed now.
    ///
    /// # Errors
    /// [`KeyError::Use`].
    pub fn sign(&self, document: &Document) -> Result<Identity, KeyError> {
        let text = text(document);
        let signature = self.key.sign_sha256(text.as_bytes())?;
        let pkcs7 = lines(&pkcs7::signed_data(&self.key, &self.issuer, text.as_bytes(), SystemTime::now())?);
        Ok(Identity { signature: lines(&signature), rsa2048: pkcs7.clone(), pkcs7, document: text })
    }
}

/// The document, with EC2's fields in EC2's order, blanks and line ends: it is these bytes that are signed.
fn text(document: &Document) -> String {
    let Document { placement, interface, .. } = document;
    let product_codes = match &*document.product_codes {
        [] => "null".to_owned(),
        codes => format!("[ {} ]", codes.iter().map(|code| quoted(code)).collect::<Vec<_>>().join(", ")),
    };
    let or_null = |text: &Option<String>| text.as_deref().map_or_else(|| "null".to_owned(), quoted);
    let fields = [
        ("accountId", quoted(&document.account_id)),
        ("architecture", quoted(&document.architecture)),
        ("availabilityZone", quoted(&placement.availability_zone)),
        ("billingProducts", "null".to_owned()),
        ("devpayProductCodes", "null".to_owned()),
        ("marketplaceProductCodes", product_codes),
        ("imageId", quoted(&document.image_id)),
        ("instanceId", quoted(&document.instance_id)),
        ("instanceType", quoted(&document.instance_type)),
        ("kernelId", or_null(&document.kernel_id)),
        ("pendingTime", quoted(&document.launched)),
        ("privateIp", quoted(&interface.private_ipv4.to_string())),
        ("ramdiskId", or_null(&document.ramdisk_id)),
        ("region", quoted(&placement.region)),
        ("version", quoted(VERSION)),
    ];
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("  \"{name}\" : {value}")).collect();
    format!("{{\n{}\n}}", fields.join(",\n"))
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Base64 in lines, without a line end after the last.
fn lines(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, character) in Base64::encode_string(bytes).chars().enumerate() {
        if number > 0 && number % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text
}
