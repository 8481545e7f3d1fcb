//! What a caller wants to allow, as EC2 writes it, checked and taken apart into rules ("IpPermission").

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::Serialize;

use super::peer::Peer;
use crate::cloud::error::CloudError;

/// Most characters of a description.
const MAX_DESCRIPTION: usize = 255;
/// Characters of names and descriptions, beside letters and digits.
const MARKS: &str = " ._-:/()#,@[]+=&;{}!$*";

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Every one, with all its ports.
    All,
    /// One, by IANA's number.
    Number(u8),
}

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self::Number(1);
    /// TCP.
    pub const TCP: Self = Self::Number(6);
    /// UDP.
    pub const UDP: Self = Self::Number(17);
    /// ICMP of IPv6.
    pub const ICMPV6: Self = Self::Number(58);

    /// Those that have a name.
    const NAMES: [(Self, &str); 4] =
        [(Self::TCP, "tcp"), (Self::UDP, "udp"), (Self::ICMP, "icmp"), (Self::ICMPV6, "icmpv6")];

    /// Whether rules about it say ports, or types and codes.
    #[must_use]
    pub fn has_ports(self) -> bool {
        Self::NAMES.iter().any(|(named, _)| *named == self)
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (Self::NAMES.iter().find(|(named, _)| named == self), self) {
            (Some((_, name)), _) => f.write_str(name),
            (None, Self::Number(number)) => write!(f, "{number}"),
            (None, Self::All) => f.write_str("-1"),
        }
    }
}

impl FromStr for Protocol {
    type Err = CloudError;

    fn from_str(text: &str) -> Result<Self, CloudError> {
        if text == "-1" || text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        if let Some((named, _)) = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            return Ok(*named);
        }
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.map(Self::Number).ok_or_else(|| {
            CloudError::value(format!(
                "Invalid value '{text}' for IP protocol. Unknown protocol: possible are tcp, udp, icmp, icmpv6, 0 to 255 and -1"
            ))
        })
    }
}

impl rusqlite::types::FromSql for Protocol {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|error| rusqlite::types::FromSqlError::Other(Box::new(error)))
    }
}

impl Serialize for Protocol {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A block of addresses in a permission ("IpRange", "Ipv6Range").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The block, as in `10.0.0.0/8` or `::/0`.
    pub cidr: String,
    /// What is said of it.
    pub description: Option<String>,
}

/// A security group in a permission ("UserIdGroupPair").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupPair {
    /// Its id.
    pub group_id: Option<String>,
    /// Its name; what is told has both.
    pub group_name: Option<String>,
    /// Its owner.
    pub user_id: Option<String>,
    /// What is said of it.
    pub description: Option<String>,
}

/// What is allowed ("IpPermission"): a protocol and its ports, to or from any of some peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IpPermission {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, a number from 0 to 255, or `-1` for all.
    pub ip_protocol: String,
    /// The first port, 0 to 65535; of ICMP the type, -1 for all.
    pub from_port: Option<i32>,
    /// The last port, likewise; of ICMP the code, -1 for all.
    pub to_port: Option<i32>,
    /// Blocks of IPv4 addresses.
    pub ip_ranges: Vec<Range>,
    /// Blocks of IPv6 addresses.
    pub ipv6_ranges: Vec<Range>,
    /// Security groups.
    pub user_id_group_pairs: Vec<GroupPair>,
    /// Prefix lists, which there are none of: naming one is refused.
    pub prefix_list_ids: Vec<String>,
}

/// The protocol and the ports of a rule; -1 is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Traffic {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port, or ICMP's type.
    pub from_port: i32,
    /// The last port, or ICMP's code.
    pub to_port: i32,
}

/// A peer that may still be a group's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Named {
    /// A block, in its one form.
    Block(Peer),
    /// A group: its id or else its name, and its owner where that is said.
    Group { id: Option<String>, name: Option<String>, owner: Option<String> },
}

/// One rule that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub traffic: Traffic,
    pub peer: Named,
    pub description: Option<String>,
}

/// Takes permissions apart into rules, one for each peer.
///
/// # Errors
/// `InvalidParameterValue`, `MissingParameter`; `UnsupportedOperation` for prefix lists.
pub(super) fn parse(permissions: &[IpPermission]) -> Result<Vec<Wanted>, CloudError> {
    let mut all = Vec::new();
    for permission in permissions {
        parse_one(permission, &mut all)?;
    }
    let mut seen = HashSet::new();
    if !all.iter().all(|wanted| seen.insert((wanted.traffic, wanted.peer.clone()))) {
        return Err(CloudError::value("The same permission must not appear multiple times"));
    }
    if all.is_empty() {
        return Err(missing("The request must contain the parameter ipPermissions"));
    }
    Ok(all)
}

fn parse_one(permission: &IpPermission, all: &mut Vec<Wanted>) -> Result<(), CloudError> {
    let before = all.len();
    let traffic = traffic(permission)?;
    let mut add = |peer: Named, description: &Option<String>| {
        if let Some(text) = description {
            check_description(text)?;
        }
        all.push(Wanted { traffic, peer, description: description.clone().filter(|text| !text.is_empty()) });
        Ok::<(), CloudError>(())
    };
    for range in &permission.ip_ranges {
        add(Named::Block(Peer::ipv4(&range.cidr)?), &range.description)?;
    }
    for range in &permission.ipv6_ranges {
        add(Named::Block(Peer::ipv6(&range.cidr)?), &range.description)?;
    }
    for pair in &permission.user_id_group_pairs {
        add(group(pair)?, &pair.description)?;
    }
    if let Some(list) = permission.prefix_list_ids.first() {
        return Err(CloudError::Unsupported(format!("{list}: there are no prefix lists; give blocks of addresses")));
    }
    if all.len() == before {
        return Err(missing("Missing source specification: include source security group or CIDR information"));
    }
    Ok(())
}

fn group(pair: &GroupPair) -> Result<Named, CloudError> {
    let said = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let (id, name) = (said(&pair.group_id), said(&pair.group_name));
    if id.is_none() && name.is_none() {
        return Err(missing("The request must contain the parameter groupName or groupId"));
    }
    // The id is enough.
    let name = if id.is_some() { None } else { name };
    Ok(Named::Group { id, name, owner: said(&pair.user_id) })
}

/// The protocol and its ports.
fn traffic(permission: &IpPermission) -> Result<Traffic, CloudError> {
    let protocol: Protocol = permission.ip_protocol.parse()?;
    let (from, to) = (permission.from_port, permission.to_port);
    let (from_port, to_port) = match protocol {
        Protocol::TCP | Protocol::UDP => ports(from, to)?,
        Protocol::ICMP => {
            let both = from.zip(to);
            icmp(both.ok_or_else(|| {
                CloudError::value("Invalid value 'Must specify both type and code with ICMP.' for portRange.")
            })?)?
        }
        // RFC 4443's types are all meant where none is said.
        Protocol::ICMPV6 => icmp((from.unwrap_or(-1), to.unwrap_or(-1)))?,
        // Whatever is said of ports: those of all are meant.
        _ => (-1, -1),
    };
    Ok(Traffic { protocol, from_port, to_port })
}

fn ports(from: Option<i32>, to: Option<i32>) -> Result<(i32, i32), CloudError> {
    let (from, to) = from.zip(to).ok_or_else(|| {
        CloudError::value("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
    })?;
    if let Some(wrong) = [from, to].into_iter().find(|port| !(0..=65535).contains(port)) {
        return Err(CloudError::value(format!("TCP/UDP port ({wrong}) out of range")));
    }
    if from > to {
        return Err(CloudError::value(format!("Invalid TCP/UDP port range ({from}:{to})")));
    }
    Ok((from, to))
}

fn icmp((kind, code): (i32, i32)) -> Result<(i32, i32), CloudError> {
    if !(-1..=255).contains(&kind) {
        return Err(CloudError::value(format!("ICMP type ({kind}) out of range")));
    }
    if !(-1..=255).contains(&code) || kind == -1 && code != -1 {
        return Err(CloudError::value(format!("ICMP code ({code}) out of range")));
    }
    Ok((kind, code))
}

/// Whether a text has nothing but the characters that names and descriptions may have, and is not too long.
pub(super) fn is_plain(text: &str) -> bool {
    text.len() <= MAX_DESCRIPTION && text.chars().all(|c| c.is_ascii_alphanumeric() || MARKS.contains(c))
}

/// Refuses what is no description of a rule.
///
/// # Errors
/// `InvalidParameterValue`.
pub(super) fn check_description(text: &str) -> Result<(), CloudError> {
    if is_plain(text) {
        return Ok(());
    }
    Err(CloudError::value(
        "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: \
         a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
    ))
}

fn missing(message: &str) -> CloudError {
    CloudError::Parameter { code: "MissingParameter", message: message.to_owned() }
}

#[cfg(test)]
mod tests;
