//! Listings of network interfaces, and what they can be looked for by: EC2's filters of DescribeNetworkInterfaces.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv4Addr;

use rusqlite::{Connection, Params, Row, params};

use super::{GroupIdentifier, NetworkInterface, cidr, parsed, private_dns_name};
use crate::cloud::error::CloudError;
use crate::cloud::filter::values::{one, shown, truth};
use crate::cloud::filter::{Filter, Filtered, Filters};
use crate::cloud::id::{Id, Kind};
use crate::cloud::scope::Scope;
use crate::cloud::tag::Tags;
use crate::cloud::{Cloud, time};

const COLUMNS: &str =
    "interfaces.id, subnets.id, subnets.cidr, vpcs.id, vpcs.cidr, address, mac, attached, vpcs.region,
    instance, vpcs.owner, subnets.zone";

/// Interfaces with what is around them.
const FROM: &str = "FROM interfaces JOIN subnets ON subnets.id = subnet JOIN vpcs ON vpcs.id = vpc";

fn from_row(row: &Row<'_>) -> rusqlite::Result<NetworkInterface> {
    let (address, region): (Ipv4Addr, String) = (parsed(row, 5)?, row.get(8)?);
    Ok(NetworkInterface {
        network_interface_id: row.get(0)?,
        subnet_id: row.get(1)?,
        subnet_cidr: cidr(row, 2)?,
        vpc_id: row.get(3)?,
        vpc_cidr: cidr(row, 4)?,
        private_ip_address: address,
        private_dns_name: private_dns_name(address, &region),
        mac_address: parsed(row, 6)?,
        attach_time: time::format(row.get(7)?),
        instance_id: row.get(9)?,
        owner_id: row.get(10)?,
        availability_zone: row.get(11)?,
        groups: Vec::new(),
        tags: Tags::new(),
    })
}

/// Interfaces that a condition leaves, with their groups and tags, from three queries however many there are.
fn select(db: &Connection, condition: &str, values: impl Params + Clone) -> Result<Vec<NetworkInterface>, CloudError> {
    let mut query =
        db.prepare_cached(&format!("SELECT {COLUMNS} {FROM} WHERE {condition} ORDER BY attached, interfaces.id"))?;
    let found = query.query_map(values.clone(), from_row)?;
    let mut found: Vec<NetworkInterface> = found.collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Ok(found);
    }
    let places: HashMap<Id, usize> =
        found.iter().enumerate().map(|(at, interface)| (interface.network_interface_id.clone(), at)).collect();
    let mut groups = db.prepare_cached(&format!(
        "SELECT interface, security_groups.id, name FROM interface_groups
             JOIN security_groups ON security_groups.id = security_group
         WHERE interface IN (SELECT interfaces.id {FROM} WHERE {condition}) ORDER BY name"
    ))?;
    let mut rows = groups.query(values.clone())?;
    while let Some(row) = rows.next()? {
        let id: Id = row.get(0)?;
        if let Some(interface) = places.get(&id).and_then(|at| found.get_mut(*at)) {
            interface.groups.push(GroupIdentifier { group_id: row.get(1)?, group_name: row.get(2)? });
        }
    }
    let mut tags = db.prepare_cached(&format!(
        "SELECT resource, key, value FROM tags
         WHERE resource IN (SELECT interfaces.id {FROM} WHERE {condition})"
    ))?;
    let mut rows = tags.query(values)?;
    while let Some(row) = rows.next()? {
        let id: Id = row.get(0)?;
        if let Some(interface) = places.get(&id).and_then(|at| found.get_mut(*at)) {
            interface.tags.insert(row.get(1)?, row.get(2)?);
        }
    }
    Ok(found)
}

/// The interface of an instance, if it has one.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn of_instance(db: &Connection, instance: &Id) -> Result<Option<NetworkInterface>, CloudError> {
    Ok(select(db, "instance = ?1", params![instance])?.pop())
}

/// The interfaces of all of the caller's instances.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(in crate::cloud) fn of_all(db: &Connection, scope: &Scope) -> Result<HashMap<Id, NetworkInterface>, CloudError> {
    let all = all(db, scope)?;
    Ok(all.into_iter().map(|interface| (interface.instance_id.clone(), interface)).collect())
}

fn all(db: &Connection, scope: &Scope) -> Result<Vec<NetworkInterface>, CloudError> {
    select(db, "vpcs.region = ?1 AND vpcs.owner = ?2", [scope.region.as_str(), scope.account.as_str()])
}

impl Cloud {
    /// Network interfaces of the caller's instances that pass `filters` ("DescribeNetworkInterfaces"): of all, or of those of
    /// `ids`, each of which has to be there. The oldest come first.
    ///
    /// # Errors
    /// `InvalidNetworkInterfaceID.NotFound`, `.Malformed`; what [`Filters::parse`] says.
    pub fn describe_network_interfaces(
        &mut self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<NetworkInterface>, CloudError> {
        let filters = Filters::parse::<NetworkInterface>(filters)?;
        let scope = self.scope.clone();
        let mut found = self.catalogue.read(|tx| all(tx, &scope))?;
        super::keep_asked_for(&mut found, Kind::NetworkInterface, ids, |interface| &interface.network_interface_id)?;
        found.retain(|interface| filters.pass(interface));
        Ok(found)
    }
}

impl Filtered for NetworkInterface {
    const FILTERS: &'static [&'static str] = &[
        "addresses.primary",
        "addresses.private-ip-address",
        "attachment.attach-time",
        "attachment.attachment-id",
        "attachment.delete-on-termination",
        "attachment.device-index",
        "attachment.instance-id",
        "attachment.instance-owner-id",
        "attachment.network-card-index",
        "attachment.status",
        "availability-zone",
        "description",
        "group-id",
        "group-name",
        "interface-type",
        "mac-address",
        "network-interface-id",
        "owner-id",
        "private-dns-name",
        "private-ip-address",
        "requester-managed",
        "source-dest-check",
        "status",
        "subnet-id",
        "vpc-id",
        // Those that no interface has anything for here.
        "addresses.association.owner-id",
        "addresses.association.public-ip",
        "association.allocation-id",
        "association.association-id",
        "association.ip-owner-id",
        "association.public-dns-name",
        "association.public-ip",
        "attachment.nat-gateway-id",
        "availability-zone-id",
        "ipv6-addresses.ipv6-address",
        "operator.managed",
        "operator.principal",
        "requester-id",
    ];

    fn values(&self, filter: &str) -> Vec<Cow<'_, str>> {
        match filter {
            "addresses.primary" | "attachment.delete-on-termination" | "source-dest-check" => one(truth(true)),
            "addresses.private-ip-address" | "private-ip-address" => shown(&self.private_ip_address),
            "addresses.private-dns-name" | "private-dns-name" => one(&self.private_dns_name),
            "attachment.attach-time" => one(&self.attach_time),
            "attachment.attachment-id" => one(self.attachment_id()),
            "attachment.device-index" | "attachment.network-card-index" => one("0"),
            "attachment.instance-id" => one(self.instance_id.as_str()),
            "attachment.instance-owner-id" | "owner-id" => one(&self.owner_id),
            "attachment.status" => one("attached"),
            "availability-zone" => one(&self.availability_zone),
            "description" => one(""),
            "group-id" => self.groups.iter().map(|group| Cow::from(group.group_id.as_str())).collect(),
            "group-name" => self.groups.iter().map(|group| Cow::from(&group.group_name)).collect(),
            "interface-type" => one("interface"),
            "mac-address" => shown(&self.mac_address),
            "network-interface-id" => one(self.network_interface_id.as_str()),
            "requester-managed" => one(truth(false)),
            "status" => one("in-use"),
            "subnet-id" => one(self.subnet_id.as_str()),
            "vpc-id" => one(self.vpc_id.as_str()),
            _ => Vec::new(),
        }
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
