use proptest::prelude::*;

use super::vectors::{VECTORS, Vector};
use super::*;

pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2026-01-31T23:59:00Z.
pub const AT: i64 = 1_769_903_940_000;

/// A request that was signed with [`SECRET`] at [`AT`].
pub fn request<T>(number: usize, with: impl FnOnce(Signed<'_>) -> T) -> T {
    let headers = owned(&VECTORS[number]);
    with(signed(&VECTORS[number], &headers))
}

fn owned(vector: &Vector) -> Vec<(String, String)> {
    vector.3.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn signed<'a>(vector: &'a Vector, headers: &'a [(String, String)]) -> Signed<'a> {
    Signed { method: vector.0, path: vector.1, query: vector.2, headers, body: vector.4.as_bytes() }
}

#[test]
fn what_botocore_signs_is_true() {
    for vector in &VECTORS {
        let headers = owned(vector);
        let request = signed(vector, &headers);
        let claim = request.claim().unwrap().unwrap();
        assert_eq!((claim.access_key.as_str(), claim.region.as_str()), ("AKIAIOSFODNN7EXAMPLE", "us-west-2"));
        request.verify(&claim, SECRET, AT).unwrap();
        request.verify(&claim, SECRET, AT + 14 * 60 * 1000).unwrap_or_else(|_| assert!(claim.expires.is_some()));
    }
    let headers = owned(&VECTORS[1]);
    assert_eq!(signed(&VECTORS[1], &headers).claim().unwrap().unwrap().session_token.as_deref(), Some("a/token+of=="));
}

#[test]
fn anything_else_is_not() {
    for vector in &VECTORS {
        let headers = owned(vector);
        let request = signed(vector, &headers);
        let claim = request.claim().unwrap().unwrap();
        let code = |request: Signed<'_>, secret: &str, now: i64| request.verify(&claim, secret, now).unwrap_err().code;
        assert_eq!(code(request, "wrong", AT), "SignatureDoesNotMatch");
        assert_eq!(code(Signed { body: b"Action=TerminateInstances", ..request }, SECRET, AT), "SignatureDoesNotMatch");
        assert_eq!(code(Signed { method: "PUT", ..request }, SECRET, AT), "SignatureDoesNotMatch");
        assert_eq!(code(Signed { path: "/other", ..request }, SECRET, AT), "SignatureDoesNotMatch");
        assert_eq!(code(Signed { query: "x=y", ..request }, SECRET, AT), "SignatureDoesNotMatch");
        assert_eq!(code(request, SECRET, AT + MAX_SKEW + 1), "RequestExpired");
        assert_eq!(code(request, SECRET, AT - MAX_SKEW - 1), "RequestExpired");
        let mut other = headers.clone();
        other.iter_mut().find(|(name, _)| name == "host").unwrap().1 = "elsewhere".into();
        assert_eq!(code(Signed { headers: &other, ..request }, SECRET, AT), "SignatureDoesNotMatch");
    }
}

#[test]
fn claims_that_are_none_are_refused() {
    let vector = &VECTORS[0];
    type Headers = Vec<(String, String)>;
    let refused = |change: &dyn Fn(&mut Headers)| {
        let mut headers = owned(vector);
        change(&mut headers);
        signed(vector, &headers).claim().unwrap_err().code
    };
    let set = |name: &'static str, value: &'static str| {
        move |headers: &mut Vec<(String, String)>| {
            headers.retain(|(have, _)| have != name);
            headers.push((name.into(), value.into()));
        }
    };
    assert_eq!(refused(&set("authorization", "Basic YTpi")), "IncompleteSignature");
    assert_eq!(refused(&set("authorization", "AWS4-HMAC-SHA256")), "IncompleteSignature");
    assert_eq!(
        refused(&set("authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d, Signature=x")),
        "IncompleteSignature"
    );
    for date in ["", "2026-01-31", "20260131T235900", "20261331T235900Z", "２０260131T235900Z", "20260201T000000Z"] {
        assert_eq!(refused(&set("x-amz-date", date)), "IncompleteSignature", "{date}");
    }
    let unsigned = Signed { method: "GET", path: "/", query: "Action=DescribeTags", headers: &[], body: b"" };
    assert_eq!(unsigned.claim(), Ok(None));
}

#[test]
fn host_and_time_must_be_signed() {
    let headers = owned(&VECTORS[0]);
    let request = signed(&VECTORS[0], &headers);
    let claim = request.claim().unwrap().unwrap();
    let without = |name: &str| {
        let signed_headers = claim.signed_headers.iter().filter(|have| *have != name).cloned().collect();
        Claim { signed_headers, ..claim.clone() }
    };
    assert_eq!(request.verify(&without("host"), SECRET, AT).unwrap_err().code, "IncompleteSignature");
    assert_eq!(request.verify(&without("x-amz-date"), SECRET, AT).unwrap_err().code, "IncompleteSignature");
}

proptest! {
    #[test]
    fn any_header_is_read_or_refused(authorization in "(AWS4-HMAC-SHA256 )?[ -~]{0,120}", date in "[0-9TZ]{0,20}") {
        let headers = [("authorization".to_owned(), authorization), ("x-amz-date".to_owned(), date)];
        let request = Signed { method: "POST", path: "/", query: "", headers: &headers, body: b"" };
        if let Ok(Some(claim)) = request.claim() {
            prop_assert!(request.verify(&claim, SECRET, AT).is_err());
        }
    }
}
