//! The private halves of key pairs, in files of whoever made them.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{KeyPair, KeyType, check_name, refuse_duplicate};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::scope::Scope;
use crate::cloud::tag::Tags;
use crate::cloud::{Cloud, key_pair};
use crate::disk::output::write_private;

impl Cloud {
    /// Where the private half of a key pair is, where it was not put elsewhere.
    #[must_use]
    pub fn key_file(&self, name: &str) -> PathBuf {
        kept_in(&self.home, &self.scope).join(format!("{name}.pem"))
    }

    /// Makes a key pair whose private half is in a file when it is there: `path`, which must not be there yet, or else
    /// [`Cloud::key_file`]. Gives the file.
    ///
    /// # Errors
    /// As [`Cloud::create_key_pair`]; what the host says of the file. Then there is neither.
    pub fn create_key_pair_in_file(
        &mut self,
        name: &str,
        kind: KeyType,
        tags: &Tags,
        path: Option<&Path>,
    ) -> Result<(KeyPair, PathBuf), CloudError> {
        check_name(name)?;
        let scope = self.scope.clone();
        self.catalogue.read(|tx| refuse_duplicate(tx, &scope, name))?;
        let (kept, material) = key_pair::make(name, kind)?;
        let (own, is_own) = (self.key_file(name), path.is_none());
        let path = path.map_or(own, Path::to_owned);
        let mut is_written = false;
        let kept = self.keep_key_pair(name, &kept, tags, || {
            if is_own {
                let dir = path.parent().unwrap_or(Path::new("/"));
                let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
                made.map_err(CloudError::host(dir, "cannot make the directory"))?;
                // No key pair has this name: it is of one that was not made to its end, or is deleted.
                Home::remove_file(&path)?;
            }
            // Before the pair is kept: whoever is told of it has the other half.
            write_private(&path, material.as_bytes())?;
            is_written = true;
            Ok(())
        });
        if kept.is_err() && is_written {
            let _ = fs::remove_file(&path);
        }
        Ok((kept?, path))
    }
}

fn kept_in(home: &Home, scope: &Scope) -> PathBuf {
    home.root().join("keys").join(&scope.region).join(scope.account.as_str())
}
