"""The raw sockets of one place of the lab, by which it sends probes and sees those that reach it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from lab.cluster import Lab
from tests.soak.packets import PROTOCOLS

_NUMBERS = {
    ("UDP", 4): socket.IPPROTO_UDP,
    ("TCP", 4): socket.IPPROTO_TCP,
    ("ICMP", 4): socket.IPPROTO_ICMP,
    ("UDP", 6): socket.IPPROTO_UDP,
    ("TCP", 6): socket.IPPROTO_TCP,
    ("ICMP", 6): socket.IPPROTO_ICMPV6,
}
_IPV6_CHECKSUM = 7
_CHECKSUM_AT = {"UDP": 6, "TCP": 16}
_ICMP_FILTER, _ICMP6_FILTER, _SOL_RAW = 1, 1, 255
_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33


class Station:
    """`sockets` by family and protocol; bound to the place's own addresses, so that it sends and gets by no other."""

    def __init__(self, lab: Lab, place: str, addresses: Sequence[str]) -> None:
        self.place = place
        self.addresses = {6 if ":" in each else 4: each for each in addresses}
        self.sockets: dict[tuple[int, str], socket.socket] = {}
        with lab.inside(place):
            for family, address in self.addresses.items():
                for protocol in PROTOCOLS:
                    self.sockets[family, protocol] = _raw(family, protocol, address)

    def close(self) -> None:
        for each in self.sockets.values():
            with suppress(OSError):
                each.close()


def _raw(family: int, protocol: str, address: str) -> socket.socket:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    sock = socket.socket(kind, socket.SOCK_RAW, _NUMBERS[protocol, family])
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if protocol == "ICMP":
            _only_requests(sock, family)
        elif family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _CHECKSUM_AT[protocol])
        sock.setblocking(False)
        sock.bind((str(ip_address(address)), 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _only_requests(sock: socket.socket, family: int) -> None:
    """Denials come back as ICMP errors, which nobody here reads."""
    if family == 4:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << 8) & 0xFFFFFFFF))
    else:
        words = [0xFFFFFFFF] * 8
        words[128 // 32] &= ~(1 << 128 % 32)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
