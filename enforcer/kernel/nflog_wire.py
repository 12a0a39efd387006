"""Messages of NFLOG, as the kernel reads and writes them over netlink (nfnetlink_log.h). Pure.

header  nfgenmsg  [attribute: length type value]...
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, get_args

from msgspec import Struct

from enforcer.kernel.conntrack_wire import ATTRIBUTE, padded
from enforcer.kernel.headers import Headers, headers
from policy.model import Direction

Why = Literal["denied", "audit", "spoofed", "unknown", "revoked"]
Prefix = tuple[Why, Direction | None]

COPIED = 128
_PACKET, _CONFIG = 0x400, 0x401
_REQUEST, _ACK = 0x1, 0x4
_ERROR = 2
_CMD, _MODE, _TIMEOUT, _QUEUE_THRESHOLD = 1, 2, 4, 5
_BIND = 1
_COPY_PACKET = 2
_TIME, _IN, _OUT, _PHYS_IN, _PHYS_OUT, _PAYLOAD, _PREFIX = 3, 4, 5, 6, 7, 9, 10
_HEADER = struct.Struct("=IHHIIBBH")
_TYPE_BITS = 0x3FFF
# Hundredths of a second that the kernel may keep packets, and how many.
_KEPT, _AT_MOST = 5, 32


class Logged(Struct, frozen=True):
    """One packet that a rule told of. Interfaces are indexes, 0 where there is none; `phys` ones are a bridge's ports.
    `seconds` since 1970, where the kernel knows it, else 0."""

    why: Why
    direction: Direction | None
    packet: Headers
    in_index: int = 0
    out_index: int = 0
    phys_in_index: int = 0
    phys_out_index: int = 0
    seconds: float = 0.0


def bind_requests(group: int) -> bytes:
    """Asks for the packets of a group, of each the beginning, soon. Each request is acknowledged, numbered from 1."""
    requests = (
        _attribute(_CMD, bytes([_BIND])),
        _attribute(_MODE, struct.pack("!IBB", COPIED, _COPY_PACKET, 0)),
        _attribute(_TIMEOUT, struct.pack("!I", _KEPT)) + _attribute(_QUEUE_THRESHOLD, struct.pack("!I", _AT_MOST)),
    )
    return b"".join(
        _HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST | _ACK, number, 0, 0, 0, socket_order(group)) + body
        for number, body in enumerate(requests, 1)
    )


BIND_REQUESTS = 3


def socket_order(number: int) -> int:
    """A 16-bit number as it stands in network order, read in the machine's."""
    return int(struct.unpack("=H", struct.pack("!H", number))[0])


def codes(answer: bytes) -> Iterator[int]:
    """The error numbers of acknowledgements, 0 for success."""
    for kind, body in _messages(answer):
        if kind == _ERROR and len(body) >= 4:
            yield -int(struct.unpack_from("=i", body)[0])


def logged(answer: bytes) -> Iterator[Logged | None]:
    """The packets in what was received; None for one that can't be read, or that is not podfence's."""
    for kind, body in _messages(answer):
        if kind == _PACKET:
            yield _logged(body[4:])


def _logged(body: bytes) -> Logged | None:
    found = dict(_attributes(body))
    why = _why(found.get(_PREFIX, b""))
    packet = headers(found.get(_PAYLOAD, b""))
    if why is None or packet is None:
        return None
    in_by, out_by, in_port, out_port = (_number(found.get(kind, b"")) for kind in (_IN, _OUT, _PHYS_IN, _PHYS_OUT))
    return Logged(*why, packet, in_by, out_by, in_port, out_port, _seconds(found.get(_TIME, b"")))


def _why(prefix: bytes) -> Prefix | None:
    """`pf:denied-ingress` and the like."""
    text = prefix.rstrip(b"\0").decode("ascii", "replace")
    head, colon, rest = text.partition(":")
    word, dash, end = rest.partition("-")
    if head != "pf" or not colon:
        return None
    for why in get_args(Why):
        if word == why:
            for direction in get_args(Direction):
                if end == direction:
                    return why, direction
            return None if dash else (why, None)
    return None


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big") if len(value) == 4 else 0


def _seconds(value: bytes) -> float:
    if len(value) != 16:
        return 0.0
    seconds, micros = struct.unpack("!QQ", value)
    return float(seconds + micros / 1e6)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16 or at + length > len(data):
            return
        yield (kind, data[at + 16 : at + length])
        at += padded(length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > len(data):
            return
        yield kind & _TYPE_BITS, data[at + 4 : at + length]
        at += padded(length)


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)
