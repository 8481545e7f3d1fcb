//! Attributes of network interfaces: only their security groups can be changed.

use std::mem::take;

use super::network;
use super::parts::{check_id, check_ids, need, text};
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    AttributeBooleanValue, AttributeValue, DescribeNetworkInterfaceAttributeRequest,
    DescribeNetworkInterfaceAttributeResult, Done, ModifyNetworkInterfaceAttributeRequest,
};
use crate::cloud::{CloudError, Kind};

actions! {
    DescribeNetworkInterfaceAttributeAction => describe,
    ModifyNetworkInterfaceAttributeAction => modify,
}

fn id(interface: &mut Option<String>) -> Result<String, ApiError> {
    let id = need(text(interface), "NetworkInterfaceId")?;
    check_id(Kind::NetworkInterface, &id)?;
    Ok(id)
}

fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeNetworkInterfaceAttributeRequest>,
) -> Result<DescribeNetworkInterfaceAttributeResult, ApiError> {
    let id = id(&mut asked.network_interface_id)?;
    let attribute = need(text(&mut asked.attribute), "Attribute")?;
    asked.end()?;
    let found = call.cloud.describe_network_interfaces(std::slice::from_ref(&id), &[])?.pop();
    let not_found = || CloudError::NotFound { kind: Kind::NetworkInterface, id: id.clone() };
    let interface = network::interface(&found.ok_or_else(not_found)?);
    let mut answer = DescribeNetworkInterfaceAttributeResult {
        network_interface_id: Some(id),
        ..DescribeNetworkInterfaceAttributeResult::default()
    };
    match attribute.as_str() {
        "attachment" => answer.attachment = interface.attachment,
        "description" => answer.description = Some(AttributeValue { value: interface.description }),
        "groupSet" => answer.groups = interface.groups,
        "sourceDestCheck" => {
            answer.source_dest_check = Some(AttributeBooleanValue { value: interface.source_dest_check });
        }
        "associatePublicIpAddress" => answer.associate_public_ip_address = Some(call.has_public_addresses()),
        other => return Err(ApiError::value(format!("Value ({other}) for parameter attribute is invalid."))),
    }
    Ok(answer)
}

fn modify(call: &mut Call<'_>, asked: &mut Asked<ModifyNetworkInterfaceAttributeRequest>) -> Result<Done, ApiError> {
    let id = id(&mut asked.network_interface_id)?;
    let groups = take(&mut asked.groups);
    asked.end()?;
    if groups.is_empty() {
        return Err(ApiError::combination("No attributes specified."));
    }
    check_ids(|_| Kind::SecurityGroup, &groups)?;
    call.cloud.modify_network_interface_groups(&id, &groups)?;
    Ok(Done)
}

#[cfg(test)]
mod tests {
    use crate::api::testing::World;

    #[test]
    fn an_interface_gets_other_groups_and_nothing_else() {
        let world = World::new();
        let image = world.image("one");
        world.ask("RunInstances", &[("ImageId", &image), ("MinCount", "1"), ("MaxCount", "1")]);
        world.wait();
        let id = world.ask("DescribeNetworkInterfaces", &[]).one("networkInterfaceId");
        let group = [("GroupName", "web"), ("GroupDescription", "web")];
        let group = world.ask("CreateSecurityGroup", &group).one("groupId");
        let modify = |name, value| {
            world.ask("ModifyNetworkInterfaceAttribute", &[("NetworkInterfaceId", id.as_str()), (name, value)])
        };
        let describe = |name| {
            world.ask("DescribeNetworkInterfaceAttribute", &[("NetworkInterfaceId", id.as_str()), ("Attribute", name)])
        };
        assert_ne!(describe("groupSet").one("groupId"), group);
        assert_eq!(modify("SecurityGroupId.1", &group).status, 200);
        assert_eq!(describe("groupSet").one("groupId"), group);
        assert_eq!(describe("attachment").one("status"), "attached");
        assert_eq!(describe("sourceDestCheck").one("value"), "true");
        assert_eq!(describe("description").one("value"), "");
        assert_eq!(describe("associatePublicIpAddress").one("associatePublicIpAddress"), "false");
        for (code, expected) in [
            (describe("colour").code(), "InvalidParameterValue"),
            (modify("SourceDestCheck.Value", "false").code(), "InvalidParameterCombination"),
            (modify("Description.Value", "mine").code(), "UnsupportedOperation"),
            (modify("SecurityGroupId.1", "web").code(), "InvalidGroupId.Malformed"),
            (modify("SecurityGroupId.1", "sg-01234567").code(), "InvalidGroup.NotFound"),
            (modify("SecurityGroupId", "").code(), "InvalidParameterCombination"),
        ] {
            assert_eq!(code, expected);
        }
    }
}
