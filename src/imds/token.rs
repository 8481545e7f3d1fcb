//! Session tokens (version 2 of the service).
//!
//! A token says itself until when it is good, and a code over that shows that it was made here: nothing is kept of it, so any
//! number may be asked for. The key of that code is made with the [`Tokens`] and never leaves them: a token of another
//! instance, or of this one before its process was started anew, is worth nothing.
//!
//! ```text
//! 0   4 bytes   1, 0, 0, 0
//! 4   8 bytes   when it ends, in milliseconds of the service's clock
//! 12  4 bytes   its number, so that no two are equal
//! 16  24 bytes  the first bytes of HMAC-SHA256 over what is before them
//! ```

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64ct::{Base64Url, Encoding};
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of the key: one block of SHA-256.
const KEY: usize = 64;
const MARK: [u8; 4] = [1, 0, 0, 0];
/// Bytes that the code is over.
const BODY: usize = 16;
/// Bytes of the code.
const CODE: usize = 24;
const WHOLE: usize = BODY + CODE;
/// Seconds that a token is good for at most: six hours.
const LIFE_MAX: u32 = 21_600;

/// How long a token is to be good for: 1 to 21600 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life(u32);

impl Life {
    /// Reads the field of a request: decimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text.trim_ascii()).ok()?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = text.parse().ok().filter(|_| digits)?;
        (1..=LIFE_MAX).contains(&seconds).then_some(Self(seconds))
    }

    /// The same in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

/// Makes tokens and knows them again.
pub(super) struct Tokens {
    code: Hmac<Sha256>,
    made: AtomicU32,
}

impl Tokens {
    /// With a key of its own.
    ///
    /// # Errors
    /// Where the host has no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; KEY];
        // Up to 256 bytes are never given short (getrandom(2)).
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self::with_key(&key))
    }

    fn with_key(key: &[u8; KEY]) -> Self {
        Self { code: <Hmac<Sha256> as KeyInit>::new(key.into()), made: AtomicU32::new(0) }
    }

    /// A token that is good from `now` on.
    pub fn make(&self, now: Duration, life: Life) -> String {
        let end = now.saturating_add(Duration::from_secs(life.0.into()));
        let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let mut token = Vec::with_capacity(WHOLE);
        token.extend_from_slice(&MARK);
        token.extend_from_slice(&end.to_be_bytes());
        token.extend_from_slice(&number.to_be_bytes());
        let code = self.code.clone().chain_update(&token).finalize().into_bytes();
        token.extend(code.iter().take(CODE));
        Base64Url::encode_string(&token)
    }

    /// How long a token is still good for; `None` if it was not made here, or is good no more.
    pub fn left(&self, now: Duration, token: &[u8]) -> Option<Duration> {
        let mut buffer = [0; WHOLE + 2];
        let token = Base64Url::decode(token.trim_ascii(), &mut buffer).ok().filter(|token| token.len() == WHOLE)?;
        let (body, code) = token.split_first_chunk::<BODY>()?;
        // Takes the same time wherever the two differ.
        self.code.clone().chain_update(body).verify_truncated_left(code).ok()?;
        let end = body.get(MARK.len()..)?.first_chunk().map(|end| u64::from_be_bytes(*end))?;
        Duration::from_millis(end).checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn life(seconds: u32) -> Life {
        Life::parse(seconds.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn lives_are_one_second_to_six_hours() {
        for (text, seconds) in [
            ("1", Some(1)),
            ("60", Some(60)),
            (" 21600 ", Some(21_600)),
            ("007", Some(7)),
            ("0", None),
            ("21601", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            ("1.5", None),
            ("6h", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(Life::parse(text.as_bytes()).map(Life::seconds), seconds, "{text:?}");
        }
        assert_eq!(Life::parse(b"\xff"), None);
    }

    #[test]
    fn a_token_is_good_until_its_end() {
        let tokens = Tokens::new().unwrap();
        let token = tokens.make(NOW, life(60));
        assert_eq!(token.len(), 56);
        let left = |seconds| tokens.left(Duration::from_secs(seconds), token.as_bytes());
        assert_eq!(left(1000), Some(Duration::from_secs(60)));
        assert_eq!(left(1059), Some(Duration::from_secs(1)));
        assert_eq!(left(1060), None);
        assert_eq!(left(9999), None);
    }

    #[test]
    fn a_token_is_good_where_it_was_made_only() {
        let (here, there) = (Tokens::new().unwrap(), Tokens::new().unwrap());
        let token = here.make(NOW, life(60));
        assert!(here.left(NOW, token.as_bytes()).is_some());
        assert_eq!(there.left(NOW, token.as_bytes()), None);
    }

    #[test]
    fn no_two_tokens_are_equal() {
        let tokens = Tokens::new().unwrap();
        let made: HashSet<_> = (0..1000).map(|_| tokens.make(NOW, life(60))).collect();
        assert_eq!(made.len(), 1000);
    }

    #[test]
    fn a_token_with_any_bit_changed_is_none() {
        let tokens = Tokens::with_key(&[7; KEY]);
        let token = tokens.make(NOW, life(60));
        let bytes = Base64Url::decode_vec(&token).unwrap();
        for bit in 0..WHOLE * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tokens.left(NOW, Base64Url::encode_string(&bytes).as_bytes()), None, "bit {bit}");
        }
        for len in 0..token.len() {
            assert_eq!(tokens.left(NOW, &token.as_bytes()[..len]), None);
        }
        assert_eq!(tokens.left(NOW, Base64Url::encode_string(&[&bytes[..], &[0]].concat()).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_was_not_made_here_is_none(token in proptest::collection::vec(any::<u8>(), 0..80)) {
            let tokens = Tokens::with_key(&[7; KEY]);
            prop_assert_eq!(tokens.left(NOW, &token), None);
        }
    }
}
