"""Requests about the connection table, as the kernel reads them over netlink (nfnetlink_conntrack.h). Pure.

header  nfgenmsg  [ORIGINAL tuple: [IP: src dst] [PROTO: number sport dport]]  [REPLY tuple: the same]  the rest
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Literal

from policy.cidr import BITS, Address, Family

# What names an entry: its address family as the kernel has it, its original tuple and, where it has one, its zone.
Identity = tuple[int, bytes]
Way = Literal["original", "reply"]
WAYS: tuple[Way, Way] = ("original", "reply")

ENTRY, _GET, _DELETE = 0x100, 0x101, 0x102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
TUPLE: dict[Way, int] = {"original": 1, "reply": 2}
TUPLE_IP, TUPLE_PROTO = 1, 2
IP_SRC: dict[Family, int] = {4: 1, 6: 3}
PROTO_NUM, PROTO_SRC_PORT = 1, 2
MARK, ZONE, MARK_MASK, FILTER = 8, 18, 21, 25
_IP_SRC_FLAG = 1
_NESTED = 0x8000
AF: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}

ATTRIBUTE = struct.Struct("=HH")
MESSAGE = struct.Struct("=IHHIIBBH")


def dump_request(
    mark: int, is_set: bool, family: Family | None = None, source: tuple[Way, Address] | None = None
) -> bytes:
    """Asks for the entries that have the bit `mark` set, or not set; of one family, or of both; of one `source`, where
    that is given: of packets of that way. Kernels before 5.8 ignore the source."""
    body = _number(MARK, mark if is_set else 0) + _number(MARK_MASK, mark)
    if source:
        way, address = source
        ip = _attribute(IP_SRC[address.family], packed(address))
        body += _nested(TUPLE[way], _nested(TUPLE_IP, ip))
        body += _nested(FILTER, _attribute(TUPLE[way], struct.pack("=I", _IP_SRC_FLAG)))
    return _message(_GET, _REQUEST | _DUMP, AF[family] if family else socket.AF_UNSPEC, body)


def mark_requests(entries: Sequence[Identity], mark: int, is_set: bool) -> bytes:
    """Sets or clears the bit `mark` of entries, and no other of their bits. They are numbered from 1. The kernel tells
    of those that fail, and of the last in any case."""
    return _requests(ENTRY, entries, _number(MARK, mark if is_set else 0) + _number(MARK_MASK, mark))


def delete_requests(entries: Sequence[Identity]) -> bytes:
    """Takes entries out of the table; numbered and answered as `mark_requests`."""
    return _requests(_DELETE, entries)


def _requests(kind: int, entries: Sequence[Identity], rest: bytes = b"") -> bytes:
    last = len(entries)
    return b"".join(
        _message(kind, _REQUEST | (_ACK if number == last else 0), family, attributes + rest, number)
        for number, (family, attributes) in enumerate(entries, 1)
    )


def packed(address: Address) -> bytes:
    """As it stands in packets."""
    return address.value.to_bytes(BITS[address.family] // 8, "big")


def padded(length: int) -> int:
    return (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _message(kind: int, flags: int, family: int, body: bytes, number: int = 0) -> bytes:
    return MESSAGE.pack(MESSAGE.size + len(body), kind, flags, number, 0, family, 0, 0) + body
