"""Addresses with ports: which address may use which ports, as a closed algebra.

A region maps a port-set to the addresses that have exactly these ports. The port-sets are distinct and not empty, the
addresses disjoint; an address that is nowhere in it has no port.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from compiler.allowset import AllowSet
from compiler.ports import ALL_PORTS, NO_PORTS, PortSet, union_of
from compiler.prefixes import ALL_ADDRESSES, NO_ADDRESSES, AddressSet, cover, disjoint_cover
from policy.cidr import Family

Region = Mapping[PortSet, AddressSet]
EVERYWHERE: Region = {ALL_PORTS: ALL_ADDRESSES}
NOWHERE: Region = {}


def region_of(allow: AllowSet) -> Region:
    """What an allow-set grants to mere addresses, where no name of a port resolves (semantics, row 20)."""
    if not allow.isolated:
        return EVERYWHERE
    # In the canonical form each address stands in exactly one of these grants.
    return {
        grant.ports: grant.peers.addresses
        for grant in allow.grants
        if isinstance(grant.ports, PortSet) and grant.peers.addresses
    }


def difference(a: Region, b: Region) -> Region:
    """What `a` has and `b` has not."""
    found: dict[PortSet, AddressSet] = {}
    rest = _whole(b)
    for ports, addresses in a.items():
        for taken, where in rest.items():
            left, both = ports.difference(taken), addresses.intersection(where)
            if left and both:
                found[left] = found.get(left, NO_ADDRESSES).union(both)
    return found


def _whole(region: Region) -> Region:
    """With the addresses that have no port."""
    covered = NO_ADDRESSES
    for addresses in region.values():
        covered = covered.union(addresses)
    return {**region, NO_PORTS: ALL_ADDRESSES.difference(covered)}


def ports_somewhere(region: Region, families: Iterable[Family]) -> PortSet:
    """The ports that some address of these families has."""
    wanted = list(families)
    found = (ports for ports, addresses in region.items() if any(addresses.of(family) for family in wanted))
    return union_of(found)


def ports_everywhere(region: Region, families: Iterable[Family]) -> PortSet:
    """The ports that every address of these families has."""
    wanted = list(families)
    found = ALL_PORTS
    for ports, addresses in _whole(region).items():
        if any(addresses.of(family) for family in wanted):
            found = found.intersection(ports)
    return found


def address_text(addresses: AddressSet) -> str:
    """As blocks, each family by itself: `10.0.0.0/8 but 10.1.0.0/16`."""
    families: tuple[Family, ...] = (4, 6)
    return ", ".join(_family_text(addresses, family) for family in families if addresses.of(family))


def _family_text(addresses: AddressSet, family: Family) -> str:
    whole, halves = ("0.0.0.0/0", ["0.0.0.0/1", "128.0.0.0/1"]) if family == 4 else ("::/0", ["::/1", "8000::/1"])
    entries = cover(addresses.of(family), family)
    excepted = [entry.prefix for entry in entries if entry.nomatch]
    if any(outer.contains(entry.prefix) for outer in excepted for entry in entries if not entry.nomatch):
        # Blocks within exceptions are hard to read: without exceptions, then.
        entries, excepted = disjoint_cover(addresses.of(family), family), []
    blocks = [str(entry.prefix) for entry in entries if not entry.nomatch]
    if set(halves) <= set(blocks):
        blocks = [whole, *(block for block in blocks if block not in halves)]
    return " and ".join(blocks) + (f" but {' and '.join(map(str, excepted))}" if excepted else "")
