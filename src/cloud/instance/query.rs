//! Listings of instances.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::{COLUMNS, Instance, from_row, own};
use crate::cloud::error::CloudError;
use crate::cloud::filter::{Filter, Filters};
use crate::cloud::id::Id;
use crate::cloud::scope::Scope;
use crate::cloud::{Cloud, network, tag, volume};

impl Cloud {
    /// Instances of the caller's: all, or those of `ids`. Terminated ones stay listed for an hour.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`.
    pub fn instances(&mut self, ids: &[String]) -> Result<Vec<Instance>, CloudError> {
        self.describe_instances(ids, &[])
    }

    /// Instances of the caller's that pass `filters` ("DescribeInstances"): of all, or of those of `ids`, each of which has to
    /// be there. The oldest come first.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; what [`Filters::parse`] says.
    pub fn describe_instances(&mut self, ids: &[String], filters: &[Filter]) -> Result<Vec<Instance>, CloudError> {
        let filters = Filters::parse::<Instance>(filters)?;
        let scope = self.scope.clone();
        let mut found: Vec<Instance> = self.catalogue.read(|tx| match ids {
            [] => all(tx, &scope),
            ids => ids.iter().map(|id| own(tx, &scope, id)).collect(),
        })?;
        found.retain(|instance| filters.pass(instance));
        Ok(found)
    }
}

/// All instances of the caller's, put together from a few queries, however many there are.
fn all(db: &Connection, scope: &Scope) -> Result<Vec<Instance>, CloudError> {
    let query =
        format!("SELECT {COLUMNS} FROM instances WHERE region = ?1 AND owner = ?2 ORDER BY launched, launch_index, id");
    let mut query = db.prepare_cached(&query)?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
    let mut found: Vec<Instance> = found.collect::<Result<_, _>>()?;
    let mut tags = tag::of_all(db, tag::Table::Instances, scope)?;
    let mut interfaces = network::of_all(db, scope)?;
    let mut volumes = volume::attachments_of_all(db, scope)?;
    let mut more = more(db, scope)?;
    for instance in &mut found {
        let id = &instance.instance_id;
        instance.tags = tags.remove(id).unwrap_or_default();
        instance.network_interface = interfaces.remove(id);
        instance.block_device_mappings = volumes.remove(id).unwrap_or_default();
        if let Some(more) = more.remove(id) {
            more.put(instance);
        }
    }
    Ok(found)
}

/// What an instance has from its zone and its image.
struct More {
    zone_id: Option<String>,
    platform: Option<String>,
    platform_details: Option<String>,
    ena_support: Option<bool>,
}

impl More {
    fn put(self, instance: &mut Instance) {
        instance.availability_zone_id = self.zone_id;
        instance.platform = self.platform;
        instance.platform_details = self.platform_details;
        instance.ena_support = self.ena_support.unwrap_or_default();
    }
}

const MORE: &str = "SELECT instances.id, zone_id, platform, platform_details, ena_support FROM instances
    LEFT JOIN zones ON zones.name = zone LEFT JOIN images ON images.id = image";

fn more_of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Id, More)> {
    let more =
        More { zone_id: row.get(1)?, platform: row.get(2)?, platform_details: row.get(3)?, ena_support: row.get(4)? };
    Ok((row.get(0)?, more))
}

fn more(db: &Connection, scope: &Scope) -> Result<HashMap<Id, More>, CloudError> {
    let mut query = db.prepare_cached(&format!("{MORE} WHERE instances.region = ?1 AND instances.owner = ?2"))?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], more_of_row)?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Fills in what one instance has from its zone and its image.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn complete(db: &Connection, instance: &mut Instance) -> Result<(), CloudError> {
    let mut query = db.prepare_cached(&format!("{MORE} WHERE instances.id = ?1"))?;
    let (_, more) = query.query_row(params![instance.instance_id], more_of_row)?;
    more.put(instance);
    Ok(())
}
