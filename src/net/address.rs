//! Addresses of a subnet, and the Ethernet addresses that belong to them.

use std::net::Ipv4Addr;

use super::Mac;

/// The Ethernet address of whoever has that IPv4 address: locally administered, and for one host of a subnet only.
#[must_use]
pub const fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0xec, a, b, c, d])
}
