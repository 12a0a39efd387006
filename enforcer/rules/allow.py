"""The chain of one allow-set, and the sets that it looks in: what returns is allowed, the rest is denied."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from compiler import intervals
from compiler.allowset import AllowSet
from compiler.intervals import Intervals
from compiler.peers import PeerSet, Source
from compiler.ports import ALL_PORTS, FULL, NamedPort, PortSet
from compiler.prefixes import cover, disjoint_cover
from enforcer.rules.cost import Shape, shape
from enforcer.rules.members import IP_PROTOCOL, Pairs, SetSpec
from enforcer.rules.names import DENY, allow_chain, set_name
from enforcer.rules.ruleset import DstPorts, Element, Goto, InSet, Match, Proto, Return, Rule, SetType
from policy.cidr import BITS, Family
from policy.model import PROTOCOLS, Direction, Protocol

MULTIPORT_SLOTS = 15


class AllowChain(Struct, frozen=True):
    """Rules and sets of one allow-set in one direction and family; the sets by identity, without a generation. `name`
    follows from the rules. Where nothing is allowed there are none, and it is the chain that denies."""

    name: str
    rules: tuple[Rule, ...]
    sets: tuple[SetSpec, ...]


def sources(allow: AllowSet, family: Family) -> Iterable[Source]:
    """Those whose members the sets of `allow_rules` hold, whichever the direction: it decides which end of a packet is
    looked for in them, and not whose addresses they hold."""
    spread = _shape(allow, family)
    yield from (PeerSet(peers.pods) for _, peers in spread.rules if peers.pods)
    for ports, peers in spread.folded:
        if isinstance(ports, NamedPort):
            yield ports, peers
        elif peers.pods:
            yield PeerSet(peers.pods)


# A new allow-set is asked for its sources, and then for its rules.
_lately: deque[tuple[AllowSet, Family, Shape]] = deque(maxlen=16)


def _shape(allow: AllowSet, family: Family) -> Shape:
    for known, its_family, found in _lately:
        if known is allow and its_family == family:
            return found
    _lately.append((allow, family, shape(allow.grants, family)))
    return _lately[-1][2]


def allow_rules(allow: AllowSet, direction: Direction, family: Family) -> AllowChain:
    spread = _shape(allow, family)
    rules: list[Rule] = []
    sets: list[SetSpec] = []
    # What needs no lookup comes first.
    for ports, peers in sorted(spread.rules, key=lambda group: not group[1].addresses.is_whole(family)):
        lookup: tuple[Match, ...] = ()
        if not peers.addresses.is_whole(family):
            sets.append(_peer_set(peers, family))
            lookup = (InSet(sets[-1].name, ("src" if direction == "ingress" else "dst",)),)
        rules += (Rule((*match, *lookup), Return()) for match in port_matches(ports))
    if spread.folded:
        sets.append(_folded_set(spread, direction, family))
        fields = InSet(sets[-1].name, ("src" if direction == "ingress" else "dst", "dst"))
        rules.append(Rule((fields,), Return()))
    if not rules:
        return AllowChain(DENY[direction], (), ())
    whole = (*rules, Rule((), Goto(DENY[direction])))
    return AllowChain(allow_chain(repr(whole)), whole, tuple(sets))


def port_matches(ports: PortSet) -> Iterable[tuple[Match, ...]]:
    """The matches of as many rules as `ports` need. Allow-sets never hold the other protocols without all ports."""
    if ports == ALL_PORTS:
        yield ()
        return
    for protocol in PROTOCOLS:
        ranges = ports.of(protocol)
        proto = Proto(IP_PROTOCOL[protocol])
        if ranges == FULL:
            yield (proto,)
        elif ranges:
            for chunk in _chunks(ranges):
                yield (proto, DstPorts(chunk))


def _chunks(ranges: Intervals) -> Iterable[Intervals]:
    chunk: list[tuple[int, int]] = []
    slots = 0
    for low, high in ranges:
        needed = 1 if low == high else 2
        if slots + needed > MULTIPORT_SLOTS:
            yield tuple(chunk)
            chunk, slots = [], 0
        chunk.append((low, high))
        slots += needed
    yield tuple(chunk)


def _peer_set(peers: PeerSet, family: Family) -> SetSpec:
    """The addresses of `peers`, which a single lookup finds: pods' beside blocks in a set of networks."""
    content = msgspec.json.encode(peers).decode()
    sources: tuple[tuple[Source, Pairs], ...] = ((PeerSet(peers.pods), ()),) if peers.pods else ()
    if not peers.addresses:
        return SetSpec(set_name(family, "ip", content), "hash:ip", family, sources, frozenset())
    blocks = _networks(peers.addresses.of(family), family, bool(peers.pods))
    return SetSpec(set_name(family, "net", content), "hash:net", family, sources, frozenset(blocks))


def _folded_set(spread: Shape, direction: Direction, family: Family) -> SetSpec:
    """Every product of peers and ports as elements. Blocks are joined by port first: the cover of one group must not
    hold a `nomatch` where another group matches."""
    content = msgspec.json.encode((direction, spread.folded)).decode()
    sources: list[tuple[Source, Pairs]] = []
    blocks: dict[tuple[Protocol, int], list[tuple[int, int]]] = {}
    for ports, peers in spread.folded:
        if isinstance(ports, NamedPort):
            sources.append(((ports, peers), ()))
            continue
        pairs = tuple(_pairs(ports))
        if peers.pods:
            sources.append((PeerSet(peers.pods), pairs))
        for pair in pairs if peers.addresses else ():
            blocks.setdefault(pair, []).extend(peers.addresses.of(family))
    fixed = frozenset(
        Element(block.prefix, IP_PROTOCOL[protocol], port, nomatch=block.nomatch)
        for (protocol, port), ranges in blocks.items()
        for block in _networks(intervals.normal(ranges), family, bool(sources))
    )
    kind, set_type = ("npt", _NETWORKS) if blocks else ("ipt", _HOSTS)
    return SetSpec(set_name(family, kind, content), set_type, family, tuple(sources), fixed)


_NETWORKS: SetType = "hash:net,port"
_HOSTS: SetType = "hash:ip,port"


def _pairs(ports: PortSet) -> Iterable[tuple[Protocol, int]]:
    for protocol in PROTOCOLS:
        for low, high in ports.of(protocol):
            for port in range(low, high + 1):
                yield protocol, port


def _networks(ranges: Intervals, family: Family, beside_pods: bool) -> list[Element]:
    """The blocks as elements. A `nomatch` of one single address could be a pod's own element too, and an element is one
    or the other: beside pods such a cover is avoided."""
    entries = cover(ranges, family)
    if beside_pods and any(entry.nomatch and entry.prefix.length == BITS[family] for entry in entries):
        entries = disjoint_cover(ranges, family)
    return [Element(entry.prefix, nomatch=entry.nomatch) for entry in entries]
