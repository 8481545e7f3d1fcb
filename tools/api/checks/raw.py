"""Requests that no client makes by itself, or that are to be exactly these bytes."""

import datetime
import urllib.error
import urllib.parse
import urllib.request
from xml.etree import ElementTree

from . import shapes
from .serving import PATIENCE, REGION


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def tree(self):
        return ElementTree.fromstring(self.body)

    def find(self, path):
        """The text of an element, namespaces left aside."""
        found = self.tree.find("/".join(f"{{*}}{part}" for part in path.split("/")))
        return None if found is None else found.text

    def all(self, path):
        return [found.text for found in self.tree.findall("/".join(f"{{*}}{part}" for part in path.split("/")))]

    @property
    def code(self):
        return self.find("Errors/Error/Code")


def scope(account, region=REGION, service="ec2"):
    """The header of a request that nobody verifies."""
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
    signed = "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
    return {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={account}/{day}/{region}/{service}/aws4_request, {signed}",
        "X-Amz-Date": f"{day}T000000Z",
    }


def request(url, body=None, headers=None, method=None):
    """Any request; its answer, of whatever status."""
    sent = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(sent, timeout=PATIENCE) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as answer:
        return Answer(answer.status, answer.headers, answer.read())


def form(url, parameters, headers=None):
    """A form as EC2 takes it: a list of pairs, a dictionary or the text itself. Gives the answer, which is no 5xx."""
    text = parameters if isinstance(parameters, str) else urllib.parse.urlencode(parameters)
    answer = request(url, text.encode(), {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {}))
    shapes.need(answer.status < 500, f"{text}: {answer.status}: {answer.body}")
    if answer.status >= 300:
        shapes.xml_error(answer.body, "ec2")
    return answer


