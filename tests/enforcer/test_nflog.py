"""Packets that rules told of, without a kernel: read whatever they hold."""

from __future__ import annotations

import struct
from random import Random

import pytest

from enforcer.kernel.headers import Headers, headers
from enforcer.kernel.nflog_wire import Logged, bind_requests, codes, logged
from policy.cidr import parse_address

SRC, DST = parse_address("10.244.2.2"), parse_address("10.244.1.3")
SRC6, DST6 = parse_address("fd00::2"), parse_address("fd00::3")
PORTS = struct.pack("!HH", 40000, 80)
SYN = PORTS + bytes(8) + bytes([0x50, 0x02]) + bytes(6)


def v4(protocol: int, body: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + len(body), 1, fragment, 64, protocol, 0)
    return head + SRC.value.to_bytes(4, "big") + DST.value.to_bytes(4, "big") + options + body


def v6(kind: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), kind, 64)
    return head + SRC6.value.to_bytes(16, "big") + DST6.value.to_bytes(16, "big") + body


@pytest.mark.parametrize(
    ("packet", "read"),
    [
        (v4(6, SYN), Headers(SRC, DST, "TCP", 40000, 80, "SYN")),
        (v4(6, SYN[:13] + b"\x12"), Headers(SRC, DST, "TCP", 40000, 80, "SYN,ACK")),
        (v4(6, SYN, options=bytes(8)), Headers(SRC, DST, "TCP", 40000, 80, "SYN")),
        (v4(6, SYN[:8]), Headers(SRC, DST, "TCP", 40000, 80)),
        (v4(17, PORTS), Headers(SRC, DST, "UDP", 40000, 80)),
        (v4(17, PORTS[:3]), Headers(SRC, DST, "UDP")),
        (v4(132, PORTS), Headers(SRC, DST, "SCTP", 40000, 80)),
        (v4(1, b"\x08\0\0\0"), Headers(SRC, DST, "ICMP")),
        (v4(47, PORTS), Headers(SRC, DST, "47")),
        (v4(17, PORTS, fragment=0x2000), Headers(SRC, DST, "UDP", 40000, 80)),
        (v4(17, PORTS, fragment=0x2001), Headers(SRC, DST, "UDP")),
        (v6(6, SYN), Headers(SRC6, DST6, "TCP", 40000, 80, "SYN")),
        (v6(58, PORTS), Headers(SRC6, DST6, "ICMPv6")),
        (v6(0, b"\x3c\0" + bytes(6) + b"\x11\1" + bytes(14) + PORTS), Headers(SRC6, DST6, "UDP", 40000, 80)),
        (v6(44, b"\x11\0\0\1" + bytes(4) + PORTS), Headers(SRC6, DST6, "UDP", 40000, 80)),
        (v6(44, b"\x11\0\0\x09" + bytes(4) + PORTS), Headers(SRC6, DST6, "UDP")),
        (v6(51, b"\x06\1" + bytes(10) + SYN), Headers(SRC6, DST6, "TCP", 40000, 80, "SYN")),
        (v6(60, b"\x06\xff" + bytes(40)), Headers(SRC6, DST6, "TCP")),
        (v6(0, b"\0\0" + bytes(200)), Headers(SRC6, DST6, "0")),
        (v6(6, b""), Headers(SRC6, DST6, "TCP")),
        (b"", None),
        (b"\x45" + bytes(18), None),
        (b"\x60" + bytes(38), None),
        (b"\x55" * 60, None),
    ],
)
def test_headers(packet: bytes, read: Headers | None) -> None:
    assert headers(packet) == read


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = 0x400) -> bytes:
    body = struct.pack("!BBH", 2, 0, 100) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_message_of_the_kernel() -> None:
    one = message(
        attribute(10, b"pf:denied-ingress\0"),
        attribute(4, struct.pack("!I", 7)),
        attribute(5, struct.pack("!I", 8)),
        attribute(6, struct.pack("!I", 9)),
        attribute(3, struct.pack("!QQ", 1000, 500000)),
        attribute(9, v4(6, SYN)),
    )
    found = list(logged(one + message(attribute(10, b"pf:spoofed\0"), attribute(9, v6(58, b"")))))
    assert found == [
        Logged("denied", "ingress", Headers(SRC, DST, "TCP", 40000, 80, "SYN"), 7, 8, 9, 0, 1000.5),
        Logged("spoofed", None, Headers(SRC6, DST6, "ICMPv6")),
    ]


@pytest.mark.parametrize("prefix", [b"pf:", b"pf:denied-", b"pf:denied-in", b"kube:denied-ingress", b"pf:other", b""])
def test_what_is_not_ours_is_none(prefix: bytes) -> None:
    assert list(logged(message(attribute(10, prefix), attribute(9, v4(6, SYN))))) == [None]


def test_audit_and_its_direction() -> None:
    (found,) = logged(message(attribute(10, b"pf:audit-egress\0"), attribute(9, v4(6, SYN))))
    assert found and (found.why, found.direction) == ("audit", "egress")


@pytest.mark.parametrize("seed", range(300))
def test_whatever_comes_is_read_without_an_error(seed: int) -> None:
    rng = Random(seed)
    whole = message(attribute(10, b"pf:denied-egress\0"), attribute(9, v6(0, b"\x2c\0" + bytes(6) + SYN * 3)))
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(rng.randint(0, 6)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 4, 44, 51, 255, rng.randrange(256)))
        cut = bytes(data[: rng.randint(0, len(data))])
        for each in (bytes(data), cut, rng.randbytes(rng.randint(0, 80))):
            list(logged(each))
            list(codes(each))
            headers(each)
            headers(bytes([rng.choice((0x40, 0x45, 0x4F, 0x60))]) + each)


def test_each_request_is_acknowledged_by_its_number() -> None:
    sent = bind_requests(100)
    numbers = []
    while sent:
        length, kind, flags, number, _, _, _, group = struct.unpack("=IHHIIBB", sent[:18]) + struct.unpack(
            "!H", sent[18:20]
        )
        numbers.append((kind, flags, number, group))
        sent = sent[length:]
    assert numbers == [(0x401, 5, number, 100) for number in (1, 2, 3)]
