"""Connections that stay open while things change: a packet again and again from the same port, and an answer to each.

When a pod's addresses are another pod's, the other end goes on as if nothing had happened, and so may the new pod: what
was open once must be worth nothing then. UDP, since nothing in the pods' own kernels ends such a flow.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from tests.soak.packets import Asked

_MOST = 40
_PORTS = range(1024, 9999)  # other than those of first packets
_LIVES = (40, 400)  # packets
_UNASKED = 25  # packets that the new owner of an address sends into a flow of the old one


@dataclass(frozen=True)
class OpenFlow:
    """`asked` is the way of its first packet, from `port`. `backwards`: only its far end sends, without being asked.
    `inherited`: since when the addresses of one of its ends have been another pod's than the one that opened it."""

    asked: Asked
    port: int
    left: int
    backwards: bool = False
    inherited: float = 0.0

    @property
    def way_back(self) -> Asked:
        """As the oracle would be asked of an answer that is the first packet of a flow."""
        there = self.asked
        return Asked(there.dst, there.src, there.dst_address, there.src_address, there.protocol, self.port)


class OpenFlows:
    """Those that are open by now, each to be used in turn. Not thread-safe: its owner locks."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._flows: deque[OpenFlow] = deque()
        self._ports = itertools.cycle(_PORTS)
        self.answers: dict[int, OpenFlow] = {}  # by the number of a packet that is under way

    @property
    def few(self) -> bool:
        return len(self._flows) < _MOST

    def open(self, asked: Asked) -> None:
        """If it is of a protocol that has open flows here."""
        if asked.protocol == "UDP":
            self._flows.append(OpenFlow(asked, next(self._ports), self._rng.randint(*_LIVES)))

    def due(self, count: int) -> Iterator[OpenFlow]:
        for _ in range(min(count, len(self._flows))):
            flow = self._flows.popleft()
            yield flow
            if flow.left > 1:
                self._flows.append(replace(flow, left=flow.left - 1))

    def leave(self, place: str) -> list[OpenFlow]:
        """Those of a place that is about to go, of which nobody sends in any. What its far end began unasked is no
        longer a flow of one way, and is left out."""
        left = [flow for flow in self._flows if place in (flow.asked.src, flow.asked.dst)]
        self._flows = deque(flow for flow in self._flows if flow not in left)
        return [flow for flow in left if not flow.backwards]

    def inherit(self, flows: Sequence[OpenFlow], place: str, addresses: Sequence[str], now: float) -> None:
        """The flows of a place that is gone, whose addresses are those of `place` now."""
        for flow in flows:
            there = flow.asked
            src = place if there.src_address in addresses else there.src
            dst = place if there.dst_address in addresses else there.dst
            backwards = dst == place and self._rng.random() < 0.5
            asked, left = there._replace(src=src, dst=dst), _UNASKED if backwards else flow.left + _UNASKED
            self._flows.append(OpenFlow(asked, flow.port, left, backwards, inherited=now))
