"""Volumes and snapshots."""

from .serving import FAR, by, dry, equal, pages, refused, tagged, until, wait
from .shapes import need

NOBODYS_VOLUME = "vol-0123456789abcdef0"
NOBODYS_SNAPSHOT = "snap-0123456789abcdef0"


def zone_of(ec2):
    return ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]


def snapshot(ec2, size=1, **more):
    """A snapshot of an empty volume, which is gone."""
    volume = ec2.create_volume(Size=size, AvailabilityZone=zone_of(ec2))["VolumeId"]
    made = ec2.create_snapshot(VolumeId=volume, **more)["SnapshotId"]
    wait(ec2, "snapshot_completed", SnapshotIds=[made])
    ec2.delete_volume(VolumeId=volume)
    return made


def volumes(world):
    ec2 = world.client(world.account())
    zone = zone_of(ec2)
    dry(ec2.create_volume, Size=1, AvailabilityZone=zone)
    tags = [tagged("volume", Name="disk 1", stage="test")]
    first = ec2.create_volume(Size=1, AvailabilityZone=zone, VolumeType="gp3", TagSpecifications=tags)
    equal((first["Size"], first["VolumeType"], first["Iops"], first["Throughput"]), (1, "gp3", 3000, 125))
    equal({tag["Key"]: tag["Value"] for tag in first["Tags"]}, {"Name": "disk 1", "stage": "test"})
    more = [ec2.create_volume(Size=size, AvailabilityZone=zone)["VolumeId"] for size in range(2, 13)]
    every = {first["VolumeId"], *more}
    wait(ec2, "volume_available", VolumeIds=list(every))
    listed = pages(ec2, "describe_volumes", 5, "Volumes")
    equal((len(listed), {volume["VolumeId"] for volume in listed}), (len(every), every))
    page = ec2.describe_volumes(MaxResults=5)
    rest = ec2.describe_volumes(NextToken=page["NextToken"])
    equal((len(page["Volumes"]), len(rest["Volumes"]), rest.get("NextToken")), (5, 7, None))
    refused("InvalidParameterValue", ec2.describe_volumes, MaxResults=4)
    refused("InvalidParameterValue", ec2.describe_volumes, NextToken="nonsense!")
    refused("InvalidParameterCombination", ec2.describe_volumes, MaxResults=5, VolumeIds=more)
    for filters, count in [
        (by("tag:Name", "disk*"), 1), (by("tag:Name", "*"), 1), (by("tag:stage", "TEST"), 0), (by("tag-key", "stage"), 1),
        (by("size", "1", "2"), 2), (by("size", "1?"), 4), (by("status", "available"), 12), (by("volume-type", "gp?"), 12),
        (by("volume-type", "gp3"), 1), (by("availability-zone", zone), 12), (by("volume-id", first["VolumeId"]), 1),
        (by("encrypted", "false"), 12), (by("create-time", "20*"), 12),
        (by("attachment.device", "*"), 0), (by("multi-attach-enabled", "false"), 12),
    ]:
        found = ec2.describe_volumes(Filters=filters)["Volumes"]
        equal(len(found), count, filters)
    refused("InvalidParameterValue", ec2.describe_volumes, Filters=by("colour", "red"))
    refused("InvalidVolume.NotFound", ec2.describe_volumes, VolumeIds=[NOBODYS_VOLUME])
    refused("InvalidParameterValue", ec2.create_volume, Size=1, AvailabilityZone=zone, TagSpecifications=[tagged("snapshot", a="b")])
    refused("InvalidZone.NotFound", ec2.create_volume, Size=1, AvailabilityZone="mars-1a")
    refused("MissingParameter", ec2.create_volume, AvailabilityZone=zone)
    refused("InvalidParameterValue", ec2.create_volume, Size=-1, AvailabilityZone=zone)
    refused("UnsupportedOperation", ec2.create_volume, Size=1, AvailabilityZone=zone, Encrypted=True)
    refused("UnsupportedOperation", ec2.create_volume, Size=1, AvailabilityZone=zone, OutpostArn="arn:aws:outposts:x")
    # The same again is the same; another with the same token is a mistake.
    again = [ec2.create_volume(Size=1, AvailabilityZone=zone, ClientToken="t")["VolumeId"] for _ in range(2)]
    equal(again[0], again[1], "with the same token")
    refused("IdempotentParameterMismatch", ec2.create_volume, Size=2, AvailabilityZone=zone, ClientToken="t")
    ec2.delete_volume(VolumeId=again[0])
    status = ec2.describe_volume_status(VolumeIds=[more[0]])["VolumeStatuses"][0]
    equal(status["VolumeStatus"]["Status"], "ok")
    equal(len(pages(ec2, "describe_volume_status", 5, "VolumeStatuses")), 12)
    automatic = ec2.describe_volume_attribute(VolumeId=more[0], Attribute="autoEnableIO")
    equal(automatic["AutoEnableIO"]["Value"], True)
    equal(ec2.describe_volume_attribute(VolumeId=more[0], Attribute="productCodes")["ProductCodes"], [])
    ec2.modify_volume_attribute(VolumeId=more[0], AutoEnableIO={"Value": True})
    refused("UnsupportedOperation", ec2.modify_volume_attribute, VolumeId=more[0], AutoEnableIO={"Value": False})
    changed = ec2.modify_volume(VolumeId=more[0], Size=10, VolumeType="gp3", Iops=4000)["VolumeModification"]
    equal((changed["OriginalSize"], changed["TargetSize"], changed["TargetIops"]), (2, 10, 4000))
    ec2.modify_volume(VolumeId=more[1], Size=8)
    refused("InvalidParameterValue", ec2.modify_volume, VolumeId=more[2], Size=1)
    changes = pages(ec2, "describe_volumes_modifications", 1, "VolumesModifications")
    equal({change["VolumeId"] for change in changes}, set(more[:2]))
    for filters, count in [
        (by("modification-state", "completed", "optimizing"), 2), (by("volume-id", more[0]), 1), (by("target-size", "10"), 1),
        (by("original-size", "2", "3"), 2), (by("target-volume-type", "gp3"), 1), (by("modification-state", "failed"), 0),
    ]:
        equal(len(ec2.describe_volumes_modifications(Filters=filters)["VolumesModifications"]), count, filters)
    equal(ec2.describe_volumes(VolumeIds=[more[0]])["Volumes"][0]["Size"], 10)
    dry(ec2.delete_volume, VolumeId=more[0])
    for volume in every:
        ec2.delete_volume(VolumeId=volume)
    wait(ec2, "volume_deleted", VolumeIds=list(every))
    refused("InvalidVolume.NotFound", ec2.delete_volume, VolumeId=more[0])
    refused("InvalidVolumeID.Malformed", ec2.delete_volume, VolumeId="vol-1")


def snapshots(world):
    account = world.account()
    ec2, far = world.client(account), world.client(account, FAR)
    volume = ec2.create_volume(Size=1, AvailabilityZone=zone_of(ec2))["VolumeId"]
    dry(ec2.create_snapshot, VolumeId=volume)
    first = ec2.create_snapshot(VolumeId=volume, Description="the <first>", TagSpecifications=[tagged("snapshot", n="1")])
    equal((first["State"] in ("pending", "completed"), first["VolumeSize"], first["OwnerId"]), (True, 1, account))
    more = [ec2.create_snapshot(VolumeId=volume)["SnapshotId"] for _ in range(6)]
    every = {first["SnapshotId"], *more}
    wait(ec2, "snapshot_completed", SnapshotIds=list(every))
    listed = pages(ec2, "describe_snapshots", 5, "Snapshots", OwnerIds=["self"])
    equal((len(listed), {one["SnapshotId"] for one in listed}), (7, every))
    refused("InvalidParameterCombination", ec2.describe_snapshots, MaxResults=5, SnapshotIds=more)
    for filters, count in [
        (by("tag:n", "1"), 1), (by("tag-key", "n"), 1), (by("description", "the <*>"), 1), (by("volume-id", volume), 7),
        (by("owner-id", account), 7), (by("status", "completed"), 7), (by("progress", "100%"), 7), (by("volume-size", "1"), 7),
        (by("snapshot-id", more[0], more[1]), 2), (by("encrypted", "true"), 0), (by("storage-tier", "standard"), 7),
        (by("start-time", "20*"), 7),
    ]:
        equal(len(ec2.describe_snapshots(Filters=filters)["Snapshots"]), count, filters)
    refused("InvalidParameterValue", ec2.describe_snapshots, Filters=by("colour", "red"))
    refused("InvalidSnapshot.NotFound", ec2.describe_snapshots, SnapshotIds=[NOBODYS_SNAPSHOT])
    refused("InvalidVolume.NotFound", ec2.create_snapshot, VolumeId=NOBODYS_VOLUME)
    # Clients add a signed address of the other region to this one.
    copy = far.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=more[0], Description="there",
                             TagSpecifications=[tagged("snapshot", copy="yes")])
    equal(copy["Tags"], [{"Key": "copy", "Value": "yes"}])
    wait(far, "snapshot_completed", SnapshotIds=[copy["SnapshotId"]])
    equal(far.describe_snapshots(OwnerIds=["self"])["Snapshots"][0]["Description"], "there")
    refused("InvalidSnapshot.NotFound", far.copy_snapshot, SourceRegion="us-west-1", SourceSnapshotId=more[0])
    sharing(world, ec2, more[0])
    refused("UnsupportedOperation", ec2.copy_snapshot, SourceRegion="us-east-1", SourceSnapshotId=more[0], Encrypted=True)
    big = ec2.create_volume(SnapshotId=more[0], Size=2, AvailabilityZone=zone_of(ec2))
    equal((big["SnapshotId"], big["Size"]), (more[0], 2))
    refused("InvalidParameterValue", ec2.create_volume, SnapshotId=snapshot(ec2, 3), Size=2, AvailabilityZone=zone_of(ec2))
    dry(ec2.delete_snapshot, SnapshotId=more[0])
    for one in every:
        ec2.delete_snapshot(SnapshotId=one)
    refused("InvalidSnapshot.NotFound", ec2.delete_snapshot, SnapshotId=more[0])


def sharing(world, ec2, shared):
    friend = world.account()
    other = world.client(friend)
    refused("InvalidSnapshot.NotFound", other.describe_snapshots, SnapshotIds=[shared])
    permission = {"SnapshotId": shared, "Attribute": "createVolumePermission"}
    ec2.modify_snapshot_attribute(**permission, CreateVolumePermission={"Add": [{"UserId": friend}]})
    described = ec2.describe_snapshot_attribute(**permission)
    equal(described["CreateVolumePermissions"], [{"UserId": friend}])
    equal(ec2.describe_snapshot_attribute(SnapshotId=shared, Attribute="productCodes")["ProductCodes"], [])
    equal(len(other.describe_snapshots(RestorableByUserIds=["self"])["Snapshots"]), 1)
    made = other.create_volume(SnapshotId=shared, AvailabilityZone=zone_of(other))["VolumeId"]
    wait(other, "volume_available", VolumeIds=[made])
    refused("UnauthorizedOperation", other.delete_snapshot, SnapshotId=shared)
    ec2.modify_snapshot_attribute(**permission, OperationType="remove", UserIds=[friend])
    equal(ec2.describe_snapshot_attribute(**permission)["CreateVolumePermissions"], [])
    ec2.modify_snapshot_attribute(**permission, OperationType="add", GroupNames=["all"])
    equal(ec2.describe_snapshot_attribute(**permission)["CreateVolumePermissions"], [{"Group": "all"}])
    ec2.reset_snapshot_attribute(**permission)
    until("that it is shared no more", lambda: not other.describe_snapshots(SnapshotIds=[])["Snapshots"])
    refused("InvalidSnapshot.NotFound", other.describe_snapshots, SnapshotIds=[shared])


CHECKS = [volumes, snapshots]
