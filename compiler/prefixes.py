"""Sets of addresses of both families: a closed algebra, and the prefixes that say such a set in few entries."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from compiler import intervals
from compiler.intervals import Intervals
from compiler.kept import kept
from policy.cidr import BITS, Address, Family, Prefix
from policy.model import IPBlock

# Prefixes and ranges, of some 130 bytes each.
_MOST_KEPT = 1 << 16
WHOLE: dict[Family, Intervals] = {4: ((0, (1 << 32) - 1),), 6: ((0, (1 << 128) - 1),)}


class AddressSet(Struct, frozen=True, order=True, cache_hash=True):
    """Addresses per family as inclusive ranges of their values: one form for each set."""

    v4: Intervals = ()
    v6: Intervals = ()

    def of(self, family: Family) -> Intervals:
        return self.v4 if family == 4 else self.v6

    def contains(self, address: Address) -> bool:
        return intervals.contains(self.of(address.family), address.value)

    def union(self, other: AddressSet) -> AddressSet:
        return AddressSet(intervals.union(self.v4, other.v4), intervals.union(self.v6, other.v6))

    def intersection(self, other: AddressSet) -> AddressSet:
        return AddressSet(intervals.intersection(self.v4, other.v4), intervals.intersection(self.v6, other.v6))

    def difference(self, other: AddressSet) -> AddressSet:
        return AddressSet(intervals.difference(self.v4, other.v4), intervals.difference(self.v6, other.v6))

    def is_whole(self, family: Family) -> bool:
        return self.of(family) == WHOLE[family]

    def __bool__(self) -> bool:
        return bool(self.v4 or self.v6)


NO_ADDRESSES = AddressSet()
ALL_ADDRESSES = AddressSet(WHOLE[4], WHOLE[6])


def addresses_of(prefixes: Iterable[Prefix]) -> AddressSet:
    ranges: dict[Family, list[tuple[int, int]]] = {4: [], 6: []}
    for prefix in prefixes:
        ranges[prefix.family].append((prefix.network, prefix.last))
    return AddressSet(intervals.normal(ranges[4]), intervals.normal(ranges[6]))


def block_addresses(block: IPBlock) -> AddressSet:
    """The block without its exceptions, which take from no other block (semantics, row 17)."""
    return addresses_of([block.cidr]).difference(addresses_of(block.excepts))


class Entry(Struct, frozen=True, order=True):
    """One prefix of a cover; with `nomatch` it takes from the shorter ones around it. The longest prefix decides."""

    prefix: Prefix
    nomatch: bool = False


@kept(_MOST_KEPT)
def disjoint_cover(ranges: Intervals, family: Family) -> tuple[Entry, ...]:
    """The fewest disjoint prefixes that cover exactly `ranges`. Never a /0, which no ipset of networks can hold: the
    whole family becomes its two halves."""
    entries = []
    for low, high in ranges:
        while low <= high:
            size = (low & -low) or 1 << (BITS[family] - 1)
            while size > high - low + 1:
                size >>= 1
            size = min(size, 1 << (BITS[family] - 1))
            entries.append(Entry(Prefix(family, low, BITS[family] - size.bit_length() + 1)))
            low += size
    return tuple(entries)


@kept(_MOST_KEPT)
def cover(ranges: Intervals, family: Family) -> tuple[Entry, ...]:
    """The fewest prefixes, some of them `nomatch`, whose longest match is exactly `ranges`.

    The optimal routing table of Draves, King, Venkatachary and Zill (INFOCOM 1999) with two next hops, match and no
    match: at each prefix, given what its parent decides, either keep that or spend one entry to turn it over."""
    disjoint = disjoint_cover(ranges, family)
    if ranges == WHOLE[family]:
        return disjoint
    best = tuple(sorted(_cheapest(Prefix(family, 0, 0), ranges, family)[False]))
    return best if len(best) < len(disjoint) else disjoint


Choice = dict[bool, tuple[Entry, ...]]


def _cheapest(at: Prefix, ranges: Intervals, family: Family) -> Choice:
    """For each thing that the parent may have decided (match or not), the entries needed at and below `at`."""
    if not ranges or ranges == ((at.network, at.last),):
        inside = bool(ranges)
        return {inside: (), not inside: (Entry(at, nomatch=not inside),)}
    for inside in (True, False) if at.length else ():
        below = _smallest(*(_ends(ranges) if inside else _ends_of_gaps(ranges, at)), family)
        if below.length - at.length >= _FAR:
            # All that is not as around it is far down: whatever the parent says it is turned here, or there.
            kept = _cheapest(below, intervals.within(ranges, below.network, below.last), family)[not inside]
            return {not inside: kept, inside: (Entry(at, nomatch=inside), *kept)}
    middle = at.network + (1 << (BITS[family] - at.length - 1))
    left = _cheapest(
        Prefix(family, at.network, at.length + 1), intervals.within(ranges, at.network, middle - 1), family
    )
    right = _cheapest(Prefix(family, middle, at.length + 1), intervals.within(ranges, middle, at.last), family)
    keep: Choice = {state: left[state] + right[state] for state in (False, True)}
    if at.length == 0:
        return keep
    turned: Choice = {state: (Entry(at, nomatch=state), *keep[not state]) for state in (False, True)}
    return {state: min(keep[state], turned[state], key=len) for state in (False, True)}


# From so many levels on it never costs more to turn over at both ends than at each sibling in between.
_FAR = 3


def _ends(ranges: Intervals) -> tuple[int, int]:
    return ranges[0][0], ranges[-1][1]


def _ends_of_gaps(ranges: Intervals, at: Prefix) -> tuple[int, int]:
    """The first and the last address of `at` that is not in `ranges`."""
    (low, first), (last, high) = ranges[0], ranges[-1]
    return first + 1 if low == at.network else at.network, last - 1 if high == at.last else at.last


def _smallest(low: int, high: int, family: Family) -> Prefix:
    """The longest prefix that holds both."""
    length = BITS[family] - (low ^ high).bit_length()
    return Prefix(family, low >> (BITS[family] - length) << (BITS[family] - length), length)
