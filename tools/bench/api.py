"""Clients of EC2's API for tools/bench-api: fill ADDRESS AMIBOOT DIR COUNT, crowd ADDRESS COUNT, run ADDRESS AMIBOOT DIR COUNT."""

import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse


def ask(connection, action, **parameters):
    """The answer to a request, as text, and how long it took in milliseconds."""
    form = urllib.parse.urlencode({"Action": action, "Version": "2016-11-15", **parameters})
    began = time.perf_counter()
    connection.request("POST", "/", form, {"Content-Type": "application/x-www-form-urlencoded"})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status != 200:
        sys.exit(f"{action}: {text}")
    return text, (time.perf_counter() - began) * 1000


def image(connection, amiboot, directory):
    """An image whose boot code stands still."""
    disk = f"{directory}/still.raw"
    with open(disk, "wb") as file:
        file.write(b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")
        file.truncate(1 << 30)
    made = subprocess.run([amiboot, "snapshot", "import", disk, "--json"], check=True, capture_output=True).stdout
    made = json.loads(made)
    snapshot = (made[0] if isinstance(made, list) else made)["snapshot_id"]
    text, _ = ask(connection, "RegisterImage", Name="still", Architecture="x86_64", VirtualizationType="hvm",
                  RootDeviceName="/dev/sda1", **{"BlockDeviceMapping.1.DeviceName": "/dev/sda1",
                                                 "BlockDeviceMapping.1.Ebs.SnapshotId": snapshot})
    return re.search("<imageId>(.*?)</imageId>", text)[1]


def fill(address, amiboot, directory, count):
    connection = http.client.HTTPConnection(address)
    ami = image(connection, amiboot, directory)
    ask(connection, "RunInstances", ImageId=ami, InstanceType="t3.small", MinCount=count, MaxCount=count,
        **{"TagSpecification.1.ResourceType": "instance", "TagSpecification.1.Tag.1.Key": "Name",
           "TagSpecification.1.Tag.1.Value": "bench"})
    text, _ = ask(connection, "DescribeInstances")
    print(f"{text.count('<instanceId>') - text.count('<attachmentId>x')} instances, {len(text) / 1024:.0f} KiB an answer")


def crowd(address, count):
    """Each makes a volume and finds it; all are there in the end."""
    failed, times = [], []

    def client(number):
        try:
            connection = http.client.HTTPConnection(address, timeout=120)
            text, took = ask(connection, "CreateVolume", AvailabilityZone="us-east-1a", Size=1,
                             **{"TagSpecification.1.ResourceType": "volume", "TagSpecification.1.Tag.1.Key": "client",
                                "TagSpecification.1.Tag.1.Value": number})
            times.append(took)
            ask(connection, "DescribeVolumes", **{"VolumeId.1": re.search("<volumeId>(.*?)</volumeId>", text)[1]})
        except (OSError, http.client.HTTPException, SystemExit) as error:
            failed.append(error)

    began = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    text, _ = ask(http.client.HTTPConnection(address), "DescribeVolumes", **{"Filter.1.Name": "tag-key", "Filter.1.Value.1": "client"})
    print(f"{text.count('<volumeId>')} of {count} volumes are there, {len(failed)} requests failed, {took:.1f} s in all, "
          f"CreateVolume median {statistics.median(times):.0f} ms, maximum {max(times):.0f} ms")


def run(address, amiboot, directory, count):
    connection = http.client.HTTPConnection(address)
    ami = image(connection, amiboot, directory)
    times = []
    for _ in range(count):
        text, took = ask(connection, "RunInstances", ImageId=ami, InstanceType="t2.nano", MinCount=1, MaxCount=1)
        times.append(took)
        instance = re.search("<instanceId>(.*?)</instanceId>", text)[1]
        while "<name>running</name>" not in (now := ask(connection, "DescribeInstances", **{"InstanceId.1": instance})[0]):
            if "<name>pending</name>" not in now:
                sys.exit(f"it does not run: {now}")
            time.sleep(0.01)
        ask(connection, "TerminateInstances", **{"InstanceId.1": instance, "Force": "true"})
    print(f"{count} launches: answer median {statistics.median(times):.1f} ms, maximum {max(times):.1f} ms")


arguments = sys.argv[2:]
{"fill": lambda a, b, d, n: fill(a, b, d, int(n)), "crowd": lambda a, n: crowd(a, int(n)),
 "run": lambda a, b, d, n: run(a, b, d, int(n))}[sys.argv[1]](*arguments)
