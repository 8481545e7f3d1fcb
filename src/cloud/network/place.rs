//! Where a launch puts its instances: which subnet, which address, which security groups.

use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{RESERVED, cidr, default, group, interface};
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::{Id, Kind};
use crate::cloud::scope::Scope;
use crate::cloud::{Cloud, instance, zone};
use crate::net::cidr::Cidr;

/// Most security groups of an interface: EC2's quota where nobody has asked for more.
const MAX_GROUPS: usize = 5;

/// What a launch says of its network.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cloud) struct Wanted<'a> {
    /// The zone, where that is said.
    pub zone: Option<&'a str>,
    /// The subnet, by its id.
    pub subnet: Option<&'a str>,
    /// Security groups by their ids.
    pub groups: &'a [String],
    /// Security groups by their names.
    pub group_names: &'a [String],
    /// The address, of a launch of one.
    pub address: Option<Ipv4Addr>,
    /// How many instances.
    pub count: u32,
}

/// Where instances are put.
#[derive(Clone, Debug)]
pub(in crate::cloud) struct Place {
    /// The zone.
    pub zone: String,
    pub(super) subnet: Id,
    pub(super) cidr: Cidr,
    pub(super) groups: Vec<Id>,
    pub(super) address: Option<Ipv4Addr>,
}

impl Place {
    /// The place that is asked for, or else the default subnet of the zone, or of the region's first, with the default group.
    ///
    /// # Errors
    /// `InvalidSubnetID.NotFound`, `InvalidGroup.NotFound`, `InvalidParameterCombination`, `InvalidParameterValue`,
    /// `InvalidIPAddress.InUse`, `SecurityGroupsPerInterfaceLimitExceeded`, `SubnetLimitExceeded`.
    pub fn choose(tx: &Transaction<'_>, home: &Home, scope: &Scope, wanted: &Wanted<'_>) -> Result<Self, CloudError> {
        if wanted.subnet.is_some() && !wanted.group_names.is_empty() {
            return Err(CloudError::combination("The parameter groupName cannot be used with the parameter subnet"));
        }
        let vpc = default::ensure(tx, home, scope)?;
        let (zone, subnet, cidr) = match wanted.subnet {
            Some(id) => {
                let (zone, subnet, cidr) = find(tx, scope, id)?;
                check_zone(&zone, wanted.zone, id)?;
                (zone, subnet, cidr)
            }
            None => {
                let zone = zone::choose(tx, &scope.region, wanted.zone)?;
                let (subnet, cidr) = default::default_subnet(tx, home, scope, &zone)?;
                (zone, subnet, cidr)
            }
        };
        if let Some(address) = wanted.address {
            if wanted.count > 1 {
                return Err(CloudError::combination(format!(
                    "The address {address} cannot be given to {} instances: launch one, or leave privateIpAddress out",
                    wanted.count
                )));
            }
            check_address(tx, &subnet, cidr, address)?;
        }
        let mut groups = Vec::new();
        for id in wanted.groups {
            groups.push(group::find(tx, scope, &group::GroupRef::Id(id.clone()))?);
        }
        for name in wanted.group_names {
            groups.push(group::find(tx, scope, &group::GroupRef::Name(name.clone()))?);
        }
        if groups.is_empty() {
            groups.push(group::default_of(tx, &vpc)?);
        }
        Ok(Self { zone, subnet, cidr, groups: checked(groups)?, address: wanted.address })
    }
}

/// A subnet of the caller's.
fn find(db: &Connection, scope: &Scope, id: &str) -> Result<(String, Id, Cidr), CloudError> {
    let id = Id::parse(Kind::Subnet, id)?;
    let found = db
        .query_row(
            "SELECT zone, subnets.cidr FROM subnets JOIN vpcs ON vpcs.id = vpc
             WHERE subnets.id = ?1 AND region = ?2 AND owner = ?3",
            params![id, scope.region, scope.account.as_str()],
            |row| Ok((row.get(0)?, cidr(row, 1)?)),
        )
        .optional()?;
    match found {
        Some((zone, cidr)) => Ok((zone, id, cidr)),
        None => Err(CloudError::NotFound { kind: Kind::Subnet, id: id.to_string() }),
    }
}

fn check_zone(zone: &str, asked: Option<&str>, subnet: &str) -> Result<(), CloudError> {
    match asked {
        Some(asked) if asked != zone => {
            Err(CloudError::value(format!("Invalid availability zone: [{asked}]: {subnet} is in {zone}")))
        }
        _ => Ok(()),
    }
}

fn check_address(db: &Connection, subnet: &Id, cidr: Cidr, address: Ipv4Addr) -> Result<(), CloudError> {
    if !cidr.contains(address) {
        let message = format!("Address {address} does not fall within the subnet's address range {cidr}");
        return Err(CloudError::value(message));
    }
    let number = address.to_bits().saturating_sub(cidr.first().to_bits());
    if number < RESERVED || address == cidr.broadcast() {
        return Err(CloudError::value(format!("Address {address} is in subnet's reserved address range")));
    }
    let taken = "SELECT EXISTS (SELECT 1 FROM interfaces WHERE subnet = ?1 AND address = ?2)";
    if db.query_row(taken, params![subnet, address.to_string()], |row| row.get(0))? {
        let message = format!("Address {address} is in use.");
        return Err(CloudError::Parameter { code: "InvalidIPAddress.InUse", message });
    }
    Ok(())
}

/// Each group once, and not too many.
fn checked(groups: Vec<Id>) -> Result<Vec<Id>, CloudError> {
    let mut each: Vec<Id> = Vec::new();
    for group in groups {
        if !each.contains(&group) {
            each.push(group);
        }
    }
    if each.len() <= MAX_GROUPS {
        return Ok(each);
    }
    Err(CloudError::Parameter {
        code: "SecurityGroupsPerInterfaceLimitExceeded",
        message: format!(
            "You have exceeded the number of security groups ({MAX_GROUPS}) allowed per network interface"
        ),
    })
}

/// Gives the interface of an instance other security groups, by their ids.
///
/// # Errors
/// `InvalidGroup.NotFound`, `SecurityGroupsPerInterfaceLimitExceeded`, `InvalidParameterValue` for none; `IncorrectState` for an
/// instance without an interface.
pub(in crate::cloud) fn set_groups(
    tx: &Transaction<'_>,
    scope: &Scope,
    instance: &Id,
    groups: &[String],
) -> Result<(), CloudError> {
    let Some(interface) = interface::of_instance(tx, instance)? else {
        let why = "it has no network interface yet; it gets one when it is started".to_owned();
        return Err(CloudError::State { what: instance.to_string(), why });
    };
    let found = groups.iter().map(|id| group::find(tx, scope, &group::GroupRef::Id(id.clone())));
    let found = checked(found.collect::<Result<_, _>>()?)?;
    if found.is_empty() {
        return Err(CloudError::value("You must specify at least one security group"));
    }
    let id = &interface.network_interface_id;
    tx.execute("DELETE FROM interface_groups WHERE interface = ?1", [id])?;
    for group in &found {
        tx.execute("INSERT INTO interface_groups VALUES (?1, ?2)", params![id, group])?;
    }
    Ok(())
}

impl Cloud {
    /// Gives a network interface other security groups, by their ids; its instance's metadata follow.
    ///
    /// # Errors
    /// `InvalidNetworkInterfaceID.NotFound`, `.Malformed`, `InvalidGroup.NotFound`, `SecurityGroupsPerInterfaceLimitExceeded`,
    /// `InvalidParameterValue` for none; what the instance's process says.
    pub fn modify_network_interface_groups(&mut self, id: &str, groups: &[String]) -> Result<(), CloudError> {
        let scope = self.scope.clone();
        let id = Id::parse(Kind::NetworkInterface, id)?;
        let instance = self.catalogue.write(|tx| {
            let select = "SELECT instance FROM interfaces WHERE id = ?1";
            let found: Option<Id> = tx.query_row(select, [&id], |row| row.get(0)).optional()?;
            let none = || CloudError::NotFound { kind: Kind::NetworkInterface, id: id.to_string() };
            // Of the caller's alone.
            let instance = instance::own(tx, &scope, found.ok_or_else(none)?.as_str()).map_err(|_| none())?;
            set_groups(tx, &scope, &instance.instance_id, groups)?;
            Ok(instance.instance_id)
        })?;
        self.tell_metadata(&instance)
    }
}
