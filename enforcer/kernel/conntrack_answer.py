"""What the kernel answers about the connection table, read. Pure.

100,000 entries are read in tens of milliseconds: the kernel writes the two tuples first and in one order, so all that
decides the verdict on a flow of TCP, UDP or SCTP stands at fixed places, and is taken in one step. Whatever looks
different is read attribute by attribute. Where few addresses are looked for, an entry that begins as most do and has
none of them is not read further.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from enforcer.kernel.conntrack_wire import (
    AF,
    ATTRIBUTE,
    ENTRY,
    IP_SRC,
    MESSAGE,
    PROTO_NUM,
    PROTO_SRC_PORT,
    TUPLE,
    TUPLE_IP,
    TUPLE_PROTO,
    WAYS,
    ZONE,
    Identity,
    padded,
)
from policy.cidr import BITS, Family

_ERROR, _DONE = 2, 3
_TYPE_BITS = 0x3FFF
_NO_PORT = b"\0\0"
_PORT_PROTOCOLS = frozenset((6, 17, 132))
_HEADER = struct.Struct("=IH")
_FAMILY_AT = 16
_RESULT = struct.Struct("=IHHIIi")


class Tracked(NamedTuple):
    """A flow as policies see it: its first packet's source, and where that packet went after destination NAT, which is
    where answers come from. Addresses and port are as they stand in packets; only TCP, UDP and SCTP have a port.
    `answer` and `at` say where the entry stands, for `identity`."""

    src: bytes
    dst: bytes
    protocol: int
    port: bytes
    answer: bytes
    at: int


# Takes the fields, needs so many bytes, and what must stand in the fields that are headers.
Usual = tuple[Callable[[bytes, int], tuple[Any, ...]], int, tuple[int | bytes, ...]]


class Refused(OSError):
    """The kernel answered with an error number."""


def _no_sense() -> int:
    """For lengths of 0, which would be read for ever."""
    raise Refused(errno.EPROTO, os.strerror(errno.EPROTO))


def entries(receive: Callable[[], bytes]) -> Iterator[Tracked]:
    """The entries of a dump. Refused where the kernel says so."""
    while True:
        answer = receive()
        at, end = 0, len(answer)
        while at < end:
            usual, size, headers = _USUAL.get(answer[at + _FAMILY_AT], _NONE_USUAL)
            if end - at >= size:
                length, kind, both, ip, src, ip2, dst, num, protocol, sport, port = usual(answer, at)
                if (kind, both, ip, ip2, num, sport) == headers and protocol in _PORT_PROTOCOLS:
                    yield Tracked(src, dst, protocol, port, answer, at)
                    at += length or _no_sense()
                    continue
            length, kind = _HEADER.unpack_from(answer, at)
            if kind != ENTRY:
                _check(answer, at)
                return
            yield _decode(answer, at)
            at += length or _no_sense()


def entries_with(receive: Callable[[], bytes], ends: Collection[bytes]) -> Iterator[Tracked]:
    """The entries of a dump that have one of `ends` for source or, behind NAT, for destination."""
    while True:
        answer = receive()
        at, end = 0, len(answer)
        while at < end:
            fields, size, headers = _ENDS.get(answer[at + _FAMILY_AT], _NONE_USUAL)
            if end - at >= size:
                length, kind, both, ip, src, ip2, dst = fields(answer, at)
                if (kind, both, ip, ip2) == headers and src not in ends and dst not in ends:
                    at += length or _no_sense()
                    continue
            length, kind = _HEADER.unpack_from(answer, at)
            if kind != ENTRY:
                _check(answer, at)
                return
            flow = _flow(answer, at, at + length)
            if flow.src in ends or flow.dst in ends:
                yield flow
            at += length or _no_sense()


def _flow(answer: bytes, at: int, end: int) -> Tracked:
    """One entry, as fast as it can be."""
    usual, size, headers = _USUAL.get(answer[at + _FAMILY_AT], _NONE_USUAL)
    if end - at >= size:
        _, kind, both, ip, src, ip2, dst, num, protocol, sport, port = usual(answer, at)
        if (kind, both, ip, ip2, num, sport) == headers and protocol in _PORT_PROTOCOLS:
            return Tracked(src, dst, protocol, port, answer, at)
    return _decode(answer, at)


def _usual(family: Family) -> Usual:
    """How an entry of a protocol with ports begins."""
    width = BITS[family] // 8
    other_ip, ports = f"{4 + width}x", "4x8x8x8x"
    original = f"H2x4x4s{width}s{other_ip}{ports}"
    reply = f"4x4x4s{width}s{other_ip}4x4sB3x4s2s2x8x"
    ip = ATTRIBUTE.pack(4 + width, IP_SRC[family])
    tuple_length = struct.calcsize("=" + original)
    headers = (ENTRY, tuple_length, ip, ip, ATTRIBUTE.pack(5, PROTO_NUM), ATTRIBUTE.pack(6, PROTO_SRC_PORT))
    layout = struct.Struct(f"=IH14x{original}{reply}")
    return layout.unpack_from, layout.size, headers


def _ends(family: Family) -> Usual:
    """The two ends of an entry whose first tuple is as long as one with two ports."""
    width = BITS[family] // 8
    original = f"H2x4x4s{width}s{4 + width}x4x8x8x8x"
    layout = struct.Struct(f"=IH14x{original}4x4x4s{width}s")
    ip = ATTRIBUTE.pack(4 + width, IP_SRC[family])
    return layout.unpack_from, layout.size, (ENTRY, struct.calcsize("=" + original), ip, ip)


_USUAL = {AF[family]: _usual(family) for family in BITS}
_ENDS = {AF[family]: _ends(family) for family in BITS}
_NONE_USUAL: Usual = (struct.Struct("").unpack_from, sys.maxsize, ())


def _check(answer: bytes, at: int) -> None:
    """The message at `at` ends the dump: Refused unless it ends it well."""
    _, kind = _HEADER.unpack_from(answer, at)
    (code,) = struct.unpack_from("=i", answer, at + 16) if kind in (_ERROR, _DONE) else (0,)
    if kind != _DONE or code:
        raise Refused(-code or errno.EPROTO, os.strerror(-code or errno.EPROTO))


def results(answer: bytes) -> Iterator[tuple[int, int]]:
    """Numbers of requests, each with its error number, 0 for success."""
    at = 0
    while at < len(answer):
        length, _, _, number, _, code = _RESULT.unpack_from(answer, at)
        yield number, -code
        at += padded(length) or _no_sense()


def identity(flow: Tracked) -> Identity:
    """What names the flow's entry to the kernel. A zone stands right behind the two tuples."""
    answer, first = flow.answer, flow.at + MESSAGE.size
    reply = first + ATTRIBUTE.unpack_from(answer, first)[0]
    behind = reply + ATTRIBUTE.unpack_from(answer, reply)[0]
    length, kind = ATTRIBUTE.unpack_from(answer, behind)
    zone = answer[behind : behind + padded(length)] if kind == ZONE else b""
    return answer[flow.at + _FAMILY_AT], answer[first:reply] + zone


def _decode(answer: bytes, at: int) -> Tracked:
    """Any entry."""
    length, _ = _HEADER.unpack_from(answer, at)
    found = _attributes(answer, at + MESSAGE.size, at + length)
    original, reply = (_attributes(answer, *found[TUPLE[way]]) for way in WAYS)
    proto = _attributes(answer, *reply[TUPLE_PROTO])
    number = answer[proto[PROTO_NUM][0]]
    port = answer[slice(*proto[PROTO_SRC_PORT])] if number in _PORT_PROTOCOLS else _NO_PORT
    return Tracked(_source(answer, original), _source(answer, reply), number, port, answer, at)


def _source(answer: bytes, of_tuple: dict[int, tuple[int, int]]) -> bytes:
    ip = _attributes(answer, *of_tuple[TUPLE_IP])
    return answer[slice(*(ip.get(IP_SRC[4]) or ip[IP_SRC[6]]))]


def _attributes(data: bytes, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Type to where its value begins and ends, of the attributes between `start` and `end`."""
    found = {}
    while start < end:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        found[kind & _TYPE_BITS] = (start + 4, start + length)
        start += padded(length) or _no_sense()
    return found
