"""Intervals, ports, prefixes: each operation against plain Python sets over a small universe."""

import itertools
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler import intervals
from compiler.ports import ALL_PORTS, FULL, NO_PORTS, PortSet, port_range
from compiler.prefixes import (
    ALL_ADDRESSES,
    WHOLE,
    AddressSet,
    Entry,
    addresses_of,
    block_addresses,
    cover,
    disjoint_cover,
)
from policy.cidr import BITS, Family, Prefix, parse_address, parse_cidr
from policy.model import IPBlock

TOP = 40
spans = st.tuples(st.integers(0, TOP), st.integers(0, TOP)).map(lambda pair: (min(pair), max(pair)))
ranges = st.lists(spans, max_size=5).map(intervals.normal)


def numbers(found: intervals.Intervals) -> set[int]:
    return {number for low, high in found for number in range(low, high + 1)}


def assert_normal(found: intervals.Intervals) -> None:
    assert all(low <= high for low, high in found)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(found))


@given(ranges, ranges)
def test_operations_agree_with_sets(a: intervals.Intervals, b: intervals.Intervals) -> None:
    for op, expected in (
        (intervals.union, numbers(a) | numbers(b)),
        (intervals.intersection, numbers(a) & numbers(b)),
        (intervals.difference, numbers(a) - numbers(b)),
    ):
        found = op(a, b)
        assert_normal(found)
        assert numbers(found) == expected
    assert numbers(intervals.complement(a, 0, TOP)) == set(range(TOP + 1)) - numbers(a)


@given(ranges, spans)
def test_within_is_what_lies_between(a: intervals.Intervals, span: tuple[int, int]) -> None:
    assert intervals.within(a, *span) == intervals.intersection(a, (span,))


@given(ranges, st.integers(0, TOP))
def test_contains_and_size(a: intervals.Intervals, number: int) -> None:
    assert intervals.contains(a, number) == (number in numbers(a))
    assert intervals.size(a) == len(numbers(a))


@given(st.lists(ranges, max_size=4))
def test_sweep_names_the_sets_over_each_number(sets: list[intervals.Intervals]) -> None:
    over = {n: who for (low, high), who in intervals.sweep(sets) for n in range(low, high + 1)}
    for number in range(TOP + 1):
        assert over.get(number, frozenset()) == {i for i, each in enumerate(sets) if number in numbers(each)}


port_sets = st.builds(PortSet, ranges, ranges, ranges, st.booleans())


def members(ports: PortSet) -> set[tuple[str, int]]:
    probes = [(protocol, port) for protocol in ("TCP", "UDP", "SCTP", "ICMP") for port in range(TOP + 2)]
    return {probe for probe in probes if ports.contains(*probe)}


@given(port_sets, port_sets)
def test_port_sets_are_a_closed_algebra(a: PortSet, b: PortSet) -> None:
    assert members(a.union(b)) == members(a) | members(b)
    assert members(a.intersection(b)) == members(a) & members(b)
    assert members(a.difference(b)) == members(a) - members(b)
    assert a.covers(b) == (members(a) >= members(b))
    assert bool(a) == bool(members(a))


def test_icmp_is_only_in_what_has_no_ports() -> None:
    assert ALL_PORTS.contains("ICMP", 0)
    assert not PortSet(FULL, FULL, FULL).contains("ICMP", 0)
    assert str(PortSet(FULL, ((53, 53),))) == "every TCP port, 53/UDP"
    assert str(NO_PORTS) == "no port"
    assert str(port_range("SCTP", 1, 5)) == "1-5/SCTP"


def small_prefixes(family: Family) -> st.SearchStrategy[Prefix]:
    """Prefixes of the last six bits, so that they meet, and some of every length."""
    bits = BITS[family]
    base = int(parse_address("10.0.0.192" if family == 4 else "fd00::c0").value)

    def build(host: int, length: int) -> Prefix:
        value = base | host
        return Prefix(family, value >> (bits - length) << (bits - length), length)

    near = st.builds(build, st.integers(0, 63), st.integers(bits - 6, bits))
    return near | st.builds(build, st.integers(0, 63), st.integers(0, bits))


def longest_match(entries: tuple[Entry, ...], value: int) -> bool:
    hits = [entry for entry in entries if entry.prefix.network <= value <= entry.prefix.last]
    return bool(hits) and not max(hits, key=lambda entry: entry.prefix.length).nomatch


@given(st.data(), st.sampled_from([4, 6]))
def test_covers_say_exactly_the_set(data: st.DataObject, family: Family) -> None:
    prefixes = st.lists(small_prefixes(family), max_size=4)
    wanted = addresses_of(data.draw(prefixes)).difference(addresses_of(data.draw(prefixes))).of(family)
    edges = {value + step for pair in wanted for value in pair for step in (-1, 0, 1)}
    edges |= {parse_address("10.0.0.200" if family == 4 else "fd00::c8").value, 0, (1 << BITS[family]) - 1}
    for entries in (cover(wanted, family), disjoint_cover(wanted, family)):
        assert all(entry.prefix.length > 0 for entry in entries), "hash:net refuses a /0"
        for value in edges:
            if 0 <= value < 1 << BITS[family]:
                assert longest_match(entries, value) == intervals.contains(wanted, value)
    assert len(cover(wanted, family)) <= len(disjoint_cover(wanted, family))


@given(st.data(), st.sampled_from([4, 6]))
def test_covers_are_the_fewest(data: st.DataObject, family: Family) -> None:
    prefixes = st.lists(small_prefixes(family), max_size=6)
    some = addresses_of(data.draw(prefixes)).difference(addresses_of(data.draw(prefixes)))
    for wanted in (some.of(family), ALL_ADDRESSES.difference(some).of(family)):
        whole = wanted in ((), WHOLE[family])
        assert whole or len(cover(wanted, family)) == fewest(Prefix(family, 0, 0), wanted)[False]


def fewest(at: Prefix, wanted: intervals.Intervals) -> dict[bool, int]:
    """The slow twin of `cover`, bit by bit: how many entries, by what is decided above `at`."""
    inside = intervals.intersection(wanted, ((at.network, at.last),))
    if inside in ((), ((at.network, at.last),)):
        return {bool(inside): 0, not inside: 1}
    half = 1 << (BITS[at.family] - at.length - 1)
    below = [fewest(Prefix(at.family, at.network + side, at.length + 1), inside) for side in (0, half)]
    keep = {state: below[0][state] + below[1][state] for state in (False, True)}
    return {state: min(keep[state], 1 + keep[not state]) if at.length else keep[state] for state in keep}


@pytest.mark.parametrize("length", [64, 120, 128])
def test_a_cover_of_as_many_networks_as_an_object_has_room_for_is_quick(length: int) -> None:
    """15 s before for addresses of IPv6."""
    rng = Random(1)
    networks = {Prefix(6, rng.getrandbits(length) << (128 - length), length) for _ in range(16_000)}
    began = time.process_time()
    assert len(cover(addresses_of(networks).v6, 6)) <= 16_000
    assert time.process_time() - began < 2


def test_the_whole_family_but_one_block_takes_three_entries() -> None:
    block = IPBlock(parse_cidr("0.0.0.0/0"), (parse_cidr("10.0.0.0/8"),))
    entries = cover(block_addresses(block).v4, 4)
    assert [(str(entry.prefix), entry.nomatch) for entry in entries] == [
        ("0.0.0.0/1", False),
        ("10.0.0.0/8", True),
        ("128.0.0.0/1", False),
    ]


def test_the_whole_family_is_its_two_halves() -> None:
    assert [str(entry.prefix) for entry in cover(WHOLE[6], 6)] == ["::/1", "8000::/1"]


@given(st.lists(small_prefixes(4), max_size=3), st.lists(small_prefixes(6), max_size=3))
def test_families_never_mix(v4: list[Prefix], v6: list[Prefix]) -> None:
    both = addresses_of([*v4, *v6])
    assert both == AddressSet(addresses_of(v4).v4, addresses_of(v6).v6)
    for prefix in (*v4, *v6):
        assert intervals.contains(both.of(prefix.family), prefix.network)
