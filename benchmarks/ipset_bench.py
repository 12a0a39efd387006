"""Sets over netlink beside the ipset program: filling one, reading it back, and changing one entry.

The partners take turns, sample by sample, in a namespace that holds nothing else. `ipset restore` is fed as its users
feed it, with the set's default number of buckets, and once more with ours, which is what a rehash costs it. Its text is
written beforehand; our side is timed from the elements, encoding included.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from benchmarks.machine import describe
from benchmarks.record import Figure, Size, figure
from enforcer.kernel.ipset import Sets
from enforcer.rules.render import create_text, element_text
from enforcer.rules.ruleset import Element, IpSet, SetType
from lab import netns
from policy.cidr import BITS, Family, Prefix
from policy.errors import HostRefused

FILL_TARGET, CHANGE_TARGET = 0.5, 1 / 15
ROUNDS: dict[Size, int] = {"quick": 1, "full": 9}
ENTRIES: dict[Size, int] = {"quick": 200, "full": 20_000}
_CHANGES = 100


def measure(size: Size) -> Iterable[Figure]:
    """Ratios of ours to the program's, and what each of our calls takes."""
    shapes: list[tuple[SetType, Family]] = [("hash:ip", 4), ("hash:ip", 6), ("hash:net", 4), ("hash:ip,port", 4)]
    with _alone() as sets:
        for kind, family in shapes:
            yield from _filling(sets, _example(kind, family, ENTRIES[size]), family, ROUNDS[size])
        yield from _changing(sets, ENTRIES[size], ROUNDS[size])


@contextmanager
def _alone() -> Iterator[Sets]:
    name = f"ipset-bench-{os.getpid()}"
    netns.create([name])
    try:
        with netns.inside(name), Sets() as sets:
            yield sets
    finally:
        netns.delete([name])


def _example(kind: SetType, family: Family, entries: int) -> IpSet:
    """Entries that are spread out, as the addresses of a cluster's nodes are."""
    bits, length = BITS[family], 24 if kind == "hash:net" else BITS[family]
    first = (10 << 24 if family == 4 else 0xFD << 120) >> bits - length
    networks = (Prefix(family, first + number << bits - length, length) for number in range(entries))
    service = ("tcp", 8080) if kind == "hash:ip,port" else ("", 0)
    return IpSet(f"pf-{family}-bench", kind, frozenset(Element(network, *service) for network in networks))


def _filling(sets: Sets, ipset: IpSet, family: Family, rounds: int) -> Iterable[Figure]:
    text = create_text(ipset, family)
    head, _, entries = text.partition("\n")
    words = head.split()
    del words[words.index("hashsize") : words.index("hashsize") + 2]
    spent = _turns(
        {
            "ours": lambda: sets.make(ipset, family),
            "ipset restore": lambda: _ipset("restore", text=" ".join(words) + "\n" + entries),
            "ipset restore, our buckets": lambda: _ipset("restore", text=text),
        },
        rounds,
        lambda: sets.destroy(ipset.name),
    )
    case: dict[str, str | int] = {"type": ipset.type, "family": family, "entries": len(ipset.elements)}
    yield from _compared("filling a set", spent, FILL_TARGET, case)
    yield figure(
        "filling a set, each entry", [each / len(ipset.elements) for each in spent["ours"]], "µs", None, **case
    )
    sets.make(ipset, family)
    read = _turns({"ours": lambda: sets.read(family), "ipset save": lambda: _ipset("save")}, rounds)
    sets.destroy(ipset.name)
    yield figure("reading a set, each entry", [each / len(ipset.elements) for each in read["ours"]], "µs", None, **case)


def _changing(sets: Sets, entries: int, rounds: int) -> Iterable[Figure]:
    """One entry comes, one goes, in a set that is filled already; by the program, one process each."""
    full = _example("hash:ip", 4, entries + 1)
    some = min(full.elements)
    sets.make(IpSet(full.name, full.type, full.elements - {some}), 4)

    def ours() -> None:
        for _ in range(_CHANGES):
            sets.change(full.name, [some], [])
            sets.change(full.name, [], [some])

    def program() -> None:
        _ipset("add", full.name, element_text(some))
        _ipset("del", full.name, element_text(some))

    spent = _turns({"ours": ours, "running ipset": program}, rounds)
    spent["ours"] = [each / _CHANGES for each in spent["ours"]]
    sets.destroy(full.name)
    case: dict[str, str | int] = {"type": full.type, "entries": entries}
    yield from _compared("one entry added and removed", spent, CHANGE_TARGET, case)
    yield figure("one entry added or removed", [each / 2 for each in spent["ours"]], "µs", None, **case)


def _compared(
    what: str, spent: Mapping[str, list[float]], target: float, case: Mapping[str, str | int]
) -> Iterable[Figure]:
    """The ratio to each partner; the first is what the target speaks of."""
    for number, partner in enumerate(name for name in spent if name != "ours"):
        ratios = [ours / its for ours, its in zip(spent["ours"], spent[partner], strict=True)]
        yield figure(what, ratios, "ratio", None if number else target, against=partner, **case)


def _turns(
    sides: dict[str, Callable[[], object]], rounds: int, after: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Microseconds, sample by sample; every other round goes the other way round. `after` is not timed."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in (*sides,) if turn % 2 else reversed(sides):
            start = time.perf_counter()
            sides[name]()
            spent[name].append((time.perf_counter() - start) * 1e6)
            after()
    return spent


def _ipset(*words: str, text: str = "") -> None:
    done = subprocess.run(["ipset", *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostRefused(f"ipset {' '.join(words)}: {done.stderr.strip()}")


if __name__ == "__main__":
    answer = {"machine": describe(), "figures": list(measure("full"))}
    print(msgspec.json.format(msgspec.json.encode(answer), indent=1).decode())
