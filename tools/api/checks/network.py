"""VPCs, subnets, security groups and their rules."""

from .serving import by, dry, equal, pages, refused, tagged, wait
from .shapes import need


def vpcs(world):
    ec2 = world.client(world.account())
    vpc = ec2.describe_vpcs(Filters=by("is-default", "true"))["Vpcs"][0]
    wait(ec2, "vpc_available", VpcIds=[vpc["VpcId"]])
    wait(ec2, "vpc_exists", VpcIds=[vpc["VpcId"]])
    for filters in [by("vpc-id", vpc["VpcId"]), by("cidr", vpc["CidrBlock"]), by("state", "available"), by("isDefault", "true")]:
        equal([one["VpcId"] for one in ec2.describe_vpcs(Filters=filters)["Vpcs"]], [vpc["VpcId"]], filters)
    equal(ec2.describe_vpcs(MaxResults=5).get("NextToken"), None)
    for name, key in [("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames"),
                      ("enableNetworkAddressUsageMetrics", "EnableNetworkAddressUsageMetrics")]:
        need(isinstance(ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=name)[key]["Value"], bool), name)
    refused("InvalidVpcID.NotFound", ec2.describe_vpcs, VpcIds=["vpc-0123456789abcdef0"])
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    subnets = ec2.describe_subnets()["Subnets"]
    equal(sorted(one["AvailabilityZone"] for one in subnets), sorted(zone["ZoneName"] for zone in zones))
    equal({one["AvailabilityZoneId"] for one in subnets}, {zone["ZoneId"] for zone in zones})
    listed = pages(ec2, "describe_subnets", 5, "Subnets")
    equal(len(listed), len(subnets))
    one = subnets[0]
    wait(ec2, "subnet_available", SubnetIds=[one["SubnetId"]])
    for filters, count in [
        (by("subnet-id", one["SubnetId"]), 1), (by("vpc-id", vpc["VpcId"]), len(subnets)), (by("default-for-az", "true"), len(subnets)),
        (by("availability-zone", one["AvailabilityZone"]), 1), (by("cidr-block", one["CidrBlock"]), 1), (by("state", "available"), len(subnets)),
        (by("availability-zone-id", one["AvailabilityZoneId"]), 1), (by("map-public-ip-on-launch", "true"), 0),
    ]:
        equal(len(ec2.describe_subnets(Filters=filters)["Subnets"]), count, filters)
    refused("InvalidSubnetID.NotFound", ec2.describe_subnets, SubnetIds=["subnet-0123456789abcdef0"])
    refused("InvalidParameterValue", ec2.describe_subnets, Filters=by("colour", "red"))


def groups(world):
    ec2 = world.client(world.account())
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    described = {"GroupName": "web", "Description": "for the web"}
    dry(ec2.create_security_group, VpcId=vpc, **described)
    web = ec2.create_security_group(VpcId=vpc, TagSpecifications=[tagged("security-group", n="1")], **described)
    equal(web["Tags"], [{"Key": "n", "Value": "1"}])
    web = web["GroupId"]
    wait(ec2, "security_group_exists", GroupIds=[web])
    refused("InvalidGroup.Duplicate", ec2.create_security_group, **described)
    more = [ec2.create_security_group(GroupName=f"more {at}", Description="x")["GroupId"] for at in range(5)]
    listed = pages(ec2, "describe_security_groups", 5, "SecurityGroups")
    equal(sorted(one["GroupName"] for one in listed), sorted(["default", "web"] + [f"more {at}" for at in range(5)]))
    for filters, count in [
        (by("group-name", "more*"), 5), (by("group-id", web), 1), (by("vpc-id", vpc), 7), (by("description", "for*"), 1),
        (by("tag:n", "1"), 1), (by("tag-key", "n"), 1), (by("ip-permission.from-port", "22"), 0),
    ]:
        equal(len(ec2.describe_security_groups(Filters=filters)["SecurityGroups"]), count, filters)
    equal(len(ec2.describe_security_groups(GroupNames=["web", "default"])["SecurityGroups"]), 2)
    refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=["sg-0123456789abcdef0"])
    refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupNames=["nobody's"])
    refused("InvalidParameterValue", ec2.describe_security_groups, Filters=by("colour", "red"))
    rules(ec2, web, more[0])
    default = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
    refused("CannotDelete", ec2.delete_security_group, GroupId=default)
    dry(ec2.delete_security_group, GroupId=web)
    equal(ec2.delete_security_group(GroupId=web)["GroupId"], web)
    ec2.delete_security_group(GroupName="more 1")
    refused("InvalidGroup.NotFound", ec2.delete_security_group, GroupId=web)


def traffic(port, *blocks, **more):
    return [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": block} for block in blocks]} | more]


def rules(ec2, web, other):
    dry(ec2.authorize_security_group_ingress, GroupId=web, IpPermissions=traffic(22, "10.0.0.0/8"))
    made = ec2.authorize_security_group_ingress(
        GroupId=web, IpPermissions=traffic(22, "10.0.0.0/8", "192.168.0.0/16"),
        TagSpecifications=[tagged("security-group-rule", n="1")],
    )["SecurityGroupRules"]
    equal([(rule["FromPort"], rule["CidrIpv4"], rule["IsEgress"], rule["Tags"]) for rule in made],
          [(22, block, False, [{"Key": "n", "Value": "1"}]) for block in ("10.0.0.0/8", "192.168.0.0/16")])
    refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=web, IpPermissions=traffic(22, "10.0.0.0/8"))
    # The older form.
    ec2.authorize_security_group_ingress(GroupName="web", IpProtocol="udp", FromPort=53, ToPort=53, CidrIp="0.0.0.0/0")
    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other, "Description": "all of it"}]},
        {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "Ipv6Ranges": [], "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
        {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
    ])
    egress = traffic(443, "10.0.0.0/8")
    dry(ec2.authorize_security_group_egress, GroupId=web, IpPermissions=egress)
    equal(ec2.authorize_security_group_egress(GroupId=web, IpPermissions=egress)["SecurityGroupRules"][0]["IsEgress"], True)
    group = ec2.describe_security_groups(GroupIds=[web])["SecurityGroups"][0]
    ports = sorted((one.get("FromPort", -1), one["IpProtocol"]) for one in group["IpPermissions"])
    equal(ports, [(-1, "-1"), (8, "icmp"), (22, "tcp"), (53, "udp"), (80, "tcp")])
    ssh = next(one for one in group["IpPermissions"] if one.get("FromPort") == 22)
    equal({one["CidrIp"] for one in ssh["IpRanges"]}, {"10.0.0.0/8", "192.168.0.0/16"})
    equal(len(ec2.describe_security_groups(Filters=by("ip-permission.from-port", "22"))["SecurityGroups"]), 1)
    found = pages(ec2, "describe_security_group_rules", 5, "SecurityGroupRules", Filters=by("group-id", web))
    equal(len(found), 8)
    equal(len(ec2.describe_security_group_rules(Filters=by("tag:n", "1"))["SecurityGroupRules"]), 2)
    first = made[0]["SecurityGroupRuleId"]
    equal(len(ec2.describe_security_group_rules(SecurityGroupRuleIds=[first])["SecurityGroupRules"]), 1)
    changed = {"IpProtocol": "tcp", "FromPort": 2222, "ToPort": 2222, "CidrIpv4": "10.0.0.0/8", "Description": "moved"}
    dry(ec2.modify_security_group_rules, GroupId=web, SecurityGroupRules=[{"SecurityGroupRuleId": first, "SecurityGroupRule": changed}])
    ec2.modify_security_group_rules(GroupId=web, SecurityGroupRules=[{"SecurityGroupRuleId": first, "SecurityGroupRule": changed}])
    rule = ec2.describe_security_group_rules(SecurityGroupRuleIds=[first])["SecurityGroupRules"][0]
    equal((rule["FromPort"], rule["Description"]), (2222, "moved"))
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=web, SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": first, "Description": "again"}])
    described = traffic(443, IpRanges=[{"CidrIp": "10.0.0.0/8", "Description": "out"}])
    equal(ec2.update_security_group_rule_descriptions_egress(GroupId=web, IpPermissions=described)["Return"], True)
    texts = {rule["SecurityGroupRuleId"]: rule.get("Description")
             for rule in ec2.describe_security_group_rules(Filters=by("group-id", web))["SecurityGroupRules"]}
    equal((texts[first], "out" in texts.values()), ("again", True))
    dry(ec2.revoke_security_group_ingress, GroupId=web, SecurityGroupRuleIds=[first])
    gone = ec2.revoke_security_group_ingress(GroupId=web, SecurityGroupRuleIds=[first])["RevokedSecurityGroupRules"]
    equal([rule["SecurityGroupRuleId"] for rule in gone], [first])
    ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=traffic(22, "192.168.0.0/16"))
    equal(ec2.revoke_security_group_egress(GroupId=web, IpPermissions=egress)["Return"], True)
    refused("InvalidPermission.NotFound", ec2.revoke_security_group_egress, GroupId=web, IpPermissions=egress)
    refused("InvalidParameterValue", ec2.authorize_security_group_ingress, GroupId=web, IpPermissions=traffic(22, "10.0.0.0/33"))
    refused("InvalidSecurityGroupRuleId.NotFound", ec2.describe_security_group_rules, SecurityGroupRuleIds=["sgr-0123456789abcdef0"])


CHECKS = [vpcs, groups]
