//! What a rule allows: EC2's form and the domain's.

use std::mem::take;

use super::super::parts::{need, text};
use crate::api::error::ApiError;
use crate::api::model::{IpPermission, IpRange, Ipv6Range, UserIdGroupPair};
use crate::cloud::network::group::{self, GroupPair, Range};

/// Permissions of a request. What is not understood stays in them.
pub fn read(permissions: &mut [IpPermission]) -> Result<Vec<group::IpPermission>, ApiError> {
    permissions.iter_mut().map(read_one).collect()
}

fn port(value: Option<i64>) -> Result<Option<i32>, ApiError> {
    let wrong = |value: i64| ApiError::value(format!("Invalid value '{value}' for portRange."));
    value.map(|value| i32::try_from(value).map_err(|_| wrong(value))).transpose()
}

fn read_one(of: &mut IpPermission) -> Result<group::IpPermission, ApiError> {
    let range = |cidr: Option<String>, description: Option<String>| {
        Ok::<_, ApiError>(Range { cidr: need(cidr, "IpPermissions.N.IpRanges.M.CidrIp")?, description })
    };
    let pair = |pair: &mut UserIdGroupPair| GroupPair {
        group_id: text(&mut pair.group_id),
        group_name: text(&mut pair.group_name),
        user_id: text(&mut pair.user_id),
        description: pair.description.take(),
    };
    for one in &mut of.user_id_group_pairs {
        // It is the group's.
        one.vpc_id = None;
        one.peering_status = None;
    }
    Ok(group::IpPermission {
        ip_protocol: need(text(&mut of.ip_protocol), "IpPermissions.N.IpProtocol")?,
        from_port: port(of.from_port.take())?,
        to_port: port(of.to_port.take())?,
        ip_ranges: take(&mut of.ip_ranges)
            .into_iter()
            .map(|one| range(one.cidr_ip, one.description))
            .collect::<Result<_, _>>()?,
        ipv6_ranges: take(&mut of.ipv6_ranges)
            .into_iter()
            .map(|one| range(one.cidr_ipv6, one.description))
            .collect::<Result<_, _>>()?,
        user_id_group_pairs: of.user_id_group_pairs.iter_mut().map(pair).collect(),
        prefix_list_ids: take(&mut of.prefix_list_ids).into_iter().filter_map(|list| list.prefix_list_id).collect(),
    })
}

/// The older form: the one permission that a request is itself.
pub struct Flat {
    pub protocol: Option<String>,
    pub from_port: Option<i64>,
    pub to_port: Option<i64>,
    pub cidr: Option<String>,
    pub group_name: Option<String>,
    pub group_owner: Option<String>,
}

impl Flat {
    /// As a permission, where it says anything.
    pub fn read(self) -> Result<Option<group::IpPermission>, ApiError> {
        if self.protocol.is_none() && self.cidr.is_none() && self.group_name.is_none() {
            return Ok(None);
        }
        let mut permission = group::IpPermission {
            ip_protocol: self.protocol.unwrap_or_else(|| "-1".into()),
            from_port: port(self.from_port)?,
            to_port: port(self.to_port)?,
            ..group::IpPermission::default()
        };
        permission.ip_ranges = self.cidr.into_iter().map(|cidr| Range { cidr, description: None }).collect();
        if self.group_name.is_some() {
            let (group_name, user_id) = (self.group_name, self.group_owner);
            permission.user_id_group_pairs = vec![GroupPair { group_name, user_id, ..GroupPair::default() }];
        }
        Ok(Some(permission))
    }
}

/// A permission of an answer.
pub fn write(of: group::IpPermission) -> IpPermission {
    let pair = |pair: GroupPair| UserIdGroupPair {
        description: pair.description,
        user_id: pair.user_id,
        group_id: pair.group_id,
        ..UserIdGroupPair::default()
    };
    let range = |range: Range| IpRange { description: range.description, cidr_ip: Some(range.cidr) };
    let range6 = |range: Range| Ipv6Range { description: range.description, cidr_ipv6: Some(range.cidr) };
    IpPermission {
        ip_protocol: Some(of.ip_protocol),
        from_port: of.from_port.map(i64::from),
        to_port: of.to_port.map(i64::from),
        user_id_group_pairs: of.user_id_group_pairs.into_iter().map(pair).collect(),
        ip_ranges: of.ip_ranges.into_iter().map(range).collect(),
        ipv6_ranges: of.ipv6_ranges.into_iter().map(range6).collect(),
        prefix_list_ids: Vec::new(),
    }
}
