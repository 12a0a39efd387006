"""Sets of whole numbers as sorted, disjoint, non-adjacent inclusive ranges: one form for each set.

Ports and addresses are both such sets; everything that is not particular to either is here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

Intervals = tuple[tuple[int, int], ...]
_LARGEST = (1 << 200,)


def normal(ranges: Iterable[tuple[int, int]]) -> Intervals:
    """The union of inclusive ranges, which may overlap and come in any order."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)


def union(a: Intervals, b: Intervals) -> Intervals:
    if not a or not b or a == b:
        return a or b
    return normal((*a, *b))


def intersection(a: Intervals, b: Intervals) -> Intervals:
    found = []
    i = j = 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if low <= high:
            found.append((low, high))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def within(a: Intervals, low: int, high: int) -> Intervals:
    """What of `a` is in `low`..`high`: at the cost of what is found."""
    first = bisect_right(a, (low, *_LARGEST)) - 1
    if first < 0 or a[first][1] < low:
        first += 1
    last = bisect_right(a, (high, *_LARGEST))
    found = a[first:last]
    if found and (found[0][0] < low or found[-1][1] > high):
        ends = ((max(found[0][0], low), found[0][1]), *found[1:])
        found = (*ends[:-1], (ends[-1][0], min(ends[-1][1], high)))
    return found


def complement(a: Intervals, low: int, high: int) -> Intervals:
    """What of `low`..`high` is not in `a`, which lies within."""
    gaps = []
    for start, end in a:
        if low < start:
            gaps.append((low, start - 1))
        low = end + 1
    if low <= high:
        gaps.append((low, high))
    return tuple(gaps)


def difference(a: Intervals, b: Intervals) -> Intervals:
    if not a or not b:
        return a
    low, high = a[0][0], a[-1][1]
    return intersection(a, complement(intersection(b, ((low, high),)), low, high))


def contains(a: Intervals, value: int) -> bool:
    at = bisect_right(a, (value, *_LARGEST)) - 1
    return at >= 0 and value <= a[at][1]


def size(a: Intervals) -> int:
    return sum(high - low + 1 for low, high in a)


def sweep(
    sets: Sequence[Intervals], spend: Callable[[int], None] = lambda _: None
) -> Iterable[tuple[tuple[int, int], frozenset[int]]]:
    """The elementary ranges between all boundaries, in order, each with the numbers of the sets that it lies in; before
    these are gathered `spend` hears how many they are."""
    events = sorted(
        event
        for number, ranges in enumerate(sets)
        for low, high in ranges
        for event in ((low, True, number), (high + 1, False, number))
    )
    active: set[int] = set()
    for at, (position, opens, number) in enumerate(events[:-1]):
        if opens:
            active.add(number)
        else:
            active.discard(number)
        following = events[at + 1][0]
        if active and following > position:
            spend(len(active))
            yield (position, following - 1), frozenset(active)
