//! Blocks of IPv4 addresses, as in `172.31.0.0/16` (RFC 4632).

use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: Ipv4Addr,
    bits: u8,
}

/// It is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no block of addresses: an address, a slash and 0 to 32 bits, as in 172.31.0.0/16")]
pub struct NoCidr(pub String);

impl Cidr {
    /// The block of that many leading bits, at most 32, which `address` is in.
    #[must_use]
    pub const fn new(address: Ipv4Addr, bits: u8) -> Self {
        let bits = if bits > 32 { 32 } else { bits };
        Self { first: Ipv4Addr::from_bits(address.to_bits() & mask(bits)), bits }
    }

    /// Its first address: the network's own.
    #[must_use]
    pub const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// How many leading bits its addresses have in common.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// The same as a mask.
    #[must_use]
    pub const fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.bits))
    }

    /// How many addresses it has; [`u32::MAX`] of the block of all.
    #[must_use]
    pub const fn size(self) -> u32 {
        (!mask(self.bits)).saturating_add(1)
    }

    /// The address with this number in it, from 0.
    #[must_use]
    pub fn address(self, number: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.first.to_bits().checked_add(number)?);
        self.contains(address).then_some(address)
    }

    /// The last address: everybody's.
    #[must_use]
    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !mask(self.bits))
    }

    /// Whether an address is in it.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.bits) == self.first.to_bits()
    }

    /// Whether a host may have that address: one in it that is neither the network's own nor everybody's.
    #[must_use]
    pub fn has_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.first && address != self.broadcast()
    }

    /// The part with this number, from 0, of those of `bits` bits that it has.
    #[must_use]
    pub fn part(self, bits: u8, number: u32) -> Option<Self> {
        let size = 1_u32.checked_shl(32_u32.checked_sub(bits.into())?)?;
        let first = self.address(size.checked_mul(number)?)?;
        (bits >= self.bits).then_some(Self { first, bits })
    }
}

const fn mask(bits: u8) -> u32 {
    match u32::MAX.checked_shl(32 - bits as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for Cidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let no = || NoCidr(text.into());
        let (address, bits) = text.split_once('/').ok_or_else(no)?;
        let (address, bits): (Ipv4Addr, u8) = (address.parse().map_err(|_| no())?, bits.parse().map_err(|_| no())?);
        let cidr = Self::new(address, bits);
        // Addresses beyond the block's are a mistake.
        if bits > 32 || cidr.first != address { Err(no()) } else { Ok(cidr) }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_they_say() {
        let vpc: Cidr = "172.31.0.0/16".parse().unwrap();
        assert_eq!(vpc.to_string(), "172.31.0.0/16");
        assert_eq!((vpc.size(), vpc.mask().to_string()), (65_536, "255.255.0.0".into()));
        assert_eq!(vpc.part(20, 1).unwrap().to_string(), "172.31.16.0/20");
        assert_eq!(vpc.part(20, 15).unwrap().to_string(), "172.31.240.0/20");
        assert_eq!(vpc.part(20, 16), None);
        assert_eq!(vpc.part(8, 0), None);
        assert_eq!(vpc.address(5), Some(Ipv4Addr::new(172, 31, 0, 5)));
        assert_eq!(vpc.address(65_536), None);
        assert_eq!(vpc.broadcast(), Ipv4Addr::new(172, 31, 255, 255));
        assert!(vpc.contains(Ipv4Addr::new(172, 31, 9, 9)) && !vpc.contains(Ipv4Addr::new(172, 30, 0, 1)));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST));
        assert_eq!(all.size(), u32::MAX);
        let one: Cidr = "10.1.2.3/32".parse().unwrap();
        assert_eq!((one.size(), one.address(0), one.address(1)), (1, Some(one.first()), None));
    }

    #[test]
    fn hosts_have_all_addresses_but_the_first_and_the_last() {
        let subnet = Cidr::new(Ipv4Addr::new(172, 31, 21, 9), 20);
        assert_eq!((subnet.first(), subnet.broadcast()), ([172, 31, 16, 0].into(), [172, 31, 31, 255].into()));
        assert_eq!(subnet.mask(), Ipv4Addr::new(255, 255, 240, 0));
        assert!(subnet.has_host([172, 31, 16, 1].into()) && subnet.has_host([172, 31, 31, 254].into()));
        for no in [[172, 31, 16, 0], [172, 31, 31, 255], [172, 31, 32, 1], [172, 31, 15, 9]] {
            assert!(!subnet.has_host(no.into()), "{no:?}");
        }
        assert!(!Cidr::new(Ipv4Addr::LOCALHOST, 32).has_host(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "a/8", "10.0.0.0/-1", "10.0.0.0/256"] {
            assert_eq!(text.parse::<Cidr>(), Err(NoCidr(text.into())));
        }
    }
}
