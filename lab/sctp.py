"""The first two messages of an SCTP association, as bytes (RFC 9260, sections 3 and 8): for kernels without SCTP.

Conntrack and firewalls see a valid INIT and a valid answer, checksums and tags included. Pure.
"""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

INIT: Final = 1
INIT_ACK: Final = 2
ABORT: Final = 6

_HEADER = struct.Struct("!HHI")
_CHUNK = struct.Struct("!BBH")
_INIT_FIELDS = struct.Struct("!IIHHI")
_STATE_COOKIE = 7


class Message(Struct, frozen=True):
    """A packet with one chunk. `tag` is the verification tag; `initiate` is the tag that the sender of an INIT or
    INIT_ACK wants to be addressed with, 0 for an ABORT; `cookie` is what an INIT_ACK carries."""

    src_port: int
    dst_port: int
    tag: int
    kind: int
    initiate: int = 0
    cookie: bytes = b""

    def answer(self, kind: int, initiate: int = 0, cookie: bytes = b"") -> Message:
        """The reply to this INIT, addressed with its initiate tag (section 8.4 for an ABORT)."""
        return Message(self.dst_port, self.src_port, self.initiate, kind, initiate, cookie)

    def encode(self) -> bytes:
        body = b""
        if self.kind != ABORT:
            body = _INIT_FIELDS.pack(self.initiate, 1 << 16, 1, 1, self.initiate)
        if self.kind == INIT_ACK:
            body += struct.pack("!HH", _STATE_COOKIE, 4 + len(self.cookie)) + self.cookie
        length = _CHUNK.size + len(body)
        chunk = _CHUNK.pack(self.kind, 0, length) + body + bytes(-length % 4)
        header = _HEADER.pack(self.src_port, self.dst_port, self.tag)
        return header + struct.pack("<I", crc32c(header + bytes(4) + chunk)) + chunk


def decode(packet: bytes) -> Message | None:
    """None for what is not an INIT, an INIT_ACK or an ABORT with a right checksum."""
    if len(packet) < 16:
        return None
    if struct.unpack_from("<I", packet, 8)[0] != crc32c(packet[:8] + bytes(4) + packet[12:]):
        return None
    src_port, dst_port, tag = _HEADER.unpack_from(packet)
    kind, _flags, length = _CHUNK.unpack_from(packet, 12)
    if kind == ABORT:
        return Message(src_port, dst_port, tag, kind)
    if kind not in (INIT, INIT_ACK) or not 20 <= length <= len(packet) - 12:
        return None
    initiate = _INIT_FIELDS.unpack_from(packet, 16)[0]
    cookie = packet[36 : 12 + length] if kind == INIT_ACK else b""
    return Message(src_port, dst_port, tag, kind, initiate, cookie)


def ports(packet: bytes) -> tuple[int, int]:
    """Source and destination port of a packet that may be cut, as an ICMP error quotes it. (0, 0) if too short."""
    return struct.unpack_from("!HH", packet) if len(packet) >= 4 else (0, 0)


def _table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, as RFC 9260 appendix A asks for it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
