"""Requests that have to be signed by known keys."""

import datetime
from unittest import mock

from .raw import form, request
from .serving import FAR, Server, equal, refused, until
from .shapes import need


def signatures(world):
    server = Server(world.server.amiboot, world.path("verified"), "--auth", "verify")
    try:
        verified(world, server)
    finally:
        server.close()


def named(key):
    return {"aws_access_key_id": key["access_key_id"], "aws_secret_access_key": key["secret_access_key"]}


def verified(world, server):
    mine, others = world.account(), world.account()
    key = server.run("access-key", "create", "--owner", mine)
    another = server.run("access-key", "create", "--owner", others)

    def client(keys, service="ec2", region="us-east-1", **more):
        return world.client(mine, region, service, keys=keys, endpoint_url=server.url, **more)

    good = named(key)
    for account, keys in [(mine, good), (others, named(another))]:
        equal(client(keys, "sts").get_caller_identity()["Account"], account)
    # Everything that is signed: forms, JSON, blocks with paths and queries, another region, a signed address.
    ec2, ssm, ebs = (client(good, service) for service in ("ec2", "ssm", "ebs"))
    ec2.create_key_pair(KeyName="a b+c~e", KeyType="ed25519")
    equal([pair["KeyName"] for pair in ec2.describe_key_pairs(KeyNames=["a b+c~e"])["KeyPairs"]], ["a b+c~e"])
    equal(client(good, region=FAR).describe_key_pairs()["KeyPairs"], [])
    equal(client(named(another)).describe_key_pairs()["KeyPairs"], [])
    refused("ValidationException", ssm.get_parameter, Name="/a b+c/\u00e9")
    begun = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    refused("ValidationException", ebs.list_snapshot_blocks, SnapshotId=begun, NextToken="a b+c/d~e=&?")
    address = ec2.generate_presigned_url("describe_regions", ExpiresIn=60, HttpMethod="GET")
    equal(request(address).status, 200)
    altered = form(server.url, address.partition("?")[2].replace("DescribeRegions", "DescribeVolumes"))
    need(altered.status in (400, 401, 403), f"an address that was altered: {altered.body}")
    equal(request(address.replace("DescribeRegions", "DescribeVpcs")).status, 403)
    wrong(client, good, server)
    temporary(client, good, mine)
    gone(server, mine, key, ec2)


def wrong(client, good, server):
    bad = [
        ("SignatureDoesNotMatch", good | {"aws_secret_access_key": "another"}),
        ("AuthFailure", good | {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE"}),
        ("AuthFailure", good | {"aws_access_key_id": "123456789012"}),
        ("AuthFailure", good | {"aws_session_token": "none was given"}),
    ]
    for code, keys in bad:
        refused(code, client(keys).describe_volumes)
        # As each service writes its errors.
        refused("AccessDeniedException", client(keys, "ebs").list_snapshot_blocks, SnapshotId="snap-0123456789abcdef0")
        for service, call in [("sts", "get_caller_identity"), ("ssm", "describe_parameters")]:
            try:
                getattr(client(keys, service), call)()
            except Exception as error:
                need(error.response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403), error)
            else:
                raise AssertionError(f"{service} takes {code}")
    equal(form(server.url, "Action=DescribeRegions&Version=2016-11-15").code, "MissingAuthenticationToken")
    broken = {"Authorization": "AWS4-HMAC-SHA256 nonsense", "X-Amz-Date": "20260101T000000Z"}
    equal(form(server.url, "Action=DescribeRegions", broken).code, "IncompleteSignature")
    equal(form(server.url, "Action=DescribeRegions", {"Authorization": "Basic dTpw"}).code, "IncompleteSignature")
    for skew in (-16, 16):
        with clock(skew):
            refused("RequestExpired", client(good).describe_volumes)
    for skew in (-14, 14):
        with clock(skew):
            client(good).describe_volumes()
    # Health and metrics say nothing of anybody.
    equal(request(f"{server.url}/health").status, 200)


def clock(minutes):
    """Signs as if it were so many minutes later."""
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
    return mock.patch("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: now.replace(tzinfo=None) if remove_tzinfo else now)


def temporary(client, good, account):
    session = client(good, "sts").get_session_token(DurationSeconds=900)["Credentials"]
    keys = {"aws_access_key_id": session["AccessKeyId"], "aws_secret_access_key": session["SecretAccessKey"]}
    whole = keys | {"aws_session_token": session["SessionToken"]}
    equal(client(whole, "sts").get_caller_identity()["Account"], account)
    client(whole).describe_volumes()
    equal(request(client(whole).generate_presigned_url("describe_regions", HttpMethod="GET")).status, 200)
    refused("AuthFailure", client(keys).describe_volumes)
    refused("AuthFailure", client(keys | {"aws_session_token": "another"}).describe_volumes)


def gone(server, account, key, ec2):
    """A key that is deleted signs nothing any more, without the server being told."""
    ec2.describe_volumes()
    server.command("access-key", "delete", "--owner", account, key["access_key_id"])

    def is_gone():
        try:
            ec2.describe_volumes()
        except Exception as error:
            return error.response["Error"]["Code"] == "AuthFailure"
        return False

    until("that the key is known no more", is_gone)


CHECKS = [signatures]
