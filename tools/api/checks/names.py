"""Key pairs, tags, places and what an account may have."""

from .serving import FAR, by, dry, equal, pages, refused, tagged
from .shapes import need

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"


def key_pairs(world):
    ec2 = world.client(world.account())
    dry(ec2.create_key_pair, KeyName="one")
    made = ec2.create_key_pair(KeyName="one", TagSpecifications=[tagged("key-pair", stage="test")])
    need("PRIVATE KEY" in made["KeyMaterial"], made)
    equal(made["Tags"], [{"Key": "stage", "Value": "test"}])
    refused("InvalidKeyPair.Duplicate", ec2.create_key_pair, KeyName="one")
    refused("InvalidParameterValue", ec2.create_key_pair, KeyName="x", TagSpecifications=[tagged("volume", a="b")])
    refused("UnsupportedOperation", ec2.create_key_pair, KeyName="x", KeyFormat="ppk")
    small = ec2.create_key_pair(KeyName="two", KeyType="ed25519")
    need(small["KeyFingerprint"] and "PRIVATE KEY" in small["KeyMaterial"], small)
    imported = ec2.import_key_pair(KeyName="three", PublicKeyMaterial=ED25519.encode())
    need(imported["KeyPairId"].startswith("key-"), imported)
    refused("InvalidKey.Format", ec2.import_key_pair, KeyName="four", PublicKeyMaterial=b"\xff\xfe")
    refused("InvalidKey.Format", ec2.import_key_pair, KeyName="four", PublicKeyMaterial=b"ssh-rsa nothing")
    all_of_them = ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    equal({pair["KeyName"]: pair["KeyType"] for pair in all_of_them}, {"one": "rsa", "two": "ed25519", "three": "ed25519"})
    public = next(pair["PublicKey"] for pair in all_of_them if pair["KeyName"] == "three")
    equal(public.split()[:2], ED25519.split()[:2])

    def found(*filters, **more):
        return [pair["KeyName"] for pair in ec2.describe_key_pairs(Filters=list(filters), **more)["KeyPairs"]]

    equal(found(*by("key-name", "t*")), ["three", "two"])
    equal(found(*by("tag:stage", "te?t")), ["one"])
    equal(found(*by("tag-key", "stage")), ["one"])
    equal(found(*by("key-pair-id", made["KeyPairId"])), ["one"])
    equal(found(*by("fingerprint", made["KeyFingerprint"])), ["one"])
    equal(found(KeyNames=["two"]), ["two"])
    equal(found(KeyPairIds=[small["KeyPairId"]]), ["two"])
    refused("InvalidKeyPair.NotFound", ec2.describe_key_pairs, KeyNames=["nobody's"])
    refused("InvalidParameterValue", ec2.describe_key_pairs, Filters=by("colour", "red"))
    ec2.get_waiter("key_pair_exists").wait(KeyNames=["one"])
    equal(ec2.delete_key_pair(KeyName="one")["KeyPairId"], made["KeyPairId"])
    # What is not there is gone.
    equal(ec2.delete_key_pair(KeyName="one")["Return"], True)
    ec2.delete_key_pair(KeyPairId=small["KeyPairId"])
    equal(found(), ["three"])
    need(not world.client(world.account()).describe_key_pairs()["KeyPairs"], "another account sees keys")


def tags(world):
    account = world.account()
    ec2 = world.client(account)
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    volumes = [ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"] for _ in range(3)]
    strange = {"<&>\"'": "]]> &amp; \u00e9\u4e2d\U0001f600\n\t", "plain": "", " spaced ": "  a  b  "}
    many = {f"key-{at}": f"value {at}" for at in range(10)}
    every = [{"Key": key, "Value": text} for key, text in (strange | many).items()]
    dry(ec2.create_tags, Resources=volumes, Tags=every)
    ec2.create_tags(Resources=volumes, Tags=every)
    shown = ec2.describe_volumes(VolumeIds=volumes[:1])["Volumes"][0]["Tags"]
    equal({tag["Key"]: tag["Value"] for tag in shown}, strange | many)
    all_of_them = pages(ec2, "describe_tags", 5, "Tags")
    equal(len(all_of_them), 3 * len(every))
    equal(len({(tag["ResourceId"], tag["Key"]) for tag in all_of_them}), 3 * len(every), "tags twice")
    refused("InvalidParameterValue", ec2.describe_tags, MaxResults=4)
    refused("InvalidParameterValue", ec2.describe_tags, NextToken="\u00e9")
    for filters, count in [
        (by("key", "key-*"), 30),
        (by("key", "key-?"), 30),
        (by("key", "KEY-1"), 0),
        (by("value", "value 1", "value 2"), 6),
        (by("resource-id", volumes[0]), len(every)),
        (by("resource-type", "volume") + by("key", "plain"), 3),
        (by("resource-type", "instance"), 0),
        (by("tag:key-3", "value 3"), 3),
    ]:
        equal(len(ec2.describe_tags(Filters=filters)["Tags"]), count, filters)
    equal(len(ec2.describe_volumes(Filters=by("tag:<&>\"'", "]]>*"))["Volumes"]), 3)
    # One is taken away only where it has that value.
    ec2.delete_tags(Resources=volumes[:1], Tags=[{"Key": "key-1", "Value": "other"}, {"Key": "key-2"}])
    equal(len(ec2.describe_tags(Filters=by("key", "key-1"))["Tags"]), 3)
    equal(len(ec2.describe_tags(Filters=by("key", "key-2"))["Tags"]), 2)
    ec2.delete_tags(Resources=volumes)
    equal(ec2.describe_tags()["Tags"], [])
    refused("InvalidVolume.NotFound", ec2.create_tags, Resources=["vol-00000000000000001"], Tags=every)
    refused("InvalidID", ec2.create_tags, Resources=["thing-1"], Tags=every)
    refused("InvalidParameterValue", ec2.create_tags, Resources=volumes, Tags=[{"Key": "aws:x", "Value": "y"}])
    refused("InvalidParameterValue", ec2.create_tags, Resources=volumes, Tags=[{"Key": "x" * 129, "Value": "y"}])
    refused("TagLimitExceeded", ec2.create_tags, Resources=volumes, Tags=[{"Key": f"k{at}", "Value": ""} for at in range(51)])
    refused("InvalidVolume.NotFound", world.client(world.account()).create_tags, Resources=volumes, Tags=every)


def places(world):
    ec2 = world.client(world.account())
    regions = ec2.describe_regions()["Regions"]
    need({"us-east-1", FAR} <= {region["RegionName"] for region in regions}, regions)
    need(len(ec2.describe_regions(AllRegions=True)["Regions"]) >= len(regions), "there are more")
    equal([one["RegionName"] for one in ec2.describe_regions(RegionNames=[FAR])["Regions"]], [FAR])
    named = ec2.describe_regions(Filters=by("region-name", "us-west-?"))["Regions"]
    equal(sorted(one["RegionName"] for one in named), ["us-west-1", FAR])
    refused("InvalidParameterValue", ec2.describe_regions, RegionNames=["mars-1"])
    dry(ec2.describe_regions)
    zones = world.client(world.account(), FAR).describe_availability_zones()["AvailabilityZones"]
    need(zones and all(zone["ZoneName"].startswith(FAR) for zone in zones), zones)
    one = zones[0]
    west = world.client(world.account(), FAR)
    for more in [
        {"ZoneNames": [one["ZoneName"]]}, {"ZoneIds": [one["ZoneId"]]}, {"Filters": by("zone-name", one["ZoneName"])},
        {"Filters": by("zone-id", one["ZoneId"])},
    ]:
        equal(west.describe_availability_zones(**more)["AvailabilityZones"], [one])
    equal(len(west.describe_availability_zones(Filters=by("state", "available"))["AvailabilityZones"]), len(zones))
    refused("InvalidParameterValue", west.describe_availability_zones, ZoneNames=["us-east-1a"])
    attributes = {
        attribute["AttributeName"]: attribute["AttributeValues"][0]["AttributeValue"]
        for attribute in ec2.describe_account_attributes()["AccountAttributes"]
    }
    equal(attributes["supported-platforms"], "VPC")
    vpc = ec2.describe_vpcs(Filters=by("is-default", "true"))["Vpcs"][0]["VpcId"]
    equal(attributes["default-vpc"], vpc)
    one = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    equal([attribute["AttributeName"] for attribute in one], ["default-vpc"])


def instance_types(world):
    ec2 = world.client(world.account())
    kinds = pages(ec2, "describe_instance_types", 5, "InstanceTypes")
    names = [kind["InstanceType"] for kind in kinds]
    equal(len(set(names)), len(names), "types twice")
    need({"t2.micro", "t3.micro", "m5.large"} <= set(names), names)
    micro = ec2.describe_instance_types(InstanceTypes=["t3.micro"])["InstanceTypes"]
    equal((micro[0]["VCpuInfo"]["DefaultVCpus"], micro[0]["MemoryInfo"]["SizeInMiB"]), (2, 1024))
    for filters in [
        by("instance-type", "t3.micro"), by("instance-type", "t3.m?cro"),
        by("instance-type", "t3.micro") + by("vcpu-info.default-vcpus", "2"),
    ]:
        equal(ec2.describe_instance_types(Filters=filters)["InstanceTypes"], micro)
    refused("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["t3.colossal"])
    refused("InvalidParameterValue", ec2.describe_instance_types, Filters=by("colour", "red"))
    offered = pages(ec2, "describe_instance_type_offerings", 5, "InstanceTypeOfferings", LocationType="availability-zone",
                    Filters=by("instance-type", "t3.micro", "t3.nano"))
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]]
    equal(sorted(one["Location"] for one in offered if one["InstanceType"] == "t3.nano"), sorted(zones))
    by_id = ec2.describe_instance_type_offerings(LocationType="availability-zone-id", Filters=by("location", "use1-az1"))
    equal(len(by_id["InstanceTypeOfferings"]), len(names))
    refused("InvalidParameterValue", ec2.describe_instance_type_offerings, Filters=by("colour", "red"))


CHECKS = [key_pairs, tags, places, instance_types]
