//! Tags of resources that are there already, whatever kind they are.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::CloudError;
use super::id::{Id, Kind};
use super::scope::Scope;
use super::tag::{self, Tags};
use super::{Cloud, image, instance, key_pair, lookup, metadata, snapshot, volume};

impl Cloud {
    /// Gives a resource of the caller's tags; a key that it has gets the new value. A running instance's metadata follow.
    /// Gives all tags that it has then.
    ///
    /// # Errors
    /// `.NotFound` of its kind; `InvalidParameterValue`, `TagLimitExceeded`; what an instance's process says.
    pub fn create_tags(&mut self, resource: &str, tags: &Tags) -> Result<Tags, CloudError> {
        self.change_tags(resource, |tx, id| tag::add(tx, id, tags))
    }

    /// Takes tags away from a resource of the caller's, likewise.
    ///
    /// # Errors
    /// As [`Cloud::create_tags`].
    pub fn delete_tags(&mut self, resource: &str, keys: &[String]) -> Result<Tags, CloudError> {
        self.change_tags(resource, |tx, id| keys.iter().try_for_each(|key| tag::remove(tx, id, key, None)))
    }

    /// The tags of a resource of the caller's.
    ///
    /// # Errors
    /// `.NotFound` of its kind.
    pub fn tags(&mut self, resource: &str) -> Result<Tags, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| tag::of(tx, &own(tx, &scope, resource)?))
    }

    fn change_tags(
        &mut self,
        resource: &str,
        change: impl FnOnce(&rusqlite::Transaction<'_>, &Id) -> Result<(), CloudError>,
    ) -> Result<Tags, CloudError> {
        let scope = self.scope.clone();
        let (id, tags, is_told) = self.catalogue.write(|tx| {
            let id = own(tx, &scope, resource)?;
            change(tx, &id)?;
            let tags = tag::of(tx, &id)?;
            let mut is_told = false;
            if id.as_str().starts_with(Kind::Instance.prefix()) {
                let options = instance::any(tx, id.as_str())?.metadata_options;
                metadata::check_tags(&options, &tags)?;
                is_told = options.tags;
            }
            Ok((id, tags, is_told))
        })?;
        if is_told {
            self.tell_metadata(&id)?;
        }
        Ok(tags)
    }
}

/// The id of a resource of the caller's: a whole id, the beginning of one, or the name of an instance, an image or a key pair.
fn own(db: &Connection, scope: &Scope, given: &str) -> Result<Id, CloudError> {
    let begins = |kind: Kind| given.starts_with(kind.prefix());
    if begins(Kind::Volume) {
        return volume::own(db, scope, given).map(|volume| volume.volume_id);
    }
    if begins(Kind::Snapshot) {
        let id = snapshot::resolve(db, scope, given)?;
        return of_table(db, scope, Kind::Snapshot, "snapshots", &id);
    }
    if begins(Kind::Vpc) {
        let id = lookup::resolve(db, scope, Kind::Vpc, "vpcs", given)?;
        return of_table(db, scope, Kind::Vpc, "vpcs", &id);
    }
    if begins(Kind::KeyPair) {
        return key_pair::find(db, scope, given).map(|pair| pair.key_pair_id);
    }
    match instance::own(db, scope, given) {
        Ok(found) => Ok(found.instance_id),
        Err(error) if begins(Kind::Instance) => Err(error),
        Err(_) => {
            let id = image::resolve(db, scope, given)?;
            of_table(db, scope, Kind::Image, "images", id.as_str())
        }
    }
}

fn of_table(db: &Connection, scope: &Scope, kind: Kind, table: &'static str, id: &str) -> Result<Id, CloudError> {
    let query = format!("SELECT id FROM {table} WHERE id = ?1 AND region = ?2 AND owner = ?3");
    let found = db.query_row(&query, params![id, scope.region, scope.account.as_str()], |row| row.get(0)).optional()?;
    found.ok_or_else(|| CloudError::NotFound { kind, id: id.to_owned() })
}
