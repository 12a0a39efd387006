"""How the grants of one allow-set are spread over rules and sets: few lookups on a packet's way, few copies of members.

Measured on new flows, in ns, legacy and nft: a port test 25 and 18, a set lookup 118 and 157, a set of networks up to
471. So ports are tested before sets, and a lookup is what must not multiply. The bound: whatever the number of
policies, a packet meets at most 1 + `WIDE_RULES` + 1 set lookups in an allow-set, and usually one:

    the grant of every port and protocol      one lookup (there is one such grant at most)
    ports that every address has              no lookup, and first
    wide grants, of more than `NARROW` ports, a rule each while they are few, else split at their ports' boundaries
    or beyond `FOLDED` ports of all together  so that one lookup remains; not where that would be very many rules
    narrow grants                             split at their ports' boundaries, a rule for each, of which a packet's
                                              port meets one; where that makes more than `NARROW_RULES` rules, or a
                                              port has a name, all are folded into one set of address and port,
                                          as far as blocks times ports are no more than `FOLDED_NETWORKS`

The choice looks at symbols only, never at how many members there are, so that a pod event never changes a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from msgspec import Struct

from compiler import intervals
from compiler.allowset import Grant
from compiler.peers import PeerSet
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.prefixes import WHOLE, AddressSet
from policy.cidr import Family
from policy.model import PROTOCOLS

NARROW = 128
FOLDED = 1024
FOLDED_NETWORKS = 1 << 16
SPLIT_GROUPS = 16
SPLIT_RANGES = 256
NARROW_RULES = 4
WIDE_RULES = 3

Group = tuple[PortSet, PeerSet]


class Shape(Struct, frozen=True):
    """`rules`: each its ports, then at most one lookup of its peers (none where they are the whole family).
    `folded`: products of peers and ports that become the elements of one set."""

    rules: tuple[Group, ...]
    folded: tuple[tuple[PortSet | NamedPort, PeerSet], ...]


def shape(grants: Iterable[Grant], family: Family) -> Shape:
    numbered: list[Group] = []
    named: list[tuple[PortSet | NamedPort, PeerSet]] = []
    for grant in grants:
        peers = in_family(grant.peers, family)
        if not peers:
            continue
        if isinstance(grant.ports, NamedPort):
            named.append((grant.ports, peers))
        else:
            numbered.append((grant.ports, peers))
    first = open_to_all(numbered, family)
    rest = [(ports, peers) for ports, peers in (_without(group, first) for group in numbered) if ports]
    rules = [(first, EVERYONE_IN[family])] if first else []
    rules += (group for group in rest if group[0] == ALL_PORTS)
    some = sorted((group for group in rest if group[0] != ALL_PORTS), key=lambda group: group[0].count)
    folds = _folds(some, FOLDED)
    narrow, wide = some[:folds], some[folds:]
    split = by_port(wide, family) if len(wide) > WIDE_RULES else wide
    if sum(ports.ranges for ports, _ in split) > SPLIT_RANGES:
        # So many rules cost every packet more than a large set costs memory.
        more = _folds(some, len(some) * NARROW)
        narrow, wide = some[:more], some[more:]
        if more != folds:
            split = by_port(wide, family) if len(wide) > WIDE_RULES else wide
    rules += split
    # More groups than this have more boundaries than rules are allowed, so they are not even split.
    atoms = by_port(narrow, family) if len(narrow) <= SPLIT_GROUPS else narrow
    if len(atoms) <= NARROW_RULES and not named:
        return Shape((*rules, *atoms), ())
    return Shape(tuple(rules), (*narrow, *named))


def _folds(groups: Sequence[Group], most_ports: int) -> int:
    """How many of `groups`, which come by their number of ports, may be folded."""
    ports = accumulate(ports.count for ports, _ in groups)
    networks = accumulate(ports.count * (len(peers) - len(peers.pods)) for ports, peers in groups)
    return sum(
        group[0].count <= NARROW and total <= most_ports and blocks <= FOLDED_NETWORKS
        for group, total, blocks in zip(groups, ports, networks, strict=True)
    )


EVERYONE_IN: dict[Family, PeerSet] = {
    4: PeerSet((), AddressSet(v4=WHOLE[4])),
    6: PeerSet((), AddressSet(v6=WHOLE[6])),
}


def open_to_all(groups: Sequence[Group], family: Family) -> PortSet:
    """The ports that every address of the family has."""
    blocks = [(ports, peers.addresses.of(family)) for ports, peers in groups if peers.addresses]
    if intervals.normal(span for _, ranges in blocks for span in ranges) != WHOLE[family]:
        return NO_PORTS
    # No two grants hold the same address, so what all have is what all grants with addresses have.
    found = ALL_PORTS
    for ports, _ in blocks:
        found = found.intersection(ports)
    return found


def _without(group: Group, ports: PortSet) -> Group:
    """The group without ports that an earlier rule allows, unless that would leave it more ranges to test."""
    held, peers = group
    rest = held.difference(ports)
    if rest and (held == ALL_PORTS or rest.ranges > held.ranges):
        return group
    return rest, peers


def in_family(peers: PeerSet, family: Family) -> PeerSet:
    """What of `peers` can be met in one family; terms are dropped where every address is allowed."""
    ranges = peers.addresses.of(family)
    addresses = AddressSet(v4=ranges) if family == 4 else AddressSet(v6=ranges)
    return PeerSet((), addresses) if ranges == WHOLE[family] else PeerSet(peers.pods, addresses)


def by_port(groups: Sequence[Group], family: Family) -> list[Group]:
    """The same permissions with disjoint ports: each port with all of its peers, ports of equal peers together."""
    # To sort terms is dear, so that is done once for all groups.
    terms = sorted({term for _, peers in groups for term in peers.pods})
    at = {term: number for number, term in enumerate(terms)}
    numbers = [[at[term] for term in peers.pods] for _, peers in groups]
    ports_of: dict[frozenset[int], list[PortSet]] = {}
    for protocol in PROTOCOLS:
        for (low, high), over in intervals.sweep([ports.of(protocol) for ports, _ in groups]):
            ports_of.setdefault(over, []).append(port_range(protocol, low, high))
    found: dict[PeerSet, list[PortSet]] = {}
    for over, ports in ports_of.items():
        spans = intervals.normal(span for group in over for span in groups[group][1].addresses.of(family))
        pods = tuple(terms[number] for number in sorted({number for group in over for number in numbers[group]}))
        addresses = AddressSet(v4=spans) if family == 4 else AddressSet(v6=spans)
        found.setdefault(in_family(PeerSet(pods, addresses), family), []).extend(ports)
    return sorted(((union_of(ports), peers) for peers, ports in found.items()), key=lambda group: group[0])
