"""Sends what Terraform and Packer were seen to send, and looks at what they need of the answers.

Usage: recorded.py AMIBOOT
"""

import sys
import time

from checks.images import register
from checks.raw import form, scope
from checks.serving import FAR, World, equal, until
from checks.shapes import need

VERSION = {"Version": "2016-11-15"}


class Client:
    """Sends forms as one account."""

    def __init__(self, world, account):
        self.url, self.account = world.server.url, account

    def ask(self, action, parameters=None, region="us-east-1"):
        return form(self.url, {"Action": action} | VERSION | (parameters or {}), scope(self.account, region))

    def get(self, action, parameters=None, region="us-east-1"):
        """An answer that has to be good."""
        answer = self.ask(action, parameters, region)
        need(answer.status == 200, f"{action} {parameters}: {answer.body}")
        return answer

    def refused(self, code, action, parameters=None):
        equal(self.ask(action, parameters).code, code, f"{action} {parameters}")

    def until(self, value, path, action, parameters, region="us-east-1"):
        """Asks until the answer has a value there."""
        return until(f"{action} {parameters}: {value}", lambda: self.get(action, parameters, region).find(path) == value)


def listed(name, *values):
    return {f"{name}.{at}": value for at, value in enumerate(values, 1)}


def filters(**named):
    """Filters; underscores of names are dashes."""
    found = {}
    for at, (name, value) in enumerate(named.items(), 1):
        found |= {f"Filter.{at}.Name": name.replace("_", "-"), f"Filter.{at}.Value.1": value}
    return found


def tags(kind, **named):
    found = {"TagSpecification.1.ResourceType": kind}
    for at, (key, value) in enumerate(named.items(), 1):
        found |= {f"TagSpecification.1.Tag.{at}.Key": key, f"TagSpecification.1.Tag.{at}.Value": value}
    return found


PUBLIC_KEY = ("c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSU9NcXFua1Z6cm0wU2RHNlVPb3FLTHNhYmdINUM5b2tXaTBkaDJsOUdLSmw=")


def terraform(world):
    """A plan with everything that there is: key, image, instance, volume, attachment, snapshot, images of three kinds."""
    account = world.account()
    ec2 = Client(world, account)
    image = register(world.client(account), "base")
    # The caller's identity, twice.
    for _ in range(2):
        who = form(ec2.url, {"Action": "GetCallerIdentity", "Version": "2011-06-15"}, scope(account, service="sts"))
        equal(who.find("GetCallerIdentityResult/Account"), account)
    # data.aws_ami
    found = ec2.get("DescribeImages", {"IncludeDeprecated": "false", "Owner.1": "self"} | filters(name="base*", virtualization_type="hvm"))
    equal(found.all("imagesSet/item/imageId"), [image])
    ec2.refused("InvalidInstanceID.NotFound", "GetInstanceUefiData", {"InstanceId": image})
    # aws_key_pair
    ec2.get("ImportKeyPair", {"KeyName": "deploy", "PublicKeyMaterial": PUBLIC_KEY} | tags("key-pair", Name="deploy"))
    equal(ec2.get("DescribeKeyPairs", {"KeyName.1": "deploy", "IncludePublicKey": "true"}).find("keySet/item/keyType"), "ed25519")
    instance, root = terraform_instance(ec2, image)
    volume = terraform_volume(ec2, instance)
    snapshot = ec2.get("CreateSnapshot", {"VolumeId": volume, "Description": "nightly"} | tags("snapshot", Name="s")).find("snapshotId")
    ec2.until("completed", "snapshotSet/item/status", "DescribeSnapshots", {"SnapshotId.1": snapshot})
    terraform_images(ec2, account, instance, image, snapshot)
    # Destroyed in the order of what needs what.
    ec2.get("DetachVolume", {"Device": "/dev/sdh", "InstanceId": instance, "VolumeId": volume})
    attachment = filters(**{"attachment.device": "/dev/sdh", "attachment.instance-id": instance}) | {"VolumeId.1": volume}
    until("the detachment", lambda: not ec2.get("DescribeVolumes", attachment).all("volumeSet/item/volumeId"))
    ec2.get("DeleteSnapshot", {"SnapshotId": snapshot})
    ec2.get("DeleteVolume", {"VolumeId": volume})
    until("that the volume is gone", lambda: ec2.ask("DescribeVolumes", {"VolumeId.1": volume}).code == "InvalidVolume.NotFound")
    for parameter in ("DisableApiTermination", "DisableApiStop"):
        ec2.get("ModifyInstanceAttribute", {"InstanceId": instance, f"{parameter}.Value": "false"})
    ec2.get("TerminateInstances", {"InstanceId.1": instance})
    ec2.until("terminated", "reservationSet/item/instancesSet/item/instanceState/name", "DescribeInstances", {"InstanceId.1": instance})
    ec2.get("DeleteKeyPair", {"KeyName": "deploy"})
    ec2.refused("InvalidKeyPair.NotFound", "DescribeKeyPairs", {"KeyName.1": "deploy"})
    ec2.refused("InvalidVolume.NotFound", "DescribeVolumes", {"VolumeId.1": root})


def terraform_instance(ec2, image):
    equal(ec2.get("DescribeImages", {"ImageId.1": image}).find("imagesSet/item/rootDeviceName"), "/dev/sda1")
    launched = ec2.get("RunInstances", {
        "ImageId": image, "InstanceType": "t3.micro", "KeyName": "deploy", "MinCount": 1, "MaxCount": 1, "ClientToken": "terraform-1",
        "CreditSpecification.CpuCredits": "unlimited", "DisableApiStop": "false", "DisableApiTermination": "false", "EbsOptimized": "false",
        "EnclaveOptions.Enabled": "false", "HibernationOptions.Configured": "false", "InstanceInitiatedShutdownBehavior": "stop",
        "MetadataOptions.HttpEndpoint": "enabled", "MetadataOptions.HttpTokens": "optional", "MetadataOptions.HttpPutResponseHopLimit": 1,
        "MetadataOptions.InstanceMetadataTags": "disabled", "Monitoring.Enabled": "false", "UserData": "IyEvYmluL3NoCg==",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1", "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "BlockDeviceMapping.1.Ebs.Encrypted": "false", "BlockDeviceMapping.1.Ebs.VolumeSize": 2, "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
    } | tags("instance", Name="web"))
    instance = launched.find("instancesSet/item/instanceId")
    at = "reservationSet/item/instancesSet/item"
    ec2.until("running", f"{at}/instanceState/name", "DescribeInstances", {"InstanceId.1": instance})
    told = ec2.get("DescribeInstances", {"InstanceId.1": instance})
    # What is read into the state; a plan afterwards has to find the same.
    for path, value in [
        ("imageId", image), ("keyName", "deploy"), ("instanceType", "t3.micro"), ("ebsOptimized", "false"), ("monitoring/state", "disabled"),
        ("metadataOptions/httpTokens", "optional"), ("metadataOptions/httpEndpoint", "enabled"), ("metadataOptions/httpPutResponseHopLimit", "1"),
        ("hibernationOptions/configured", "false"), ("enclaveOptions/enabled", "false"), ("placement/tenancy", "default"),
        ("maintenanceOptions/autoRecovery", "default"),
        ("sourceDestCheck", "true"), ("networkInterfaceSet/item/attachment/deviceIndex", "0"), ("tagSet/item/value", "web"),
    ]:
        equal(told.find(f"{at}/{path}"), value, path)
    need(told.find(f"{at}/placement/availabilityZone") and told.find(f"{at}/subnetId"), "no place")
    equal(ec2.get("DescribeInstanceTypes", {"InstanceType.1": "t3.micro"}).find("instanceTypeSet/item/burstablePerformanceSupported"), "true")
    equal(ec2.get("DescribeTags", filters(resource_id=instance)).find("tagSet/item/key"), "Name")
    ec2.get("DescribeVpcs", {"VpcId.1": told.find(f"{at}/vpcId")})
    volumes = ec2.get("DescribeVolumes", filters(**{"attachment.instance-id": instance}))
    equal(volumes.all("volumeSet/item/size"), ["2"])
    equal(volumes.all("volumeSet/item/attachmentSet/item/deleteOnTermination"), ["true"])
    for attribute, path, value in [
        ("instanceInitiatedShutdownBehavior", "instanceInitiatedShutdownBehavior/value", "stop"), ("disableApiStop", "disableApiStop/value", "false"),
        ("disableApiTermination", "disableApiTermination/value", "false"), ("userData", "userData/value", "IyEvYmluL3NoCg=="),
    ]:
        equal(ec2.get("DescribeInstanceAttribute", {"InstanceId": instance, "Attribute": attribute}).find(path), value, attribute)
    credits = ec2.get("DescribeInstanceCreditSpecifications", {"InstanceId.1": instance})
    equal(credits.find("instanceCreditSpecificationSet/item/cpuCredits"), "unlimited")
    return instance, volumes.find("volumeSet/item/volumeId")


def terraform_volume(ec2, instance):
    zone = ec2.get("DescribeInstances", {"InstanceId.1": instance}).find("reservationSet/item/instancesSet/item/placement/availabilityZone")
    made = ec2.get("CreateVolume", {"AvailabilityZone": zone, "ClientToken": "terraform-2", "Size": 1, "VolumeType": "gp2"} | tags("volume", Name="d"))
    volume = made.find("volumeId")
    ec2.until("available", "volumeSet/item/status", "DescribeVolumes", {"VolumeId.1": volume})
    where = filters(**{"attachment.device": "/dev/sdh", "attachment.instance-id": instance})
    equal(ec2.get("DescribeVolumes", where | {"VolumeId.1": volume}).all("volumeSet/item/volumeId"), [])
    ec2.get("AttachVolume", {"Device": "/dev/sdh", "InstanceId": instance, "VolumeId": volume})
    ec2.until("attached", "volumeSet/item/attachmentSet/item/status", "DescribeVolumes", where | {"VolumeId.1": volume})
    equal(ec2.get("DescribeVolumes", {"VolumeId.1": volume}).find("volumeSet/item/encrypted"), "false")
    return volume


def terraform_images(ec2, account, instance, image, snapshot):
    registered = ec2.get("RegisterImage", {
        "Name": "registered", "Architecture": "x86_64", "EnaSupport": "true", "ImageLocation": "", "RootDeviceName": "/dev/xvda",
        "SriovNetSupport": "simple", "VirtualizationType": "hvm", "BlockDeviceMapping.1.DeviceName": "/dev/xvda",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true", "BlockDeviceMapping.1.Ebs.SnapshotId": snapshot,
        "BlockDeviceMapping.1.Ebs.VolumeSize": 1, "BlockDeviceMapping.1.Ebs.VolumeType": "standard",
    }).find("imageId")
    copied = ec2.get("CopyImage", {"Name": "copied", "SourceImageId": image, "SourceRegion": "us-east-1", "Encrypted": "false",
                                   "ClientToken": "", "Description": "a copy"}).find("imageId")
    cut = ec2.get("CreateImage", {"InstanceId": instance, "Name": "cut", "NoReboot": "false", "Description": ""}).find("imageId")
    for one in (registered, copied, cut):
        ec2.until("available", "imagesSet/item/imageState", "DescribeImages", {"ImageId.1": one})
        ec2.refused("InvalidInstanceID.NotFound", "GetInstanceUefiData", {"InstanceId": one})
    equal(ec2.get("DescribeImages", {"ImageId.1": registered}).find("imagesSet/item/blockDeviceMapping/item/ebs/volumeType"), "standard")
    equal(ec2.get("DescribeImages", {"ImageId.1": copied}).find("imagesSet/item/description"), "a copy")
    permission = {"ImageId": copied, "Attribute": "launchPermission"}
    ec2.get("ModifyImageAttribute", permission | {"LaunchPermission.Add.1.UserId": "210987654321"})
    equal(ec2.get("DescribeImageAttribute", permission).find("launchPermission/item/userId"), "210987654321")
    ec2.get("ModifyImageAttribute", permission | {"LaunchPermission.Remove.1.UserId": "210987654321"})
    equal(ec2.get("DescribeImageAttribute", permission).all("launchPermission/item/userId"), [])
    for one in (registered, copied, cut):
        told = ec2.get("DescribeImages", {"ImageId.1": one})
        snapshots = told.all("imagesSet/item/blockDeviceMapping/item/ebs/snapshotId")
        ec2.get("DeregisterImage", {"ImageId": one})
        until("that it is gone", lambda one=one: ec2.ask("DescribeImages", {"ImageId.1": one}).code in ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"))
        for part in snapshots if one != registered else []:
            ec2.get("DeleteSnapshot", {"SnapshotId": part})


def packer(world):
    """amazon-ebs: an image of an instance, in two regions."""
    account = world.account()
    ec2 = Client(world, account)
    source = register(world.client(account), "source")
    equal(ec2.get("DescribeRegions").status, 200)
    equal(ec2.get("DescribeImages", {"Owner.1": "self"} | filters(name="built")).all("imagesSet/item/imageId"), [])
    equal(ec2.get("DescribeImages", filters(name="source", root_device_type="ebs")).all("imagesSet/item/imageId"), [source])
    vpc = ec2.get("DescribeVpcs", filters(is_default="true")).find("vpcSet/item/vpcId")
    need(ec2.get("DescribeSubnets", filters(vpc_id=vpc, default_for_az="true")).all("subnetSet/item/subnetId"), "no subnets")
    offered = ec2.get("DescribeInstanceTypeOfferings", {"LocationType": "availability-zone"} | filters(instance_type="t3.micro"))
    need(offered.all("instanceTypeOfferingSet/item/location"), "no offers")
    key = ec2.get("CreateKeyPair", {"KeyName": "packer_1"})
    need("PRIVATE KEY" in key.find("keyMaterial"), "no key")
    group = ec2.get("CreateSecurityGroup", {"GroupName": "packer_1", "GroupDescription": "Temporary group for Packer", "VpcId": ""}).find("groupId")
    equal(ec2.get("DescribeSecurityGroups", {"GroupId.1": group}).find("securityGroupInfo/item/groupName"), "packer_1")
    ec2.get("AuthorizeSecurityGroupIngress", {
        "GroupId": group, "IpPermissions.1.IpProtocol": "tcp", "IpPermissions.1.FromPort": 22, "IpPermissions.1.ToPort": 22,
        "IpPermissions.1.IpRanges.1.CidrIp": "0.0.0.0/0",
    })
    launched = ec2.get("RunInstances", {
        "ImageId": source, "InstanceType": "t3.micro", "KeyName": "packer_1", "MinCount": 1, "MaxCount": 1, "SecurityGroupId.1": group,
        "EbsOptimized": "false", "IamInstanceProfile.Name": "", "InstanceInitiatedShutdownBehavior": "stop", "Placement.AvailabilityZone": "",
        "SubnetId": "", "UserData": "", "ClientToken": "packer-1", "CreditSpecification.CpuCredits": "",
        "BlockDeviceMapping.1.DeviceName": "/dev/sdf", "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true", "BlockDeviceMapping.1.Ebs.VolumeSize": 1,
    } | tags("instance", Name="Packer Builder"))
    instance = launched.find("instancesSet/item/instanceId")
    state = "reservationSet/item/instancesSet/item/instanceState/name"
    ec2.until("running", state, "DescribeInstances", {"InstanceId.1": instance})
    ec2.get("StopInstances", {"InstanceId.1": instance})
    ec2.until("stopped", state, "DescribeInstances", {"InstanceId.1": instance})
    built = ec2.get("CreateImage", {"InstanceId": instance, "Name": "built"}).find("imageId")
    ec2.until("available", "imagesSet/item/imageState", "DescribeImages", {"ImageId.1": built})
    copy = ec2.get("CopyImage", {"Name": "built", "SourceImageId": built, "SourceRegion": "us-east-1", "KmsKeyId": "", "Encrypted": "false"}, FAR).find("imageId")
    ec2.until("available", "imagesSet/item/imageState", "DescribeImages", {"ImageId.1": copy}, FAR)
    for image, region in [(built, "us-east-1"), (copy, FAR)]:
        finish(ec2, image, region)
    ec2.get("TerminateInstances", {"InstanceId.1": instance})
    volumes = ec2.get("DescribeVolumes", filters(**{"attachment.instance-id": instance})).all("volumeSet/item/volumeId")
    ec2.until("terminated", state, "DescribeInstances", {"InstanceId.1": instance})
    equal(ec2.get("DescribeVolumes", {"Filter.1.Name": "volume-id"} | listed("Filter.1.Value", *(volumes or ["vol-0"]))).all("volumeSet/item/volumeId"), [])
    until("that the group is nobody's", lambda: ec2.ask("DeleteSecurityGroup", {"GroupId": group}).status == 200)
    ec2.get("DeleteKeyPair", {"KeyName": "packer_1"})


def finish(ec2, image, region):
    told = ec2.get("DescribeImages", {"ImageId.1": image}, region)
    snapshots = told.all("imagesSet/item/blockDeviceMapping/item/ebs/snapshotId")
    equal(len(snapshots), 2)
    ec2.get("ModifyImageAttribute", {"ImageId": image, "Description.Value": "built by Packer"}, region)
    ec2.get("ModifyImageAttribute", {
        "ImageId": image, "LaunchPermission.Add.1.UserId": "210987654321", "LaunchPermission.Add.2.Group": "all",
        "UserId.1": "210987654321", "UserGroup.1": "all",
    }, region)
    for snapshot in snapshots:
        ec2.get("ModifySnapshotAttribute", {"SnapshotId": snapshot, "CreateVolumePermission.Add.1.UserId": "210987654321"}, region)
    ec2.get("CreateTags", listed("ResourceId", image, *snapshots) | {"Tag.1.Key": "by", "Tag.1.Value": "packer"}, region)
    soon = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(time.time() + 90 * 86400))
    ec2.get("EnableImageDeprecation", {"ImageId": image, "DeprecateAt": soon}, region)
    ec2.get("EnableImageDeregistrationProtection", {"ImageId": image, "WithCooldown": "false"}, region)
    ec2.get("DisableImageDeregistrationProtection", {"ImageId": image}, region)
    told = ec2.get("DescribeImages", {"ImageId.1": image}, region)
    equal((told.find("imagesSet/item/isPublic"), told.find("imagesSet/item/tagSet/item/value")), ("true", "packer"))


def main():
    with World(sys.argv[1]) as world:
        terraform(world)
        packer(world)


if __name__ == "__main__":
    main()
