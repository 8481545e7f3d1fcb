//! Key pairs: who may log in to instances. Only the public half is kept; the private one is given away once.

use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use sha1::{Digest, Sha1};
use ssh_key::private::RsaKeypair;
use ssh_key::{Algorithm, PrivateKey};
use zeroize::Zeroizing;

use super::error::CloudError;
use super::id::{Id, Kind};
use super::scope::Scope;
use super::tag::{self, Tags};
use super::words::words;
use super::{Cloud, time};

mod file;
mod public;
mod query;

pub use public::Public;

/// Bits of RSA keys that are made, as EC2's.
const RSA_BITS: usize = 2048;
/// Most characters of a name.
const NAME_MAX: usize = 255;

words! {
    /// Kinds of keys.
    pub enum KeyType as "key type" {
        /// RSA of 2048 bits.
        Rsa = "rsa",
        /// Ed25519.
        Ed25519 = "ed25519",
    }
}

/// A key pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyPair {
    /// `key-...`
    pub key_pair_id: Id,
    /// Its name.
    pub key_name: String,
    /// What kind.
    pub key_type: KeyType,
    /// As EC2 makes it: of a made RSA key SHA-1 of the private half, of an imported one MD5 of the public half, of an Ed25519
    /// key SHA-256 of the public half.
    pub key_fingerprint: String,
    /// In the form of OpenSSH.
    pub public_key: String,
    /// When it was made.
    pub create_time: String,
    /// Its tags.
    pub tags: Tags,
}

/// A key pair that was made, with the half that nobody else has.
pub struct NewKeyPair {
    /// What is kept of it.
    pub pair: KeyPair,
    /// The private half, in the form that `ssh` reads.
    pub key_material: Zeroizing<String>,
}

/// What is kept of a key.
struct Kept {
    key_type: KeyType,
    fingerprint: String,
    public: String,
}

impl Cloud {
    /// Makes a key pair.
    ///
    /// # Errors
    /// `InvalidKeyPair.Duplicate`, `InvalidParameterValue` for a name that is none.
    pub fn create_key_pair(&mut self, name: &str, kind: KeyType, tags: &Tags) -> Result<NewKeyPair, CloudError> {
        check_name(name)?;
        // Before a key is made, which takes a while.
        let scope = self.scope.clone();
        self.catalogue.read(|tx| refuse_duplicate(tx, &scope, name))?;
        let (kept, key_material) = make(name, kind)?;
        Ok(NewKeyPair { pair: self.keep_key_pair(name, &kept, tags, || Ok(()))?, key_material })
    }

    /// Takes the public half of a key that somebody has.
    ///
    /// # Errors
    /// `InvalidKeyPair.Duplicate`, `InvalidKey.Format`, `InvalidParameterValue`.
    pub fn import_key_pair(&mut self, name: &str, public: &str, tags: &Tags) -> Result<KeyPair, CloudError> {
        check_name(name)?;
        let public = Public::parse(public)?;
        let kept = Kept {
            key_type: public.key_type,
            fingerprint: public.fingerprint.clone(),
            public: public.openssh_for(name),
        };
        self.keep_key_pair(name, &kept, tags, || Ok(()))
    }

    /// Keeps a key of a name that none has. `first` is called when that is sure, and before anything is kept: nobody else keeps one
    /// of that name meanwhile.
    fn keep_key_pair(
        &mut self,
        name: &str,
        kept: &Kept,
        tags: &Tags,
        first: impl FnOnce() -> Result<(), CloudError>,
    ) -> Result<KeyPair, CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        self.catalogue.write(|tx| {
            refuse_duplicate(tx, &scope, name)?;
            first()?;
            let id = Id::new(Kind::KeyPair).map_err(CloudError::host(home.root(), "cannot make an id"))?;
            tx.execute(
                "INSERT INTO key_pairs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    id,
                    scope.region,
                    scope.account.as_str(),
                    name,
                    kept.key_type,
                    kept.fingerprint,
                    kept.public,
                    time::now()
                ],
            )?;
            tag::add(tx, &id, tags)?;
            find(tx, &scope, name)
        })
    }

    /// Forgets a key pair, if there is one of that name. Instances that were launched with it keep it.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn delete_key_pair(&mut self, name: &str) -> Result<Option<KeyPair>, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.write(|tx| {
            let pair = match find(tx, &scope, name) {
                // As EC2: it is gone, and that is what was wanted.
                Err(CloudError::Parameter { code: NOT_FOUND, .. }) => return Ok(None),
                found => found?,
            };
            tx.execute("DELETE FROM key_pairs WHERE id = ?1", [&pair.key_pair_id])?;
            tag::remove_all(tx, &pair.key_pair_id)?;
            Ok(Some(pair))
        })
    }
}

const NOT_FOUND: &str = "InvalidKeyPair.NotFound";
const COLUMNS: &str = "id, name, key_type, fingerprint, public_key, created";

fn from_row(row: &Row<'_>) -> rusqlite::Result<KeyPair> {
    Ok(KeyPair {
        key_pair_id: row.get(0)?,
        key_name: row.get(1)?,
        key_type: row.get(2)?,
        key_fingerprint: row.get(3)?,
        public_key: row.get(4)?,
        create_time: time::format(row.get(5)?),
        tags: Tags::new(),
    })
}

fn complete(db: &Connection, pair: &mut KeyPair) -> Result<(), CloudError> {
    pair.tags = tag::of(db, &pair.key_pair_id)?;
    Ok(())
}

/// The caller's key pair of that name, or with that id.
///
/// # Errors
/// `InvalidKeyPair.NotFound`.
pub(super) fn find(db: &Connection, scope: &Scope, name: &str) -> Result<KeyPair, CloudError> {
    let query = format!("SELECT {COLUMNS} FROM key_pairs WHERE region = ?1 AND owner = ?2 AND (name = ?3 OR id = ?3)");
    let found = db.query_row(&query, [scope.region.as_str(), scope.account.as_str(), name], from_row).optional()?;
    let mut found = found.ok_or_else(|| CloudError::Parameter {
        code: NOT_FOUND,
        message: format!("The key pair '{name}' does not exist"),
    })?;
    complete(db, &mut found)?;
    Ok(found)
}

fn refuse_duplicate(tx: &Transaction<'_>, scope: &Scope, name: &str) -> Result<(), CloudError> {
    let exists = "SELECT EXISTS (SELECT 1 FROM key_pairs WHERE region = ?1 AND owner = ?2 AND name = ?3)";
    let exists: bool = tx.query_row(exists, [&scope.region, scope.account.as_str(), name], |row| row.get(0))?;
    if !exists {
        return Ok(());
    }
    let message = format!("The keypair '{name}' already exists.");
    Err(CloudError::Parameter { code: "InvalidKeyPair.Duplicate", message })
}

/// Refuses what is no name of a key: EC2's are printable ASCII. (It becomes part of a file's name, too.)
fn check_name(name: &str) -> Result<(), CloudError> {
    let is_one = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.trim() == name
        && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'/')
        && !name.starts_with('.');
    match is_one {
        true => Ok(()),
        false => Err(CloudError::value(format!(
            "{name:?} is no name of a key pair: 1 to {NAME_MAX} characters of ASCII, no slash, no dot at the beginning, and \
             no space at either end"
        ))),
    }
}

/// A new key.
fn make(name: &str, kind: KeyType) -> Result<(Kept, Zeroizing<String>), CloudError> {
    let made = match kind {
        KeyType::Rsa => make_rsa(name),
        KeyType::Ed25519 => make_ed25519(name),
    };
    made.map_err(|e| CloudError::Damaged(format!("cannot make a key: {e}")))
}

fn make_rsa(name: &str) -> Result<(Kept, Zeroizing<String>), ssh_key::Error> {
    let key = RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(|_| ssh_key::Error::Crypto)?;
    let material = key.to_pkcs1_pem(LineEnding::LF).map_err(|_| ssh_key::Error::Crypto)?;
    let der = key.to_pkcs8_der().map_err(|_| ssh_key::Error::Crypto)?;
    let mut public = ssh_key::PublicKey::from(RsaKeypair::try_from(&key)?.public.clone());
    public.set_comment(name);
    let kept = Kept {
        key_type: KeyType::Rsa,
        fingerprint: public::with_colons(&Sha1::digest(der.as_bytes())),
        public: public.to_openssh()?,
    };
    Ok((kept, material))
}

fn make_ed25519(name: &str) -> Result<(Kept, Zeroizing<String>), ssh_key::Error> {
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519)?;
    key.set_comment(name);
    let public = key.public_key();
    let kept = Kept { key_type: KeyType::Ed25519, fingerprint: public::sha256(public)?, public: public.to_openssh()? };
    Ok((kept, key.to_openssh(LineEnding::LF)?))
}

#[cfg(test)]
mod tests;
