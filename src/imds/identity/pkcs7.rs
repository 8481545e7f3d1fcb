//! A signature with what it signs, as PKCS #7 and its successor have it (SignedData, RFC 5652, section 5).

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::image::bundle::der::{self, OCTET_STRING, SEQUENCE, SET, value};
use crate::image::bundle::{KeyError, PrivateKey};

/// `[0]`, with fields of its own: content that is there.
const CONTENT: u8 = 0xa0;
/// `[0]` in place of SET: attributes that are signed.
const ATTRIBUTES: u8 = 0xa0;

const VERSION_1: &[u8] = b"\x02\x01\x01";
// Object identifiers, and algorithms with their parameters.
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const CONTENT_TYPE: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
const MESSAGE_DIGEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
const SIGNING_TIME: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05";
const SHA256: &[u8] = b"\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00";
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// Content with its signature, in DER. The certificate is not in it: who checks has it from elsewhere, or trusts nobody.
pub(super) fn signed_data(
    key: &PrivateKey,
    issuer: &[u8],
    content: &[u8],
    now: SystemTime,
) -> Result<Vec<u8>, KeyError> {
    let attribute = |kind: &[u8], of: &[u8]| value(SEQUENCE, &[kind, &value(SET, &[of])]);
    // A SET's parts are in the order of their bytes (X.690, section 11.6), which is that of their lengths here.
    let attributes = [
        attribute(CONTENT_TYPE, DATA),
        attribute(SIGNING_TIME, &der::time(now)),
        attribute(MESSAGE_DIGEST, &value(OCTET_STRING, &[&Sha256::digest(content)])),
    ]
    .concat();
    // They are signed as the SET that they are, and written with another tag (RFC 5652, section 5.4).
    let signature = key.sign_sha256(&value(SET, &[&attributes]))?;
    let signer = value(
        SEQUENCE,
        &[VERSION_1, issuer, SHA256, &value(ATTRIBUTES, &[&attributes]), RSA, &value(OCTET_STRING, &[&signature])],
    );
    let content = value(SEQUENCE, &[DATA, &value(CONTENT, &[&value(OCTET_STRING, &[content])])]);
    let signed = value(SEQUENCE, &[VERSION_1, &value(SET, &[SHA256]), &content, &value(SET, &[&signer])]);
    Ok(value(SEQUENCE, &[SIGNED_DATA, &value(CONTENT, &[&signed])]))
}
