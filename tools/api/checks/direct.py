"""The EBS direct API: snapshots written and read by block."""

import base64
import hashlib
import os

from botocore.exceptions import ClientError

from .serving import equal, refused, wait
from .shapes import need
from .volumes import NOBODYS_SNAPSHOT

BLOCK = 512 << 10


def checksum(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs, snapshot, index, data):
    answer = ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, DataLength=len(data),
                                    Checksum=checksum(data), ChecksumAlgorithm="SHA256")
    equal((answer["Checksum"], answer["ChecksumAlgorithm"]), (checksum(data), "SHA256"))


def write(ebs, ec2, blocks, **more):
    """A snapshot of 1 GiB with these blocks."""
    started = ebs.start_snapshot(VolumeSize=1, **more)
    equal((started["Status"], started["VolumeSize"], started["BlockSize"]), ("pending", 1, BLOCK))
    snapshot = started["SnapshotId"]
    for index, data in blocks.items():
        put(ebs, snapshot, index, data)
    whole = base64.b64encode(hashlib.sha256(b"".join(
        hashlib.sha256(data).digest() for _, data in sorted(blocks.items()))).digest()).decode()
    done = ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(blocks), Checksum=whole,
                                 ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR")
    need(done["Status"] in ("pending", "completed"), done)
    wait(ec2, "snapshot_completed", SnapshotIds=[snapshot])
    return snapshot


def read(ebs, snapshot, index, token):
    answer = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockToken=token)
    data = answer["BlockData"].read()
    equal((answer["DataLength"], answer["Checksum"], answer["ChecksumAlgorithm"]), (BLOCK, checksum(data), "SHA256"))
    return data


def blocks(world):
    account = world.account()
    ec2, ebs = world.client(account), world.client(account, service="ebs")
    first = {index: os.urandom(BLOCK) for index in (0, 1, 7, 2047)}
    tags = [{"Key": "Name", "Value": "by <block>"}]
    old = write(ebs, ec2, first, Description="written", Tags=tags, ClientToken="t-1", Timeout=60)
    shown = ec2.describe_snapshots(SnapshotIds=[old])["Snapshots"][0]
    equal((shown["Description"], shown["Tags"], shown["VolumeSize"]), ("written", tags, 1))
    listed = ebs.list_snapshot_blocks(SnapshotId=old)
    equal((listed["BlockSize"], listed["VolumeSize"]), (BLOCK, 1))
    tokens = {one["BlockIndex"]: one["BlockToken"] for one in listed["Blocks"]}
    equal(set(tokens), set(first))
    for index, data in first.items():
        equal(read(ebs, old, index, tokens[index]) == data, True, f"block {index}")
    # What is changed on top of it.
    second = {1: os.urandom(BLOCK), 9: os.urandom(BLOCK)}
    new = write(ebs, ec2, second, ParentSnapshotId=old)
    changed = ebs.list_changed_blocks(FirstSnapshotId=old, SecondSnapshotId=new)["ChangedBlocks"]
    equal({one["BlockIndex"]: "FirstBlockToken" in one for one in changed}, {1: True, 9: False})
    for one in changed:
        equal(read(ebs, new, one["BlockIndex"], one["SecondBlockToken"]) == second[one["BlockIndex"]], True, "a changed block")
        if "FirstBlockToken" in one:
            equal(read(ebs, old, one["BlockIndex"], one["FirstBlockToken"]) == first[one["BlockIndex"]], True, "as it was")
    everything = ebs.list_changed_blocks(SecondSnapshotId=new)["ChangedBlocks"]
    equal({one["BlockIndex"] for one in everything}, {0, 1, 7, 9, 2047})
    # Pages: 100 is the least.
    many = write(ebs, ec2, {index: bytes([index % 251 + 1]) * BLOCK for index in range(0, 204, 2)})
    found, token = [], None
    while True:
        page = ebs.list_snapshot_blocks(SnapshotId=many, MaxResults=100, **({"NextToken": token} if token else {}))
        found += [one["BlockIndex"] for one in page["Blocks"]]
        token = page.get("NextToken")
        if token is None:
            break
    equal(found, list(range(0, 204, 2)))
    after = ebs.list_snapshot_blocks(SnapshotId=many, StartingBlockIndex=180)["Blocks"]
    equal([one["BlockIndex"] for one in after], list(range(180, 204, 2)))
    # A volume has what was written.
    mistakes(world, ebs, old, tokens)
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    volume = ec2.create_volume(SnapshotId=new, AvailabilityZone=zone)["VolumeId"]
    again = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    wait(ec2, "snapshot_completed", SnapshotIds=[again])
    equal(ebs.list_changed_blocks(FirstSnapshotId=new, SecondSnapshotId=again)["ChangedBlocks"], [])


def reason(code, why, status, action, **parameters):
    """Something that fails with a kind of error, and its reason."""
    try:
        action(**parameters)
    except ClientError as error:
        told = error.response
        have = (told["Error"]["Code"], told.get("Reason"), told["ResponseMetadata"]["HTTPStatusCode"])
        equal(have, (code, why, status), f"{parameters}: {told['Error']['Message']}")
        return
    raise AssertionError(f"{parameters}: no {code}")


def mistakes(world, ebs, old, tokens):
    nothing = {"SnapshotId": NOBODYS_SNAPSHOT}
    missing = ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404)
    reason(*missing, ebs.list_snapshot_blocks, **nothing)
    reason(*missing, ebs.list_changed_blocks, FirstSnapshotId=old, SecondSnapshotId=NOBODYS_SNAPSHOT)
    reason(*missing, world.client(world.account(), service="ebs").list_snapshot_blocks, SnapshotId=old)
    reason("ValidationException", "INVALID_SNAPSHOT_ID", 400, ebs.list_snapshot_blocks, SnapshotId="snap-1")
    reason("ValidationException", "INVALID_BLOCK_TOKEN", 400, ebs.get_snapshot_block, SnapshotId=old, BlockIndex=0, BlockToken=tokens[1])
    reason("ValidationException", "INVALID_PAGE_TOKEN", 400, ebs.list_snapshot_blocks, SnapshotId=old, NextToken="x")
    data = b"x" * BLOCK
    sent = {"BlockIndex": 0, "BlockData": data, "DataLength": BLOCK, "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256"}
    begun = ebs.start_snapshot(VolumeSize=1, ClientToken="t-2")["SnapshotId"]
    equal(ebs.start_snapshot(VolumeSize=1, ClientToken="t-2")["SnapshotId"], begun, "with the same token")
    reason("ConflictException", None, 409, ebs.start_snapshot, VolumeSize=2, ClientToken="t-2")
    reason("ValidationException", "INVALID_BLOCK", 400, ebs.put_snapshot_block, SnapshotId=begun, **sent | {"Checksum": checksum(b"y")})
    short = {"BlockData": b"x", "DataLength": 1, "Checksum": checksum(b"x")}
    refused("ValidationException", ebs.put_snapshot_block, SnapshotId=begun, **sent | short)
    refused("ValidationException", ebs.put_snapshot_block, SnapshotId=begun, **sent | {"BlockIndex": 2048})
    refused("ValidationException", ebs.put_snapshot_block, SnapshotId=old, **sent)
    put(ebs, begun, 0, data)
    refused("ValidationException", ebs.complete_snapshot, SnapshotId=begun, ChangedBlocksCount=2)
    refused("ValidationException", ebs.start_snapshot, VolumeSize=1, Encrypted=True)


CHECKS = [blocks]
