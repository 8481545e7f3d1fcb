//! Access keys: who may ask the API, and for which account.
//!
//! They are a room of their own, since who asks is not known before its key is found. Permanent ones are made by the owner of
//! the catalogue; temporary ones (STS's `GetSessionToken`) expire by themselves. Secrets are kept as they are, because
//! signatures are checked with them; the catalogue is its owner's alone to read.

use std::fmt;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use zeroize::Zeroizing;

use super::catalogue::Catalogue;
use super::error::CloudError;
use super::home::Home;
use super::scope::Account;
use super::time;
use crate::disk::random_bytes;

/// Most permanent keys of an account.
const MAX_PERMANENT: u32 = 100;
/// Most temporary keys of an account that have not expired.
const MAX_TEMPORARY: u32 = 1000;
/// The shortest and the longest time that a temporary key is good for, in seconds ("DurationSeconds" of GetSessionToken).
const DURATION: std::ops::RangeInclusive<u64> = 900..=129_600;

/// How long a temporary key is good for where nothing is said: 12 hours.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(43_200);

/// An access key, without what is secret about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessKey {
    /// `AKIA...`, or `ASIA...` of a temporary one.
    pub access_key_id: String,
    /// Whose requests it signs.
    pub account: Account,
    /// When it was made.
    pub create_date: String,
    /// Until when it is good, if it is temporary.
    pub expiration: Option<String>,
}

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The key.
    pub key: AccessKey,
    /// What requests are signed with.
    pub secret: Zeroizing<String>,
    /// What goes along with every request that a temporary key signs.
    pub session_token: Option<Zeroizing<String>>,
    expires: Option<i64>,
}

impl Credentials {
    /// Whether the key was good only until some time that has passed at `now`.
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Any that a test thinks up.
    #[cfg(test)]
    pub fn for_tests(id: &str, account: &str, secret: &str, token: Option<&str>, expires: Option<i64>) -> Self {
        let account = account.parse().unwrap();
        let key = AccessKey {
            access_key_id: id.into(),
            account,
            create_date: time::format(0),
            expiration: expires.map(time::format),
        };
        let hidden = |text: &str| Zeroizing::new(text.to_owned());
        Self { key, secret: hidden(secret), session_token: token.map(hidden), expires }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The access keys of a catalogue.
pub struct AccessKeys {
    home: Home,
    catalogue: Catalogue,
}

impl AccessKeys {
    /// Opens the catalogue in `home`.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub fn open(home: &Home) -> Result<Self, CloudError> {
        Ok(Self { catalogue: Catalogue::open(&home.catalogue())?, home: home.clone() })
    }

    /// Makes a key for an account. Its secret is told now; it is to be kept by whoever asks.
    ///
    /// # Errors
    /// `LimitExceeded`; what the catalogue or the host says.
    pub fn create(&mut self, account: &Account) -> Result<Credentials, CloudError> {
        self.insert(account, "AKIA", None)
    }

    /// Makes a temporary key for an account, good for 15 minutes to 36 hours.
    ///
    /// # Errors
    /// `ValidationError` for another time; `LimitExceeded`; what the catalogue or the host says.
    pub fn create_temporary(&mut self, account: &Account, duration: Duration) -> Result<Credentials, CloudError> {
        let seconds = duration.as_secs();
        if !DURATION.contains(&seconds) {
            return Err(CloudError::Parameter {
                code: "ValidationError",
                message: format!(
                    "DurationSeconds {seconds} is out of range: it is {} to {}",
                    DURATION.start(),
                    DURATION.end()
                ),
            });
        }
        self.insert(account, "ASIA", Some(seconds))
    }

    fn insert(&mut self, account: &Account, prefix: &str, seconds: Option<u64>) -> Result<Credentials, CloudError> {
        let home = self.home.clone();
        let random = || random_bytes().map_err(CloudError::host(home.root(), "cannot make an access key"));
        let id = format!("{prefix}{}", base32(random()?));
        // 30 bytes are 40 characters, 48 are 64.
        let secret: Vec<u8> = random()?.into_iter().chain(random()?).take(30).collect();
        let token = match seconds {
            Some(_) => {
                let bytes: Vec<u8> = random()?.into_iter().chain(random()?).chain(random()?).collect();
                Some(Zeroizing::new(Base64::encode_string(&bytes)))
            }
            None => None,
        };
        let secret = Zeroizing::new(Base64::encode_string(&Zeroizing::new(secret)));
        let lifetime = seconds.and_then(|seconds| i64::try_from(seconds.checked_mul(1000)?).ok());
        self.catalogue.write(|tx| {
            let now = time::now();
            tx.execute("DELETE FROM access_keys WHERE expires <= ?1", [now])?;
            check_count(tx, account, lifetime.is_some())?;
            tx.execute(
                "INSERT INTO access_keys (id, account, secret, created, session_token, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    id,
                    account.as_str(),
                    *secret,
                    now,
                    token.as_deref(),
                    lifetime.map(|lifetime| now.saturating_add(lifetime))
                ],
            )?;
            find(tx, &id)?.ok_or_else(|| CloudError::Damaged(format!("access key {id} was not kept")))
        })
    }

    /// The key with that id, whoever's it is; also one that has expired, until something is written.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn find(&mut self, id: &str) -> Result<Option<Credentials>, CloudError> {
        self.catalogue.read(|tx| find(tx, id))
    }

    /// Whether there is any permanent key: then requests have to be signed with one.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn are_any(&mut self) -> Result<bool, CloudError> {
        let query = "SELECT EXISTS (SELECT 1 FROM access_keys WHERE expires IS NULL)";
        self.catalogue.read(|tx| Ok(tx.query_row(query, [], |row| row.get(0))?))
    }

    /// The keys of an account that are good, or of all accounts, the oldest first.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn list(&mut self, account: Option<&Account>) -> Result<Vec<AccessKey>, CloudError> {
        self.catalogue.read(|tx| {
            let mut query = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM access_keys WHERE (?1 IS NULL OR account = ?1) AND (expires IS NULL OR expires > ?2)
                 ORDER BY created, id"
            ))?;
            let found = query.query_map(params![account.map(Account::as_str), time::now()], from_row)?;
            found.map(|credentials| Ok(credentials?.key)).collect()
        })
    }

    /// Deletes a key of an account: nothing that it signs is taken any more.
    ///
    /// # Errors
    /// `NoSuchEntity` for one that the account does not have.
    pub fn delete(&mut self, account: &Account, id: &str) -> Result<(), CloudError> {
        self.catalogue.write(|tx| {
            tx.execute("DELETE FROM access_keys WHERE expires <= ?1", [time::now()])?;
            let delete = "DELETE FROM access_keys WHERE id = ?1 AND account = ?2";
            if tx.execute(delete, [id, account.as_str()])? > 0 {
                return Ok(());
            }
            let message = format!("The Access Key with id {id} cannot be found.");
            Err(CloudError::Parameter { code: "NoSuchEntity", message })
        })
    }
}

fn check_count(tx: &Transaction<'_>, account: &Account, is_temporary: bool) -> Result<(), CloudError> {
    let count: u32 = tx.query_row(
        "SELECT count(*) FROM access_keys WHERE account = ?1 AND (expires IS NOT NULL) = ?2",
        params![account.as_str(), is_temporary],
        |row| row.get(0),
    )?;
    let most = if is_temporary { MAX_TEMPORARY } else { MAX_PERMANENT };
    if count < most {
        return Ok(());
    }
    let message = format!("Cannot exceed quota for AccessKeysPerAccount: {most}");
    Err(CloudError::Parameter { code: "LimitExceeded", message })
}

const COLUMNS: &str = "id, account, secret, created, session_token, expires";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Credentials> {
    let account: String = row.get(1)?;
    let account = account.parse().map_err(|e: CloudError| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e))
    })?;
    let expires: Option<i64> = row.get(5)?;
    Ok(Credentials {
        key: AccessKey {
            access_key_id: row.get(0)?,
            account,
            create_date: time::format(row.get(3)?),
            expiration: expires.map(time::format),
        },
        secret: Zeroizing::new(row.get(2)?),
        session_token: row.get::<_, Option<String>>(4)?.map(Zeroizing::new),
        expires,
    })
}

fn find(db: &Connection, id: &str) -> Result<Option<Credentials>, CloudError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM access_keys WHERE id = ?1"))?;
    Ok(query.query_row([id], from_row).optional()?)
}

/// The first 80 bits as 16 characters of base32 (RFC 4648, section 6).
fn base32(bytes: [u8; 16]) -> String {
    let mut rest = u128::from_be_bytes(bytes) >> 48;
    let mut text = Vec::new();
    for _ in 0..16 {
        let digit = u8::try_from(rest & 31).unwrap_or(0);
        text.push(char::from(if digit < 26 { b'A' + digit } else { b'2' + (digit - 26) }));
        rest >>= 5;
    }
    text.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::testing::{World, code};

    fn account(text: &str) -> Account {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_is_found_with_its_secret_and_listed_without() {
        let world = World::new();
        let mut keys = AccessKeys::open(&world.home()).unwrap();
        assert!(!keys.are_any().unwrap());
        let (me, you) = (Account::default(), account("222222222222"));
        let made = keys.create(&me).unwrap();
        let id = &made.key.access_key_id;
        assert!(id.starts_with("AKIA") && id.len() == 20, "{id}");
        assert!(id.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7')), "{id}");
        assert_eq!((made.secret.len(), &made.session_token, made.is_expired(time::now())), (40, &None, false));
        let other = keys.create(&you).unwrap();
        assert_ne!(other.secret, made.secret);
        // Whoever opens the catalogue finds it.
        let mut again = AccessKeys::open(&world.home()).unwrap();
        assert_eq!(again.find(id).unwrap().unwrap(), made);
        assert_eq!(again.find("AKIAAAAAAAAAAAAAAAAA").unwrap(), None);
        assert!(again.are_any().unwrap());
        assert_eq!(again.list(Some(&me)).unwrap(), std::slice::from_ref(&made.key));
        assert_eq!(again.list(None).unwrap().len(), 2);
        let told = format!("{made:?}{}", serde_json::to_string(&again.list(None).unwrap()).unwrap());
        assert!(!told.contains(made.secret.as_str()), "{told}");
        assert_eq!(code(keys.delete(&you, id)), "NoSuchEntity");
        keys.delete(&me, id).unwrap();
        assert_eq!(code(keys.delete(&me, id)), "NoSuchEntity");
        assert_eq!(keys.find(id).unwrap(), None);
    }

    #[test]
    fn temporary_keys_expire() {
        let world = World::new();
        let mut keys = AccessKeys::open(&world.home()).unwrap();
        let me = Account::default();
        for seconds in [0, 899, 129_601, u64::MAX] {
            assert_eq!(code(keys.create_temporary(&me, Duration::from_secs(seconds))), "ValidationError");
        }
        let made = keys.create_temporary(&me, DEFAULT_DURATION).unwrap();
        assert!(made.key.access_key_id.starts_with("ASIA") && made.key.expiration.is_some());
        assert_eq!(made.session_token.as_ref().map(|token| token.len()), Some(64));
        assert!(!made.is_expired(time::now()));
        // It alone does not mean that requests have to be signed.
        assert!(!keys.are_any().unwrap());
        keys.catalogue.write(|tx| Ok(tx.execute("UPDATE access_keys SET expires = 1", [])?)).unwrap();
        assert!(keys.find(&made.key.access_key_id).unwrap().unwrap().is_expired(time::now()));
        assert!(keys.list(None).unwrap().is_empty());
        keys.create(&me).unwrap();
        assert_eq!(keys.find(&made.key.access_key_id).unwrap(), None);
    }

    #[test]
    fn an_account_has_so_many_and_no_more() {
        let world = World::new();
        let mut keys = AccessKeys::open(&world.home()).unwrap();
        let me = Account::default();
        let fill = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100)
            INSERT INTO access_keys SELECT 'AKIA' || n, ?1, '', 0, NULL, NULL FROM n";
        keys.catalogue.write(|tx| Ok(tx.execute(fill, [me.as_str()])?)).unwrap();
        assert_eq!(code(keys.create(&me)), "LimitExceeded");
        keys.create_temporary(&me, DEFAULT_DURATION).unwrap();
        keys.create(&account("222222222222")).unwrap();
    }

    #[test]
    fn base32_is_rfc_4648s() {
        let mut bytes = [0xff; 16];
        bytes[..10].copy_from_slice(b"foobarfoob");
        assert_eq!(base32(bytes), "MZXW6YTBOJTG633C");
        assert_eq!(base32([0; 16]), "AAAAAAAAAAAAAAAA");
        assert_eq!(base32([0xff; 16]), "7777777777777777");
    }
}
