"""The node's interfaces, routes, neighbours and bridges, read from its kernel at once, or followed as they change.

Spoken over plain netlink sockets: for 250 veths pyroute2's own reading takes 120 ms, this one a few.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from enforcer.attachment import hostview
from enforcer.attachment.hostview import HostView, Tables
from enforcer.attachment.share import Share
from enforcer.kernel.rtnetlink import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    DONE,
    GET_ADDRESS,
    GET_LINK,
    GET_NEIGHBOUR,
    GET_ROUTE,
    INTERRUPTED,
    OVERRUN,
    Fact,
    Link,
    Route,
    change,
    link_request,
    messages,
    request,
)
from policy.cidr import Address, Family
from policy.errors import HostRefused

_SOL_NETLINK, _ADD_MEMBERSHIP, _STRICT_REQUESTS = 270, 1, 12
_FORCED_RECEIVE_BUFFER = 33
_LINK, _NEIGHBOUR, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 1, 3, 5, 7, 9, 11
_GROUPS = (_LINK, _NEIGHBOUR, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE)
_RECEIVE = 1 << 17
_LONGEST_DRAIN = 0.2
_EVENT_BUFFER = 1 << 22
# The kernel says that a reading met a change in its midst, and may have missed something.
_READINGS = 50
# Views are at least so far apart, in seconds; the first of a burst is told at once.
_GAP = 0.002
# More links than that are read all at once.
_SINGLY = 64


def dump() -> HostView:
    """Everything, as it is now. Needs no privilege. HostRefused where it can't be read."""
    with _refusing(), _request_socket() as sock:
        return Tables(_everything(sock)).view()


def own_addresses(families: Iterable[Family]) -> frozenset[Address]:
    """The node's own addresses, of all its interfaces. HostRefused where they can't be read."""
    wanted = set(families)
    with _refusing(), _request_socket() as sock:
        found = Tables(_read(sock, request(GET_ADDRESS))).view()
    return frozenset(address for address in hostview.own_addresses(found) if address.family in wanted)


class HostLinks:
    """Tells `enqueue` of a new view whenever the host's interfaces, routes, neighbours or bridges change, from a thread
    that does nothing else; and of the first one when it starts. Where things never stop changing it rests in between,
    and views come later. Views follow one another as things happened; what
    changes within a few milliseconds comes as one. After a view was told, nothing that happened before it is missing.

    It belongs to the network namespace that the thread which makes it is in. Use it as a context manager."""

    def __init__(
        self, enqueue: Callable[[HostView], None], gap: float = _GAP, event_buffer: int = _EVENT_BUFFER
    ) -> None:
        self.dumps = 0  # how often everything was read: once, and again when events were lost
        self.failure: str | None = None
        self._enqueue = enqueue
        self._gap = gap
        with _refusing():
            self._requests = _socket(strict=True)
            self._events = _socket()
            self._listen(event_buffer)
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)

    def _listen(self, event_buffer: int) -> None:
        try:
            self._events.setsockopt(socket.SOL_SOCKET, _FORCED_RECEIVE_BUFFER, event_buffer)
        except PermissionError:
            self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, event_buffer)
        self._events.bind((0, 0))
        for group in _GROUPS:
            self._events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._events.setblocking(False)

    def __enter__(self) -> HostLinks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._waker, b"\0")
        self._thread.join()
        for each in (self._requests, self._events):
            each.close()
        os.close(self._wake)
        os.close(self._waker)

    @property
    def alive(self) -> bool:
        """Whether changes are still followed."""
        return self._thread.is_alive()

    def _run(self) -> None:
        """A reading that fails is tried again a second later: the last view stays till then, and `failure` says why."""
        while True:
            try:
                with _refusing():
                    self._follow()
                return
            except HostRefused as refused:
                self.failure = str(refused)
            if select.select([self._wake], [], [], 1.0)[0]:
                return

    def _follow(self) -> None:
        """Ends when it is told to. Events are listened to before everything is read, so that none falls in between."""
        tables = self._read_everything()
        told: HostView | None = None
        share = Share()
        began = time.monotonic()
        while True:
            view = tables.view()
            if view != told:
                self._enqueue(view)
                told = view
            self.failure = None
            rest = share.rest(began, time.monotonic())
            if self._told_to_end_within(max(self._gap, rest)):
                return
            changed = False
            while not changed:
                if self._wake in select.select([self._events.fileno(), self._wake], [], [])[0]:
                    return
                began = time.monotonic()
                drained = self._drain(tables)
                if drained is None:
                    tables = self._read_everything()
                changed = drained is not False
                # What changes nothing takes time too.
                if not changed and self._told_to_end_within(share.rest(began, time.monotonic())):
                    return
            self._freshen(tables)

    def _told_to_end_within(self, seconds: float) -> bool:
        return bool(select.select([self._wake], [], [], seconds)[0])

    def _read_everything(self) -> Tables:
        self.dumps += 1
        return Tables(_everything(self._requests))

    def _drain(self, tables: Tables) -> bool | None:
        """Applies the events of now, not for ever. Whether anything changed; None where some were lost."""
        changed, lost = False, False
        until = time.monotonic() + _LONGEST_DRAIN
        while time.monotonic() < until:
            try:
                data = self._events.recv(_RECEIVE)
            except BlockingIOError:
                return None if lost else changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            for message in messages(data):
                lost = lost or message.kind == OVERRUN
                if not lost and (found := change(message)):
                    changed = tables.apply(found) or tables.stale_routes or changed
        return None if lost else changed

    def _freshen(self, tables: Tables) -> None:
        if len(tables.stale_links) > _SINGLY:
            tables.replace_links(_links(self._requests))
        elif tables.stale_links:
            tables.refresh_links(list(_each_link(self._requests, tables.stale_links)))
        if tables.stale_routes:
            tables.replace_routes(_routes(self._requests))


def _everything(sock: socket.socket) -> Iterator[Fact]:
    links = _links(sock)
    yield from links
    yield from _read(sock, request(GET_ADDRESS))
    yield from _routes(sock)
    yield from _read(sock, request(GET_NEIGHBOUR))
    for link in links:
        if link.kind == "bridge":
            # It may be gone by now.
            with suppress(OSError):
                yield from _read(sock, request(GET_NEIGHBOUR, AF_BRIDGE, link.index))


def _links(sock: socket.socket) -> list[Link]:
    return [fact for fact in _read(sock, request(GET_LINK)) if isinstance(fact, Link)]


def _each_link(sock: socket.socket, indexes: Iterable[int]) -> Iterator[Link]:
    """Those that are there."""
    for index in indexes:
        sock.send(link_request(index))
        # It is gone; a change tells of that.
        with suppress(OSError):
            for message in messages(sock.recv(_RECEIVE)):
                if (told := change(message)) and isinstance(told.fact, Link):
                    yield told.fact


def _routes(sock: socket.socket) -> list[Route]:
    found = [fact for family in (AF_INET, AF_INET6) for fact in _read(sock, request(GET_ROUTE, family))]
    return [fact for fact in found if isinstance(fact, Route)]


def _read(sock: socket.socket, asked: bytes) -> list[Fact]:
    """All that the kernel answers. OSError where it refuses, or where things never hold still."""
    for _ in range(_READINGS):
        found, whole = _read_once(sock, asked)
        if whole:
            return found
        time.sleep(0.001)
    raise OSError(errno.EAGAIN, "they keep changing")


def _read_once(sock: socket.socket, asked: bytes) -> tuple[list[Fact], bool]:
    sock.send(asked)
    found: list[Fact] = []
    whole = True
    while True:
        for message in messages(sock.recv(_RECEIVE)):
            whole = whole and not message.flags & INTERRUPTED
            if message.kind == DONE:
                return found, whole
            if told := change(message):
                found.append(told.fact)


def _socket(strict: bool = False) -> socket.socket:
    """A `strict` one has requests filtered by the kernel (4.20); an older one answers with more, which is left out."""
    if not hasattr(socket, "AF_NETLINK"):
        raise HostRefused("interfaces and routes can be read on Linux only")
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    if strict:
        with suppress(OSError):
            sock.setsockopt(_SOL_NETLINK, _STRICT_REQUESTS, 1)
    return sock


@contextmanager
def _request_socket() -> Iterator[socket.socket]:
    with _socket(strict=True) as sock:
        yield sock


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostRefused(f"interfaces and routes can't be read: {error.strerror or error}") from None
