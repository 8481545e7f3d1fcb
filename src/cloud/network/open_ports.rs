//! What of running instances their security groups open to this host.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rusqlite::Connection;

use super::group::{Peer, Protocol, Traffic};
use crate::cloud::Cloud;
use crate::cloud::error::CloudError;
use crate::cloud::id::Id;
use crate::cloud::scope::Scope;
use crate::net::cidr::Cidr;

/// An instance with a guest that runs, and what may be sent to it by somebody at `127.0.0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenInstance {
    /// The instance.
    pub instance_id: Id,
    /// Where it is, and whose.
    pub scope: Scope,
    /// Its address in its VPC.
    pub private_address: Ipv4Addr,
    /// Ranges of TCP ports, first and last.
    pub tcp: Vec<(u16, u16)>,
}

impl Cloud {
    /// All running instances with guests, of all accounts in all regions, by their ids.
    ///
    /// # Errors
    /// What the catalogue says.
    pub fn open_instances(&mut self) -> Result<Vec<OpenInstance>, CloudError> {
        self.catalogue.read(|tx| open(tx))
    }
}

fn open(db: &Connection) -> Result<Vec<OpenInstance>, CloudError> {
    let mut query = db.prepare_cached(
        "SELECT instances.id, region, owner, address, protocol, from_port, to_port, peer
         FROM instances JOIN interfaces ON interfaces.instance = instances.id
             LEFT JOIN interface_groups ON interface = interfaces.id
             LEFT JOIN security_group_rules AS rules
                 ON rules.security_group = interface_groups.security_group AND NOT is_egress
         WHERE state = 'running' AND backend = 'machine'",
    )?;
    let mut found: BTreeMap<String, OpenInstance> = BTreeMap::new();
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, address): (Id, String) = (row.get(0)?, row.get(3)?);
        let (Ok(account), Ok(private_address)) = (row.get::<_, String>(2)?.parse(), address.parse()) else { continue };
        let scope = Scope { region: row.get(1)?, account };
        let instance = found.entry(id.to_string()).or_insert(OpenInstance {
            instance_id: id,
            scope,
            private_address,
            tcp: Vec::new(),
        });
        if let Some(protocol) = row.get::<_, Option<Protocol>>(4)? {
            let traffic = Traffic { protocol, from_port: row.get(5)?, to_port: row.get(6)? };
            instance.tcp.extend(ports(&traffic, &row.get(7)?));
        }
    }
    let mut found: Vec<OpenInstance> = found.into_values().collect();
    found.iter_mut().for_each(|instance| instance.tcp.sort_unstable());
    Ok(found)
}

/// The TCP ports that a rule opens to this host.
fn ports(traffic: &Traffic, peer: &Peer) -> Option<(u16, u16)> {
    let Peer::Ipv4(block) = peer else { return None };
    let is_here = block == "0.0.0.0/0" || block.parse::<Cidr>().is_ok_and(|block| block.contains(Ipv4Addr::LOCALHOST));
    let is_tcp = traffic.protocol == Protocol::TCP;
    if !is_here || !(is_tcp || traffic.protocol == Protocol::All) {
        return None;
    }
    if !is_tcp || traffic.from_port < 0 {
        return Some((0, u16::MAX));
    }
    Some((u16::try_from(traffic.from_port).ok()?, u16::try_from(traffic.to_port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_opens_what_it_says_to_whom_it_says() {
        let rule = |protocol, from_port, to_port, peer: &str| {
            ports(&Traffic { protocol, from_port, to_port }, &Peer::Ipv4(peer.into()))
        };
        assert_eq!(rule(Protocol::TCP, 22, 22, "0.0.0.0/0"), Some((22, 22)));
        assert_eq!(rule(Protocol::TCP, 8000, 8010, "127.0.0.0/8"), Some((8000, 8010)));
        assert_eq!(rule(Protocol::TCP, 22, 22, "127.0.0.1/32"), Some((22, 22)));
        assert_eq!(rule(Protocol::All, -1, -1, "0.0.0.0/0"), Some((0, 65535)));
        assert_eq!(rule(Protocol::TCP, 22, 22, "10.0.0.0/8"), None);
        assert_eq!(rule(Protocol::UDP, 53, 53, "0.0.0.0/0"), None);
        let of_group = Peer::Group(Id::new(crate::cloud::Kind::SecurityGroup).unwrap());
        assert_eq!(ports(&Traffic { protocol: Protocol::All, from_port: -1, to_port: -1 }, &of_group), None);
    }
}
