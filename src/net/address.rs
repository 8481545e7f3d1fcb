//! Addresses of a subnet, and the Ethernet addresses that belong to them.

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

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: Ipv4Addr,
    prefix: u8,
}

/// There is no such network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a network's prefix has 1 to 30 bits, not {0}")]
pub struct NoNetwork(pub u8);

impl Network {
    /// The network of that prefix length, 1 to 30 bits, that has `address` in it.
    ///
    /// # Errors
    /// [`NoNetwork`].
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, NoNetwork> {
        if !(1..=30).contains(&prefix) {
            return Err(NoNetwork(prefix));
        }
        let network = Self { address, prefix };
        Ok(Self { address: Ipv4Addr::from_bits(address.to_bits() & network.mask().to_bits()), prefix })
    }

    /// Its mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// How many bits its addresses have in common.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its first address, which no host has.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its last address, which means all its hosts.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask().to_bits())
    }

    /// Whether it is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.address.to_bits()
    }

    /// Whether a host of it may have that address.
    #[must_use]
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.address && address != self.broadcast()
    }
}

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
    fn a_network_has_the_addresses_of_its_prefix() {
        let network = Network::new(Ipv4Addr::new(172, 31, 21, 9), 20).unwrap();
        assert_eq!(network.address(), Ipv4Addr::new(172, 31, 16, 0));
        assert_eq!(network.mask(), Ipv4Addr::new(255, 255, 240, 0));
        assert_eq!(network.broadcast(), Ipv4Addr::new(172, 31, 31, 255));
        assert!(network.has_host(Ipv4Addr::new(172, 31, 16, 1)) && network.has_host(Ipv4Addr::new(172, 31, 31, 254)));
        for no in [[172, 31, 16, 0], [172, 31, 31, 255], [172, 31, 32, 1], [172, 31, 15, 9]] {
            assert!(!network.has_host(no.into()), "{no:?}");
        }
        for prefix in [0, 31, 32, 200] {
            assert_eq!(Network::new(Ipv4Addr::LOCALHOST, prefix), Err(NoNetwork(prefix)));
        }
    }

    #[test]
    fn hosts_have_addresses_of_their_own() {
        assert_eq!(mac_of(Ipv4Addr::new(172, 31, 0, 17)).to_string(), "02:ec:ac:1f:00:11");
        assert_eq!(link_local_of(Mac([2, 0, 0, 0, 0, 1])).to_string(), "fe80::ff:fe00:1");
    }
}
