//! Who asks: an access key stands for an account, the scope of a signature for a region.

use super::error::ApiError;
use super::sigv4::{Claim, Signed};
use crate::cloud::access_key::Credentials;
use crate::cloud::{Account, CloudError, Scope};

/// Whether signatures are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only known keys, and only what they have signed.
    Verify,
    /// Any key, and none.
    Any,
}

/// Finds a key by its id.
pub type Lookup = Box<dyn Fn(&str) -> Result<Option<Credentials>, CloudError> + Send + Sync>;

/// The rules.
pub struct Auth {
    mode: Mode,
    /// Whose the requests are that nothing says it of, and where they are.
    default: Scope,
    lookup: Lookup,
}

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Account and region.
    pub scope: Scope,
    /// The key's id, where there is one.
    pub access_key: Option<String>,
    /// The service that the request was signed for.
    pub service: Option<String>,
}

impl Auth {
    /// Rules; `default` is for what [`Mode::Any`] lets in without a name.
    #[must_use]
    pub fn new(mode: Mode, default: Scope, lookup: Lookup) -> Self {
        Self { mode, default, lookup }
    }

    /// Whether signatures are verified.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Tells who has sent a request, at `now` (milliseconds since 1970).
    ///
    /// # Errors
    /// `MissingAuthenticationToken`, `AuthFailure`, `RequestExpired`, `IncompleteSignature`, `SignatureDoesNotMatch`; what
    /// the catalogue says.
    pub fn caller(&self, request: &Signed<'_>, now: i64) -> Result<Caller, ApiError> {
        let claim = match request.claim() {
            Err(error) if self.mode == Mode::Verify => return Err(error),
            Err(_) => None,
            Ok(claim) => claim,
        };
        let Some(claim) = claim else {
            return match self.mode {
                Mode::Any => Ok(Caller { scope: self.default.clone(), access_key: None, service: None }),
                Mode::Verify => {
                    Err(ApiError::new("MissingAuthenticationToken", "Request is missing Authentication Token"))
                }
            };
        };
        let known = (self.lookup)(&claim.access_key)?;
        let account = match self.mode {
            Mode::Any => {
                let named = || claim.access_key.parse().ok();
                known.map(|known| known.key.account).or_else(named).unwrap_or_else(|| self.default.account.clone())
            }
            Mode::Verify => verified(request, &claim, known, now)?,
        };
        let scope = Scope { region: claim.region, account };
        Ok(Caller { scope, access_key: Some(claim.access_key), service: Some(claim.service) })
    }
}

fn verified(request: &Signed<'_>, claim: &Claim, known: Option<Credentials>, now: i64) -> Result<Account, ApiError> {
    let unknown = || ApiError::new("AuthFailure", "AWS was not able to validate the provided access credentials");
    let known = known.ok_or_else(unknown)?;
    if known.session_token.as_ref().map(|token| token.as_str()) != claim.session_token.as_deref() {
        return Err(unknown());
    }
    if known.is_expired(now) {
        return Err(ApiError::new("RequestExpired", "The security token included in the request is expired"));
    }
    request.verify(claim, &known.secret, now)?;
    Ok(known.key.account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sigv4::tests::{AT, SECRET, request};

    fn auth(mode: Mode, token: Option<&str>, expires: Option<i64>) -> Auth {
        let key = Credentials::for_tests("AKIAIOSFODNN7EXAMPLE", "210987654321", SECRET, token, expires);
        Auth::new(mode, Scope::default(), Box::new(move |id| Ok((id == "AKIAIOSFODNN7EXAMPLE").then(|| key.clone()))))
    }

    #[test]
    fn a_key_stands_for_an_account_and_the_scope_for_a_region() {
        for mode in [Mode::Any, Mode::Verify] {
            let caller = request(0, |signed| auth(mode, None, None).caller(&signed, AT)).unwrap();
            assert_eq!((caller.scope.account.as_str(), caller.scope.region.as_str()), ("210987654321", "us-west-2"));
        }
    }

    #[test]
    fn who_is_not_known_is_let_in_only_where_anybody_is() {
        let none: fn() -> Lookup = || Box::new(|_| Ok(None));
        let code = |auth: Auth| request(0, |signed| auth.caller(&signed, AT)).map_err(|error| error.code);
        assert_eq!(code(Auth::new(Mode::Verify, Scope::default(), none())), Err("AuthFailure".into()));
        let caller = code(Auth::new(Mode::Any, Scope::default(), none())).unwrap();
        assert_eq!((caller.scope.account, caller.scope.region.as_str()), (Account::default(), "us-west-2"));
        let unsigned = Signed { method: "POST", path: "/", query: "", headers: &[], body: b"" };
        let code = |mode| Auth::new(mode, Scope::default(), none()).caller(&unsigned, AT).map_err(|error| error.code);
        assert_eq!(code(Mode::Verify), Err("MissingAuthenticationToken".into()));
        assert_eq!(code(Mode::Any).unwrap().scope, Scope::default());
    }

    #[test]
    fn temporary_keys_need_their_token_and_end() {
        let code = |token, expires| {
            request(1, |signed| auth(Mode::Verify, token, expires).caller(&signed, AT)).map_err(|error| error.code)
        };
        assert!(code(Some("a/token+of=="), Some(AT + 1)).is_ok());
        assert_eq!(code(Some("a/token+of=="), Some(AT)), Err("RequestExpired".into()));
        assert_eq!(code(Some("another"), None), Err("AuthFailure".into()));
        assert_eq!(code(None, None), Err("AuthFailure".into()));
    }
}
