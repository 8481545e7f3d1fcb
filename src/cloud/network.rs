//! Networks: an account's default VPC in a region, with a subnet in each zone and security groups, and the interfaces of
//! instances in it. What an account has from the beginning is made when it is first asked for.

use std::collections::HashSet;
use std::net::Ipv4Addr;

mod default;
pub mod group;
mod interface;
mod open_ports;
mod place;
mod vpc;

use rusqlite::{Transaction, params};
use serde::Serialize;

pub use default::DEFAULT_VPC;
pub(super) use interface::{of_all, of_instance};
pub use open_ports::OpenInstance;
pub(super) use place::{Place, Wanted, set_groups};
pub use vpc::{Subnet, Vpc};

use super::error::CloudError;
use super::home::Home;
use super::id::{Id, Kind};
use super::scope::Scope;
use super::tag::Tags;
use super::time;
use crate::disk::random_bytes;
use crate::net::Mac;
use crate::net::address::mac_of;
use crate::net::cidr::Cidr;

/// The first addresses of a subnet are the network's own: itself, gateway, DNS, kept. So is the last.
const RESERVED: u32 = 4;
/// How often an address is guessed before all are looked through.
const GUESSES: usize = 32;

/// A security group, as an interface has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupIdentifier {
    /// `sg-...`
    pub group_id: Id,
    /// Its name.
    pub group_name: String,
}

/// An instance's network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    /// `eni-...`
    pub network_interface_id: Id,
    /// The instance that has it.
    pub instance_id: Id,
    /// Who owns it.
    pub owner_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// Its subnet.
    pub subnet_id: Id,
    /// The subnet's addresses.
    #[serde(serialize_with = "as_text")]
    pub subnet_cidr: Cidr,
    /// Its VPC.
    pub vpc_id: Id,
    /// The VPC's addresses.
    #[serde(serialize_with = "as_text")]
    pub vpc_cidr: Cidr,
    /// Its address.
    pub private_ip_address: Ipv4Addr,
    /// The address's name within the VPC.
    pub private_dns_name: String,
    /// Its Ethernet address.
    #[serde(serialize_with = "as_text")]
    pub mac_address: Mac,
    /// When it came.
    pub attach_time: String,
    /// Its security groups, in the order of their names.
    pub groups: Vec<GroupIdentifier>,
    /// Its tags.
    pub tags: Tags,
}

impl NetworkInterface {
    /// The id of its attachment: `eni-attach-...`
    #[must_use]
    pub fn attachment_id(&self) -> String {
        let id = self.network_interface_id.as_str();
        format!("eni-attach-{}", id.strip_prefix(Kind::NetworkInterface.prefix()).unwrap_or(id))
    }
}

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The name of an address within its VPC, as EC2 makes it.
#[must_use]
pub fn private_dns_name(address: Ipv4Addr, region: &str) -> String {
    let [a, b, c, d] = address.octets();
    let domain = if region == "us-east-1" { "ec2.internal".to_owned() } else { format!("{region}.compute.internal") };
    format!("ip-{a}-{b}-{c}-{d}.{domain}")
}

fn new_id(home: &Home, kind: Kind) -> Result<Id, CloudError> {
    Id::new(kind).map_err(CloudError::host(home.root(), "cannot make an id"))
}

fn cidr(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Cidr> {
    parsed(row, at)
}

/// A column that was written as text.
fn parsed<T: std::str::FromStr>(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(at)?;
    text.parse().map_err(|e| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(e)))
}

/// Gives an instance an interface in the default subnet of its zone, unless it has one.
///
/// # Errors
/// `InsufficientFreeAddressesInSubnet`, `SubnetLimitExceeded`.
pub(super) fn attach(
    tx: &Transaction<'_>,
    home: &Home,
    scope: &Scope,
    instance: &Id,
    zone: &str,
) -> Result<(), CloudError> {
    if of_instance(tx, instance)?.is_some() {
        return Ok(());
    }
    let wanted = Wanted { zone: Some(zone), count: 1, ..Wanted::default() };
    attach_at(tx, home, instance, &Place::choose(tx, home, scope, &wanted)?)
}

/// Gives an instance an interface at a place.
///
/// # Errors
/// `InsufficientFreeAddressesInSubnet`.
pub(super) fn attach_at(tx: &Transaction<'_>, home: &Home, instance: &Id, place: &Place) -> Result<(), CloudError> {
    let address = place.address.map_or_else(|| free_address(tx, home, &place.subnet, place.cidr), Ok)?;
    let interface = new_id(home, Kind::NetworkInterface)?;
    tx.execute(
        "INSERT INTO interfaces VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![interface, instance, place.subnet, address.to_string(), mac_of(address).to_string(), time::now()],
    )?;
    for group in &place.groups {
        tx.execute("INSERT INTO interface_groups VALUES (?1, ?2)", params![interface, group])?;
    }
    Ok(())
}

/// An address that nobody has. A new instance seldom gets one that another has just given up: people remember addresses.
fn free_address(tx: &Transaction<'_>, home: &Home, subnet: &Id, cidr: Cidr) -> Result<Ipv4Addr, CloudError> {
    let count = cidr.size().saturating_sub(RESERVED + 1);
    let is_free = |address: Ipv4Addr| -> Result<bool, CloudError> {
        let select = "SELECT NOT EXISTS (SELECT 1 FROM interfaces WHERE subnet = ?1 AND address = ?2)";
        Ok(tx.query_row(select, params![subnet, address.to_string()], |row| row.get(0))?)
    };
    for _ in 0..GUESSES {
        let random = random_bytes().map_err(CloudError::host(home.root(), "cannot choose an address"))?;
        let number = u128::from_le_bytes(random).checked_rem(count.into()).unwrap_or(0);
        let number = u32::try_from(number).unwrap_or(0);
        if let Some(address) = cidr.address(RESERVED + number).filter(|_| count > 0)
            && is_free(address)?
        {
            return Ok(address);
        }
    }
    for address in (RESERVED..RESERVED + count).filter_map(|number| cidr.address(number)) {
        if is_free(address)? {
            return Ok(address);
        }
    }
    Err(CloudError::Parameter {
        code: "InsufficientFreeAddressesInSubnet",
        message: format!("{subnet} has no free address left"),
    })
}

/// Takes the interface of an instance away: its address is free.
///
/// # Errors
/// [`CloudError::Catalogue`].
pub(super) fn detach(tx: &Transaction<'_>, instance: &Id) -> Result<(), CloudError> {
    tx.execute("DELETE FROM tags WHERE resource IN (SELECT id FROM interfaces WHERE instance = ?1)", [instance])?;
    tx.execute("DELETE FROM interfaces WHERE instance = ?1", [instance])?;
    Ok(())
}

/// Keeps what was asked for, where anything was: each id has to be there.
///
/// # Errors
/// `.NotFound` of its kind, `.Malformed`.
fn keep_asked_for<T>(found: &mut Vec<T>, kind: Kind, ids: &[String], id_of: fn(&T) -> &Id) -> Result<(), CloudError> {
    if ids.is_empty() {
        return Ok(());
    }
    let there: HashSet<&str> = found.iter().map(|one| id_of(one).as_str()).collect();
    if let Some(id) = ids.iter().find(|id| !there.contains(id.as_str())) {
        Id::parse(kind, id)?;
        return Err(CloudError::NotFound { kind, id: id.clone() });
    }
    let asked_for: HashSet<&str> = ids.iter().map(String::as_str).collect();
    found.retain(|one| asked_for.contains(id_of(one).as_str()));
    Ok(())
}

#[cfg(test)]
mod tests;
