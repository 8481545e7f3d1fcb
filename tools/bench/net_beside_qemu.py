"""Runs amiboot and QEMU in turn with the same guest at the same kind of tap; prints how fast one TCP stream was.

Usage: net_beside_qemu.py GUEST SEABIOS NETLOAD RUNS

On a host with a genuine /dev/kvm, amiboot and qemu-system-x86_64, as root, in a network namespace of its own.
"""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile

# A guest that takes longer, in seconds, stands still.
GUEST_LIMIT = 600
LINE = re.compile(rb"netload: ([a-z -]+) count=(\d+) nanoseconds=(\d+)")
FEATURES = re.compile(rb"features=([01]+)")
UNITS = {"guest to host": ("MiB/s", 2**20), "host to guest": ("MiB/s", 2**20), "round trips": ("per second", 1)}
PEER = "QEMU pc, vhost=off"
# Bits of virtio's network card (virtio 1.2, section 5.1.3) that say what is left to the other side.
OFFLOADS = {0: "CSUM", 1: "GUEST_CSUM", 7: "GUEST_TSO4", 8: "GUEST_TSO6", 11: "HOST_TSO4", 12: "HOST_TSO6",
            15: "MRG_RXBUF", 28: "INDIRECT_DESC", 29: "EVENT_IDX"}


def machines(guest, seabios):
    """The command of each machine, by its name."""
    amiboot = ["amiboot", "run", guest, "--memory", "256M", "--net", "tap=tap0", "--mode"]
    qemu = ["qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
            "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-bios", seabios,
            "-drive", f"id=root,file={guest},format=raw,if=none,snapshot=on",
            "-device", "virtio-blk-pci,drive=root,bootindex=0",
            "-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off", "-device",
            "virtio-net-pci,netdev=net,mac=0a:00:00:00:00:01,romfile="]
    return {"amiboot hvm": amiboot + ["hvm", "--firmware", seabios], PEER: qemu, "amiboot pv": amiboot + ["pv"]}


def call(line):
    """Runs a command that must succeed."""
    subprocess.run(line.split(), check=True)


def run(command):
    """Runs to the guest's power-off at a new tap; all figures of each measurement, and which offloads were agreed on."""
    call("ip tuntap add dev tap0 mode tap vnet_hdr")
    call("ip addr add 172.31.0.1/20 dev tap0")
    call("ip link set tap0 up")
    done = subprocess.run(["timeout", "-s", "KILL", str(GUEST_LIMIT)] + command, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    call("ip tuntap del dev tap0 mode tap")
    output, results = done.stdout, {}
    if done.returncode != 0 or b"bench done" not in output:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}:\n{output.decode(errors='replace')[-3000:]}")
    for name, count, nanoseconds in LINE.findall(output):
        results.setdefault(name.decode(), []).append(int(count) * 1e9 / int(nanoseconds))
    bits = FEATURES.search(output).group(1)
    return results, [name for bit, name in OFFLOADS.items() if bits[bit:bit + 1] == b"1"]


def show(test, results):
    """One block of the table."""
    unit, divisor = UNITS[test]
    print(f"\n{test + ', ' + unit:30} {'min':>9} {'median':>9} {'max':>9}   {'ratio to QEMU of each run':>28}")
    for machine, runs in results.items():
        values = [value / divisor for run in runs for value in run[test]]
        line = f"  {machine:28} {min(values):9.1f} {statistics.median(values):9.1f} {max(values):9.1f}"
        if machine != PEER:
            middle = [[statistics.median(run[test]) for run in results[name]] for name in (machine, PEER)]
            ratios = [mine / theirs for mine, theirs in zip(*middle)]
            line += f"   {min(ratios):8.2f} {statistics.median(ratios):9.2f} {max(ratios):9.2f}"
        print(line, flush=True)


def main():
    guest, seabios, netload, runs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    os.environ["AMIBOOT_CACHE"] = tempfile.mkdtemp()
    call("ip link set lo up")
    os.chmod(netload, 0o755)
    commands = machines(guest, seabios)
    results: dict[str, list[dict[str, list[float]]]] = {name: [] for name in commands}
    agreed = {}
    with subprocess.Popen([netload, "serve", "5201"]) as server:
        try:
            for number in range(runs):
                for name, command in commands.items():
                    one, agreed[name] = run(command)
                    results[name].append(one)
                    print(f"run {number + 1} of {runs}: {name}", file=sys.stderr, flush=True)
        finally:
            server.kill()
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    print(f"host kernel {platform.release()}, {os.cpu_count()} processors, {version.stdout.splitlines()[0]}, "
          f"{runs} runs in turn, three measurements each")
    print("guest: 1 processor, 256 MiB, one TCP stream over a tap of one queue; amiboot with its services in front of it")
    for name, offloads in agreed.items():
        print(f"{name}: {' '.join(offloads)}")
    for test in UNITS:
        show(test, results)


if __name__ == "__main__":
    main()
