"""Packets that no socket would send, built byte by byte, with right checksums. Pure."""

from __future__ import annotations

import socket
import struct

from tests.enforcer.bridged import checksum

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DEST_OPTIONS = 0, 43, 44, 60
ETHERTYPE = {4: 0x0800, 6: 0x86DD}


def _even(data: bytes) -> bytes:
    return data + bytes(len(data) % 2)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ip4(
    src: str,
    dst: str,
    protocol: int,
    data: bytes,
    *,
    offset: int = 0,
    more: bool = False,
    options: bytes = b"",
    number: int = 1,
) -> bytes:
    """`offset` in units of eight bytes."""
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | size // 4,
        0,
        size + len(data),
        number,
        more << 13 | offset,
        64,
        protocol,
        0,
        packed(src),
        packed(dst),
    )
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def ip6(src: str, dst: str, following: int, data: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(data), following, 64) + packed(src) + packed(dst) + data


def fragment6(following: int, data: bytes, *, offset: int = 0, more: bool = False, number: int = 1) -> bytes:
    return struct.pack("!BBHI", following, 0, offset << 3 | more, number) + data


def ip(src: str, dst: str, protocol: int, data: bytes) -> bytes:
    return ip6(src, dst, protocol, data) if ":" in src else ip4(src, dst, protocol, data)


def _sum(src: str, dst: str, protocol: int, data: bytes) -> int:
    return checksum(_even(packed(src) + packed(dst) + struct.pack("!II", len(data), protocol) + data))


def tcp(
    src: str,
    dst: str,
    port: int,
    flags: int,
    payload: bytes = b"",
    *,
    from_port: int = 40000,
    seq: int = 1,
    ack: int = 0,
) -> bytes:
    head = struct.pack("!HHIIBBHHH", from_port, port, seq, ack, 5 << 4, flags, 8192, 0, 0)
    found = _sum(src, dst, TCP, head + payload)
    return head[:16] + struct.pack("!H", found) + head[18:] + payload


def udp(src: str, dst: str, port: int, payload: bytes, from_port: int = 40000) -> bytes:
    head = struct.pack("!HHHH", from_port, port, 8 + len(payload), 0)
    found = _sum(src, dst, UDP, head + payload)
    return head[:6] + struct.pack("!H", found or 0xFFFF) + payload


def loose_source_route(*hops: str) -> bytes:
    """The IPv4 option, padded: a packet goes to its destination first, then on to `hops`."""
    body = struct.pack("!BBB", 131, 3 + 4 * len(hops), 4) + b"".join(map(packed, hops))
    return body + bytes(-len(body) % 4)


def routing6(kind: int, following: int, *hops: str) -> bytes:
    """A routing header: of kind 0, which RFC 5095 forbids, or 4, segments (RFC 8754). Hops are in the order of their
    visit, after the packet's own destination."""
    count = len(hops)
    if kind == 4:
        # Segments stand backwards; the one that is being visited is the packet's destination.
        hops = (*reversed(hops), "::")
        fixed = struct.pack("!BBBBBBH", following, 2 * len(hops), kind, count, count, 0, 0)
    else:
        fixed = struct.pack("!BBBBI", following, 2 * count, kind, count, 0)
    return fixed + b"".join(map(packed, hops))


def arp(kind: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """Kind 1 asks, 2 answers."""
    macs = (bytes.fromhex(mac.replace(":", "")) for mac in (sender_mac, target_mac))
    src, dst = macs
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind) + src + packed(sender) + dst + packed(target)


def advertisement(mac: str, address: str, dst: str) -> bytes:
    """A neighbour advertisement for `address`, which overrides what is known."""
    body = struct.pack("!I", 0x20000000) + packed(address) + b"\x02\x01" + bytes.fromhex(mac.replace(":", ""))
    message = struct.pack("!BBH", 136, 0, 0) + body
    found = _sum(address, dst, ICMP6, message)
    message = message[:2] + struct.pack("!H", found) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(message), ICMP6, 255) + packed(address) + packed(dst) + message


def unreachable(src: str, dst: str, about: bytes) -> bytes:
    """The ICMP message that the port of the packet `about` can't be reached."""
    kind, code = (1, 4) if ":" in src else (3, 3)
    body = _even(bytes(4) + about)
    if ":" in src:
        found = _sum(src, dst, ICMP6, bytes([kind, code, 0, 0]) + body)
    else:
        found = checksum(bytes([kind, code, 0, 0]) + body)
    return struct.pack("!BBH", kind, code, found) + body
