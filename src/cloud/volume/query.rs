//! Listings of volumes, and what they can be looked for by: EC2's filters of DescribeVolumes.

use std::borrow::Cow;
use std::collections::HashMap;

use rusqlite::Connection;

use super::modify::VolumeModification;
use super::{Attachment, COLUMNS, Volume, attachment, from_row, own};
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, optional, shown, shown_if, truth};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::id::Id;
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::cloud::{Cloud, zone};

impl Cloud {
    /// Volumes of the caller's: all, or those of `ids`.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`.
    pub fn volumes(&mut self, ids: &[String]) -> Result<Vec<Volume>, CloudError> {
        self.describe_volumes(ids, &[])
    }

    /// Volumes of the caller's that pass `filters` ("DescribeVolumes"): of all, or of those of `ids`, each of which has to be
    /// there. The oldest come first.
    ///
    /// # Errors
    /// `InvalidVolume.NotFound`; what [`Filters::parse`] says.
    pub fn describe_volumes(&mut self, ids: &[String], filters: &[Filter]) -> Result<Vec<Volume>, CloudError> {
        let filters = Filters::parse::<Volume>(filters)?;
        let scope = self.scope.clone();
        let mut found: Vec<Volume> = self.catalogue.read(|tx| match ids {
            [] => all(tx, &scope),
            ids => ids.iter().map(|id| own(tx, &scope, id)).collect(),
        })?;
        found.retain(|volume| filters.pass(volume));
        Ok(found)
    }
}

fn all(db: &Connection, scope: &Scope) -> Result<Vec<Volume>, CloudError> {
    let query = format!("SELECT {COLUMNS} FROM volumes WHERE region = ?1 AND owner = ?2 ORDER BY created, id");
    let mut query = db.prepare_cached(&query)?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], from_row)?;
    let mut found: Vec<Volume> = found.collect::<Result<_, _>>()?;
    let mut tags = tag::of_all(db, tag::Table::Volumes, scope)?;
    let zones: HashMap<String, String> =
        zone::list(db, Some(&scope.region))?.into_iter().map(|zone| (zone.zone_name, zone.zone_id)).collect();
    let mut attachments: HashMap<Id, Vec<Attachment>> = HashMap::new();
    for at in attachments_of_all(db, scope)?.into_values().flatten() {
        attachments.entry(at.volume_id.clone()).or_default().push(at);
    }
    for volume in &mut found {
        volume.tags = tags.remove(&volume.volume_id).unwrap_or_default();
        volume.attachments = attachments.remove(&volume.volume_id).unwrap_or_default();
        volume.availability_zone_id = zones.get(&volume.availability_zone).cloned();
    }
    Ok(found)
}

/// The attachments of all of the caller's instances, each in the order of their devices' names.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn attachments_of_all(
    db: &Connection,
    scope: &Scope,
) -> Result<HashMap<Id, Vec<Attachment>>, CloudError> {
    let mut query = db.prepare_cached(
        "SELECT volume, instance, device, attachments.state, attached, delete_on_termination
         FROM instances JOIN attachments ON instance = id WHERE region = ?1 AND owner = ?2 ORDER BY device",
    )?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], attachment)?;
    let mut all: HashMap<Id, Vec<Attachment>> = HashMap::new();
    for at in found {
        let at = at?;
        all.entry(at.instance_id.clone()).or_default().push(at);
    }
    Ok(all)
}

impl Filtered for Volume {
    const FILTERS: &'static [&'static str] = &[
        "attachment.attach-time",
        "attachment.delete-on-termination",
        "attachment.device",
        "attachment.instance-id",
        "attachment.status",
        "availability-zone",
        "availability-zone-id",
        "create-time",
        "encrypted",
        "fast-restored",
        "multi-attach-enabled",
        "size",
        "snapshot-id",
        "status",
        "volume-id",
        "volume-type",
        // Those that no volume has anything for here.
        "operator.managed",
        "operator.principal",
        "outpost-arn",
        "source-volume-id",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        let attachments = self.attachments.iter();
        match filter {
            "attachment.attach-time" => attachments.map(|at| Cow::from(&at.attach_time)).collect(),
            "attachment.delete-on-termination" => attachments.map(|at| truth(at.delete_on_termination)).collect(),
            "attachment.device" => attachments.map(|at| Cow::from(&at.device)).collect(),
            "attachment.instance-id" => attachments.map(|at| Cow::from(at.instance_id.as_str())).collect(),
            "attachment.status" => attachments.map(|at| Cow::from(&at.state)).collect(),
            "availability-zone" => one(&self.availability_zone),
            "availability-zone-id" => optional(self.availability_zone_id.as_deref()),
            "create-time" => one(&self.create_time),
            "encrypted" | "fast-restored" | "multi-attach-enabled" => one(truth(false)),
            "size" => shown(&self.size),
            "snapshot-id" => optional(self.snapshot_id.as_deref()),
            "status" => one(&self.state),
            "volume-id" => one(self.volume_id.as_str()),
            "volume-type" => one(&self.volume_type),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

/// What nobody can tag has none.
static NO_TAGS: Tags = Tags::new();

impl Filtered for VolumeModification {
    const FILTERS: &'static [&'static str] = &[
        "modification-state",
        "original-iops",
        "original-size",
        "original-volume-type",
        "originalMultiAttachEnabled",
        "start-time",
        "target-iops",
        "target-size",
        "target-volume-type",
        "targetMultiAttachEnabled",
        "volume-id",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "modification-state" => one(&self.modification_state),
            "original-iops" => shown_if(self.original_iops),
            "original-size" => shown(&self.original_size),
            "original-volume-type" => one(&self.original_volume_type),
            "originalMultiAttachEnabled" | "targetMultiAttachEnabled" => one(truth(false)),
            "start-time" => one(&self.start_time),
            "target-iops" => shown_if(self.target_iops),
            "target-size" => shown(&self.target_size),
            "target-volume-type" => one(&self.target_volume_type),
            "volume-id" => one(self.volume_id.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &NO_TAGS
    }
}
