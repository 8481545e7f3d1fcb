"""Runs amiboot and QEMU's microvm in turn with the same kernel, initrd and disk; prints what each took.

Usage: beside_qemu.py DISK RUNS     (on a host with a genuine /dev/kvm, amiboot and qemu-system-x86_64)
"""

import glob
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

MEMORY_MIB = 128
INIT_LINE = b"tiny: ready"


def resident_beside_guest(pid):
    """Resident memory of QEMU in MiB outside the guest's memory: of the mappings that have room for it, the one that is
    most in use."""
    mappings = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            head = line.split()
            if "-" in head[0] and not head[0].endswith(":"):
                start, end = (int(part, 16) for part in head[0].split("-"))
                mappings.append([end - start, 0])
            elif head[0] == "Rss:":
                mappings[-1][1] = int(head[1])
    guest = max(rss for size, rss in mappings if size >= MEMORY_MIB << 20)
    return (sum(rss for _, rss in mappings) - guest) / 1024


def run(command, environment):
    """Runs to the guest's power-off; wall time to init in ms, CPU time in ms, monitor memory in MiB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
    to_init = memory = None
    for line in child.stdout:
        if INIT_LINE in line:
            to_init = (time.monotonic() - began) * 1000
            memory = resident_beside_guest(child.pid) if "qemu" in command[0] else None
            break
    child.stdout.read()
    code = child.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code != 0 or to_init is None:
        sys.exit(f"{command[0]} ended with {code}, init {'not ' if to_init is None else ''}seen")
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
    return {"wall time to init, ms": to_init, "CPU time to power-off, ms": cpu, "monitor memory, MiB": memory}


def main():
    disk, runs = sys.argv[1], int(sys.argv[2])
    directory = tempfile.mkdtemp()
    environment = dict(os.environ, AMIBOOT_CACHE=directory)
    report = os.path.join(directory, "report.json")
    amiboot = ["amiboot", "run", disk, "--memory", f"{MEMORY_MIB}M", "--append", "do=sleep,poweroff seconds=1",
               "--boot-report", report]
    run(amiboot, environment)
    with open(report, encoding="utf-8") as file:
        cmdline = json.load(file)["kernel"]["cmdline"]
    kernel, = glob.glob(f"{directory}/blobs/elf-*")
    initrd, = glob.glob(f"{directory}/blobs/raw-*")
    qemu = ["qemu-system-x86_64", "-M", "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,acpi=on",
            "-accel", "kvm", "-cpu", "host", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", cmdline,
            "-drive", f"id=root,file={disk},format=raw,if=none,snapshot=on", "-device",
            "virtio-blk-device,drive=root", "-device", "virtio-rng-device"]
    run(qemu, environment)
    rows = {"amiboot": [], "QEMU microvm": []}
    for number in range(runs):
        rows["amiboot"].append(run(amiboot, environment))
        with open(report, encoding="utf-8") as file:
            seen = json.load(file)
        first = next(e for e in seen["events"] if e["name"] == "first_instruction")
        rows["amiboot"][-1]["CPU time to first instruction, ms"] = first["cpu_ms"]
        rows["amiboot"][-1]["monitor memory, MiB"] = seen["memory"]["monitor_bytes"] / 2**20
        rows["QEMU microvm"].append(run(qemu, environment))
        print(f"run {number + 1} of {runs}", file=sys.stderr)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    print(f"host kernel {platform.release()}, {version.stdout.splitlines()[0]}, {runs} runs in turn, guest: 1 CPU, "
          f"{MEMORY_MIB} MiB")
    print(f"{'':36} {'':14} {'min':>9} {'median':>9} {'max':>9}")
    for figure in ("CPU time to first instruction, ms", "wall time to init, ms", "CPU time to power-off, ms",
                   "monitor memory, MiB"):
        for name, results in rows.items():
            values = [result[figure] for result in results if figure in result]
            if values:
                print(f"{figure:36} {name:14} {min(values):9.1f} {statistics.median(values):9.1f} {max(values):9.1f}")
        pairs = [a[figure] / b[figure] for a, b in zip(*rows.values()) if figure in a and figure in b]
        if pairs:
            print(f"{'':36} {'ratio':14} {min(pairs):9.2f} {statistics.median(pairs):9.2f} {max(pairs):9.2f}")


main()
