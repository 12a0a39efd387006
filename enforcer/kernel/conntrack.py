"""Existing flows in the kernel's connection table: those that may not go on are marked, those that may again are not.

The entry of a flow that ends stays, and gets one bit of its connection mark, which the rules look at: without the
entry, the next packet of either end would begin a new flow, in the wrong direction where the server speaks first.
Each call has a socket of its own, so it may run beside the thread that owns the rules.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from msgspec import Struct

from enforcer.kernel.conntrack_answer import Tracked, entries, entries_with, identity, results
from enforcer.kernel.conntrack_wire import WAYS, Identity, delete_requests, dump_request, mark_requests, packed
from policy.cidr import Address, Family
from policy.errors import HostRefused, KernelRejected

_NETLINK_NETFILTER = 12
_RECEIVE = 1 << 17
# Requests are sent some at a time: their errors have to fit into the socket's buffer.
_BATCH = 256
# One address is looked for twice, as the source of first packets and of answers; more are found faster by reading all.
_MAX_SOURCES = 2


class Revoked(Struct, frozen=True):
    """How many flows were ended, and how many may go on again."""

    ended: int
    restored: int


class Judges(Protocol):
    """Says which flows may not go on."""

    def forbids(self, flow: Tracked) -> bool: ...


class Table(Protocol):
    """A connection table: the kernel's, by the functions of this module, or a fake."""

    def forbidden(self, judge: Judges, mark: int, addresses: Collection[Address] | None = None) -> list[Identity]: ...

    def pardoned(self, judge: Judges, mark: int, addresses: Collection[Address] | None = None) -> list[Identity]: ...

    def with_ends(self, wanted: Callable[[Tracked], bool], addresses: Collection[Address]) -> list[Identity]: ...

    def write(self, mark: int, is_set: bool, found: Sequence[Identity]) -> int: ...

    def delete(self, found: Sequence[Identity]) -> int: ...

    def forget(self, mark: int) -> int: ...


def revoke(judge: Judges, mark: int, addresses: Collection[Address] | None = None, end: bool = True) -> Revoked:
    """Makes the bit `mark` of every flow say what `judge` does: set where the flow is forbidden, cleared where it is
    not. To be called once the rules are in force: the bit alone ends nothing that they let pass.

    `addresses` limits it to flows with such an end; `end=False` ends none. HostRefused where the table can't be read,
    KernelRejected where an entry can't be changed."""
    ended = write(mark, True, forbidden(judge, mark, addresses)) if end else 0
    return Revoked(ended, write(mark, False, pardoned(judge, mark, addresses)))


def forbidden(judge: Judges, mark: int, addresses: Collection[Address] | None = None) -> list[Identity]:
    """The flows that may not go on and lack the bit: a change forbids them, or someone took the bit away."""
    return _find(judge.forbids, _requests(mark, False, addresses), addresses)


def pardoned(judge: Judges, mark: int, addresses: Collection[Address] | None = None) -> list[Identity]:
    """The flows that may go on and have the bit."""
    return _find(lambda flow: not judge.forbids(flow), _requests(mark, True, addresses), addresses)


def with_ends(wanted: Callable[[Tracked], bool], addresses: Collection[Address]) -> list[Identity]:
    """The flows that have one of the addresses for an end and are `wanted`, whatever their marks."""
    return _find(wanted, _requests(0, False, addresses), addresses)


def forget(mark: int) -> int:
    """Clears the bit everywhere; how many flows had it."""
    return write(mark, False, _find(lambda _: True, _requests(mark, True, None), None))


def write(mark: int, is_set: bool, found: Sequence[Identity]) -> int:
    """Sets or clears the bit of these entries; how many of them were still there."""
    return _change(found, lambda batch: mark_requests(batch, mark, is_set), "the mark of a connection can't be changed")


def doomed(judge: Judges, mark: int) -> list[Tracked]:
    """As `forbidden`, the flows themselves; nothing is written."""
    return [flow for flow in unmarked(mark) if judge.forbids(flow)]


def unmarked(mark: int) -> Iterator[Tracked]:
    """All flows without the bit."""
    return _dump(dump_request(mark, False), None)


def delete(found: Sequence[Identity]) -> int:
    """Takes these entries out of the table, so that their next packets are those of new flows; how many were there."""
    return _change(found, delete_requests, "a connection can't be forgotten")


def _change(found: Sequence[Identity], requests: Callable[[Sequence[Identity]], bytes], what: str) -> int:
    changed = 0
    with _socket() as sock:
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            sock.send(requests(batch))
            changed += len(batch) - _gone(sock, len(batch), what)
    return changed


def _gone(sock: socket.socket, count: int, what: str) -> int:
    """How many of `count` entries were not there any more. Only the last one's success is told, each one's failure."""
    codes: dict[int, int] = {}
    while count not in codes:
        codes.update(results(sock.recv(_RECEIVE)))
    for code in codes.values():
        if code not in (0, errno.ENOENT):
            raise KernelRejected(f"{what}: {os.strerror(code)}")
    return sum(code == errno.ENOENT for code in codes.values())


def _find(
    wanted: Callable[[Tracked], bool], requests: Sequence[bytes], addresses: Collection[Address] | None
) -> list[Identity]:
    """The entries of these dumps that have an end among `addresses` and are `wanted`."""
    concerned = None if addresses is None else frozenset(map(packed, addresses))
    # A flow between two of the addresses is found twice.
    found = {identity(flow): None for request in requests for flow in _dump(request, concerned) if wanted(flow)}
    return list(found)


def _requests(mark: int, is_set: bool, addresses: Collection[Address] | None) -> list[bytes]:
    """Dumps that together hold all entries with one of the addresses. Entries with the bit are few anyway. The kernel
    can't look for an IPv6 address: up to 6.18 at least, it gives all other entries instead."""
    if addresses is None or (mark and is_set):
        return [dump_request(mark, is_set)]
    few = [address for address in addresses if address.family == 4]
    whole: list[Family] = [6] if len(few) < len(addresses) else []
    if len(few) > _MAX_SOURCES:
        whole, few = [4, *whole], []
    looked_for = [dump_request(mark, is_set, 4, (way, address)) for address in few for way in WAYS]
    return looked_for + [dump_request(mark, is_set, family) for family in whole]


def _dump(request: bytes, concerned: Collection[bytes] | None) -> Iterator[Tracked]:
    with _socket() as sock:
        sock.send(request)
        answers = partial(sock.recv, _RECEIVE)
        yield from entries(answers) if concerned is None else entries_with(answers, concerned)


@contextmanager
def _socket() -> Iterator[socket.socket]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
            yield sock
    except OSError as error:
        raise HostRefused(f"the connection table can't be used: {error.strerror}") from None
