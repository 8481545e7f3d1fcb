//! Addresses that mean something in every subnet, and the Ethernet addresses that belong to others.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

/// Where the instance metadata service answers.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where EC2's resolver answers besides the second address of the VPC.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// Where the instance metadata service answers over IPv6.
pub const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// EC2's resolver over IPv6.
pub const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253);
/// The prefix of both, of 64 bits.
pub const SERVICES_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0);

/// The Ethernet address of whoever has that IPv4 address: locally administered, and for one host of a subnet only.
#[must_use]
pub const fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0xec, a, b, c, d])
}

/// The link-local IPv6 address of whoever has that Ethernet address (RFC 4291, appendix A).
#[must_use]
pub const fn link_local_of(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses_of_their_own() {
        assert_eq!(mac_of(Ipv4Addr::new(172, 31, 0, 17)).to_string(), "02:ec:ac:1f:00:11");
        assert_eq!(link_local_of(Mac([2, 0, 0, 0, 0, 1])).to_string(), "fe80::ff:fe00:1");
    }
}
