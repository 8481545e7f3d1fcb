"""Times amiboot's catalogue: launches, disk use, images of instances, listings. See tools/bench-cloud."""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time


def main() -> None:
    binary, disk, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def amiboot(*words: str) -> str:
        done = subprocess.run([binary, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"amiboot {' '.join(words)}: {done.stderr}")
        return done.stdout

    def timed(*words: str) -> float:
        began = time.monotonic()
        amiboot(*words)
        return (time.monotonic() - began) * 1000

    def instances() -> list[str]:
        listed = json.loads(amiboot("instance", "ls", "--json"))
        return [one["instance_id"] for one in listed if one["state"] != "terminated"]

    def show(what: str, times: list[float], unit: str = "ms") -> None:
        print(f"{what:58} {min(times):9.1f} {statistics.median(times):9.1f} {max(times):9.1f} {unit}", flush=True)

    def used() -> int:
        layers = os.path.join(os.environ["AMIBOOT_HOME"], "layers")
        return sum(os.stat(os.path.join(layers, name)).st_blocks * 512 for name in os.listdir(layers))

    amiboot("image", "import", disk, "--name", "tiny", "--architecture", "x86_64")
    print(f"{'':58} {'min':>9} {'median':>9} {'max':>9}")
    # In turn, so that what else the machine does falls on both.
    foreground, launched = [], []
    for _ in range(runs + 1):
        foreground.append(timed("run", disk, "--until", "type", "--memory", "512M"))
        launched.append(timed("instance", "run", "tiny", "--type", "t3.nano"))
        amiboot("instance", "terminate", "--force", *instances())
    show("amiboot run, from start to what the guest shows, and its end", foreground[1:])
    show("amiboot instance run, until its machine runs", launched[1:])
    show("the second less the first", [b - a for a, b in zip(foreground[1:], launched[1:])])

    before = used()
    many = timed("instance", "run", "tiny", "--type", "t3.nano", "--count", "100")
    print(f"100 instances of a 1 GiB image: {many / 1000:.1f} s, {(used() - before) / 100 / 1024:.0f} KiB of disk each")
    amiboot("instance", "terminate", "--force", *instances())

    for size in ["1G", "100G", "1T"]:
        amiboot("instance", "run", "tiny", "--type", "t3.nano", "--name", "one", "--bdm", f"/dev/sda1={size}")
        amiboot("instance", "stop", "--force", "one")
        made = [timed("image", "create", "one", "--name", f"image {size} {number}") for number in range(runs)]
        show(f"image of a stopped instance with a root of {size}", made)
        amiboot("instance", "terminate", "one")

    fill(10_000)
    show("image ls --json, over 10,000 images", [timed("image", "ls", "--json") for _ in range(runs)])
    some = ["image", "ls", "--filter", "name=many-99*", "--filter", "architecture=x86_64"]
    show("image ls with two filters, over the same", [timed(*some) for _ in range(runs)])


def fill(count: int) -> None:
    """Copies the first image under other ids and names."""
    database = sqlite3.connect(os.path.join(os.environ["AMIBOOT_HOME"], "catalogue.sqlite"))
    columns = [row[1] for row in database.execute("PRAGMA table_info(images)")]
    first = dict(zip(columns, database.execute("SELECT * FROM images WHERE name = 'tiny'").fetchone()))
    rows = []
    for number in range(count):
        rows.append(tuple({**first, "id": f"ami-0{number:016x}", "name": f"many-{number}"}.values()))
    with database:
        database.executemany(f"INSERT INTO images VALUES ({', '.join('?' * len(columns))})", rows)
    database.close()


if __name__ == "__main__":
    main()
