"""The fields of a packet as whole numbers, for `regions`, and a packet of flesh and blood for what is found there."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import get_args

from msgspec import Struct

from compiler import intervals
from compiler.intervals import Intervals
from compiler.ports import PortSet
from compiler.prefixes import WHOLE
from enforcer.readback.regions import (
    CONNECTION,
    DST,
    FIELDS,
    ICMP,
    IN,
    OUT,
    PORT_IN,
    PORT_OUT,
    SERVICE,
    SRC,
    SRC_PORT,
    SYN,
    Box,
    Fields,
    Space,
    bits,
)
from enforcer.readback.simulate import PORT_PROTOCOLS, Packet
from enforcer.rules.ruleset import CtDirection, CtState
from policy.cidr import Address, Family, parse_address
from policy.model import PROTOCOLS


class Connection(Struct, frozen=True):
    """What conntrack says of a packet; of one that is not tracked it says neither `marked` nor `direction`, and no
    match of either kind is fulfilled."""

    state: CtState
    marked: bool | None = None
    direction: CtDirection | None = None


# Every combination there is: what is new goes the way of the first packet.
CONNECTIONS = (
    *(Connection("NEW", marked, "ORIGINAL") for marked in (False, True)),
    *(
        Connection(state, marked, direction)
        for state in get_args(CtState)
        if state in ("ESTABLISHED", "RELATED")
        for marked in (False, True)
        for direction in get_args(CtDirection)
    ),
    Connection("INVALID"),
    Connection("UNTRACKED"),
)
# A service is a protocol and a port, each protocol a stretch of 65,536 numbers. The last stands for all protocols that
# no rule can name; the documents' experimental one, when a packet is shown.
_SERVICES = (*PORT_PROTOCOLS, "icmp", "ipv6-icmp", "253")
_PORTS = 1 << 16
EVERY_SERVICE: Intervals = ((0, len(_SERVICES) * _PORTS - 1),)
# Where a packet's address may be anybody's, it is one that documents use (RFC 5737, RFC 3849).
_ANYBODY: dict[Family, Address] = {4: parse_address("192.0.2.1"), 6: parse_address("2001:db8::1")}
# More interfaces than a host has: names are numbered from the last downwards, so that below them is what nobody names.
_NOWHERE, _LAST_INTERFACE = 0, 1 << 20


def protocol_services(name: str) -> Intervals:
    start = _SERVICES.index(name) * _PORTS
    return ((start, start + _PORTS - 1),)


def port_services(ranges: Intervals) -> Intervals:
    """These ports of all protocols that have ports."""
    return tuple(
        (number * _PORTS + low, number * _PORTS + high) for number in range(len(PORT_PROTOCOLS)) for low, high in ranges
    )


def service(protocol: str, port: int) -> Intervals:
    return intervals.intersection(protocol_services(protocol), port_services(((port, port),)))


def services(ports: PortSet) -> Intervals:
    """What an allow-set's ports stand for, as whole protocols where it says so."""
    found = [(n * _PORTS + low, n * _PORTS + high) for n, p in enumerate(PROTOCOLS) for low, high in ports.of(p)]
    if ports.other:
        found.append((len(PORT_PROTOCOLS) * _PORTS, len(_SERVICES) * _PORTS - 1))
    return intervals.normal(found)


def connections(
    states: Container[CtState] = get_args(CtState), marked: bool | None = None, direction: CtDirection | None = None
) -> Intervals:
    """Those of the given states, and marked (or not) and of the direction where that is asked for."""
    return intervals.normal(
        (number, number)
        for number, found in enumerate(CONNECTIONS)
        if found.state in states and marked in (None, found.marked) and direction in (None, found.direction)
    )


class Interfaces:
    """Numbers of interfaces: none at all, any that nobody names, and those that were named."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": _NOWHERE}

    def named(self, names: Iterable[str]) -> Intervals:
        return intervals.normal(
            (self._numbers.setdefault(n, _LAST_INTERFACE + 1 - len(self._numbers)),) * 2 for n in names
        )

    @property
    def some(self) -> Intervals:
        """Every interface, named or not."""
        return ((_NOWHERE + 1, _LAST_INTERFACE),)

    @property
    def none(self) -> Intervals:
        return ((_NOWHERE, _NOWHERE),)

    @property
    def unnamed(self) -> Intervals:
        """Those that nobody has named so far."""
        return ((_NOWHERE + 1, _LAST_INTERFACE + 1 - len(self._numbers)),)

    def name(self, number: int) -> str:
        found = next((name for name, known in self._numbers.items() if known == number), None)
        if found is None:
            return next(name for n in range(len(self._numbers) + 1) if (name := f"eth{n}") not in self._numbers)
        return found


class PacketSpace:
    """The space of one family's packets, cut for `terms`; `mark` is the bit that revokes. A packet that is shown has
    one of `addresses` where it can, else one that documents use, and otherwise what is usual."""

    def __init__(
        self, family: Family, mark: int, interfaces: Interfaces, terms: Iterable[Fields], addresses: Sequence[Address]
    ) -> None:
        ((_, last),) = WHOLE[family]
        self._family = family
        self._mark = mark
        self._interfaces = interfaces
        by_choice = intervals.normal((address.value,) * 2 for address in addresses)
        anybody = ((_ANYBODY[family].value,) * 2,)
        liked: list[Fields] = [{field: spans} for field in (SRC, DST) for spans in (by_choice, anybody)]
        liked += [{SERVICE: service(protocol, 80)} for protocol in PORT_PROTOCOLS]
        liked += [{field: interfaces.unnamed} for field in (IN, OUT)]
        liked += [{field: interfaces.none} for field in (PORT_IN, PORT_OUT)]
        liked.append({CONNECTION: connections(["NEW"], marked=False)})
        liked += [{SRC_PORT: ((40000, 40000),)}, {ICMP: ((128, 128),)}, {SYN: ((1, 1),)}]
        lasts = {SERVICE: EVERY_SERVICE[0][1], CONNECTION: len(CONNECTIONS) - 1, SRC_PORT: _PORTS - 1, ICMP: 255}
        lasts |= dict.fromkeys((IN, OUT, PORT_IN, PORT_OUT), _LAST_INTERFACE)
        lasts |= {SYN: 1, SRC: last, DST: last}
        self.space = Space([lasts[field] for field in FIELDS], [*terms, *liked])
        self._liked = [(field, self.space.axes[field].mask(span)) for term in liked for field, span in term.items()]

    def point(self, box: Box) -> Box:
        """One atom of each field of `box`."""
        return tuple(self._choose(box, field) for field in FIELDS)

    def packet(self, point: Box) -> Packet:
        """A packet in a box of one atom a field."""
        value = {field: self.space.axes[field].first(point[field]) for field in FIELDS}
        protocol, port = divmod(value[SERVICE], _PORTS)
        connection = CONNECTIONS[value[CONNECTION]]
        return Packet(
            src=Address(self._family, value[SRC]),
            dst=Address(self._family, value[DST]),
            protocol=_SERVICES[protocol],
            port=port,
            in_interface=self._interfaces.name(value[IN]),
            out_interface=self._interfaces.name(value[OUT]),
            state=connection.state,
            src_port=value[SRC_PORT],
            icmp_type=value[ICMP],
            syn=value[SYN] == 1,
            mark=self._mark if connection.marked else 0,
            ct_direction=connection.direction or "ORIGINAL",
            in_port=self._interfaces.name(value[PORT_IN]),
            out_port=self._interfaces.name(value[PORT_OUT]),
        )

    def _choose(self, box: Box, field: int) -> int:
        liked = (both for of, mask in self._liked if of == field and (both := box[field] & mask))
        return next(bits(next(liked, box[field])))
