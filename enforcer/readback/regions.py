"""Sets of packets, exactly: products of fields, each field cut into the pieces that somebody tells apart.

Every field is a line of whole numbers. All ranges that rules, sets and wishes speak of cut it into atoms, within which
all values are treated alike, so a set of values is a number with one bit an atom, and a box (one such number a field)
is a product. What holds for a box holds for every packet in it: there is no sampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import and_

from msgspec import Struct

from compiler.intervals import Intervals

# The fields; those with few atoms first, since a box is split at the first field that differs.
SERVICE, IN, OUT, PORT_IN, PORT_OUT, CONNECTION, SRC_PORT, ICMP, SYN, SRC, DST = FIELDS = range(11)

Fields = Mapping[int, Intervals]
Box = tuple[int, ...]


class Condition(Struct, frozen=True):
    """A union of products, no two of which share a value of the field `key`. A field that is not named is any."""

    key: int
    terms: tuple[Fields, ...]


class Cut:
    """A condition in the atoms of a space."""

    def __init__(self, key: int, hits: Sequence[Box]) -> None:
        self.key = key
        self._hits = hits
        self._by_atom: dict[int, Box] = {}

    def parts(self, box: Box) -> list[Box]:
        """What of `box` fulfils it."""
        return met([box], self._near(box[self.key]))

    def _near(self, atoms: int) -> Sequence[Box]:
        """The hits that could share a value of the key with `atoms`: found one by one where those are fewer."""
        if atoms.bit_count() >= len(self._hits):
            return self._hits
        if not self._by_atom:
            self._by_atom = {atom: hit for hit in self._hits for atom in bits(hit[self.key])}
        return list({id(hit): hit for atom in bits(atoms) if (hit := self._by_atom.get(atom))}.values())


class Axis:
    """The atoms of one field, whose values are 0 to `last`."""

    def __init__(self, last: int, mentioned: Iterable[Intervals]) -> None:
        starts = {0}
        for ranges in set(mentioned):
            for low, high in ranges:
                starts.add(low)
                starts.add(high + 1)
        starts.discard(last + 1)
        self._starts = sorted(starts)
        self._number = {start: number for number, start in enumerate(self._starts)}
        self._number[last + 1] = len(starts)
        self._masks: dict[Intervals, int] = {}
        self.full = (1 << len(starts)) - 1

    def mask(self, ranges: Intervals) -> int:
        """The atoms of `ranges`; KeyError where an end of them was not mentioned."""
        found = self._masks.get(ranges)
        if found is None:
            digits = bytearray(b"0") * len(self._starts)
            for low, high in ranges:
                begin, end = self._number[low], self._number[high + 1]
                digits[begin:end] = b"1" * (end - begin)
            found = self._masks[ranges] = int(digits[::-1], 2)
        return found

    def first(self, mask: int) -> int:
        """The lowest value in `mask`, which has one."""
        return self._starts[(mask & -mask).bit_length() - 1]


class Space:
    """All fields, cut so that each of the terms it was made for is a union of boxes."""

    def __init__(self, lasts: Sequence[int], terms: Iterable[Fields]) -> None:
        mentioned: list[list[Intervals]] = [[] for _ in FIELDS]
        for term in terms:
            for field, ranges in term.items():
                mentioned[field].append(ranges)
        self.axes = [Axis(last, ranges) for last, ranges in zip(lasts, mentioned, strict=True)]
        self.full: Box = tuple(axis.full for axis in self.axes)

    def part(self, term: Fields) -> Box:
        """It may be empty: a field without atoms."""
        found = self.full
        for field, ranges in term.items():
            found = with_field(found, field, self.axes[field].mask(ranges))
        return found

    def boxes(self, terms: Iterable[Fields]) -> list[Box]:
        return [part for part in map(self.part, terms) if all(part)]

    def cut(self, condition: Condition) -> Cut:
        return Cut(condition.key, self.boxes(condition.terms))


def bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit


def with_field(box: Box, field: int, mask: int) -> Box:
    return (*box[:field], mask, *box[field + 1 :])


def meet(a: Box, b: Box) -> Box | None:
    both = tuple(map(and_, a, b))
    return None if 0 in both else both


def met(boxes: Iterable[Box], others: Sequence[Box]) -> list[Box]:
    """What lies in one of `boxes` and one of `others`; disjoint where both are."""
    return [both for box in boxes for other in others if (both := meet(box, other))]


def without(box: Box, taken: Box) -> list[Box]:
    """What of `box` is not in `taken`, as disjoint boxes."""
    if meet(box, taken) is None:
        return [box]
    rest = []
    for field in FIELDS:
        outside = box[field] & ~taken[field]
        if outside:
            rest.append(with_field(box, field, outside))
            box = with_field(box, field, box[field] & taken[field])
    return rest


def without_all(boxes: Iterable[Box], taken: Iterable[Box]) -> list[Box]:
    left = list(boxes)
    for each in taken:
        left = [rest for box in left for rest in without(box, each)]
    return left


def split(boxes: Iterable[Box], cuts: Sequence[Cut]) -> tuple[list[Box], list[Box]]:
    """The parts of `boxes` that fulfil all of `cuts`, and the other parts."""
    inside, outside = list(boxes), []
    for cut in cuts:
        hits: list[Box] = []
        for box in inside:
            found = cut.parts(box)
            if not found:
                outside.append(box)
                continue
            hits += found
            outside += _misses(box, found, cut.key)
        inside = hits
    return inside, outside


def _misses(box: Box, hits: Sequence[Box], key: int) -> list[Box]:
    """`box` without `hits`, which lie in it and share no value of the field `key`."""
    misses, left = [], box[key]
    for hit in hits:
        misses += without(with_field(box, key, hit[key]), hit)
        left &= ~hit[key]
    if left:
        misses.append(with_field(box, key, left))
    return misses
