"""Sets of protocol and port: a closed algebra with one form for each set.

A NetworkPolicy speaks of TCP, UDP and SCTP by port. What is none of these (ICMP among it) is allowed only by a rule
without `ports` (semantics, rows 10 and 22), so one flag says whether it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from compiler import intervals
from compiler.intervals import Intervals
from policy.model import PROTOCOLS, Protocol

FULL: Intervals = ((0, 65535),)


class PortSet(Struct, frozen=True, order=True, cache_hash=True):
    """Ports per protocol as inclusive ranges; `other` is every protocol that has none of the three's ports."""

    tcp: Intervals = ()
    udp: Intervals = ()
    sctp: Intervals = ()
    other: bool = False

    def of(self, protocol: Protocol) -> Intervals:
        return self.tcp if protocol == "TCP" else self.udp if protocol == "UDP" else self.sctp

    def contains(self, protocol: str, port: int) -> bool:
        """Whether a packet of `protocol` to `port` is in; the port of other protocols than the three is ignored."""
        for known in PROTOCOLS:
            if protocol == known:
                return intervals.contains(self.of(known), port)
        return self.other

    def union(self, other: PortSet) -> PortSet:
        return self if self == other else self._each(intervals.union, other, self.other or other.other)

    def intersection(self, other: PortSet) -> PortSet:
        return self._each(intervals.intersection, other, self.other and other.other)

    def difference(self, other: PortSet) -> PortSet:
        return self._each(intervals.difference, other, self.other and not other.other)

    def _each(self, op: Callable[[Intervals, Intervals], Intervals], other: PortSet, rest: bool) -> PortSet:
        return PortSet(op(self.tcp, other.tcp), op(self.udp, other.udp), op(self.sctp, other.sctp), rest)

    def covers(self, other: PortSet) -> bool:
        return not other.difference(self)

    def __bool__(self) -> bool:
        return bool(self.tcp or self.udp or self.sctp or self.other)

    @property
    def count(self) -> int:
        """How many protocol and port pairs; that of the other protocols cannot be counted and is left out."""
        return sum(intervals.size(self.of(protocol)) for protocol in PROTOCOLS)

    @property
    def ranges(self) -> int:
        """How many ranges, of all three protocols."""
        return sum(len(self.of(protocol)) for protocol in PROTOCOLS)

    def __str__(self) -> str:
        if self == ALL_PORTS:
            return "every port and protocol"
        parts = [_ranges_text(self.of(protocol), protocol) for protocol in PROTOCOLS if self.of(protocol)]
        return ", ".join(parts + ["other protocols"] * self.other) or "no port"


def _ranges_text(ranges: Intervals, protocol: str) -> str:
    if ranges == FULL:
        return f"every {protocol} port"
    return ", ".join(f"{low}/{protocol}" if low == high else f"{low}-{high}/{protocol}" for low, high in ranges)


NO_PORTS = PortSet()
ALL_PORTS = PortSet(FULL, FULL, FULL, True)


def port_range(protocol: Protocol, low: int, high: int) -> PortSet:
    """The ports `low`..`high`, both included, of one protocol."""
    ranges: Intervals = ((low, high),)
    if protocol == "TCP":
        return PortSet(tcp=ranges)
    return PortSet(udp=ranges) if protocol == "UDP" else PortSet(sctp=ranges)


def union_of(sets: Iterable[PortSet]) -> PortSet:
    """In one go: joined one by one, the many ports that an object has room for would cost the square of that."""
    every = tuple(dict.fromkeys(sets))
    if len(every) < 2:
        return every[0] if every else NO_PORTS
    tcp, udp, sctp = (intervals.normal(span for each in every for span in each.of(protocol)) for protocol in PROTOCOLS)
    return PortSet(tcp, udp, sctp, any(each.other for each in every))


class NamedPort(Struct, frozen=True, order=True):
    """A container port's name, looked up at each destination pod (semantics, row 20)."""

    protocol: Protocol
    name: str

    def __str__(self) -> str:
        return f"{self.name}/{self.protocol}"
