//! What regions and zones can be looked for by: EC2's filters of DescribeRegions and DescribeAvailabilityZones.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{Region, Zone, list};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, optional, shown};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::tag::{NO_TAGS, Tags};

impl Region {
    /// The name of its endpoint on EC2.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("ec2.{}.amazonaws.com", self.region_name)
    }
}

impl Zone {
    /// The group of zones that it is part of ("groupName"): the region, or for a local zone the zone without its letter.
    #[must_use]
    pub fn group_name(&self) -> &str {
        match self.zone_type.as_str() {
            "availability-zone" => &self.region_name,
            _ => self.zone_name.trim_end_matches(|c: char| c.is_ascii_lowercase()),
        }
    }

    /// `opt-in-not-required` for availability zones, `opted-in` for the others: all zones can be used.
    #[must_use]
    pub fn opt_in_status(&self) -> &'static str {
        if self.zone_type == "availability-zone" { "opt-in-not-required" } else { "opted-in" }
    }
}

impl Cloud {
    /// Regions that pass `filters` ("DescribeRegions"): of all, or of those of `names`, each of which has to be there.
    ///
    /// # Errors
    /// `InvalidParameterValue`; what [`Filters::parse`] says.
    pub fn describe_regions(&mut self, names: &[String], filters: &[Filter]) -> Result<Vec<Region>, CloudError> {
        let filters = Filters::parse::<Region>(filters)?;
        let mut found = self.regions()?;
        check_names(names, found.iter().map(|region| region.region_name.as_str()), "region")?;
        found.retain(|region| (names.is_empty() || names.contains(&region.region_name)) && filters.pass(region));
        Ok(found)
    }

    /// Zones of the caller's region that pass `filters` ("DescribeAvailabilityZones"): of all, or of those with these names and
    /// ids, each of which has to be there. Availability zones only, unless `all` is set.
    ///
    /// # Errors
    /// `InvalidParameterValue`; what [`Filters::parse`] says.
    pub fn describe_zones(
        &mut self,
        names: &[String],
        ids: &[String],
        filters: &[Filter],
        all: bool,
    ) -> Result<Vec<Zone>, CloudError> {
        let filters = Filters::parse::<Zone>(filters)?;
        let region = self.scope.region.clone();
        let mut found = self.catalogue.read(|tx| list(tx, Some(&region)))?;
        check_names(names, found.iter().map(|zone| zone.zone_name.as_str()), "availability zone")?;
        check_names(ids, found.iter().map(|zone| zone.zone_id.as_str()), "availability zone-id")?;
        let is_asked_for = |zone: &Zone| match names.is_empty() && ids.is_empty() {
            true => all || zone.zone_type == "availability-zone",
            false => names.contains(&zone.zone_name) || ids.contains(&zone.zone_id),
        };
        found.retain(|zone| is_asked_for(zone) && filters.pass(zone));
        Ok(found)
    }
}

/// Refuses names that there are not.
fn check_names<'a>(names: &[String], there: impl Iterator<Item = &'a str>, what: &str) -> Result<(), CloudError> {
    let there: HashSet<&str> = there.collect();
    match names.iter().find(|name| !there.contains(name.as_str())) {
        Some(name) => Err(CloudError::value(format!("Invalid {what}: [{name}]"))),
        None => Ok(()),
    }
}

impl Filtered for Region {
    const FILTERS: &'static [&'static str] = &["endpoint", "opt-in-status", "region-name"];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "endpoint" => shown(&self.endpoint()),
            "opt-in-status" => one("opt-in-not-required"),
            "region-name" => one(&self.region_name),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &NO_TAGS
    }
}

impl Filtered for Zone {
    const FILTERS: &'static [&'static str] = &[
        "group-name",
        "opt-in-status",
        "parent-zone-name",
        "region-name",
        "state",
        "zone-id",
        "zone-name",
        "zone-type",
        // No zone has these.
        "group-long-name",
        "message",
        "parent-zone-id",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "group-name" => one(self.group_name()),
            "opt-in-status" => one(self.opt_in_status()),
            "parent-zone-name" => optional(self.parent_zone_name.as_deref()),
            "region-name" => one(&self.region_name),
            "state" => one("available"),
            "zone-id" => one(&self.zone_id),
            "zone-name" => one(&self.zone_name),
            "zone-type" => one(&self.zone_type),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &NO_TAGS
    }
}
