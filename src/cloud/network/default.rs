//! What an account has in a region from the beginning: a VPC, a subnet in each zone, a security group.
//!
//! They are numbered as EC2 numbers default ones: 172.31.0.0/16, and 4096 addresses for each subnet.

use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{cidr, group, new_id};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::home::Home;
use crate::cloud::id::{Id, Kind};
use crate::cloud::scope::Scope;
use crate::cloud::zone;
use crate::net::cidr::Cidr;

/// The addresses of a default VPC.
pub const DEFAULT_VPC: Cidr = Cidr::new(Ipv4Addr::new(172, 31, 0, 0), 16);
/// How many leading bits are a default subnet's own.
const SUBNET_BITS: u8 = 20;
/// How many default subnets there is room for.
const MOST_SUBNETS: u32 = 1 << (SUBNET_BITS - DEFAULT_VPC.bits());

impl Cloud {
    /// Makes what the caller has from the beginning, where it is not there yet.
    ///
    /// # Errors
    /// What the catalogue or the host says.
    pub(super) fn ensure_network(&mut self) -> Result<(), CloudError> {
        let (scope, home) = (self.scope.clone(), self.home.clone());
        if self.catalogue.read(|tx| is_whole(tx, &scope))? {
            return Ok(());
        }
        self.catalogue.write(|tx| ensure(tx, &home, &scope).map(|_| ()))
    }
}

/// Whether a VPC is there, with a subnet in each availability zone (or as many as there is room for).
fn is_whole(db: &Connection, scope: &Scope) -> Result<bool, CloudError> {
    let mut query = db.prepare_cached(
        "SELECT count(*), (SELECT count(*) FROM zones WHERE region = ?1 AND zone_type = 'availability-zone'
             AND NOT EXISTS (SELECT 1 FROM subnets WHERE vpc = vpcs.id AND zone = zones.name AND is_default)),
             (SELECT count(*) FROM subnets WHERE vpc = vpcs.id)
         FROM vpcs WHERE region = ?1 AND owner = ?2 AND is_default",
    )?;
    let found = query.query_row([scope.region.as_str(), scope.account.as_str()], |row| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, Option<u32>>(1)?, row.get::<_, Option<u32>>(2)?))
    })?;
    Ok(match found {
        (0, ..) => false,
        (_, missing, there) => missing.unwrap_or(0) == 0 || there.unwrap_or(0) >= MOST_SUBNETS,
    })
}

/// The caller's default VPC, with a subnet in each availability zone.
///
/// # Errors
/// What the catalogue or the host says.
pub(super) fn ensure(tx: &Transaction<'_>, home: &Home, scope: &Scope) -> Result<Id, CloudError> {
    let vpc = default_vpc(tx, home, scope)?;
    if is_whole(tx, scope)? {
        return Ok(vpc);
    }
    for zone in zone::list(tx, Some(&scope.region))? {
        let has_room = subnets(tx, &vpc)? < MOST_SUBNETS;
        if zone.zone_type == zone::ZONE_TYPES[0] && has_room {
            default_subnet(tx, home, scope, &zone.zone_name)?;
        }
    }
    Ok(vpc)
}

/// The caller's default VPC in the region, with its default security group.
pub(super) fn default_vpc(tx: &Transaction<'_>, home: &Home, scope: &Scope) -> Result<Id, CloudError> {
    let select = "SELECT id FROM vpcs WHERE region = ?1 AND owner = ?2 AND is_default";
    let found = tx.query_row(select, [&scope.region, scope.account.as_str()], |row| row.get(0)).optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    let vpc = new_id(home, Kind::Vpc)?;
    tx.execute(
        "INSERT INTO vpcs VALUES (?1, ?2, ?3, ?4, 1)",
        params![vpc, scope.region, scope.account.as_str(), DEFAULT_VPC.to_string()],
    )?;
    group::insert_default(tx, home, &vpc)?;
    Ok(vpc)
}

/// The default subnet of a zone, and its addresses.
///
/// # Errors
/// `SubnetLimitExceeded`.
pub(super) fn default_subnet(
    tx: &Transaction<'_>,
    home: &Home,
    scope: &Scope,
    zone: &str,
) -> Result<(Id, Cidr), CloudError> {
    let vpc = default_vpc(tx, home, scope)?;
    let select = "SELECT id, cidr FROM subnets WHERE vpc = ?1 AND zone = ?2 AND is_default";
    let found = tx.query_row(select, params![vpc, zone], |row| Ok((row.get(0)?, cidr(row, 1)?))).optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    let count = subnets(tx, &vpc)?;
    let Some(cidr) = DEFAULT_VPC.part(SUBNET_BITS, count) else {
        return Err(CloudError::Parameter {
            code: "SubnetLimitExceeded",
            message: format!("{vpc} has no addresses left for a subnet in {zone}: {count} zones have one"),
        });
    };
    let subnet = new_id(home, Kind::Subnet)?;
    tx.execute("INSERT INTO subnets VALUES (?1, ?2, ?3, ?4, 1)", params![subnet, vpc, zone, cidr.to_string()])?;
    Ok((subnet, cidr))
}

fn subnets(tx: &Transaction<'_>, vpc: &Id) -> Result<u32, CloudError> {
    Ok(tx.query_row("SELECT count(*) FROM subnets WHERE vpc = ?1", [vpc], |row| row.get(0))?)
}
