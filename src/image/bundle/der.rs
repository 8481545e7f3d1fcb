//! What is needed of DER and X.509 (ITU-T X.690, RFC 5280): a certificate to say whose a public key is; and the values that
//! signatures in the form of PKCS #7 are made of (`imds::identity`).

use std::time::{Duration, SystemTime};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// The optional first field of a certificate: its version.
const VERSION: u8 = 0xa0;

/// sha256WithRSAEncryption, with its parameters.
const SHA256_WITH_RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
/// The object identifier of a common name.
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";

/// How long a certificate is good for.
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// One value: its tag, its bytes, and the same with what is before them.
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Takes the first value off `bytes`.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length; a certificate has never more than two.
        0x81..=0x83 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    let whole = bytes.get(..bytes.len() - rest.len())?;
    *bytes = rest;
    Some(Value { tag, content, whole })
}

/// The same, if it has this tag.
fn take_tagged<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<Value<'a>> {
    take(bytes).filter(|value| value.tag == tag)
}

/// Who has made out a certificate, and under which number: what a signature names it by (IssuerAndSerialNumber, RFC 5652).
pub(crate) fn issuer_and_serial(mut certificate: &[u8]) -> Option<Vec<u8>> {
    let mut certificate = take_tagged(&mut certificate, SEQUENCE)?.content;
    let mut fields = take_tagged(&mut certificate, SEQUENCE)?.content;
    if fields.first() == Some(&VERSION) {
        take(&mut fields)?;
    }
    let serial = take_tagged(&mut fields, INTEGER)?.whole;
    take_tagged(&mut fields, SEQUENCE)?;
    let issuer = take_tagged(&mut fields, SEQUENCE)?.whole;
    Some(value(SEQUENCE, &[issuer, serial]))
}

/// The subject's public key (SubjectPublicKeyInfo) in a certificate. The certificate's own signature is not looked at: it is
/// given by whom it is trusted by.
pub(super) fn public_key_of(mut certificate: &[u8]) -> Option<&[u8]> {
    let mut certificate = take_tagged(&mut certificate, SEQUENCE)?.content;
    let mut fields = take_tagged(&mut certificate, SEQUENCE)?.content;
    if fields.first() == Some(&VERSION) {
        take(&mut fields)?;
    }
    take_tagged(&mut fields, INTEGER)?;
    // Algorithm, issuer, validity, subject.
    for _ in 0..4 {
        take_tagged(&mut fields, SEQUENCE)?;
    }
    Some(take_tagged(&mut fields, SEQUENCE)?.whole)
}

/// A value of these parts.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = content.len().to_be_bytes();
    let significant = len.iter().position(|byte| *byte != 0).and_then(|at| len.get(at..)).unwrap_or(&[0]);
    let mut bytes = vec![tag];
    match significant {
        [short @ 0..0x80] => bytes.push(*short),
        long => {
            bytes.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            bytes.extend_from_slice(long);
        }
    }
    bytes.extend_from_slice(&content);
    bytes
}

/// A moment; years up to 2049 are written with two digits.
pub(crate) fn time(at: SystemTime) -> Vec<u8> {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let mut digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.push('Z');
    match digits.strip_prefix("20").filter(|rest| *rest < "5") {
        Some(short) => value(UTC_TIME, &[short.as_bytes()]),
        None => value(GENERALIZED_TIME, &[digits.as_bytes()]),
    }
}

/// What is signed of a certificate of this public key, made out by and for `name`.
pub(super) fn certificate_body(public_key: &[u8], name: &str, serial: [u8; 16], now: SystemTime) -> Vec<u8> {
    let [first, rest @ ..] = serial;
    // A positive number, whose first byte is not left out.
    let serial = [&[first & 0x7f | 0x40][..], &rest].concat();
    let name = value(SEQUENCE, &[COMMON_NAME, &value(UTF8_STRING, &[name.as_bytes()])]);
    let name = value(SEQUENCE, &[&value(SET, &[&name])]);
    let validity = value(SEQUENCE, &[&time(now), &time(now + LIFETIME)]);
    value(SEQUENCE, &[&value(INTEGER, &[&serial]), SHA256_WITH_RSA, &name, &validity, &name, public_key])
}

/// The certificate with this body, signed.
pub(super) fn certificate(body: &[u8], signature: &[u8]) -> Vec<u8> {
    value(SEQUENCE, &[body, SHA256_WITH_RSA, &value(BIT_STRING, &[&[0], signature])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let bytes = value(SEQUENCE, &[&vec![7; len]]);
            let mut rest = &[&bytes[..], b"more"].concat()[..];
            let taken = take(&mut rest).unwrap();
            assert_eq!((taken.tag, taken.content.len(), taken.whole, rest), (SEQUENCE, len, &bytes[..], &b"more"[..]));
        }
    }

    #[test]
    fn what_is_cut_is_nothing() {
        let body = certificate_body(&value(SEQUENCE, &[b"key"]), "name", [0xff; 16], SystemTime::UNIX_EPOCH);
        let whole = certificate(&body, b"signature");
        assert_eq!(public_key_of(&whole), Some(&b"\x30\x03key"[..]));
        let name = b"\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04name";
        let number = [&b"\x02\x10\x7f"[..], &[0xff; 15]].concat();
        assert_eq!(issuer_and_serial(&whole), Some([&b"\x30\x23"[..], name, &number].concat()));
        for len in 0..whole.len() {
            assert_eq!(public_key_of(&whole[..len]), None);
            assert_eq!(issuer_and_serial(&whole[..len]), None);
        }
        assert_eq!(public_key_of(&[0x30, 0x84, 0, 0, 0, 0]), None);
    }

    #[test]
    fn times_are_those_of_the_year() {
        let at = |seconds| time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_700_000_000), b"\x17\x0d231114221320Z");
        assert_eq!(at(2_600_000_000), b"\x18\x0f20520522141320Z".as_slice());
    }
}
