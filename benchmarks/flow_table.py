"""Connection tables filled for benchmarks: entries made over netlink, as many as the kernel takes."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from msgspec import Struct

from enforcer.kernel.conntrack_answer import results
from enforcer.kernel.conntrack_wire import ATTRIBUTE, MESSAGE, packed
from policy.cidr import Address
from policy.errors import HostRefused

_NETLINK_NETFILTER = 12
_NEW = 0x100
_REQUEST, _ACK, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x400, 0x200
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_SEEN_REPLY_ASSURED_CONFIRMED = 0b1110
_ESTABLISHED = 3
_TIMEOUT = 3600
_BATCH = 200
MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")


class Talk(Struct, frozen=True):
    """One TCP connection, established."""

    client: Address
    server: Address
    client_port: int
    port: int


def talks(clients: Sequence[Address], servers: Sequence[Address], count: int, seed: int) -> list[Talk]:
    """Different ones, as many clients and servers as there are, in no order."""
    rng = random.Random(seed)
    return [
        Talk(rng.choice(clients), rng.choice(servers), 1024 + number % 60000, 8000 + number // 60000)
        for number in range(count)
    ]


def fill(wanted: Sequence[Talk]) -> None:
    """Makes the entries in the namespace of the thread. HostRefused where the kernel's table is too small for them; its
    size is the host's business."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        numbered = iter(enumerate(wanted))
        while batch := list(islice(numbered, _BATCH)):
            last = batch[-1][0]
            sock.send(b"".join(_request(talk, number, number == last) for number, talk in batch))
            codes = dict(results(sock.recv(1 << 16)))
            while last not in codes:
                codes.update(results(sock.recv(1 << 16)))
            if bad := [code for code in codes.values() if code]:
                limit = MAX.read_text().strip() if MAX.exists() else "?"
                reason = f"{os.strerror(bad[0])} (nf_conntrack_max is {limit})"
                raise HostRefused(f"a table of {len(wanted)} connections can't be filled: {reason}")


def _request(talk: Talk, number: int, last: bool) -> bytes:
    client, server = packed(talk.client), packed(talk.server)
    body = b"".join(
        (
            _tuple(1, client, server, talk.client_port, talk.port),
            _tuple(2, server, client, talk.port, talk.client_port),
            _attribute(3, struct.pack("!I", _SEEN_REPLY_ASSURED_CONFIRMED)),
            _nested(4, _nested(1, _attribute(1, bytes([_ESTABLISHED])))),
            _attribute(7, struct.pack("!I", _TIMEOUT)),
        )
    )
    flags = _REQUEST | _CREATE | _EXCLUSIVE | (_ACK if last else 0)
    return MESSAGE.pack(MESSAGE.size + len(body), _NEW, flags, number, 0, _AF[talk.client.family], 0, 0) + body


def _tuple(kind: int, src: bytes, dst: bytes, src_port: int, dst_port: int) -> bytes:
    first = 1 if len(src) == 4 else 3
    ports = (_attribute(2, struct.pack("!H", src_port)), _attribute(3, struct.pack("!H", dst_port)))
    proto = _nested(2, _attribute(1, bytes([socket.IPPROTO_TCP])), *ports)
    return _nested(kind, _nested(1, _attribute(first, src), _attribute(first + 1, dst)), proto)


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, *values: bytes) -> bytes:
    return _attribute(kind | 0x8000, b"".join(values))


def addresses(first: Address, count: int) -> Iterator[Address]:
    return (Address(first.family, first.value + number) for number in range(count))
