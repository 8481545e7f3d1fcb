//! Who is at the other end of what a rule allows: blocks of addresses, or the interfaces of a security group.

use std::fmt::{self, Display};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::cloud::error::CloudError;
use crate::cloud::id::{Id, Kind};
use crate::net::cidr::Cidr;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// A block of IPv4 addresses, as in `10.0.0.0/8`.
    Ipv4(String),
    /// A block of IPv6 addresses, as in `2001:db8::/32`.
    Ipv6(String),
    /// The interfaces that are in a security group.
    Group(Id),
}

impl Peer {
    /// A block of IPv4 addresses in its one form: bits behind the block's own are zero (RFC 4632, section 3.1).
    ///
    /// # Errors
    /// `InvalidParameterValue`.
    pub fn ipv4(text: &str) -> Result<Self, CloudError> {
        let (address, bits) = halves(text)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed(text))?;
        if bits > 32 {
            return Err(malformed(text));
        }
        Ok(Self::Ipv4(Cidr::new(address, bits).to_string()))
    }

    /// A block of IPv6 addresses in its one form: short (RFC 5952), and bits behind the block's own are zero.
    ///
    /// # Errors
    /// `InvalidParameterValue`.
    pub fn ipv6(text: &str) -> Result<Self, CloudError> {
        let (address, bits) = halves(text)?;
        let address: Ipv6Addr = address.parse().map_err(|_| malformed(text))?;
        if bits > 128 {
            return Err(malformed(text));
        }
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        Ok(Self::Ipv6(format!("{}/{bits}", Ipv6Addr::from_bits(address.to_bits() & mask))))
    }

    /// How it is written in the catalogue.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ipv4(block) | Self::Ipv6(block) => block,
            Self::Group(id) => id.as_str(),
        }
    }
}

/// An address and a number of bits, as EC2 takes them: plain digits.
fn halves(text: &str) -> Result<(&str, u8), CloudError> {
    let (address, bits) = text.split_once('/').ok_or_else(|| malformed(text))?;
    let is_number = (1..=3).contains(&bits.len()) && bits.bytes().all(|b| b.is_ascii_digit());
    let bits = bits.parse().ok().filter(|_| is_number).ok_or_else(|| malformed(text))?;
    Ok((address, bits))
}

fn malformed(text: &str) -> CloudError {
    CloudError::value(format!("CIDR block {text} is malformed"))
}

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Peer {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<Self, CloudError> {
        match text {
            group if group.starts_with(Kind::SecurityGroup.prefix()) => {
                Id::parse(Kind::SecurityGroup, group).map(Self::Group)
            }
            block if block.contains(':') => Self::ipv6(block),
            block => Self::ipv4(block),
        }
    }
}

impl rusqlite::ToSql for Peer {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl rusqlite::types::FromSql for Peer {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|error| rusqlite::types::FromSqlError::Other(Box::new(error)))
    }
}

impl serde::Serialize for Peer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_have_one_form() {
        for (text, form) in [
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("203.0.113.7/32", "203.0.113.7/32"),
            ("100.68.0.18/18", "100.68.0.0/18"),
        ] {
            assert_eq!(Peer::ipv4(text).unwrap().as_str(), form);
        }
        for (text, form) in [
            ("::/0", "::/0"),
            ("2001:DB8:0:0:0:0:0:1/32", "2001:db8::/32"),
            ("fe80::1/128", "fe80::1/128"),
            ("2001:db8:ffff::/33", "2001:db8:8000::/33"),
        ] {
            assert_eq!(Peer::ipv6(text).unwrap().as_str(), form);
        }
    }

    #[test]
    fn what_is_no_block_is_malformed() {
        for text in ["", "/", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "010.0.0.0/8", "::/0"]
        {
            assert_eq!(Peer::ipv4(text).unwrap_err().code(), "InvalidParameterValue", "{text}");
        }
        for text in ["", "::", "::/129", "::/-1", "::/0128", "0.0.0.0/0", "fe80::1%eth0/64"] {
            assert_eq!(Peer::ipv6(text).unwrap_err().code(), "InvalidParameterValue", "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_form_is_its_own_form(a: u32, b: u128, short in 0u8..=32, long in 0u8..=128) {
            for text in [format!("{}/{short}", Ipv4Addr::from_bits(a)), format!("{}/{long}", Ipv6Addr::from_bits(b))] {
                let peer: Peer = text.parse().unwrap();
                prop_assert_eq!(peer.as_str().parse::<Peer>().unwrap(), peer);
            }
        }

        #[test]
        fn no_text_does_harm(text in "\\PC{0,30}") {
            let _ = text.parse::<Peer>();
        }
    }
}
