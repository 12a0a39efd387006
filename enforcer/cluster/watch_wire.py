"""The API server's bytes: a watch's lines, a list's pages, and what it says when it refuses. Pure.

A line is `{"type":"MODIFIED","object":{…}}`, of which nearly all are pods: they are decoded straight from the middle of
the line. A page's pods are decoded in one go. Whatever does not fit is read again, object by object, with its problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct, field

from enforcer.cluster.news import Changed, Finding, Gone, Object
from enforcer.cluster.resources import Resource, read_gone, read_object
from policy.decode_plain import PlainPod, plain_pod, pod_of

LONGEST_LINE = 32 << 20  # etcd takes objects of 1.5 MB
_SORTED_LINE = re.compile(rb'\{"type":"(?:ADDED|MODIFIED)","object":')


class NotJson(ValueError):
    """Bytes that are not what the API server sends; what they replaced is unknown."""


class Lines:
    """Whole lines out of chunks, however the bytes are split over them; what has no end yet is kept."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that `chunk` completes, empty ones left out. NotJson where one grows beyond all bounds."""
        *ended, rest = chunk.split(b"\n")
        if ended and self._pieces:
            ended[0] = b"".join([*self._pieces, ended[0]])
            self._pieces, self._length = [], 0
        if rest:
            self._pieces.append(rest)
            self._length += len(rest)
        for line in ended:
            if line and not line.isspace():
                yield line
        if self._length > LONGEST_LINE:
            raise NotJson(f"a line of more than {LONGEST_LINE >> 20} MB")


class _Line(Struct):
    type: str
    object: Raw


class _ObjectMeta(Struct):
    resourceVersion: str = ""  # noqa: N815 (the API's own spelling)


class _Versioned(Struct):
    metadata: _ObjectMeta


class _Cause(Struct):
    reason: str | None = None


class _Details(Struct):
    retryAfterSeconds: float | None = None  # noqa: N815
    causes: list[_Cause] | None = None


class Status(Struct):
    """What the API server says when it refuses."""

    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None

    @property
    def retry_after(self) -> float:
        return (self.details and self.details.retryAfterSeconds) or 0

    @property
    def cause(self) -> str:
        causes = (self.details and self.details.causes) or []
        return (causes and causes[0].reason) or ""


class _ListMeta(Struct):
    resourceVersion: str = ""  # noqa: N815
    token: str = field(default="", name="continue")


class _Page(Struct):
    metadata: _ListMeta
    items: list[Raw] | None
    kind: str = ""


class _PodPage(Struct):
    metadata: _ListMeta
    items: list[PlainPod]


_LINE = msgspec.json.Decoder(_Line)
_VERSIONED = msgspec.json.Decoder(_Versioned)
_STATUS = msgspec.json.Decoder(Status)
_PAGE = msgspec.json.Decoder(_Page)
_POD_PAGE = msgspec.json.Decoder(_PodPage)
_BROKEN = (msgspec.DecodeError, ValueError, RecursionError)


class Event(Struct):
    """One line of a watch: `body` is its object's JSON, `news` what it changes."""

    type: str
    body: bytes | Raw
    news: Changed | None = None


def read_event(resource: Resource, line: bytes) -> Event:
    """The event in one line. NotJson where it is none."""
    if resource.kind == "Pod" and line.endswith(b"}") and (match := _SORTED_LINE.match(line)):
        body = line[match.end() : -1]
        try:
            if pod := plain_pod(Raw(body)):
                return Event("MODIFIED", body, Changed("Pod", pod))
        except RecursionError:
            pass
    try:
        read = _LINE.decode(line)
    except _BROKEN as error:
        raise NotJson(str(error) or "nested too deeply") from None
    event = Event(read.type, bytes(read.object))
    if read.type in ("ADDED", "MODIFIED"):
        event.news = read_object(resource, event.body)
    elif read.type == "DELETED":
        event.news = read_gone(resource, event.body)
    return event


def version_of(body: bytes | Raw) -> str:
    """The resourceVersion of an object; "" where it has none that can be read."""
    try:
        return _VERSIONED.decode(body).metadata.resourceVersion
    except _BROKEN:
        return ""


def read_status(body: bytes | Raw) -> Status:
    """A Status; an empty one where it is none."""
    try:
        return _STATUS.decode(body)
    except _BROKEN:
        return Status()


class Page(Struct):
    """One page of a list, decoded. `token` asks for the next one, "" where it is the last."""

    objects: list[Object]
    findings: list[Finding]
    version: str
    token: str


def read_page(resource: Resource, data: bytes) -> Page:
    """NotJson where it is no list."""
    if resource.kind == "Pod":
        try:
            found = _POD_PAGE.decode(data)
            pods = [pod for wire in found.items if (pod := pod_of(wire))]
            if len(pods) == len(found.items):
                return Page([*pods], [], found.metadata.resourceVersion, found.metadata.token)
        except _BROKEN:
            pass
    try:
        read = _PAGE.decode(data)
    except _BROKEN as error:
        raise NotJson(str(error) or "nested too deeply") from None
    page = Page([], [], read.metadata.resourceVersion, read.metadata.token)
    for item in read.items or ():
        changed = read_object(resource, item)
        if changed.finding:
            page.findings.append(changed.finding)
        if changed.event is not None and not isinstance(changed.event, Gone):
            page.objects.append(changed.event)
    return page
