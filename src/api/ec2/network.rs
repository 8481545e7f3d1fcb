//! VPCs, subnets and network interfaces, as far as clients insist on them.

use std::mem::take;

use super::parts::{check_id, check_ids, count, filters, moment, need, page, tags, text};
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    AttributeBooleanValue, DescribeNetworkInterfacesRequest, DescribeNetworkInterfacesResult, DescribeSubnetsRequest,
    DescribeSubnetsResult, DescribeVpcAttributeRequest, DescribeVpcAttributeResult, DescribeVpcsRequest,
    DescribeVpcsResult, GroupIdentifier, NetworkInterface, NetworkInterfaceAttachment,
    NetworkInterfacePrivateIpAddress, Subnet, Vpc, VpcCidrBlockAssociation, VpcCidrBlockState,
};
use crate::cloud::{Kind, network};

actions! {
    DescribeNetworkInterfacesAction => describe_interfaces,
    DescribeSubnetsAction => describe_subnets,
    DescribeVpcAttributeAction => describe_vpc_attribute,
    DescribeVpcsAction => describe_vpcs,
}

fn describe_vpcs(call: &mut Call<'_>, asked: &mut Asked<DescribeVpcsRequest>) -> Result<DescribeVpcsResult, ApiError> {
    let (ids, filters) = (take(&mut asked.vpc_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::Vpc, &ids)?;
    let found = call.cloud.describe_vpcs(&ids, &filters)?;
    let (found, next_token) = page(found, |vpc| vpc.vpc_id.to_string(), max_results, token, (5, 1000))?;
    Ok(DescribeVpcsResult { vpcs: found.iter().map(vpc).collect(), next_token })
}

fn vpc(of: &network::Vpc) -> Vpc {
    let cidr = of.cidr_block.to_string();
    Vpc {
        vpc_id: Some(of.vpc_id.to_string()),
        owner_id: Some(of.owner_id.clone()),
        state: Some("available".into()),
        cidr_block: Some(cidr.clone()),
        cidr_block_association_set: vec![VpcCidrBlockAssociation {
            association_id: Some(of.cidr_association_id()),
            cidr_block: Some(cidr),
            cidr_block_state: Some(VpcCidrBlockState { state: Some("associated".into()), status_message: None }),
        }],
        dhcp_options_id: Some("default".into()),
        instance_tenancy: Some("default".into()),
        is_default: Some(of.is_default),
        tags: tags(&of.tags),
        ..Vpc::default()
    }
}

fn describe_vpc_attribute(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeVpcAttributeRequest>,
) -> Result<DescribeVpcAttributeResult, ApiError> {
    let id = need(text(&mut asked.vpc_id), "VpcId")?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    check_id(Kind::Vpc, &id)?;
    call.cloud.describe_vpcs(std::slice::from_ref(&id), &[])?;
    let truth = |value| Some(AttributeBooleanValue { value: Some(value) });
    let mut answer = DescribeVpcAttributeResult { vpc_id: Some(id), ..DescribeVpcAttributeResult::default() };
    match attribute.as_str() {
        "enableDnsSupport" => answer.enable_dns_support = truth(true),
        // There are no public names.
        "enableDnsHostnames" => answer.enable_dns_hostnames = truth(false),
        "enableNetworkAddressUsageMetrics" => answer.enable_network_address_usage_metrics = truth(false),
        other => return Err(ApiError::value(format!("Value ({other}) for parameter attribute is invalid."))),
    }
    Ok(answer)
}

fn describe_subnets(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeSubnetsRequest>,
) -> Result<DescribeSubnetsResult, ApiError> {
    let (ids, filters) = (take(&mut asked.subnet_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.end()?;
    check_ids(|_| Kind::Subnet, &ids)?;
    let found = call.cloud.describe_subnets(&ids, &filters)?;
    let (found, next_token) = page(found, |subnet| subnet.subnet_id.to_string(), max_results, token, (5, 1000))?;
    Ok(DescribeSubnetsResult { subnets: found.iter().map(subnet).collect(), next_token })
}

fn subnet(of: &network::Subnet) -> Subnet {
    Subnet {
        subnet_id: Some(of.subnet_id.to_string()),
        subnet_arn: Some(of.arn()),
        vpc_id: Some(of.vpc_id.to_string()),
        owner_id: Some(of.owner_id.clone()),
        state: Some("available".into()),
        cidr_block: Some(of.cidr_block.to_string()),
        availability_zone: Some(of.availability_zone.clone()),
        availability_zone_id: of.availability_zone_id.clone(),
        available_ip_address_count: count(Some(of.available_ip_address_count.into())),
        default_for_az: Some(of.default_for_az),
        map_public_ip_on_launch: Some(false),
        map_customer_owned_ip_on_launch: Some(false),
        assign_ipv6_address_on_creation: Some(false),
        enable_dns64: Some(false),
        ipv6_native: Some(false),
        tags: tags(&of.tags),
        ..Subnet::default()
    }
}

fn describe_interfaces(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeNetworkInterfacesRequest>,
) -> Result<DescribeNetworkInterfacesResult, ApiError> {
    let (ids, filters) = (take(&mut asked.network_interface_ids), filters(&mut asked.filters)?);
    let (max_results, token) = (asked.max_results.take(), asked.next_token.take());
    asked.include_managed_resources = None;
    asked.end()?;
    check_ids(|_| Kind::NetworkInterface, &ids)?;
    let found = call.cloud.describe_network_interfaces(&ids, &filters)?;
    let key = |interface: &network::NetworkInterface| interface.network_interface_id.to_string();
    let (found, next_token) = page(found, key, max_results, token, (5, 1000))?;
    Ok(DescribeNetworkInterfacesResult { network_interfaces: found.iter().map(interface).collect(), next_token })
}

/// An interface as answers show it.
pub fn interface(of: &network::NetworkInterface) -> NetworkInterface {
    let id = of.network_interface_id.to_string();
    let group = |group: &network::GroupIdentifier| GroupIdentifier {
        group_id: Some(group.group_id.to_string()),
        group_name: Some(group.group_name.clone()),
    };
    NetworkInterface {
        attachment: Some(NetworkInterfaceAttachment {
            attach_time: moment(&of.attach_time),
            attachment_id: Some(id.replacen("eni-", "eni-attach-", 1)),
            delete_on_termination: Some(true),
            device_index: Some(0),
            network_card_index: Some(0),
            instance_id: Some(of.instance_id.to_string()),
            instance_owner_id: Some(of.owner_id.clone()),
            status: Some("attached".into()),
            ..NetworkInterfaceAttachment::default()
        }),
        availability_zone: Some(of.availability_zone.clone()),
        description: Some(String::new()),
        groups: of.groups.iter().map(group).collect(),
        interface_type: Some("interface".into()),
        mac_address: Some(of.mac_address.to_string()),
        owner_id: Some(of.owner_id.clone()),
        private_dns_name: Some(of.private_dns_name.clone()),
        private_ip_address: Some(of.private_ip_address.to_string()),
        private_ip_addresses: vec![NetworkInterfacePrivateIpAddress {
            primary: Some(true),
            private_dns_name: Some(of.private_dns_name.clone()),
            private_ip_address: Some(of.private_ip_address.to_string()),
            ..NetworkInterfacePrivateIpAddress::default()
        }],
        requester_managed: Some(false),
        source_dest_check: Some(true),
        status: Some("in-use".into()),
        subnet_id: Some(of.subnet_id.to_string()),
        vpc_id: Some(of.vpc_id.to_string()),
        tag_set: tags(&of.tags),
        network_interface_id: Some(id),
        ..NetworkInterface::default()
    }
}
