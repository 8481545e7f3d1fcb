//! Tags of resources that are there already, whatever kind they are.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;

use super::error::CloudError;
use super::filter::values::one;
use super::filter::{Filter, Filtered, Filters};
use super::id::{Id, Kind};
use super::scope::Scope;
use super::tag::{self, Removal, Table, Tags};
use super::{Cloud, image, instance, key_pair, lookup, metadata};

/// Most resources of one call.
const MAX_RESOURCES: usize = 1000;

/// Kinds of resources that can have tags.
const KINDS: [Kind; 12] = [
    Kind::Image,
    Kind::KernelImage,
    Kind::RamdiskImage,
    Kind::Instance,
    Kind::Volume,
    Kind::Snapshot,
    Kind::Vpc,
    Kind::Subnet,
    Kind::SecurityGroup,
    Kind::SecurityGroupRule,
    Kind::NetworkInterface,
    Kind::KeyPair,
];

/// A tag of a resource ("TagDescription").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagDescription {
    /// The resource's id.
    pub resource_id: Id,
    /// What it is, as in `network-interface`.
    pub resource_type: &'static str,
    /// The tag's key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The same once more, for those who look by it.
    #[serde(skip)]
    tag: Tags,
}

impl Cloud {
    /// Gives a resource of the caller's tags; a key that it has gets the new value. A running instance's metadata follow.
    /// Gives all tags that it has then.
    ///
    /// # Errors
    /// `.NotFound` of its kind; `InvalidParameterValue`, `TagLimitExceeded`; what an instance's process says.
    pub fn create_tags(&mut self, resource: &str, tags: &Tags) -> Result<Tags, CloudError> {
        let id = self.own_resource(resource)?;
        self.change_tags(std::slice::from_ref(&id), |tx, id| tag::add(tx, id, tags))?;
        self.tags(id.as_str())
    }

    /// Takes tags away from a resource of the caller's, likewise.
    ///
    /// # Errors
    /// As [`Cloud::create_tags`].
    pub fn delete_tags(&mut self, resource: &str, keys: &[String]) -> Result<Tags, CloudError> {
        let id = self.own_resource(resource)?;
        let removals: Vec<_> = keys.iter().map(|key| Removal { key: key.clone(), value: None }).collect();
        if !removals.is_empty() {
            self.change_tags(std::slice::from_ref(&id), |tx, id| tag::remove_named(tx, id, &removals))?;
        }
        self.tags(id.as_str())
    }

    /// Gives tags to resources of the caller's, by their whole ids: to all or, where anything is wrong, to none ("CreateTags").
    /// Running instances' metadata follow.
    ///
    /// # Errors
    /// `InvalidID` for what is no id, `.NotFound` and `.Malformed` of its kind; `MissingParameter`, `InvalidParameterValue`,
    /// `TagLimitExceeded`; what instances' processes say.
    pub fn tag_resources(&mut self, resources: &[String], tags: &Tags) -> Result<(), CloudError> {
        if tags.is_empty() {
            return Err(missing("tagSet"));
        }
        let ids = self.whole_ids(resources)?;
        self.change_tags(&ids, |tx, id| tag::add(tx, id, tags))
    }

    /// Takes tags away from resources of the caller's, likewise: those that are named, with any value where none is said; all
    /// where none is named ("DeleteTags").
    ///
    /// # Errors
    /// As [`Cloud::tag_resources`].
    pub fn untag_resources(&mut self, resources: &[String], removals: &[Removal]) -> Result<(), CloudError> {
        let ids = self.whole_ids(resources)?;
        self.change_tags(&ids, |tx, id| tag::remove_named(tx, id, removals))
    }

    /// The tags of a resource of the caller's.
    ///
    /// # Errors
    /// `.NotFound` of its kind.
    pub fn tags(&mut self, resource: &str) -> Result<Tags, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| tag::of(tx, &own(tx, &scope, resource)?))
    }

    /// All tags of the caller's resources in its region that pass `filters` ("DescribeTags"), by their resources and keys.
    ///
    /// # Errors
    /// What [`Filters::parse`] says.
    pub fn tag_descriptions(&mut self, filters: &[Filter]) -> Result<Vec<TagDescription>, CloudError> {
        let filters = Filters::parse::<TagDescription>(filters)?;
        let scope = self.scope.clone();
        let mut found = Vec::new();
        self.catalogue.read(|tx| {
            for table in Table::ALL {
                for (id, tags) in tag::of_all(tx, table, &scope)? {
                    found.extend(tags.into_iter().map(|(key, value)| TagDescription {
                        resource_id: id.clone(),
                        resource_type: table.resource_type(),
                        tag: Tags::from([(key.clone(), value.clone())]),
                        key,
                        value,
                    }));
                }
            }
            Ok(())
        })?;
        found.retain(|description| filters.pass(description));
        found.sort_unstable_by(|a, b| (&a.resource_id, &a.key).cmp(&(&b.resource_id, &b.key)));
        Ok(found)
    }

    fn own_resource(&mut self, given: &str) -> Result<Id, CloudError> {
        let scope = self.scope.clone();
        self.catalogue.read(|tx| own(tx, &scope, given))
    }

    fn whole_ids(&self, resources: &[String]) -> Result<Vec<Id>, CloudError> {
        if resources.is_empty() {
            return Err(missing("resourceIdSet"));
        }
        if resources.len() > MAX_RESOURCES {
            return Err(CloudError::value(format!("{} resources: a call may have {MAX_RESOURCES}", resources.len())));
        }
        resources.iter().map(|given| Id::parse(kind_of(given)?, given)).collect()
    }

    /// Changes the tags of all these in one transaction, then tells instances of it whose guests are told.
    fn change_tags(
        &mut self,
        ids: &[Id],
        change: impl Fn(&Transaction<'_>, &Id) -> Result<(), CloudError>,
    ) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        let told = self.catalogue.write(|tx| {
            let mut told = Vec::new();
            for id in ids {
                own_whole(tx, &scope, kind_of(id.as_str())?, id.as_str())?;
                change(tx, id)?;
                if id.as_str().starts_with(Kind::Instance.prefix()) {
                    let options = instance::any(tx, id.as_str())?.metadata_options;
                    metadata::check_tags(&options, &tag::of(tx, id)?)?;
                    told.extend(options.tags.then_some(id));
                }
            }
            Ok(told)
        })?;
        // All are told, whatever one of them says.
        let said: Vec<_> = told.into_iter().map(|id| self.tell_metadata(id)).collect();
        said.into_iter().collect()
    }
}

fn missing(parameter: &str) -> CloudError {
    let message = format!("The request must contain the parameter {parameter}");
    CloudError::Parameter { code: "MissingParameter", message }
}

/// What an id is of, as its beginning says.
fn kind_of(given: &str) -> Result<Kind, CloudError> {
    KINDS
        .into_iter()
        .find(|kind| given.starts_with(kind.prefix()))
        .ok_or_else(|| CloudError::Parameter { code: "InvalidID", message: format!("The ID '{given}' is not valid") })
}

/// The id of a resource of the caller's: a whole id, the beginning of one, or the name of an instance, an image or a key pair.
fn own(db: &Connection, scope: &Scope, given: &str) -> Result<Id, CloudError> {
    match kind_of(given) {
        Ok(kind) if Id::parse(kind, given).is_ok_and(|id| id.as_str().len() == kind.prefix().len() + 17) => {
            own_whole(db, scope, kind, given)
        }
        Ok(kind @ (Kind::Volume | Kind::Snapshot | Kind::Vpc)) => {
            let table = match kind {
                Kind::Volume => "volumes",
                Kind::Snapshot => "snapshots",
                _ => "vpcs",
            };
            own_whole(db, scope, kind, &lookup::resolve(db, scope, kind, table, given)?)
        }
        Ok(Kind::KeyPair) => key_pair::find(db, scope, given).map(|pair| pair.key_pair_id),
        Ok(kind @ (Kind::Subnet | Kind::SecurityGroup | Kind::SecurityGroupRule | Kind::NetworkInterface)) => {
            own_whole(db, scope, kind, Id::parse(kind, given)?.as_str())
        }
        kind => match instance::own(db, scope, given) {
            Ok(found) => Ok(found.instance_id),
            Err(error) if matches!(kind, Ok(Kind::Instance)) => Err(error),
            Err(_) => own_whole(db, scope, Kind::Image, image::resolve(db, scope, given)?.as_str()),
        },
    }
}

/// A resource of the caller's, by its whole id.
fn own_whole(db: &Connection, scope: &Scope, kind: Kind, id: &str) -> Result<Id, CloudError> {
    let not_found = || CloudError::NotFound { kind, id: id.to_owned() };
    let table = Table::of(kind).ok_or_else(not_found)?;
    let query = format!("SELECT it.id FROM {} WHERE it.id = ?1 AND region = ?2 AND owner = ?3", table.joined());
    let mut query = db.prepare_cached(&query)?;
    let found = query.query_row(params![id, scope.region, scope.account.as_str()], |row| row.get(0)).optional()?;
    found.ok_or_else(not_found)
}

impl Filtered for TagDescription {
    const FILTERS: &'static [&'static str] = &["key", "resource-id", "resource-type", "value"];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "key" => one(&self.key),
            "resource-id" => one(self.resource_id.as_str()),
            "resource-type" => one(self.resource_type),
            "value" => one(&self.value),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tag
    }
}

#[cfg(test)]
mod tests;
