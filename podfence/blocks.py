"""A block of addresses as ends of a flow: an end for each part of it that some rule tells apart, and for whoever has an
address in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compiler import intervals
from compiler.compile import Compiled
from compiler.intervals import Intervals
from compiler.prefixes import WHOLE, AddressSet, disjoint_cover
from compiler.verdict import End
from podfence.ends import Ends, Named
from policy.cidr import BITS, Address, Family
from policy.model import Direction

_SHOWN = 3


def spread(
    compiled: Compiled, ends: Ends, named: Named, block: AddressSet, others: Sequence[End], direction: Direction
) -> list[tuple[End, str]]:
    """The ends of `named`, which is `block`, with what each is called. `others` are at the other end, and `direction`
    is theirs: only the rules of their allow-sets can tell addresses apart."""
    own = {address for pod in compiled.pods.values() if pod.selectable for address in pod.addresses}
    own.update(ends.held_by_nodes())
    inside = sorted(address for address in own if block.contains(address))
    found = [] if named.sort == "internet" else [(ends.at(address), "") for address in inside]
    for family in (4, 6):
        taken = intervals.normal((each.value, each.value) for each in inside if each.family == family)
        free = intervals.difference(block.of(family), taken)
        for part in _parts(free, [grant.of(family) for grant in _blocks(compiled, others, direction)]):
            whole = part == free
            label = named.name if whole and not (taken and named.sort == "block") else _covering(part, family)
            found.append((End(address=Address(family, part[0][0])), label))
    return found


def _blocks(compiled: Compiled, others: Sequence[End], direction: Direction) -> Iterable[AddressSet]:
    allow_sets = {id(a): a for end in others if end.pod for a in [compiled.allow(end.pod, direction)]}
    return {grant.peers.addresses for allow in allow_sets.values() for grant in allow.grants if grant.peers.addresses}


def _parts(block: Intervals, blocks: Sequence[Intervals]) -> list[Intervals]:
    """`block`, cut into what the same of `blocks` hold."""
    if not block:
        return []
    groups: dict[frozenset[int], list[tuple[int, int]]] = {}
    for span, over in intervals.sweep([block, *blocks]):
        if 0 in over:
            groups.setdefault(over, []).append(span)
    return sorted(map(intervals.normal, groups.values()))


def _covering(part: Intervals, family: Family) -> str:
    if part == WHOLE[family]:
        return "0.0.0.0/0" if family == 4 else "::/0"
    prefixes = [entry.prefix for entry in disjoint_cover(part, family)]
    largest = sorted(prefixes, key=lambda prefix: (prefix.length, prefix.network))
    names = [
        str(Address(family, prefix.network)) if prefix.length == BITS[family] else str(prefix) for prefix in largest
    ]
    more = f" and {len(names) - _SHOWN} smaller blocks" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
