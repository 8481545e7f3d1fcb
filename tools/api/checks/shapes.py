"""Answers compared with the shapes that botocore has for them: nothing unknown, nothing out of its enumeration."""

import base64
import json
import re
from xml.etree import ElementTree

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
RANGES = {"integer": 31, "long": 63}
NAMESPACES = {"ec2": "http://ec2.amazonaws.com/doc/2016-11-15/", "query": "https://sts.amazonaws.com/doc/2011-06-15/"}


class Wrong(AssertionError):
    """An answer that is not as its shape."""


def need(condition, message):
    if not condition:
        raise Wrong(message)


def scalar(text, shape, path):
    kind = shape.type_name
    if kind == "boolean":
        need(text in ("true", "false"), f"{path}: {text!r} is not true or false")
    elif kind in RANGES:
        need(re.fullmatch(r"-?\d+", text), f"{path}: {text!r} is no number")
        need(abs(int(text)) < 1 << RANGES[kind], f"{path}: {text} is out of range")
    elif kind in ("float", "double"):
        float(text)
    elif kind == "timestamp":
        need(TIME.fullmatch(text), f"{path}: {text!r} is no time")
    elif kind == "blob":
        base64.b64decode(text, validate=True)
    else:
        need(kind == "string", f"{path}: what is a {kind}?")
        # An empty text says that there is none.
        need(not shape.enum or not text or text in shape.enum, f"{path}: {text!r} is none of {shape.enum}")


def tag(element):
    return element.tag.rsplit("}", 1)[-1]


def wire_name(member, name):
    return member.serialization.get("name", name)


def xml(element, shape, path):
    """Compares an element with a shape."""
    need(path.count(".") == 0 or not element.attrib, f"{path} has attributes: {element.attrib}")
    if shape.type_name == "structure":
        need(not (element.text or "").strip(), f"{path} has text: {element.text!r}")
        members = {wire_name(member, name): member for name, member in shape.members.items()}
        seen = set()
        for child in element:
            name = tag(child)
            need(name in members, f"{path} has no member {name}")
            need(name not in seen, f"{path}.{name} is there twice")
            seen.add(name)
            xml(child, members[name], f"{path}.{name}")
        required = {wire_name(shape.members[name], name) for name in shape.required_members}
        need(required <= seen, f"{path} needs {required - seen}")
    elif shape.type_name == "list":
        need(not (element.text or "").strip(), f"{path} has text: {element.text!r}")
        item = wire_name(shape.member, "member")
        for at, child in enumerate(element):
            need(tag(child) == item, f"{path}: items are {item}, not {tag(child)}")
            xml(child, shape.member, f"{path}[{at}]")
    else:
        need(len(element) == 0, f"{path} is a {shape.type_name} and has elements")
        scalar(element.text or "", shape, path)


def xml_answer(body, operation):
    """An answer of the protocols ec2 and query."""
    protocol = operation.service_model.metadata["protocol"]
    root = ElementTree.fromstring(body)
    need(root.tag == f"{{{NAMESPACES[protocol]}}}{operation.name}Response", f"{operation.name}: the root is {root.tag}")
    shape = operation.output_shape
    if protocol == "query":
        need([tag(child) for child in root] == [f"{operation.name}Result", "ResponseMetadata"], f"{operation.name}: {body}")
        xml(root[0], shape, operation.name)
        return
    first = root[0] if len(root) else None
    need(first is not None and tag(first) == "requestId" and first.text, f"{operation.name} does not begin with a requestId")
    root.remove(first)
    if shape is None or not shape.members:
        # EC2 says that it did what was asked for; the shape does not tell.
        need([(tag(child), child.text) for child in root] in ([("return", "true")], []), f"{operation.name}: {body}")
        return
    xml(root, shape, operation.name)


def xml_error(body, protocol):
    """An error of the protocols ec2 and query."""
    root = ElementTree.fromstring(body)
    if protocol == "query":
        need([tag(child) for child in root] == ["Error", "RequestId"], f"an error of STS: {body}")
        error, members = root[0], ["Type", "Code", "Message"]
    else:
        need(root.tag == "Response" and [tag(child) for child in root] == ["Errors", "RequestID"], f"an error: {body}")
        need(len(root[0]) == 1 and root[0][0].tag == "Error", f"an error: {body}")
        error, members = root[0][0], ["Code", "Message"]
    need([tag(child) for child in error] == members, f"an error: {body}")
    need(all(child.text for child in error), f"an error without words: {body}")


def code(body):
    """The code of an error of the protocol ec2."""
    return ElementTree.fromstring(body)[0][0][0].text


def value(given, shape, path):
    """Compares a value of JSON with a shape."""
    kind = shape.type_name
    if kind == "structure":
        need(isinstance(given, dict), f"{path}: {given!r} is no structure")
        members = {wire_name(member, name): member for name, member in shape.members.items()}
        for name, one in given.items():
            need(name in members, f"{path} has no member {name}")
            value(one, members[name], f"{path}.{name}")
    elif kind == "list":
        need(isinstance(given, list), f"{path}: {given!r} is no list")
        for at, one in enumerate(given):
            value(one, shape.member, f"{path}[{at}]")
    elif kind == "boolean":
        need(isinstance(given, bool), f"{path}: {given!r} is no truth")
    elif kind in RANGES:
        need(isinstance(given, int) and not isinstance(given, bool), f"{path}: {given!r} is no whole number")
    elif kind in ("float", "double", "timestamp"):
        need(isinstance(given, (int, float)) and not isinstance(given, bool), f"{path}: {given!r} is no number")
    else:
        need(isinstance(given, str), f"{path}: {given!r} is no text")
        need(not shape.enum or given in shape.enum, f"{path}: {given!r} is none of {shape.enum}")


def json_answer(body, headers, operation):
    """An answer of the protocols json and rest-json; members that are in headers, or are the body, are not in it."""
    shape = operation.output_shape
    if "payload" in shape.serialization:
        inside = []
    else:
        inside = [name for name, member in shape.members.items() if "location" not in member.serialization]
        given = json.loads(body)
        need(set(given) <= {wire_name(shape.members[name], name) for name in inside}, f"{operation.name}: {given}")
        value(given, shape, operation.name)
    for name, member in shape.members.items():
        if member.serialization.get("location") == "header" and wire_name(member, name) in headers:
            scalar(headers[wire_name(member, name)], member, f"{operation.name}.{name}")


def json_error(body, headers, operation):
    """An error of the protocols json and rest-json: of a kind that the service has, where it has any."""
    given = json.loads(body)
    code = headers.get("x-amzn-errortype") or given.pop("__type")
    known = {shape.name: shape for shape in operation.error_shapes}
    message = [name for name in given if name.lower() == "message"]
    need(message and given[message[0]], f"{operation.name}: an error without words: {body}")
    if code in known:
        value({name: one for name, one in given.items() if name != "message"}, known[code], code)
    return code
