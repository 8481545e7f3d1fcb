//! Launch permissions: everybody (public), accounts by name (explicit), and always the owner (implicit).

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;

use super::{ImageState, access};
use crate::cloud::error::CloudError;
use crate::cloud::scope::Account;
use crate::cloud::{Cloud, Id};

/// Who may launch an image, beside its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaunchPermission {
    /// Everybody: the group `all`.
    Everybody,
    /// An account.
    Account(Account),
}

impl LaunchPermission {
    /// A group by its name.
    ///
    /// # Errors
    /// `InvalidAMIAttributeItemValue` for all but `all`.
    pub fn group(name: &str) -> Result<Self, CloudError> {
        match name {
            "all" => Ok(Self::Everybody),
            other => Err(CloudError::AttributeGroup { value: other.to_owned() }),
        }
    }
}

/// `all`, or an account.
impl FromStr for LaunchPermission {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<Self, CloudError> {
        if text == "all" {
            return Ok(Self::Everybody);
        }
        text.parse().map(Self::Account).map_err(|_| CloudError::AttributeItem { value: text.to_owned() })
    }
}

impl fmt::Display for LaunchPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("all"),
            Self::Account(account) => account.fmt(f),
        }
    }
}

/// Who may launch an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaunchPermissions {
    /// The image.
    pub image_id: Id,
    /// Its owner, who always may.
    pub owner_id: String,
    /// Whether everybody may.
    pub is_public: bool,
    /// Accounts that may beside.
    pub accounts: Vec<String>,
}

impl Cloud {
    /// Lets accounts, or everybody, launch an image of the caller's, or no longer. Instances that run are not affected.
    ///
    /// # Errors
    /// What [`Cloud::image`] says, `UnauthorizedOperation`; `IncorrectState` for one that is not available;
    /// `InvalidParameterCombination` for who is to be added and removed.
    pub fn share_image(
        &mut self,
        id: &str,
        add: &[LaunchPermission],
        remove: &[LaunchPermission],
    ) -> Result<LaunchPermissions, CloudError> {
        if let Some(both) = add.iter().find(|who| remove.contains(who)) {
            return Err(CloudError::combination(format!(
                "launch permission of {both}: it cannot be added and removed"
            )));
        }
        let image = self.change_image(id, |tx, image| {
            if image.state != ImageState::Available {
                return Err(access::wrong_state(image, "available"));
            }
            for (who, may) in add.iter().map(|who| (who, true)).chain(remove.iter().map(|who| (who, false))) {
                set(tx, &image.image_id, who, may)?;
            }
            Ok(())
        })?;
        self.launch_permissions(image.image_id.as_str())
    }

    /// Lets nobody but its owner launch an image of the caller's.
    ///
    /// # Errors
    /// As [`Cloud::share_image`].
    pub fn unshare_image(&mut self, id: &str) -> Result<LaunchPermissions, CloudError> {
        let image = self.change_image(id, |tx, image| remove_all(tx, &image.image_id))?;
        self.launch_permissions(image.image_id.as_str())
    }

    /// Who may launch an image of the caller's.
    ///
    /// # Errors
    /// What [`Cloud::image`] says, `UnauthorizedOperation`.
    pub fn launch_permissions(&mut self, id: &str) -> Result<LaunchPermissions, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| {
            let image = access::own(tx, &scope, id)?;
            Ok(LaunchPermissions {
                accounts: accounts(tx, &image.image_id)?,
                is_public: image.is_public,
                owner_id: image.owner_id,
                image_id: image.image_id,
            })
        })
    }
}

fn accounts(db: &Connection, id: &Id) -> Result<Vec<String>, CloudError> {
    let mut query = db.prepare_cached("SELECT account FROM launch_permissions WHERE image = ?1 ORDER BY account")?;
    let found = query.query_map([id], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn set(tx: &Transaction<'_>, id: &Id, who: &LaunchPermission, may: bool) -> Result<(), CloudError> {
    match (who, may) {
        (LaunchPermission::Everybody, _) => {
            tx.execute("UPDATE images SET is_public = ?2 WHERE id = ?1", params![id, may])?
        }
        (LaunchPermission::Account(account), true) => {
            let insert = "INSERT OR IGNORE INTO launch_permissions (image, account) VALUES (?1, ?2)";
            tx.execute(insert, params![id, account.as_str()])?
        }
        (LaunchPermission::Account(account), false) => {
            let delete = "DELETE FROM launch_permissions WHERE image = ?1 AND account = ?2";
            tx.execute(delete, params![id, account.as_str()])?
        }
    };
    Ok(())
}

/// Takes all launch permissions of an image away.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn remove_all(tx: &Transaction<'_>, id: &Id) -> Result<(), CloudError> {
    tx.execute("UPDATE images SET is_public = 0 WHERE id = ?1", [id])?;
    tx.execute("DELETE FROM launch_permissions WHERE image = ?1", [id])?;
    Ok(())
}
