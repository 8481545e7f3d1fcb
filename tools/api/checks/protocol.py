"""What is so whatever is asked for: names of parameters and actions, regions and accounts, errors, the caller's identity."""

from .images import register
from .raw import form, request, scope
from .serving import FAR, by, equal, refused, wait
from .shapes import need
from .volumes import zone_of


def parameters(world):
    url, account = world.server.url, world.account()
    headers = scope(account)

    def answer(parameters):
        return form(url, parameters, headers)

    ok = answer("Action=DescribeRegions&Version=2016-11-15")
    equal((ok.status, ok.find("requestId")), (200, ok.headers["x-amzn-requestid"]))
    for version in ["", "&Version=2009-04-04", "&Version=", "&Version=2016-11-15&DryRun=false"]:
        equal(answer(f"Action=DescribeRegions{version}").status, 200, version)
    by_address = request(f"{url}/?Action=DescribeRegions&Version=2016-11-15", headers=headers)
    equal((by_address.status, by_address.all("regionInfo/item/regionName")), (200, ok.all("regionInfo/item/regionName")))
    for code, text in [
        ("InvalidAction", "Action=DescribeUnicorns"), ("InvalidAction", "Action=describeRegions"),
        ("InvalidAction", "Action=CreateVpc&CidrBlock=10.0.0.0/16"), ("MissingAction", ""), ("MissingAction", "Version=2016-11-15"),
        ("UnknownParameter", "Action=DescribeRegions&Colour=red"), ("UnknownParameter", "Action=DescribeRegions&Filter.1.Colour=red"),
        ("MissingParameter", "Action=DescribeRegions&Filter.1.Value.1=x"), ("MissingParameter", "Action=RunInstances&ImageId=ami-0123456789abcdef0"),
        ("MissingParameter", "Action=TerminateInstances"), ("MissingParameter", "Action=CreateTags&ResourceId.1=i-0123456789abcdef0"),
        ("InvalidParameterValue", "Action=DescribeVolumes&MaxResults=many"),
        ("InvalidParameterValue", "Action=DescribeRegions&AllRegions=perhaps"),
        ("DryRunOperation", "Action=DescribeRegions&DryRun=true"),
        ("UnsupportedOperation", "Action=CreateVolume&AvailabilityZone=us-east-1a&Size=1&MultiAttachEnabled=true"),
        ("UnsupportedOperation", "Action=RunInstances&ImageId=ami-0123456789abcdef0&MinCount=1&MaxCount=1&Ipv6AddressCount=1"),
        ("UnsupportedOperation", "Action=RunInstances&ImageId=ami-0123456789abcdef0&MinCount=1&MaxCount=1&EnclaveOptions.Enabled=true"),
    ]:
        equal(answer(text).code, code, text)
    message = answer("Action=DescribeUnicorns&Version=2016-11-15").find("Errors/Error/Message")
    need("DescribeUnicorns" in message, message)
    # A parameter that is told of is told by its whole name.
    message = answer("Action=DescribeRegions&Filter.1.Name=x&Filter.1.Colour.2.Depth=red").find("Errors/Error/Message")
    need("Filter.1.Colour.2.Depth" in message, message)


def empty(world):
    """Parameters that are there and say nothing, as Packer sends them."""
    account = world.account()
    ec2 = world.client(account)
    image = register(ec2, "first")
    nothing = [
        "SubnetId", "UserData", "IamInstanceProfile.Name", "Placement.AvailabilityZone", "Placement.Tenancy", "KeyName", "ClientToken",
        "PrivateIpAddress", "KernelId", "RamdiskId", "InstanceInitiatedShutdownBehavior", "AdditionalInfo", "SecurityGroupId",
        "BlockDeviceMapping", "TagSpecification",
    ]
    launch = {"Action": "RunInstances", "ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.nano"}
    answer = form(world.server.url, launch | dict.fromkeys(nothing, ""), scope(account))
    equal(answer.status, 200, answer.body)
    made = answer.find("instancesSet/item/instanceId")
    wait(ec2, "instance_running", InstanceIds=[made])
    for action, more in [
        ("CreateVolume", {"AvailabilityZone": zone_of(ec2), "Size": 1, "KmsKeyId": "", "SnapshotId": "", "VolumeType": "", "OutpostArn": ""}),
        ("CreateSecurityGroup", {"GroupName": "x", "GroupDescription": "y", "VpcId": ""}),
        ("CopyImage", {"SourceImageId": image, "SourceRegion": "us-east-1", "Name": "copy", "KmsKeyId": "", "Encrypted": "false", "Description": ""}),
        ("DescribeImages", {"Owner": "", "Filter": "", "NextToken": ""}),
        ("ModifyImageAttribute", {"ImageId": image, "Attribute": "", "OperationType": "", "LaunchPermission": ""}),
    ]:
        answer = form(world.server.url, {"Action": action} | more, scope(account))
        equal(answer.status, 200, f"{action}: {answer.body}")


def scopes(world):
    """One address serves all regions and accounts."""
    mine, others = world.account(), world.account()
    here, there, theirs = world.client(mine), world.client(mine, FAR), world.client(others)
    made = {}
    for name, ec2 in [("here", here), ("there", there), ("theirs", theirs)]:
        made[name] = ec2.create_volume(Size=1, AvailabilityZone=zone_of(ec2))["VolumeId"]
        ec2.create_key_pair(KeyName="same", KeyType="ed25519")
        equal([volume["VolumeId"] for volume in ec2.describe_volumes()["Volumes"]], [made[name]])
    refused("InvalidVolume.NotFound", here.describe_volumes, VolumeIds=[made["there"]])
    refused("InvalidVolume.NotFound", here.delete_volume, VolumeId=made["theirs"])
    vpcs = {ec2.describe_vpcs()["Vpcs"][0]["VpcId"] for ec2 in (here, there, theirs)}
    equal(len(vpcs), 3, "default VPCs")
    nowhere = world.client(mine, "mars-1")
    refused("InvalidParameterValue", nowhere.create_volume, Size=1, AvailabilityZone="mars-1a")
    refused("InvalidParameterValue", nowhere.describe_volumes)
    # Whoever says nothing is the owner, in the region of the server.
    equal(form(world.server.url, "Action=DescribeVolumes").status, 200)


def identity(world):
    account = world.account()
    sts = world.client(account, service="sts")
    who = sts.get_caller_identity()
    equal((who["Account"], who["UserId"] != "", who["Arn"].startswith(f"arn:aws:iam::{account}:")), (account, True, True))
    session = sts.get_session_token(DurationSeconds=900)["Credentials"]
    keys = {"aws_access_key_id": session["AccessKeyId"], "aws_secret_access_key": session["SecretAccessKey"],
            "aws_session_token": session["SessionToken"]}
    equal(world.client(account, service="sts", keys=keys).get_caller_identity()["Account"], account)
    refused("ValidationError", sts.get_session_token, DurationSeconds=60 * 60 * 24 * 365)
    refused("InvalidAction", sts.get_access_key_info, AccessKeyId="AKIAIOSFODNN7EXAMPLE")
    need(world.client(account, service="ec2").describe_tags(Filters=by("key", "x"))["Tags"] == [], "tags")


def surroundings(world):
    url = world.server.url
    health = request(f"{url}/health")
    equal((health.status, health.body), (200, b"ok\n"))
    form(url, "Action=DescribeRegions", scope(world.account()))
    metrics = request(f"{url}/metrics")
    equal(metrics.status, 200)
    need(b'amiboot_requests_total{action="DescribeRegions",code="ok"}' in metrics.body, metrics.body)
    need(b"DescribeUnicorns" not in metrics.body, "texts of callers are in the metrics")
    for method, path in [("GET", "/nothing"), ("PUT", "/"), ("DELETE", "/"), ("POST", "/health/")]:
        answer = request(url + path, method=method)
        need(400 <= answer.status < 500, f"{method} {path}: {answer.status}")


CHECKS = [parameters, empty, scopes, identity, surroundings]
