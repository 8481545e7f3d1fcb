"""Calls every action of EC2's API as boto3 does, and compares each answer with the shape that botocore has for it.

Usage: strict.py AMIBOOT [CHECK...]

AMIBOOT is the program. Without names, all checks are made, and each action of resources/ec2/actions.txt has to have been
answered. With names, only those checks.
"""

import os
import sys
import time
import traceback

from checks import absent, direct, images, instances, names, network, protocol, signatures, tasks, volumes
from checks.serving import World

ROOMS = [protocol, signatures, names, network, volumes, images, instances, direct, tasks, absent]
ACTIONS = os.path.join(os.path.dirname(__file__), "../../resources/ec2/actions.txt")
# Actions that are known and cannot be done, and what they answer.
NEVER = {
    # What is asked for here is done before it can be broken off; src/cloud/task/tests.rs breaks one off.
    "CancelImportTask": "IncorrectState",
    "GetConsoleScreenshot": "UnsupportedOperation",
    "GetInstanceUefiData": "UnsupportedOperation",
    "MonitorInstances": "UnsupportedOperation",
}


def main():
    amiboot, wanted = sys.argv[1], sys.argv[2:]
    checks = {check.__name__: check for room in ROOMS for check in room.CHECKS}
    failed = []
    with World(amiboot) as world:
        for name in wanted or checks:
            began = time.monotonic()
            try:
                checks[name](world)
                print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
            except Exception:
                failed.append(name)
                print(f"{name}:\n{traceback.format_exc()}", flush=True)
        if not wanted:
            with open(ACTIONS, encoding="utf-8") as file:
                for action in file.read().split():
                    answered = action in world.done or NEVER.get(action) in world.errors.get(action, ())
                    if not answered:
                        failed.append(action)
                        print(f"{action}: nobody was answered; errors: {world.errors.get(action)}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
