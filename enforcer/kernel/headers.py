"""The beginning of a packet, read as far as a denial needs it. Pure.

What a pod sends is anybody's bytes, and only the beginning of it is here: whatever can't be read is left out, and
nothing raises.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from policy.cidr import Address

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_WITH_PORTS = ("TCP", "UDP", "SCTP")
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
# Extension headers that tell their length, in units of eight bytes beyond the first.
_EXTENSIONS = (0, 43, 60, 135, 139, 140)
_FRAGMENT, _AUTHENTICATION = 44, 51
_MOST_EXTENSIONS = 8


class Headers(Struct, frozen=True):
    """`protocol` is TCP, UDP, SCTP, ICMP, ICMPv6 or a number. Ports are None where there are none, or they can't be
    read: behind the first fragment, and where the packet is cut short. `flags` are those of TCP, `SYN,ACK`."""

    src: Address
    dst: Address
    protocol: str
    src_port: int | None = None
    port: int | None = None
    flags: str = ""


def headers(packet: bytes) -> Headers | None:
    """None where not even the addresses can be read."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return _v4(packet)
    if version == 6 and len(packet) >= 40:
        return _v6(packet)
    return None


def _v4(packet: bytes) -> Headers:
    (fragment,) = struct.unpack_from("!H", packet, 6)
    start = max(20, (packet[0] & 0xF) * 4)
    src, dst = (Address(4, int.from_bytes(packet[at : at + 4], "big")) for at in (12, 16))
    return _with_ports(packet, src, dst, packet[9], None if fragment & 0x1FFF else start)


def _v6(packet: bytes) -> Headers:
    src, dst = (Address(6, int.from_bytes(packet[at : at + 16], "big")) for at in (8, 24))
    kind, at, first = packet[6], 40, True
    for _ in range(_MOST_EXTENSIONS):
        if len(packet) < at + 8:
            break
        if kind == _FRAGMENT:
            (offset,) = struct.unpack_from("!H", packet, at + 2)
            first = first and not offset & 0xFFF8
            kind, at = packet[at], at + 8
            if not first:
                break
        elif kind in _EXTENSIONS:
            kind, at = packet[at], at + 8 + packet[at + 1] * 8
        elif kind == _AUTHENTICATION:
            kind, at = packet[at], at + 8 + packet[at + 1] * 4
        else:
            break
    return _with_ports(packet, src, dst, kind, at if first else None)


def _with_ports(packet: bytes, src: Address, dst: Address, kind: int, at: int | None) -> Headers:
    protocol = _PROTOCOLS.get(kind, str(kind))
    if at is None or protocol not in _WITH_PORTS or len(packet) < at + 4:
        return Headers(src, dst, protocol)
    src_port, port = struct.unpack_from("!HH", packet, at)
    flags = ""
    if protocol == "TCP" and len(packet) >= at + 14:
        flags = ",".join(name for bit, name in enumerate(_TCP_FLAGS) if packet[at + 13] >> bit & 1)
    return Headers(src, dst, protocol, src_port, port, flags)
