//! Listings of VPCs and subnets, and what they can be looked for by.

use std::borrow::Cow;
use std::collections::HashMap;

use rusqlite::Connection;
use serde::Serialize;

use super::{RESERVED, as_text, cidr, keep_asked_for};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, optional, shown, truth};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::id::{Id, Kind};
use crate::cloud::scope::Scope;
use crate::cloud::tag::{self, Tags};
use crate::net::cidr::Cidr;

/// A virtual private cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vpc {
    /// `vpc-...`
    pub vpc_id: Id,
    /// Its addresses.
    #[serde(serialize_with = "as_text")]
    pub cidr_block: Cidr,
    /// Whether it is the one that launches go to which name none.
    pub is_default: bool,
    /// Who owns it.
    pub owner_id: String,
    /// Its tags.
    pub tags: Tags,
}

impl Vpc {
    /// What says that the VPC has its addresses: `vpc-cidr-assoc-...`
    #[must_use]
    pub fn cidr_association_id(&self) -> String {
        let id = self.vpc_id.as_str();
        format!("vpc-cidr-assoc-{}", id.strip_prefix(Kind::Vpc.prefix()).unwrap_or(id))
    }
}

/// A part of a VPC, in one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subnet {
    /// `subnet-...`
    pub subnet_id: Id,
    /// The VPC.
    pub vpc_id: Id,
    /// Its addresses.
    #[serde(serialize_with = "as_text")]
    pub cidr_block: Cidr,
    /// Its zone.
    pub availability_zone: String,
    /// The zone's id.
    pub availability_zone_id: Option<String>,
    /// How many addresses nobody has.
    pub available_ip_address_count: u32,
    /// Whether it is the one that launches in the zone go to which name none.
    pub default_for_az: bool,
    /// Who owns it.
    pub owner_id: String,
    /// Its region.
    #[serde(skip)]
    pub region: String,
    /// Its tags.
    pub tags: Tags,
}

impl Subnet {
    /// Its Amazon Resource Name.
    #[must_use]
    pub fn arn(&self) -> String {
        format!("arn:aws:ec2:{}:{}:subnet/{}", self.region, self.owner_id, self.subnet_id)
    }
}

impl Cloud {
    /// VPCs of the caller's that pass `filters` ("DescribeVpcs"): of all, or of those of `ids`, each of which has to be there.
    ///
    /// # Errors
    /// `InvalidVpcID.NotFound`, `.Malformed`; what [`Filters::parse`] says.
    pub fn describe_vpcs(&mut self, ids: &[String], filters: &[Filter]) -> Result<Vec<Vpc>, CloudError> {
        let filters = Filters::parse::<Vpc>(filters)?;
        self.ensure_network()?;
        let scope = self.scope.clone();
        let mut found = self.catalogue.read(|tx| vpcs(tx, &scope))?;
        keep_asked_for(&mut found, Kind::Vpc, ids, |vpc| &vpc.vpc_id)?;
        found.retain(|vpc| filters.pass(vpc));
        Ok(found)
    }

    /// Subnets of the caller's that pass `filters` ("DescribeSubnets"), likewise, in the order of their addresses.
    ///
    /// # Errors
    /// `InvalidSubnetID.NotFound`, `.Malformed`; what [`Filters::parse`] says.
    pub fn describe_subnets(&mut self, ids: &[String], filters: &[Filter]) -> Result<Vec<Subnet>, CloudError> {
        let filters = Filters::parse::<Subnet>(filters)?;
        self.ensure_network()?;
        let scope = self.scope.clone();
        let mut found = self.catalogue.read(|tx| subnets(tx, &scope))?;
        keep_asked_for(&mut found, Kind::Subnet, ids, |subnet| &subnet.subnet_id)?;
        found.retain(|subnet| filters.pass(subnet));
        Ok(found)
    }
}

fn vpcs(db: &Connection, scope: &Scope) -> Result<Vec<Vpc>, CloudError> {
    let mut tags = tag::of_all(db, tag::Table::Vpcs, scope)?;
    let mut query = db.prepare_cached(
        "SELECT id, cidr, is_default, owner FROM vpcs WHERE region = ?1 AND owner = ?2 ORDER BY is_default DESC, id",
    )?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], |row| {
        let vpc_id: Id = row.get(0)?;
        let tags = tags.remove(&vpc_id).unwrap_or_default();
        Ok(Vpc { vpc_id, cidr_block: cidr(row, 1)?, is_default: row.get(2)?, owner_id: row.get(3)?, tags })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn subnets(db: &Connection, scope: &Scope) -> Result<Vec<Subnet>, CloudError> {
    let mut tags = tag::of_all(db, tag::Table::Subnets, scope)?;
    let mut count = db.prepare_cached("SELECT subnet, count(*) FROM interfaces GROUP BY subnet")?;
    let taken = count.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let taken: HashMap<Id, u32> = taken.collect::<Result<_, _>>()?;
    let mut query = db.prepare_cached(
        "SELECT subnets.id, vpc, subnets.cidr, zone, zone_id, subnets.is_default, owner, vpcs.region
         FROM vpcs JOIN subnets ON vpc = vpcs.id LEFT JOIN zones ON zones.name = zone
         WHERE vpcs.region = ?1 AND owner = ?2 ORDER BY subnets.rowid",
    )?;
    let found = query.query_map([scope.region.as_str(), scope.account.as_str()], |row| {
        let (subnet_id, cidr_block): (Id, Cidr) = (row.get(0)?, cidr(row, 2)?);
        let taken = taken.get(&subnet_id).copied().unwrap_or(0);
        let tags = tags.remove(&subnet_id).unwrap_or_default();
        Ok(Subnet {
            subnet_id,
            vpc_id: row.get(1)?,
            cidr_block,
            availability_zone: row.get(3)?,
            availability_zone_id: row.get(4)?,
            available_ip_address_count: cidr_block.size().saturating_sub(RESERVED + 1).saturating_sub(taken),
            default_for_az: row.get(5)?,
            owner_id: row.get(6)?,
            region: row.get(7)?,
            tags,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

impl Filtered for Vpc {
    const FILTERS: &'static [&'static str] = &[
        "cidr",
        "cidr-block-association.association-id",
        "cidr-block-association.cidr-block",
        "cidr-block-association.state",
        "dhcp-options-id",
        "instance-tenancy",
        "is-default",
        "isDefault",
        "owner-id",
        "state",
        "vpc-id",
        // Those that no VPC has anything for here.
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.ipv6-pool",
        "ipv6-cidr-block-association.state",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "cidr" | "cidr-block-association.cidr-block" => shown(&self.cidr_block),
            "cidr-block-association.association-id" => one(self.cidr_association_id()),
            "cidr-block-association.state" => one("associated"),
            "dhcp-options-id" | "instance-tenancy" => one("default"),
            "is-default" | "isDefault" => one(truth(self.is_default)),
            "owner-id" => one(&self.owner_id),
            "state" => one("available"),
            "vpc-id" => one(self.vpc_id.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Filtered for Subnet {
    const FILTERS: &'static [&'static str] = &[
        "availability-zone",
        "availability-zone-id",
        "availabilityZone",
        "availabilityZoneId",
        "available-ip-address-count",
        "cidr",
        "cidr-block",
        "cidrBlock",
        "default-for-az",
        "defaultForAz",
        "enable-dns64",
        "ipv6-native",
        "map-customer-owned-ip-on-launch",
        "map-public-ip-on-launch",
        "owner-id",
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record",
        "private-dns-name-options-on-launch.hostname-type",
        "state",
        "subnet-arn",
        "subnet-id",
        "vpc-id",
        // Those that no subnet has anything for here.
        "customer-owned-ipv4-pool",
        "enable-lni-at-device-index",
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.state",
        "outpost-arn",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "availability-zone" | "availabilityZone" => one(&self.availability_zone),
            "availability-zone-id" | "availabilityZoneId" => optional(self.availability_zone_id.as_deref()),
            "available-ip-address-count" => shown(&self.available_ip_address_count),
            "cidr" | "cidr-block" | "cidrBlock" => shown(&self.cidr_block),
            "default-for-az" | "defaultForAz" => one(truth(self.default_for_az)),
            "enable-dns64"
            | "ipv6-native"
            | "map-customer-owned-ip-on-launch"
            | "map-public-ip-on-launch"
            | "private-dns-name-options-on-launch.enable-resource-name-dns-a-record"
            | "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record" => one(truth(false)),
            "owner-id" => one(&self.owner_id),
            "private-dns-name-options-on-launch.hostname-type" => one("ip-name"),
            "state" => one("available"),
            "subnet-arn" => one(self.arn()),
            "subnet-id" => one(self.subnet_id.as_str()),
            "vpc-id" => one(self.vpc_id.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
