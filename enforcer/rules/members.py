"""What a set holds: fixed networks, and pods that come and go.

A set is specified by symbols (which peers, at which ports), so that rules never depend on who is there at the moment.
Its elements follow from the members of its peers, at once or change by change; both ways agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from compiler.compile import State
from compiler.members import Member
from compiler.peers import EVERY_POD, PeerSet, Source
from enforcer.rules.names import set_name
from enforcer.rules.ruleset import Element, IpProtocol, IpSet, SetType
from policy.cidr import BITS, Family, Prefix
from policy.model import Protocol

IP_PROTOCOL: dict[Protocol, IpProtocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
Pairs = tuple[tuple[Protocol, int], ...]


class SetSpec(Struct, frozen=True):
    """One set by identity. Each of `sources` brings its members, at each of its pairs of protocol and port where it has
    any (a named port's members bring their own). `fixed` never changes. `counters` as an `IpSet` has them."""

    name: str
    type: SetType
    family: Family
    sources: tuple[tuple[Source, Pairs], ...]
    fixed: frozenset[Element]
    counters: bool = False


def everyone_set(family: Family, in_use: bool) -> SetSpec:
    """All pods of the cluster that have been heard of, or none where nobody asks; and how often each was denied what it
    sent to this node's pods. Nobody's verdict depends on it."""
    sources: tuple[tuple[Source, Pairs], ...] = ((EVERY_POD, ()),) if in_use else ()
    return SetSpec(set_name(family, "everyone"), "hash:ip", family, sources, frozenset(), counters=True)


def fill(spec: SetSpec, state: State) -> IpSet:
    """The set with the elements of this moment."""
    elements = set(spec.fixed)
    for source, pairs in spec.sources:
        elements.update(elements_of(members_of(source, state), pairs, spec.family))
    return IpSet(spec.name, spec.type, frozenset(elements), spec.counters)


def members_of(source: Source, state: State) -> frozenset[Member]:
    return state.members(source) if isinstance(source, PeerSet) else state.named_members(*source)


def elements_of(members: Iterable[Member], pairs: Pairs, family: Family) -> Iterable[Element]:
    for address, protocol, port in members:
        if address.family != family:
            continue
        host = Prefix(family, address.value, BITS[family])
        if protocol:
            yield Element(host, IP_PROTOCOL[protocol], port)
        elif not pairs:
            yield Element(host)
        for its_protocol, its_port in pairs:
            yield Element(host, IP_PROTOCOL[its_protocol], its_port)


class LiveSet:
    """The elements of one set, kept up with its sources. An element that two sources bring stays until both let go."""

    def __init__(self, spec: SetSpec, state: State) -> None:
        self.spec = spec
        self._counts: Counter[Element] = Counter(spec.fixed)
        for source, pairs in spec.sources:
            self._counts.update(elements_of(members_of(source, state), pairs, spec.family))
        self._elements: frozenset[Element] | None = None

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def elements(self) -> frozenset[Element]:
        """One object until a change."""
        if self._elements is None:
            self._elements = frozenset(self._counts)
        return self._elements

    @property
    def ipset(self) -> IpSet:
        return IpSet(self.spec.name, self.spec.type, self.elements, self.spec.counters)

    def change(
        self, source: Source, joined: Iterable[Member], left: Iterable[Member]
    ) -> tuple[frozenset[Element], frozenset[Element]]:
        """Members of one source come and go; the elements that appear and those that disappear."""
        before: dict[Element, bool] = {}
        for its_source, pairs in self.spec.sources:
            if its_source != source:
                continue
            for members, step in ((joined, 1), (left, -1)):
                for element in elements_of(members, pairs, self.spec.family):
                    before.setdefault(element, element in self._counts)
                    self._counts[element] += step
                    if not self._counts[element]:
                        del self._counts[element]
        now = {element: element in self._counts for element in before}
        if now != before:
            self._elements = None
        return (
            frozenset(element for element, there in now.items() if there and not before[element]),
            frozenset(element for element, there in now.items() if not there and before[element]),
        )
