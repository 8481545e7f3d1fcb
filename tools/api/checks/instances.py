"""Instances: launched, described, stopped and started, with volumes and attributes, made images of, terminated."""

import base64

from .images import NOBODYS_IMAGE, ROOT, register
from .serving import by, dry, equal, pages, refused, tagged, wait
from .shapes import need
from .volumes import zone_of

NOBODYS_INSTANCE = "i-0123456789abcdef0"
KIND = "t3.nano"


def launch(ec2, image, count=1, **more):
    """Ids of instances that run."""
    answer = ec2.run_instances(ImageId=image, MinCount=count, MaxCount=count, **{"InstanceType": KIND} | more)
    made = [instance["InstanceId"] for instance in answer["Instances"]]
    wait(ec2, "instance_running", InstanceIds=made)
    return made


def show(ec2, instance):
    return ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def ids(ec2, **more):
    answer = ec2.describe_instances(**more)
    return {instance["InstanceId"] for one in answer["Reservations"] for instance in one["Instances"]}


def terminate(ec2, instances):
    ec2.terminate_instances(InstanceIds=instances)
    wait(ec2, "instance_terminated", InstanceIds=instances)


def launching(world):
    account = world.account()
    ec2 = world.client(account)
    image = register(ec2, "first")
    ec2.create_key_pair(KeyName="key", KeyType="ed25519")
    request = {
        "ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": KIND, "KeyName": "key", "UserData": "#!/bin/sh\necho <hi>\n",
        "BlockDeviceMappings": [
            {"DeviceName": ROOT, "Ebs": {"VolumeSize": 2, "VolumeType": "gp3", "DeleteOnTermination": True}},
            {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}},
        ],
        "TagSpecifications": [tagged("instance", Name="web <1>"), tagged("volume", of="web")],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"},
        "CreditSpecification": {"CpuCredits": "unlimited"}, "Monitoring": {"Enabled": False}, "EbsOptimized": False,
        "HibernationOptions": {"Configured": False}, "InstanceInitiatedShutdownBehavior": "terminate",
    }
    dry(ec2.run_instances, **request)
    answer = ec2.run_instances(ClientToken="launch-1", **request)
    first = answer["Instances"][0]["InstanceId"]
    equal((answer["OwnerId"], answer["Instances"][0]["State"]["Name"]), (account, "pending"))
    equal(ec2.run_instances(ClientToken="launch-1", **request)["Instances"][0]["InstanceId"], first, "with the same token")
    refused("IdempotentParameterMismatch", ec2.run_instances, ClientToken="launch-1", **request | {"MaxCount": 2})
    wait(ec2, "instance_exists", InstanceIds=[first])
    wait(ec2, "instance_running", InstanceIds=[first])
    wait(ec2, "instance_status_ok", InstanceIds=[first])
    wait(ec2, "system_status_ok", InstanceIds=[first])
    instance = show(ec2, first)
    expected = {
        "ImageId": image, "InstanceType": KIND, "KeyName": "key", "RootDeviceName": ROOT, "RootDeviceType": "ebs",
        "VirtualizationType": "hvm", "Architecture": "x86_64", "State": {"Code": 16, "Name": "running"},
        "Tags": [{"Key": "Name", "Value": "web <1>"}], "ClientToken": "launch-1",
    }
    equal({key: instance[key] for key in expected}, expected)
    equal((instance["MetadataOptions"]["HttpTokens"], instance["MetadataOptions"]["HttpPutResponseHopLimit"]), ("required", 2))
    devices = {device["DeviceName"]: device["Ebs"] for device in instance["BlockDeviceMappings"]}
    equal({name: ebs["DeleteOnTermination"] for name, ebs in devices.items()}, {ROOT: True, "/dev/sdf": False})
    volumes = {one["VolumeId"]: one for one in ec2.describe_volumes(Filters=by("attachment.instance-id", first))["Volumes"]}
    equal(len(volumes), 2)
    wait(ec2, "volume_in_use", VolumeIds=list(volumes))
    root = volumes[devices[ROOT]["VolumeId"]]
    equal((root["Size"], root["VolumeType"], root["Tags"]), (2, "gp3", [{"Key": "of", "Value": "web"}]))
    lookups(ec2, account, image, instance)
    for code, change in [
        ("InvalidAMIID.NotFound", {"ImageId": NOBODYS_IMAGE}), ("InvalidAMIID.Malformed", {"ImageId": "ami-1"}),
        ("InvalidParameterValue", {"InstanceType": "t3.colossal"}), ("InvalidKeyPair.NotFound", {"KeyName": "nobody's"}),
        ("InvalidParameterValue", {"MinCount": 2}), ("InvalidParameterValue", {"MinCount": 0}),
        ("InvalidParameterValue", {"TagSpecifications": [tagged("snapshot", a="b")]}),
        ("InvalidBlockDeviceMapping", {"BlockDeviceMappings": [{"DeviceName": "/dev/sdf"}]}),
        ("UnsupportedOperation", {"Monitoring": {"Enabled": True}}),
        ("UnsupportedOperation", {"HibernationOptions": {"Configured": True}}),
        ("UnsupportedOperation", {"IamInstanceProfile": {"Name": "role"}}),
        ("UnsupportedOperation", {"InstanceMarketOptions": {"MarketType": "spot"}}),
        ("UnsupportedOperation", {"Placement": {"Tenancy": "host"}}),
        ("InvalidParameterValue", {"MetadataOptions": {"HttpPutResponseHopLimit": 65}}),
        ("InvalidParameterValue", {"UserData": "x" * 16385}),
    ]:
        refused(code, ec2.run_instances, **request | change)
    refused("AuthFailure", world.client(world.account()).run_instances, **request | {"KeyName": ""})
    terminate(ec2, [first])
    left = ec2.describe_volumes()["Volumes"]
    equal([(volume["VolumeId"], volume["State"]) for volume in left], [(devices["/dev/sdf"]["VolumeId"], "available")])


def lookups(ec2, account, image, instance):
    first, interface = instance["InstanceId"], instance["NetworkInterfaces"][0]
    for filters in [
        by("instance-id", first), by("image-id", image), by("instance-type", "t3.*"), by("key-name", "key"),
        by("instance-state-name", "running", "pending"), by("instance-state-code", "16"), by("tag:Name", "web*"),
        by("tag-key", "Name"), by("root-device-name", ROOT), by("architecture", "x86_64"), by("vpc-id", instance["VpcId"]),
        by("subnet-id", instance["SubnetId"]), by("private-ip-address", instance["PrivateIpAddress"]), by("owner-id", account),
        by("availability-zone", instance["Placement"]["AvailabilityZone"]), by("block-device-mapping.device-name", "/dev/sdf"),
        by("client-token", "launch-1"), by("network-interface.network-interface-id", interface["NetworkInterfaceId"]),
        by("instance.group-name", "default"), by("metadata-options.http-tokens", "required"), by("virtualization-type", "hvm"),
    ]:
        equal(ids(ec2, Filters=filters), {first}, filters)
    equal(ids(ec2, Filters=by("instance-state-name", "stopped")), set())
    refused("InvalidParameterValue", ec2.describe_instances, Filters=by("colour", "red"))
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=[NOBODYS_INSTANCE])
    refused("InvalidInstanceID.Malformed", ec2.describe_instances, InstanceIds=["i-1"])
    for filters, count in [
        (by("instance-status.status", "ok"), 1), (by("instance-status.reachability", "failed"), 0),
        (by("system-status.status", "ok"), 1), (by("instance-state-name", "running"), 1), (by("event.code", "*"), 0),
    ]:
        equal(len(ec2.describe_instance_status(Filters=filters)["InstanceStatuses"]), count, filters)
    for filters in [by("network-interface-id", interface["NetworkInterfaceId"]), by("attachment.instance-id", first),
                    by("private-ip-address", instance["PrivateIpAddress"]), by("mac-address", interface["MacAddress"])]:
        found = ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
        equal([one["NetworkInterfaceId"] for one in found], [interface["NetworkInterfaceId"]], filters)
    # One here is always an instance's.
    equal(ec2.describe_network_interfaces(Filters=by("status", "available"))["NetworkInterfaces"], [])


def many(world):
    ec2 = world.client(world.account())
    image = register(ec2, "first")
    made = launch(ec2, image, 6) + launch(ec2, image, 6)
    listed = pages(ec2, "describe_instances", 5, "Reservations")
    found = [instance["InstanceId"] for one in listed for instance in one["Instances"]]
    equal((len(found), set(found)), (12, set(made)))
    equal(len(pages(ec2, "describe_instance_status", 5, "InstanceStatuses")), 12)
    equal(len(pages(ec2, "describe_network_interfaces", 5, "NetworkInterfaces")), 12)
    equal(len(pages(ec2, "describe_instance_credit_specifications", 5, "InstanceCreditSpecifications")), 12)
    refused("InvalidParameterCombination", ec2.describe_instances, MaxResults=5, InstanceIds=made)
    dry(ec2.stop_instances, InstanceIds=made)
    stopping = ec2.stop_instances(InstanceIds=made[:4])["StoppingInstances"]
    equal({change["PreviousState"]["Name"] for change in stopping}, {"running"})
    wait(ec2, "instance_stopped", InstanceIds=made[:4])
    equal(len(ec2.describe_instance_status()["InstanceStatuses"]), 8)
    equal(len(ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]), 12)
    reason = show(ec2, made[0])
    equal(reason["StateReason"]["Code"], "Client.UserInitiatedShutdown")
    need(reason["StateTransitionReason"].startswith("User initiated ("), reason["StateTransitionReason"])
    dry(ec2.start_instances, InstanceIds=made[:2])
    starting = ec2.start_instances(InstanceIds=made[:2])["StartingInstances"]
    equal({change["PreviousState"]["Name"] for change in starting}, {"stopped"})
    wait(ec2, "instance_running", InstanceIds=made[:2])
    dry(ec2.reboot_instances, InstanceIds=made[:1])
    ec2.reboot_instances(InstanceIds=made[:1])
    wait(ec2, "instance_running", InstanceIds=made[:1])
    output = ec2.get_console_output(InstanceId=made[0], Latest=True)
    need(isinstance(output["Output"], str) and output["Timestamp"], output)
    refused("IncorrectInstanceState", ec2.reboot_instances, InstanceIds=[made[2]])
    for action in (ec2.stop_instances, ec2.start_instances, ec2.reboot_instances, ec2.terminate_instances):
        # One that is not there, and nothing is done to the others.
        refused("InvalidInstanceID.NotFound", action, InstanceIds=[made[5], NOBODYS_INSTANCE])
    equal(show(ec2, made[5])["State"]["Name"], "running")
    dry(ec2.terminate_instances, InstanceIds=made)
    terminate(ec2, made)
    # They are told of for a while.
    equal(ids(ec2, Filters=by("instance-state-name", "terminated")), set(made))
    equal(ec2.describe_volumes()["Volumes"], [])


def attributes(world):
    ec2 = world.client(world.account())
    first = launch(ec2, register(ec2, "first"), UserData="hello")[0]

    def told(name):
        return ec2.describe_instance_attribute(InstanceId=first, Attribute=name)

    equal(told("userData")["UserData"]["Value"], base64.b64encode(b"hello").decode())
    equal(told("disableApiTermination")["DisableApiTermination"], {"Value": False})
    equal(told("instanceType")["InstanceType"], {"Value": KIND})
    equal(told("instanceInitiatedShutdownBehavior")["InstanceInitiatedShutdownBehavior"], {"Value": "stop"})
    equal(told("rootDeviceName")["RootDeviceName"], {"Value": ROOT})
    equal(len(told("groupSet")["Groups"]), 1)
    equal(told("sourceDestCheck")["SourceDestCheck"], {"Value": True})
    equal(len(told("blockDeviceMapping")["BlockDeviceMappings"]), 1)
    for name in ["kernel", "ramdisk", "ebsOptimized", "enaSupport", "sriovNetSupport", "productCodes", "disableApiStop", "enclaveOptions"]:
        need(len(told(name)) > 1, f"{name} is not told")

    def change(**more):
        ec2.modify_instance_attribute(InstanceId=first, **more)

    dry(ec2.modify_instance_attribute, InstanceId=first, DisableApiTermination={"Value": True})
    change(DisableApiTermination={"Value": True})
    refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=[first])
    change(Attribute="disableApiTermination", Value="false")
    change(DisableApiStop={"Value": True})
    refused("OperationNotPermitted", ec2.stop_instances, InstanceIds=[first])
    change(DisableApiStop={"Value": False})
    change(InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    equal(told("instanceInitiatedShutdownBehavior")["InstanceInitiatedShutdownBehavior"], {"Value": "terminate"})
    change(SourceDestCheck={"Value": True})
    refused("UnsupportedOperation", ec2.modify_instance_attribute, InstanceId=first, SourceDestCheck={"Value": False})
    ec2.reset_instance_attribute(InstanceId=first, Attribute="sourceDestCheck")
    refused("UnsupportedOperation", ec2.reset_instance_attribute, InstanceId=first, Attribute="kernel")
    change(BlockDeviceMappings=[{"DeviceName": ROOT, "Ebs": {"DeleteOnTermination": False}}])
    equal(show(ec2, first)["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"], False)
    group = ec2.create_security_group(GroupName="web", Description="for the web")["GroupId"]
    change(Groups=[group])
    equal([one["GroupId"] for one in told("groupSet")["Groups"]], [group])
    refused("InvalidParameterValue", ec2.modify_instance_attribute, InstanceId=first, Attribute="colour", Value="red")
    for kind, data in [(KIND, b"x"), ("t3.small", None)]:
        if data:
            refused("IncorrectInstanceState", ec2.modify_instance_attribute, InstanceId=first, UserData={"Value": data})
        else:
            refused("IncorrectInstanceState", ec2.modify_instance_attribute, InstanceId=first, InstanceType={"Value": kind})
    options = ec2.modify_instance_metadata_options(InstanceId=first, HttpTokens="required", InstanceMetadataTags="enabled")
    equal((options["InstanceMetadataOptions"]["HttpTokens"], options["InstanceMetadataOptions"]["InstanceMetadataTags"]), ("required", "enabled"))
    equal(show(ec2, first)["MetadataOptions"]["HttpTokens"], "required")
    ec2.stop_instances(InstanceIds=[first], Force=True)
    wait(ec2, "instance_stopped", InstanceIds=[first])
    change(UserData={"Value": b"<again>\x00\xff"})
    equal(told("userData")["UserData"]["Value"], base64.b64encode(b"<again>\x00\xff").decode())
    change(InstanceType={"Value": "t3.small"})
    equal(show(ec2, first)["InstanceType"], "t3.small")
    equal(ec2.get_password_data(InstanceId=first)["PasswordData"], "")
    wanted = {"WaiterConfig": {"Delay": 1, "MaxAttempts": 1}, "InstanceId": first}
    try:
        ec2.get_waiter("password_data_available").wait(**wanted)
        raise AssertionError("there is a password")
    except Exception as error:
        need("Max attempts exceeded" in str(error), error)
    refused("InvalidInstanceID.NotFound", ec2.get_instance_uefi_data, InstanceId=NOBODYS_IMAGE)
    refused("UnsupportedOperation", ec2.get_instance_uefi_data, InstanceId=first)
    refused("UnsupportedOperation", ec2.get_console_screenshot, InstanceId=first)
    refused("UnsupportedOperation", ec2.monitor_instances, InstanceIds=[first])
    off = ec2.unmonitor_instances(InstanceIds=[first])["InstanceMonitorings"]
    equal(off, [{"InstanceId": first, "Monitoring": {"State": "disabled"}}])
    for action in [ec2.get_password_data, ec2.get_console_screenshot, ec2.get_console_output, ec2.get_instance_uefi_data]:
        refused("InvalidInstanceID.NotFound", action, InstanceId=NOBODYS_INSTANCE)
    refused("InvalidInstanceID.NotFound", ec2.unmonitor_instances, InstanceIds=[NOBODYS_INSTANCE])


def disks(world):
    ec2 = world.client(world.account())
    first = launch(ec2, register(ec2, "first"))[0]
    zone = show(ec2, first)["Placement"]["AvailabilityZone"]
    other_zone = next(one["ZoneName"] for one in ec2.describe_availability_zones()["AvailabilityZones"] if one["ZoneName"] != zone)
    volume = ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"]
    far = ec2.create_volume(Size=1, AvailabilityZone=other_zone)["VolumeId"]
    where = {"InstanceId": first, "Device": "/dev/sdf"}
    dry(ec2.attach_volume, VolumeId=volume, **where)
    attached = ec2.attach_volume(VolumeId=volume, **where)
    need(attached["State"] in ("attaching", "attached"), attached)
    equal((attached["Device"], attached["DeleteOnTermination"]), ("/dev/sdf", False))
    wait(ec2, "volume_in_use", VolumeIds=[volume])
    found = ec2.describe_volumes(Filters=by("attachment.device", "/dev/sdf") + by("attachment.instance-id", first))["Volumes"]
    equal([one["VolumeId"] for one in found], [volume])
    refused("InvalidVolume.ZoneMismatch", ec2.attach_volume, VolumeId=far, InstanceId=first, Device="/dev/sdg")
    refused("VolumeInUse", ec2.attach_volume, VolumeId=volume, InstanceId=first, Device="/dev/sdg")
    refused("VolumeInUse", ec2.delete_volume, VolumeId=volume)
    more = ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"]
    refused("InvalidParameterValue", ec2.attach_volume, VolumeId=more, **where)
    all_of_them = ec2.create_snapshots(InstanceSpecification={"InstanceId": first}, Description="all",
                                       TagSpecifications=[tagged("snapshot", a="b")])["Snapshots"]
    equal(len(all_of_them), 2)
    data = ec2.create_snapshots(InstanceSpecification={"InstanceId": first, "ExcludeBootVolume": True})["Snapshots"]
    equal([one["VolumeId"] for one in data], [volume])
    wait(ec2, "snapshot_completed", SnapshotIds=[one["SnapshotId"] for one in [*all_of_them, *data]])
    dry(ec2.detach_volume, VolumeId=volume)
    refused("InvalidAttachment.NotFound", ec2.detach_volume, VolumeId=volume, Device="/dev/sdz")
    detached = ec2.detach_volume(VolumeId=volume, **where)
    need(detached["State"] in ("detaching", "detached"), detached)
    wait(ec2, "volume_available", VolumeIds=[volume])
    refused("IncorrectState", ec2.detach_volume, VolumeId=volume)
    cutting(ec2, first, volume)
    terminate(ec2, [first])
    for one in [volume, far, more]:
        ec2.delete_volume(VolumeId=one)


def cutting(ec2, instance, volume):
    """Images of an instance."""
    ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    wait(ec2, "volume_in_use", VolumeIds=[volume])
    dry(ec2.create_image, InstanceId=instance, Name="cut")
    tags = [tagged("image", Name="cut"), tagged("snapshot", of="cut")]
    cut = ec2.create_image(InstanceId=instance, Name="cut", Description="of it", TagSpecifications=tags)["ImageId"]
    wait(ec2, "image_available", ImageIds=[cut])
    wait(ec2, "instance_running", InstanceIds=[instance])
    image = ec2.describe_images(ImageIds=[cut])["Images"][0]
    equal((image["SourceInstanceId"], image["Tags"]), (instance, [{"Key": "Name", "Value": "cut"}]))
    equal([one["DeviceName"] for one in image["BlockDeviceMappings"]], [ROOT, "/dev/sdf"])
    snapshots = [one["Ebs"]["SnapshotId"] for one in image["BlockDeviceMappings"]]
    for one in ec2.describe_snapshots(SnapshotIds=snapshots)["Snapshots"]:
        equal(one["Tags"], [{"Key": "of", "Value": "cut"}])
    without = ec2.create_image(InstanceId=instance, Name="cut 2", NoReboot=True,
                               BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "NoDevice": ""}])["ImageId"]
    wait(ec2, "image_available", ImageIds=[without])
    image = ec2.describe_images(ImageIds=[without])["Images"][0]
    equal([one["DeviceName"] for one in image["BlockDeviceMappings"]], [ROOT])
    refused("InvalidAMIName.Duplicate", ec2.create_image, InstanceId=instance, Name="cut")
    refused("InvalidInstanceID.NotFound", ec2.create_image, InstanceId=NOBODYS_INSTANCE, Name="cut 3")
    again = launch(ec2, cut)
    equal(len(show(ec2, again[0])["BlockDeviceMappings"]), 2)
    terminate(ec2, again)
    ec2.detach_volume(VolumeId=volume)
    wait(ec2, "volume_available", VolumeIds=[volume])


def by_parameter(world):
    """Images by the names that Systems Manager has for them."""
    account = world.account()
    ec2, ssm = world.client(account), world.client(account, service="ssm")
    image = register(ec2, "named")
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    base = "/aws/service/ami-amazon-linux-latest"
    names = [f"{base}/al2023-{at:02}" for at in range(6)]
    for name in names:
        world.server.run("parameter", "put", "--owner", account, "--data-type", "aws:ec2:image", name, image)
    equal(ssm.get_parameter(Name=names[0])["Parameter"]["Value"], image)
    found = ssm.get_parameters(Names=[names[0], "/nothing"])
    equal(([one["Name"] for one in found["Parameters"]], found["InvalidParameters"]), ([names[0]], ["/nothing"]))
    listed = [
        one["Name"] for page in ssm.get_paginator("get_parameters_by_path").paginate(Path=base, PaginationConfig={"PageSize": 5})
        for one in page["Parameters"]
    ]
    equal(listed, names)
    refused("ParameterNotFound", ssm.get_parameter, Name="/nothing")
    refused("UnknownOperationException", ssm.describe_parameters)
    # Public ones are everybody's.
    other = world.client(world.account())
    made = launch(other, f"resolve:ssm:{names[0]}")
    equal(show(other, made[0])["ImageId"], image)
    refused("InvalidAMIID.Malformed", other.run_instances, ImageId="named", MinCount=1, MaxCount=1)
    refused("ParameterNotFound", other.run_instances, ImageId="resolve:ssm:/nothing", MinCount=1, MaxCount=1)


CHECKS = [launching, many, attributes, disks, by_parameter]
