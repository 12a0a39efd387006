"""A word to a pod that no interface is known for: on a bridge the kernel learns its port from the answer to ARP or
neighbour discovery, which a pod that is closed may never ask for by itself.

One empty datagram to the discard port (RFC 863) makes the node resolve the address. It is sent by the node, from which
a pod is always reached, and changes nothing but what the kernel's neighbour table would learn from any other packet.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from policy.cidr import Address

DISCARD = 9
_PAUSE = 1.0
_AT_ONCE = 64
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Nudges:
    """Each address once a second at most, and no more than 64 at once."""

    def __init__(self, clock: Callable[[], float], send: Callable[[Address], None] | None = None) -> None:
        self._clock = clock
        self._send = send or _datagram
        self._sent: dict[Address, float] = {}

    def __call__(self, addresses: Iterable[Address]) -> None:
        now = self._clock()
        self._sent = {address: at for address, at in self._sent.items() if now < at + _PAUSE}
        for address in islice((each for each in addresses if each not in self._sent), _AT_ONCE):
            self._sent[address] = now
            self._send(address)


def _datagram(address: Address) -> None:
    """What can't be sent is not needed: there is no route, so there is no bridge that could learn."""
    with suppress(OSError), socket.socket(_FAMILIES[address.family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.sendto(b"", (str(address), DISCARD))
