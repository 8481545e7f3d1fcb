"""Prints the shapes that some actions of EC2 need, without their documentation: one line each, sorted.

A type is "string", "integer", "double", "boolean", "timestamp", "blob", the name of a structure, or a list:
["list", TYPE, NAME OF AN ITEM IN ANSWERS]. A member is [NAME IN REQUESTS, NAME IN ANSWERS, TYPE].
"""

import json
import sys

from botocore.loaders import Loader

SCALARS = {"string": "string", "integer": "integer", "long": "integer", "float": "double", "double": "double",
           "boolean": "boolean", "timestamp": "timestamp", "blob": "blob"}


def type_of(shapes, name):
    shape = shapes[name]
    kind = shape["type"]
    if kind == "structure":
        return name
    if kind == "list":
        member = shape["member"]
        return ["list", type_of(shapes, member["shape"]), member.get("locationName", "member")]
    return SCALARS[kind]


def members_of(shapes, name):
    members = {}
    for member, at in shapes[name].get("members", {}).items():
        in_answers = at.get("locationName", member)
        in_requests = at.get("queryName")
        if in_requests is None:
            in_requests = in_answers[:1].upper() + in_answers[1:]
        members[member] = [in_requests, in_answers, type_of(shapes, at["shape"])]
    return members


def closure(shapes, roots):
    seen, todo = set(), list(roots)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        shape = shapes[name]
        todo += [at["shape"] for at in shape.get("members", {}).values()]
        if "member" in shape:
            todo.append(shape["member"]["shape"])
    return sorted(name for name in seen if shapes[name]["type"] == "structure")


def main():
    model = Loader().load_service_model("ec2", "service-2")
    shapes, operations = model["shapes"], model["operations"]
    with open(sys.argv[1], encoding="utf-8") as file:
        actions = sorted(file.read().split())
    ends = {
        action: [operations[action].get(end, {}).get("shape") for end in ("input", "output")] for action in actions
    }
    print('{"operations": {')
    print_lines(ends.items())
    print("},")
    for title, at in (("requests", 0), ("answers", 1)):
        roots = {both[at] for both in ends.values() if both[at]}
        print(f"{json.dumps(title)}: {json.dumps(closure(shapes, roots))},")
    print('"structures": {')
    every = closure(shapes, {end for both in ends.values() for end in both if end})
    print_lines((name, members_of(shapes, name)) for name in every)
    print("}}")


def print_lines(items):
    print(",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in items))


main()
