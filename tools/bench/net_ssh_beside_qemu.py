"""Boots a stock image with cloud-init in amiboot and in QEMU, in turn; prints how long it takes until ssh answers.

Usage: net_ssh_beside_qemu.py DISK SEABIOS RUNS

On a host with a genuine /dev/kvm, amiboot, ssh, mtools, dosfstools and qemu-system-x86_64, as root, in a network namespace
of its own. amiboot's guest asks its metadata service, QEMU's has the same data on a disk (NoCloud).
"""

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# A guest that takes longer, in seconds, does not come up.
GUEST_LIMIT = 900
PORT = 2222
USER_DATA = "#!/bin/sh\necho done >/var/tmp/user-data.txt\n"
PEER = "QEMU pc, NoCloud"


def call(line):
    """Runs a command that must succeed."""
    subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)


def prepare(directory):
    """A key pair, user data, and the disk that has both."""
    os.chdir(directory)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
    with open("key.pub", encoding="utf-8") as file:
        key = file.read().strip()
    told = {"instance-id": "i-0123456789abcdef0", "local-hostname": "ip-172-31-0-9", "public-keys": [key]}
    for name, content in (("meta-data", json.dumps(told)), ("user-data", USER_DATA), ("vendor-data", "")):
        with open(name, "w", encoding="utf-8") as file:
            file.write(content)
    call("truncate -s 1M seed.raw")
    call("mkfs.fat -n CIDATA seed.raw")
    call("mcopy -i seed.raw meta-data user-data vendor-data ::")


def output_of(command):
    """What a command that ended well has said."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


class Amiboot:
    """An instance of the catalogue, logged in to as `amiboot instance ssh` does."""

    def __init__(self, disk, kind):
        self.image = f"image-{kind}"
        call(f"amiboot image import {disk} --name {self.image} --virtualization-type {kind}")

    def start(self):
        """Starts one."""
        call(f"amiboot instance run {self.image} --name one --type t2.micro --disk virtio --net isolated --key demo "
             "--user-data user-data")

    def log_in(self):
        """Runs a command as soon as a server greets; its output, or nothing where that failed."""
        # One process that asks again and again: to start one for each time would take the guest's processor.
        return output_of(["amiboot", "instance", "ssh", "--timeout", f"{GUEST_LIMIT}s", "--identity", "key", "one", "cloud-id"])

    def end(self):
        """Ends it; what its console has shown."""
        said = subprocess.run("amiboot instance console one --log".split(), capture_output=True, check=False).stdout
        call("amiboot instance terminate --force one")
        return said


class Qemu:
    """A guest with the data on a disk, and a port of the host that leads to it."""

    def __init__(self, disk, seabios):
        self.command = [
            "qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host", "-m", "1024", "-nodefaults",
            "-no-user-config", "-no-reboot", "-display", "none", "-serial", "file:console.log", "-bios", seabios,
            "-drive", f"id=root,file={disk},format=raw,if=none,snapshot=on",
            "-device", "virtio-blk-pci,drive=root,bootindex=0",
            "-drive", "id=seed,file=seed.raw,format=raw,if=none,readonly=on", "-device", "virtio-blk-pci,drive=seed",
            "-device", "virtio-rng-pci", "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{PORT}-:22", "-device",
            "virtio-net-pci,netdev=net,romfile="]
        self.child = None

    def start(self):
        """Starts it."""
        self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)

    def greets(self):
        """Whether a server of ssh greets; QEMU itself takes connections all the time."""
        try:
            with socket.create_connection(("127.0.0.1", PORT), timeout=2) as stream:
                return stream.recv(4) == b"SSH-"
        except OSError:
            return False

    def log_in(self):
        """Runs a command if a server greets; its output, or nothing where that failed."""
        if not self.greets():
            return None
        return output_of(["ssh", "-i", "key", "-p", str(PORT), "-o", "StrictHostKeyChecking=no", "-o",
                          "UserKnownHostsFile=/dev/null", "debian@127.0.0.1", "cloud-id"])

    def end(self):
        """Ends it; what its console has shown."""
        self.child.kill()
        self.child.wait()
        with open("console.log", "rb") as file:
            return file.read()


def run(machine):
    """Times one boot; where cloud-init had its data from, too."""
    began = time.monotonic()
    machine.start()
    while not (source := machine.log_in()):
        if time.monotonic() - began > GUEST_LIMIT:
            sys.exit(machine.end().decode(errors="replace")[-3000:])
        time.sleep(0.2)
    took = time.monotonic() - began
    machine.end()
    return took, source


def main():
    disk, seabios, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    directory = tempfile.mkdtemp(dir=os.environ["HOME"])
    os.environ["AMIBOOT_CACHE"] = os.path.join(directory, "cache")
    os.environ["AMIBOOT_HOME"] = os.path.join(directory, "home")
    call("ip link set lo up")
    prepare(directory)
    call("amiboot key import demo key.pub")
    machines = {"amiboot hvm": Amiboot(disk, "hvm"), PEER: Qemu(disk, seabios), "amiboot pv": Amiboot(disk, "paravirtual")}
    results: dict[str, list[float]] = {name: [] for name in machines}
    sources = {}
    for number in range(runs):
        for name, machine in machines.items():
            one, sources[name] = run(machine)
            results[name].append(one)
            print(f"run {number + 1} of {runs}: {name}, by {sources[name]}: {one:.1f} s", file=sys.stderr, flush=True)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    print(f"host kernel {platform.release()}, {os.cpu_count()} processors, {version.stdout.splitlines()[0]}, "
          f"{runs} runs in turn; guest: 1 processor, 1 GiB; amiboot's first PV boot unpacks the kernel")
    print(f"\n{'from start until a command over ssh ended, s':44} {'min':>8} {'median':>8} {'max':>8}   {'ratio to QEMU':>26}")
    for name, values in results.items():
        line = f"  {name + ', ' + sources[name]:42} {min(values):8.1f} {statistics.median(values):8.1f} {max(values):8.1f}"
        if name != PEER:
            ratios = [mine / theirs for mine, theirs in zip(values, results[PEER])]
            line += f"   {min(ratios):8.2f} {statistics.median(ratios):8.2f} {max(ratios):8.2f}"
        print(line)


if __name__ == "__main__":
    main()
