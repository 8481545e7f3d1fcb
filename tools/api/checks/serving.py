"""A server of a check's own, and clients of it that look at every answer."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from . import shapes

REGION = "us-east-1"
FAR = "us-west-2"
# How long anything may take, in seconds; what takes longer hangs.
PATIENCE = 60
# Waiters ask this often, in seconds.
DELAY = 0.2
WAIT = {"Delay": DELAY, "MaxAttempts": int(PATIENCE / DELAY)}
# The status that goes with a code, where it is not 400.
STATUS = {
    "DryRunOperation": 412, "AuthFailure": 401, "UnauthorizedOperation": 403, "SignatureDoesNotMatch": 403,
    "MissingAuthenticationToken": 403, "AccessDeniedException": 403,
}


class Server:
    """`amiboot serve` on a catalogue."""

    def __init__(self, amiboot, home, *options):
        self.amiboot, self.home = amiboot, home
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "AMIBOOT_"))}
        self.environment |= {"AMIBOOT_HOME": home, "NO_COLOR": "1"}
        command = [amiboot, "serve", "--backend", "stub", "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        first = self.process.stderr.readline()
        at = re.search(r" is at (https?://\S+);", first)
        if not at:
            self.process.kill()
            raise AssertionError(f"the server: {first}{self.process.stderr.read()}")
        self.url = at[1]
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def command(self, *arguments):
        """A command on the same catalogue; what it prints."""
        done = subprocess.run([self.amiboot, *arguments], env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{arguments}: {done.stderr}")
        return done.stdout

    def run(self, *arguments):
        """The same, as JSON."""
        return json.loads(self.command(*arguments, "--json"))

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the server does not end") from None
        self.reader.join()
        log = "".join(self.log)
        if code != 0 or "panicked" in log:
            raise AssertionError(f"the server ended with {code}:\n{log}")


class World:
    """A server, and what was asked of it."""

    def __init__(self, amiboot):
        self.directory = tempfile.TemporaryDirectory(prefix="amiboot-api.")
        self.server = Server(amiboot, os.path.join(self.directory.name, "home"), "--auth", "any")
        # Actions of EC2 that were answered, and the codes of the errors of each.
        self.done, self.errors = set(), {}
        self.accounts = 100000000000
        # Models of services are read once.
        self.session = boto3.session.Session()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.server.close()
        finally:
            self.directory.cleanup()

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def account(self):
        """An account that nobody had before: checks do not see each other's things."""
        self.accounts += 1
        return str(self.accounts)

    def client(self, account, region=REGION, service="ec2", **more):
        """A client whose every answer is compared with its shape. What is not said otherwise is that no key is needed."""
        config = Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE, **more.pop("config", {}))
        keys = {"aws_access_key_id": account, "aws_secret_access_key": "any"} | more.pop("keys", {})
        options = {"endpoint_url": self.server.url, "region_name": region, "config": config} | keys | more
        client = self.session.client(service, **options)
        client.meta.events.register(f"before-parse.{service}.*", self.look)
        return client

    def look(self, response_dict, operation_model, **_):
        body, headers, status = (response_dict[part] for part in ("body", "headers", "status_code"))
        protocol = operation_model.service_model.metadata["protocol"]
        name = operation_model.name
        is_xml = protocol in ("ec2", "query")
        shapes.need(status < 500, f"{name}: {status}: {body}")
        shapes.need(headers.get("x-amzn-requestid"), f"{name}: no request id")
        if status >= 300:
            if is_xml:
                shapes.xml_error(body, protocol)
            else:
                shapes.json_error(body, headers, operation_model)
        elif is_xml:
            shapes.xml_answer(body, operation_model)
        elif body:
            shapes.json_answer(body, headers, operation_model)
        if protocol == "ec2" and status < 300:
            self.done.add(name)
        elif protocol == "ec2":
            self.errors.setdefault(name, set()).add(shapes.code(body))


def refused(code, action, **parameters):
    """Something that fails with EC2's error `code`; gives its message."""
    try:
        answer = action(**parameters)
    except ClientError as error:
        told, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        shapes.need(told["Code"] == code, f"{parameters}: {told['Code']} is not {code}: {told['Message']}")
        expected = 400 if told["Message"].startswith("Not authorized for") else STATUS.get(code, 400)
        shapes.need(status == expected, f"{code} comes with the status {status}")
        return told["Message"]
    except ParamValidationError as error:
        raise AssertionError(f"{parameters}: the client itself refuses it: {error}") from None
    raise AssertionError(f"{parameters}: no {code}, but {answer}")


def dry(action, **parameters):
    """Something that would work."""
    refused("DryRunOperation", action, DryRun=True, **parameters)


def wait(client, waiter, **parameters):
    client.get_waiter(waiter).wait(WaiterConfig=WAIT, **parameters)


def until(what, condition):
    """Waits until something is true; gives it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"it does not come: {what}")


def pages(client, action, size, key, **parameters):
    """All of a listing, page by page; several of them."""
    found, count = [], 0
    for page in client.get_paginator(action).paginate(PaginationConfig={"PageSize": size}, **parameters):
        shapes.need(len(page[key]) <= size, f"{action}: a page of {len(page[key])}")
        found += page[key]
        count += 1
    shapes.need(count > 1, f"{action}: {len(found)} on one page")
    return found


def equal(have, expected, what=""):
    shapes.need(have == expected, f"{what or 'it'} is\n  {have!r}, not\n  {expected!r}")


def by(name, *values):
    """A filter."""
    return [{"Name": name, "Values": list(values)}]


def tagged(kind, **tags):
    """A tag specification."""
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": text} for key, text in tags.items()]}
