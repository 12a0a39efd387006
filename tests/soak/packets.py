"""The probes as bytes: each the first packet of a flow of its own, with its number inside."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple

PROTOCOLS = ("UDP", "TCP", "ICMP")
_SYN = 2
_FIRST_PORT, _PORTS = 10_000, 50_000


class Asked(NamedTuple):
    """A flow but for its source port, which is another for each probe."""

    src: str
    dst: str
    src_address: str
    dst_address: str
    protocol: str
    port: int

    @property
    def family(self) -> int:
        return 6 if ":" in self.src_address else 4

    def __str__(self) -> str:
        port = "" if self.protocol == "ICMP" else f" {self.port}"
        return f"{self.src} ({self.src_address}) -> {self.dst} ({self.dst_address}) {self.protocol}{port}"


def source_port(number: int) -> int:
    return _FIRST_PORT + number % _PORTS


def build(asked: Asked, number: int, turn: int) -> bytes:
    """From the transport header on. `turn` counts the probes of this flow; the kernel fills in checksums of IPv6."""
    port = source_port(turn)
    if asked.protocol == "UDP":
        return datagram(port, asked.port, number)
    if asked.protocol == "TCP":
        made = struct.pack("!HHIIBBHHH", port, asked.port, number, 0, 5 << 4, _SYN, 64240, 0, 0)
        return made if asked.family == 6 else _summed(made, 16, _pseudo(asked, socket.IPPROTO_TCP, len(made)))
    if asked.family == 6:
        return struct.pack("!BBHHHI", 128, 0, 0, port, 1, number)
    return _summed(struct.pack("!BBHHHI", 8, 0, 0, port, 1, number), 2, b"")


def datagram(src_port: int, dst_port: int, number: int) -> bytes:
    return struct.pack("!HHHHI", src_port, dst_port, 12, 0, number)


def number_in(protocol: str, family: int, data: bytes) -> int | None:
    """Of a packet as a raw socket gives it; None where it is no probe."""
    if family == 4:
        data = data[(data[0] & 15) * 4 :]
    if protocol == "UDP":
        return int.from_bytes(data[8:12], "big") if len(data) == 12 else None
    if protocol == "TCP":
        return int.from_bytes(data[4:8], "big") if len(data) >= 20 and data[13] == _SYN else None
    return int.from_bytes(data[8:12], "big") if len(data) == 12 and data[0] in (8, 128) else None


def _pseudo(asked: Asked, protocol: int, length: int) -> bytes:
    ends = ip_address(asked.src_address).packed + ip_address(asked.dst_address).packed
    return ends + struct.pack("!BBH", 0, protocol, length)


def _summed(data: bytes, at: int, pseudo: bytes) -> bytes:
    whole = pseudo + data
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~(total + (total >> 16)) & 0xFFFF
    return data[:at] + struct.pack("!H", total) + data[at + 2 :]
