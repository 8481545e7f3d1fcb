"""Runs amiboot and QEMU in turn with the same guest, which loads the same data file; prints how fast each was.

Usage: disk_beside_qemu.py GUEST SEABIOS RUNS [MACHINE]...

On a host with a genuine /dev/kvm, amiboot and qemu-system-x86_64, as root (the page cache is dropped before each guest).
"""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile

DATA_MIB = 512
# A guest that takes longer, in seconds, stands still.
GUEST_LIMIT = 900
LINE = re.compile(rb"diskload: (\S+) requests=(\d+) bytes=(\d+) nanoseconds=(\d+)")
# What each is compared with.
PEERS = {
    "virtio-pci, no cache": "QEMU virtio-pci",
    "virtio-pci": "QEMU virtio-pci",
    "virtio-pci, layer": "QEMU virtio-pci",
    "virtio-mmio, no cache": "QEMU virtio-pci",
    "NVMe, no cache": "QEMU NVMe",
    "NVMe": "QEMU NVMe",
}


def machines(guest, seabios, data):
    """The command of each machine, by its name."""
    hvm = ["amiboot", "run", guest, "--mode", "hvm", "--firmware", seabios, "--memory", "256M"]
    volume = ["--bdm", f"/dev/sdf={data}"]
    kept = ["--bdm", f"/dev/sdf={data},persist"]
    past = ["--cache", "none"]
    nvme = ["--disk", "nvme"]
    qemu = ["qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
            "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-bios", seabios,
            "-drive", f"id=root,file={guest},format=raw,if=none,snapshot=on",
            "-device", "virtio-blk-pci,drive=root,bootindex=0",
            "-drive", f"id=data,file={data},format=raw,if=none,aio=io_uring,cache=none", "-device"]
    return {
        "virtio-pci, no cache": hvm + kept + past,
        "QEMU virtio-pci": qemu + ["virtio-blk-pci,drive=data"],
        "NVMe, no cache": hvm + nvme + kept + past,
        "QEMU NVMe": qemu + ["nvme,drive=data,serial=data"],
        "virtio-pci": hvm + kept,
        "NVMe": hvm + nvme + kept,
        "virtio-pci, layer": hvm + volume,
        "virtio-mmio, no cache": ["amiboot", "run", guest, "--mode", "pv", "--memory", "256M"] + kept + past,
    }


def vm_exits():
    """How often processors of guests have come back to a monitor for a register so far; one guest runs at a time."""
    with open("/sys/kernel/debug/kvm/mmio_exits", encoding="ascii") as file:
        return int(file.read())


def settle():
    """Nothing of one guest is left to the next: what it wrote is on the disk, what it read is forgotten."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def run(command):
    """Runs to the guest's power-off; (requests per second, MiB per second, exits to
    the monitor for each request) of each measurement."""
    settle()
    results, output = {}, b""
    child = subprocess.Popen(["timeout", "-s", "KILL", str(GUEST_LIMIT)] + command, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    exits = vm_exits()
    for line in child.stdout:
        output += line
        seen = LINE.search(line)
        now = vm_exits()
        if seen:
            name, requests, size, nanoseconds = seen.groups()
            seconds = int(nanoseconds) / 1e9
            results[name.decode()] = (int(requests) / seconds, int(size) / seconds / 2**20,
                                      (now - exits) / int(requests))
        exits = now
    code = child.wait()
    if code != 0 or b"bench done" not in output:
        sys.exit(f"{' '.join(command)}: ended with {code}:\n{output.decode(errors='replace')[-3000:]}")
    return results


def show(test, results):
    """One block of the table."""
    column, unit = (1, "MiB/s") if "1M" in test else (0, "requests/s")
    print(f"\n{test + ', ' + unit:36} {'min':>9} {'median':>9} {'max':>9}   {'ratio to its peer of QEMU':>28}   {'exits/request':>12}")
    for machine, runs in results.items():
        values = [run[test][column] for run in runs]
        line = f"  {machine:34} {min(values):9.0f} {statistics.median(values):9.0f} {max(values):9.0f}"
        if machine in PEERS and PEERS[machine] in results:
            peer = [run[test][column] for run in results[PEERS[machine]]]
            ratios = [mine / theirs for mine, theirs in zip(values, peer)]
            line += f"   {min(ratios):8.2f} {statistics.median(ratios):9.2f} {max(ratios):9.2f}"
        else:
            line += " " * 31
        line += f"   {statistics.median(run[test][2] for run in runs):12.2f}"
        print(line)


def main():
    if not os.path.exists("/sys/kernel/debug/kvm"):
        subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    guest, seabios, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # A directory on a disk: direct I/O is not for memory file systems.
    directory = tempfile.mkdtemp(dir=os.environ["HOME"])
    os.environ["AMIBOOT_CACHE"] = directory
    data = os.path.join(directory, "data.raw")
    with open(data, "wb") as file:
        for number in range(DATA_MIB):
            file.write(bytes([number % 251 + 1]) * 2**20)
    wanted = sys.argv[4:]
    commands = {name: command for name, command in machines(guest, seabios, data).items() if not wanted or name in wanted}
    results: dict[str, list[dict[str, tuple[float, float, float]]]] = {name: [] for name in commands}
    for number in range(runs):
        for name, command in commands.items():
            results[name].append(run(command))
            print(f"run {number + 1} of {runs}: {name}", file=sys.stderr, flush=True)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    print(f"host kernel {platform.release()}, {os.cpu_count()} processors, {version.stdout.splitlines()[0]}, "
          f"{runs} runs in turn")
    print("guest: 1 processor, 256 MiB. QEMU goes past the host's page cache (aio=io_uring,cache=none), as does amiboot where\n"
          "it says \"no cache\" (--cache none): these are like for like. Elsewhere amiboot uses the page cache, empty at first.")
    for test in next(iter(results.values()))[0]:
        show(test, results)


if __name__ == "__main__":
    main()
