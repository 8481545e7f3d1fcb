"""Images: registered, copied, made of instances, shared, deprecated, protected, switched off, gone."""

from datetime import datetime, timedelta, timezone

from .serving import FAR, by, dry, equal, pages, refused, tagged, wait
from .shapes import need
from .volumes import snapshot

NOBODYS_IMAGE = "ami-0123456789abcdef0"
ROOT = "/dev/sda1"


def register(ec2, name, root=None, **more):
    """An image of an empty disk."""
    root = root or snapshot(ec2)
    described = {
        "Name": name, "Architecture": "x86_64", "VirtualizationType": "hvm", "RootDeviceName": ROOT,
        "BlockDeviceMappings": [{"DeviceName": ROOT, "Ebs": {"SnapshotId": root}}],
    }
    made = ec2.register_image(**described | more)["ImageId"]
    wait(ec2, "image_available", ImageIds=[made])
    return made


def show(ec2, image):
    return ec2.describe_images(ImageIds=[image])["Images"][0]


def ids(ec2, **more):
    return {image["ImageId"] for image in ec2.describe_images(**more)["Images"]}


def registering(world):
    account = world.account()
    ec2 = world.client(account)
    root, data = snapshot(ec2), snapshot(ec2, 2)
    devices = [
        {"DeviceName": ROOT, "Ebs": {"SnapshotId": root, "VolumeSize": 3, "VolumeType": "gp3", "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": data}}, {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 5}},
        {"DeviceName": "/dev/sdh", "VirtualName": "ephemeral0"},
    ]
    described = {
        "Architecture": "x86_64", "VirtualizationType": "hvm", "RootDeviceName": ROOT, "BlockDeviceMappings": devices,
        "Description": "all of <it>", "EnaSupport": True, "SriovNetSupport": "simple", "ImdsSupport": "v2.0",
        "BootMode": "legacy-bios", "TagSpecifications": [tagged("image", Name="first & only")],
    }
    dry(ec2.register_image, Name="first", **described)
    first = ec2.register_image(Name="first", **described)["ImageId"]
    ec2.get_waiter("image_exists").wait(ImageIds=[first])
    wait(ec2, "image_available", ImageIds=[first])
    image = show(ec2, first)
    expected = {
        "Name": "first", "Description": "all of <it>", "EnaSupport": True, "ImdsSupport": "v2.0", "BootMode": "legacy-bios",
        "Architecture": "x86_64", "VirtualizationType": "hvm", "RootDeviceName": ROOT, "RootDeviceType": "ebs", "Public": False,
        "OwnerId": account, "ImageLocation": f"{account}/first", "Tags": [{"Key": "Name", "Value": "first & only"}],
    }
    equal({key: image.get(key) for key in expected}, expected)
    by_device = {device["DeviceName"]: device for device in image["BlockDeviceMappings"]}
    equal(list(by_device), [ROOT, "/dev/sdf", "/dev/sdg", "/dev/sdh"])
    ebs = by_device[ROOT]["Ebs"]
    equal((ebs["VolumeSize"], ebs["VolumeType"], ebs["DeleteOnTermination"]), (3, "gp3", False))
    equal((by_device["/dev/sdf"]["Ebs"]["VolumeSize"], by_device["/dev/sdh"]["VirtualName"]), (2, "ephemeral0"))
    refused("InvalidAMIName.Duplicate", ec2.register_image, Name="first", **described)
    refused("InvalidAMIName.Malformed", ec2.register_image, Name="a<b>c", **described)
    small = [{"DeviceName": ROOT, "Ebs": {"SnapshotId": data, "VolumeSize": 1}}]
    refused("InvalidBlockDeviceMapping", ec2.register_image, Name="small", **described | {"BlockDeviceMappings": small})
    refused("InvalidSnapshot.InUse", ec2.delete_snapshot, SnapshotId=root)
    refused("UnsupportedOperation", ec2.register_image, Name="tpm", TpmSupport="v2.0", **described)
    lookups(ec2, account, first, root)
    many = [register(ec2, f"many {at:02}", root) for at in range(11)]
    listed = pages(ec2, "describe_images", 5, "Images", Owners=["self"])
    equal((len(listed), {one["ImageId"] for one in listed}), (12, {first, *many}))
    refused("InvalidParameterCombination", ec2.describe_images, MaxResults=5, ImageIds=many)
    dry(ec2.deregister_image, ImageId=many[0])
    for image in many:
        equal(ec2.deregister_image(ImageId=image)["Return"], True)
    gone = ec2.deregister_image(ImageId=first, DeleteAssociatedSnapshots=True)["DeleteSnapshotResults"]
    equal({(one["SnapshotId"], one["ReturnCode"]) for one in gone}, {(root, "success"), (data, "success")})
    refused("InvalidAMIID.Unavailable", ec2.deregister_image, ImageId=first)
    refused("InvalidAMIID.NotFound", ec2.deregister_image, ImageId=NOBODYS_IMAGE)
    refused("InvalidAMIID.Malformed", ec2.deregister_image, ImageId="ami-1")


def lookups(ec2, account, first, root):
    for filters in [
        by("name", "fir*"), by("image-id", first), by("architecture", "x86_64", "arm64"), by("virtualization-type", "hvm"),
        by("root-device-type", "ebs"), by("root-device-name", ROOT), by("owner-id", account), by("state", "available"),
        by("is-public", "false"), by("image-type", "machine"), by("hypervisor", "xen"), by("description", "all of*"),
        by("block-device-mapping.snapshot-id", root), by("block-device-mapping.device-name", "/dev/sdf"),
        by("block-device-mapping.volume-size", "3"), by("block-device-mapping.volume-type", "gp3"),
        by("block-device-mapping.delete-on-termination", "false"), by("ena-support", "true"),
        by("creation-date", "20*"), by("manifest-location", f"{account}/*"), by("tag:Name", "first ? only"),
        by("tag-key", "Name"), by("name", "first") + by("architecture", "x86_64"),
    ]:
        equal(ids(ec2, Filters=filters), {first}, filters)
    for filters in [by("name", "FIRST"), by("platform", "windows"), by("kernel-id", "*"), by("name", "first") + by("state", "pending")]:
        equal(ids(ec2, Filters=filters), set(), filters)
    refused("InvalidParameterValue", ec2.describe_images, Filters=by("colour", "red"))
    equal(ids(ec2, Owners=["self"]), {first})
    equal(ids(ec2, Owners=[account]), {first})
    equal(ids(ec2, Owners=["amazon"]), set())
    equal(ids(ec2, ExecutableUsers=["self"]), set())
    refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=[NOBODYS_IMAGE])
    refused("InvalidAMIID.Malformed", ec2.describe_images, ImageIds=["ami-x"])


def copying(world):
    account = world.account()
    ec2, far = world.client(account), world.client(account, FAR)
    first = register(ec2, "first", TagSpecifications=[tagged("image", stage="test")])
    token = {"ClientToken": "copy-1", "SourceRegion": "us-east-1", "SourceImageId": first}
    dry(far.copy_image, Name="copy", **token)
    copy = far.copy_image(Name="copy", CopyImageTags=True, **token)["ImageId"]
    equal(far.copy_image(Name="copy", CopyImageTags=True, **token)["ImageId"], copy, "with the same token")
    refused("IdempotentParameterMismatch", far.copy_image, Name="other", **token)
    wait(far, "image_available", ImageIds=[copy])
    image = show(far, copy)
    equal((image["SourceImageId"], image["SourceImageRegion"], image["Tags"]), (first, "us-east-1", [{"Key": "stage", "Value": "test"}]))
    refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=[copy])
    near = ec2.copy_image(Name="near", SourceImageId=first, SourceRegion="us-east-1", Description="of <first>",
                          TagSpecifications=[tagged("image", a="b"), tagged("snapshot", c="d")])["ImageId"]
    wait(ec2, "image_available", ImageIds=[near])
    image = show(ec2, near)
    equal((image["Description"], image["Tags"]), ("of <first>", [{"Key": "a", "Value": "b"}]))
    copied = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    equal(ec2.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]["Tags"], [{"Key": "c", "Value": "d"}])
    equal(ids(ec2, Filters=by("source-image-id", first)), {near})
    refused("UnsupportedOperation", ec2.copy_image, Name="encrypted", SourceImageId=first, SourceRegion="us-east-1", Encrypted=True)
    refused("InvalidAMIID.NotFound", ec2.copy_image, Name="nothing", SourceImageId=first, SourceRegion=FAR)


def sharing(world):
    friend = world.account()
    ec2, other = world.client(world.account()), world.client(friend)
    image = register(ec2, "shared")
    attribute = {"ImageId": image, "Attribute": "launchPermission"}
    refused("InvalidAMIID.NotFound", other.describe_images, ImageIds=[image])
    dry(ec2.modify_image_attribute, LaunchPermission={"Add": [{"UserId": friend}]}, **attribute)
    # As Packer does: in both forms at once.
    ec2.modify_image_attribute(LaunchPermission={"Add": [{"UserId": friend}]}, UserIds=[friend], **attribute)
    equal(ec2.describe_image_attribute(**attribute)["LaunchPermissions"], [{"UserId": friend}])
    equal(ids(other, ExecutableUsers=["self"]), {image})
    equal(show(other, image)["ImageId"], image)
    refused("AuthFailure", other.describe_image_attribute, **attribute)
    refused("UnauthorizedOperation", other.deregister_image, ImageId=image)
    ec2.modify_image_attribute(LaunchPermission={"Remove": [{"UserId": friend}], "Add": [{"Group": "all"}]}, **attribute)
    equal(ec2.describe_image_attribute(**attribute)["LaunchPermissions"], [{"Group": "all"}])
    equal((show(other, image)["Public"], image in ids(other, ExecutableUsers=["all"])), (True, True))
    equal(ids(other, Filters=by("is-public", "true") + by("image-id", image)), {image})
    ec2.reset_image_attribute(**attribute)
    equal(ec2.describe_image_attribute(**attribute)["LaunchPermissions"], [])
    ec2.modify_image_attribute(OperationType="add", UserGroups=["all"], **attribute)
    ec2.modify_image_attribute(OperationType="remove", UserGroups=["all"], **attribute)
    equal(show(ec2, image)["Public"], False)
    refused("InvalidAMIAttributeItemValue", ec2.modify_image_attribute, LaunchPermission={"Add": [{"UserId": "me"}]}, **attribute)
    refused("InvalidAMIAttributeItemValue", ec2.modify_image_attribute, LaunchPermission={"Add": [{"Group": "some"}]}, **attribute)
    ec2.modify_image_attribute(ImageId=image, Description={"Value": "another <one>"})
    equal(ec2.describe_image_attribute(ImageId=image, Attribute="description")["Description"], {"Value": "another <one>"})
    ec2.modify_image_attribute(ImageId=image, Attribute="description", Value="a third")
    equal(show(ec2, image)["Description"], "a third")
    for name, key in [
        ("kernel", "KernelId"), ("ramdisk", "RamdiskId"), ("bootMode", "BootMode"), ("sriovNetSupport", "SriovNetSupport"),
        ("imdsSupport", "ImdsSupport"), ("tpmSupport", "TpmSupport"), ("uefiData", "UefiData"), ("lastLaunchedTime", "LastLaunchedTime"),
    ]:
        need(key in ec2.describe_image_attribute(ImageId=image, Attribute=name), f"{name} is not told")
    equal(ec2.describe_image_attribute(ImageId=image, Attribute="productCodes")["ProductCodes"], [])
    equal(len(ec2.describe_image_attribute(ImageId=image, Attribute="blockDeviceMapping")["BlockDeviceMappings"]), 1)
    # Only once somebody pays for it.
    ec2.modify_image_attribute(ImageId=image, Attribute="productCodes", ProductCodes=["A1B2C3"])
    equal(show(ec2, image)["ProductCodes"][0]["ProductCodeId"], "A1B2C3")


def switching(world):
    ec2 = world.client(world.account())
    image = register(ec2, "switched")
    dry(ec2.disable_image, ImageId=image)
    equal(ec2.disable_image(ImageId=image)["Return"], True)
    equal(ids(ec2, Owners=["self"]), set())
    equal(ids(ec2, Owners=["self"], IncludeDisabled=True), {image})
    refused("InvalidAMIID.Unavailable", ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.nano")
    equal(ec2.enable_image(ImageId=image)["Return"], True)
    equal(ids(ec2, Owners=["self"]), {image})
    other = world.client(world.account())
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    later = (datetime.now(timezone.utc) + timedelta(days=300)).replace(second=0, microsecond=0)
    equal(ec2.enable_image_deprecation(ImageId=image, DeprecateAt=later)["Return"], True)
    equal(show(other, image)["DeprecationTime"], later.strftime("%Y-%m-%dT%H:%M:00.000Z"))
    equal(ec2.disable_image_deprecation(ImageId=image)["Return"], True)
    need("DeprecationTime" not in show(ec2, image), "it is deprecated still")
    refused("InvalidParameterValue", ec2.enable_image_deprecation, ImageId=image, DeprecateAt="2001-01-01T00:00:00Z")
    equal(ec2.enable_image_deregistration_protection(ImageId=image)["Return"], "enabled-without-cooldown")
    refused("OperationNotPermitted", ec2.deregister_image, ImageId=image)
    protection = ec2.describe_image_attribute(ImageId=image, Attribute="deregistrationProtection")
    equal(protection["DeregistrationProtection"], {"Value": "enabled-without-cooldown"})
    equal(ec2.disable_image_deregistration_protection(ImageId=image)["Return"], "disabled")
    equal(ec2.enable_image_deregistration_protection(ImageId=image, WithCooldown=True)["Return"], "enabled-with-cooldown")
    need(ec2.disable_image_deregistration_protection(ImageId=image)["Return"], "no word")
    refused("OperationNotPermitted", ec2.deregister_image, ImageId=image)
    free = register(ec2, "free")
    ec2.deregister_image(ImageId=free)


CHECKS = [registering, copying, sharing, switching]
