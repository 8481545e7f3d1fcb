"""Boots one disk by its own boot loader in amiboot and in QEMU's pc machine, in turn, with the same SeaBIOS; prints what
each took from process start to the kernel's first line.

Usage: hvm_beside_qemu.py DISK BIOS RUNS     (on a host with a genuine /dev/kvm, amiboot and qemu-system-x86_64)

Both have the firmware's text console on the serial line, one processor, 512 MiB, the disk as virtio-blk on PCI with a
throw-away layer, and nothing else. The wall time ends when this program reads the line; then the process is killed.
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time

FIRST_LINE = b"Linux version"
FIRMWARE_LINE = b"SeaBIOS"


def run(command):
    """Runs to the kernel's first line; wall time to firmware's line and to the kernel's, and processor time, in ms."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    shown, firmware = b"", None
    while FIRST_LINE not in shown:
        some = os.read(child.stdout.fileno(), 65536)
        if not some:
            sys.exit(f"{command[0]} ended before {FIRST_LINE}; it showed {shown[-2000:]!r}")
        shown += some
        if firmware is None and FIRMWARE_LINE in shown:
            firmware = (time.monotonic() - began) * 1000
    kernel = (time.monotonic() - began) * 1000
    child.kill()
    child.wait()
    child.stdout.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000
    return {"wall time to SeaBIOS's line, ms": firmware, "wall time to the kernel's line, ms": kernel,
            "CPU time to the kernel's line, ms": cpu}


def main():
    disk, bios, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    commands = {
        "amiboot": ["amiboot", "run", disk, "--mode", "hvm", "--firmware", bios, "--memory", "512M"],
        "QEMU pc": ["qemu-system-x86_64", "-M", "pc,graphics=off", "-accel", "kvm", "-cpu", "host", "-m", "512",
                    "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none", "-serial",
                    "stdio", "-bios", bios, "-drive", f"id=root,file={disk},format=raw,if=none,snapshot=on", "-device",
                    "virtio-blk-pci,drive=root,bootindex=0", "-device", "virtio-rng-pci"],
    }
    for command in commands.values():
        run(command)
    rows = {name: [] for name in commands}
    for number in range(runs):
        for name, command in commands.items():
            rows[name].append(run(command))
        print(f"run {number + 1} of {runs}", file=sys.stderr)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    print(f"host kernel {platform.release()}, {version.stdout.splitlines()[0]}, {runs} runs in turn, guest: 1 CPU, 512 MiB")
    print(f"{'':36} {'':14} {'min':>9} {'median':>9} {'max':>9}")
    for figure in rows["amiboot"][0]:
        for name, results in rows.items():
            values = [result[figure] for result in results]
            print(f"{figure:36} {name:14} {min(values):9.1f} {statistics.median(values):9.1f} {max(values):9.1f}")
        pairs = [a[figure] / b[figure] for a, b in zip(*rows.values())]
        print(f"{'':36} {'ratio':14} {min(pairs):9.2f} {statistics.median(pairs):9.2f} {max(pairs):9.2f}")


main()
