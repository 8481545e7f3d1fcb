"""Times amiboot from its start to its guest's first instruction, with the kernel in the cache.

Usage: first_instruction.py AMIBOOT DIRECTORY RUNS     (DIRECTORY holds tiny.raw, and takes cache and reports)

The guest need not get far: on a KVM that interprets kernels a stock one does not, but its first instruction comes all
the same. Processor time is that of the whole process.
"""

import json
import os
import statistics
import subprocess
import sys
import time


def main():
    amiboot, directory, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    report = os.path.join(directory, "report.json")
    environment = dict(os.environ, AMIBOOT_CACHE=os.path.join(directory, "cache"))
    command = [amiboot, "run", os.path.join(directory, "tiny.raw"), "--memory", "128M", "--accept-interpreting-kvm",
               "--timeout", "300ms", "--no-reboot", "--boot-report", report]
    # A file that has just been written is not trusted to stay as it is: the cache's plan wants it two seconds old.
    while time.time() - os.stat(command[2]).st_ctime < 2.5:
        time.sleep(0.1)
    rows = {"CPU time to first instruction, ms": [], "wall time to first instruction, ms": [],
            "monitor memory beside the guest's, MiB": []}
    for run in range(runs + 2):
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
        with open(report, encoding="utf-8") as file:
            seen = json.load(file)
        first = next(event for event in seen["events"] if event["name"] == "first_instruction")
        if run >= 2:
            for row, value in zip(rows.values(), (first["cpu_ms"], first["wall_ms"],
                                                  seen["memory"]["monitor_bytes"] / 2**20)):
                row.append(value)
    print(f"{'amiboot, ' + str(runs) + ' runs, kernel cached':44} {'min':>8} {'median':>8} {'max':>8}")
    for name, row in rows.items():
        print(f"{name:44} {min(row):8.2f} {statistics.median(row):8.2f} {max(row):8.2f}")


main()
