//! AWS Signature Version 4, from the server's side: what a request claims about who signed it, and whether that is true.
//!
//! Signatures come in the `Authorization` header or, as in presigned addresses, in the query.

use std::borrow::Cow;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::cloud::time;

/// The only algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far a request's clock may be off, in milliseconds: 15 minutes.
pub const MAX_SKEW: i64 = 15 * 60 * 1000;
/// Longest validity of a presigned address, in seconds: 7 days.
const MAX_EXPIRES: i64 = 7 * 24 * 3600;

/// A request, as far as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// `POST`.
    pub method: &'a str,
    /// As it was sent.
    pub path: &'a str,
    /// As it was sent, without the question mark.
    pub query: &'a str,
    /// Names in lower case.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// Who a request says has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The access key's id.
    pub access_key: String,
    /// As in `20260131`.
    pub date: String,
    /// As in `us-east-1`.
    pub region: String,
    /// As in `ec2`.
    pub service: String,
    /// The token of temporary keys.
    pub session_token: Option<String>,
    signed_headers: Vec<String>,
    signature: String,
    /// The time of signing: as it was sent, and in milliseconds.
    at: String,
    at_ms: i64,
    /// Seconds that a presigned address is valid.
    expires: Option<i64>,
}

impl Signed<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// What the request claims; nothing for one that is not signed.
    ///
    /// # Errors
    /// `IncompleteSignature`.
    pub fn claim(&self) -> Result<Option<Claim>, ApiError> {
        if let Some(authorization) = self.header("authorization") {
            return self.claim_of_header(authorization).map(Some);
        }
        let parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(self.query.as_bytes()).collect();
        let find = |name: &str| parameters.iter().find(|(have, _)| have == name).map(|(_, value)| value.to_string());
        let Some(algorithm) = find("X-Amz-Algorithm") else { return Ok(None) };
        if algorithm != ALGORITHM {
            return Err(incomplete("the algorithm is not AWS4-HMAC-SHA256"));
        }
        let need = |name: &str| find(name).ok_or_else(|| incomplete(&format!("{name} is not there")));
        let expires = need("X-Amz-Expires")?.parse().ok().filter(|seconds| (1..=MAX_EXPIRES).contains(seconds));
        let expires = expires.ok_or_else(|| incomplete("X-Amz-Expires is a number from 1 to 604800"))?;
        let (credential, headers) = (need("X-Amz-Credential")?, need("X-Amz-SignedHeaders")?);
        let claim = claim(&credential, &headers, &need("X-Amz-Signature")?, need("X-Amz-Date")?)?;
        Ok(Some(Claim { expires: Some(expires), session_token: find("X-Amz-Security-Token"), ..claim }))
    }

    fn claim_of_header(&self, authorization: &str) -> Result<Claim, ApiError> {
        let rest = authorization.strip_prefix(ALGORITHM).filter(|rest| rest.starts_with(' '));
        let rest = rest.ok_or_else(|| incomplete("the Authorization header is not AWS4-HMAC-SHA256"))?;
        let find = |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let need =
            |name: &str| find(name).ok_or_else(|| incomplete(&format!("{name} is not in the Authorization header")));
        let at = self.header("x-amz-date").ok_or_else(|| incomplete("X-Amz-Date is not there"))?;
        let claim = claim(need("Credential")?, need("SignedHeaders")?, need("Signature")?, at.to_owned())?;
        Ok(Claim { session_token: self.header("x-amz-security-token").map(str::to_owned), ..claim })
    }

    /// Whether the claim is true: signed with `secret`, near to `now` (milliseconds).
    ///
    /// # Errors
    /// `RequestExpired` where the time is off, `SignatureDoesNotMatch`.
    pub fn verify(&self, claim: &Claim, secret: &str, now: i64) -> Result<(), ApiError> {
        let age = now.saturating_sub(claim.at_ms);
        let oldest = claim.expires.map_or(MAX_SKEW, |seconds| seconds.saturating_mul(1000));
        if age > oldest || age < -MAX_SKEW {
            let message =
                format!("Request has expired. Its timestamp is {}; here it is {}", claim.at, time::format(now));
            return Err(ApiError::new("RequestExpired", message));
        }
        // Whose host and time are not signed could be sent by somebody else, elsewhere and later.
        for needed in ["host"].into_iter().chain(claim.expires.is_none().then_some("x-amz-date")) {
            if !claim.signed_headers.iter().any(|name| name == needed) {
                return Err(incomplete(&format!("'{needed}' must be a signed header")));
            }
        }
        let wrong = || {
            let message = "The request signature we calculated does not match the signature you provided. Check your AWS \
                           Secret Access Key and signing method";
            ApiError::new("SignatureDoesNotMatch", message)
        };
        let signature = from_hex(&claim.signature).ok_or_else(wrong)?;
        let scope = format!("{}/{}/{}/aws4_request", claim.date, claim.region, claim.service);
        // Most services sign the path encoded once more; who does not has nothing in it that would differ.
        let canonical = self.canonical(claim);
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{}", claim.at, hex(&Sha256::digest(canonical.as_bytes())));
        let mut key = mac(format!("AWS4{secret}").as_bytes(), claim.date.as_bytes());
        for part in [claim.region.as_str(), claim.service.as_str(), "aws4_request"] {
            key = mac(&key, part.as_bytes());
        }
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return Err(wrong()) };
        mac.update(to_sign.as_bytes());
        mac.verify_slice(&signature).map_err(|_| wrong())
    }

    /// The canonical request.
    fn canonical(&self, claim: &Claim) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.method, encode(self.path, true), self.canonical_query());
        for name in &claim.signed_headers {
            let values: Vec<String> =
                self.headers.iter().filter(|(have, _)| have == name).map(|(_, value)| squeezed(value)).collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let payload = match (self.header("x-amz-content-sha256"), claim.expires) {
            (Some("UNSIGNED-PAYLOAD"), _) => "UNSIGNED-PAYLOAD".to_owned(),
            _ => hex(&Sha256::digest(self.body)),
        };
        text.push_str(&format!("\n{}\n{payload}", claim.signed_headers.join(";")));
        text
    }

    fn canonical_query(&self) -> String {
        let mut parameters: Vec<(String, String)> = form_urlencoded::parse(self.query.as_bytes())
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| (encode(&name, false), encode(&value, false)))
            .collect();
        parameters.sort_unstable();
        parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }
}

fn incomplete(why: &str) -> ApiError {
    ApiError::new("IncompleteSignature", format!("The request signature does not conform to AWS standards: {why}"))
}

fn claim(credential: &str, headers: &str, signature: &str, at: String) -> Result<Claim, ApiError> {
    let mut parts = credential.rsplitn(5, '/');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (Some("aws4_request"), Some(service), Some(region), Some(date), Some(access_key)) =
        (next(), next(), next(), next(), next())
    else {
        return Err(incomplete("the credential is not KEY/DATE/REGION/SERVICE/aws4_request"));
    };
    let at_ms = basic_time(&at).ok_or_else(|| incomplete("X-Amz-Date is not like 20260131T235900Z"))?;
    if !at.starts_with(date) {
        return Err(incomplete("the credential's date is not that of X-Amz-Date"));
    }
    Ok(Claim {
        access_key: access_key.to_owned(),
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        session_token: None,
        signed_headers: headers.split(';').map(str::to_ascii_lowercase).collect(),
        signature: signature.to_owned(),
        at,
        at_ms,
        expires: None,
    })
}

/// Milliseconds of a time as in `20260131T235900Z`.
fn basic_time(text: &str) -> Option<i64> {
    let digits = |from: usize, to: usize| text.get(from..to).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
    if text.len() != 16 || text.get(8..9)? != "T" || text.get(15..)? != "Z" {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(4, 6)?, digits(6, 8)?);
    let (hour, minute, second) = (digits(9, 11)?, digits(11, 13)?, digits(13, 15)?);
    time::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // A key of any length is one.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        },
    )
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3); `/` stays where it parts a path.
fn encode(text: &str, is_path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            b'/' if is_path => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Without spaces around it, and with single ones inside.
fn squeezed(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|char| char.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod vectors;
