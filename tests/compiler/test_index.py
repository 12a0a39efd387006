"""The live index agrees with a plain scan, whatever way led to where it is, and its changes are just the difference."""

from __future__ import annotations

from random import Random

import pytest

from compiler.changes import Changes, Event
from compiler.index import Index
from tests.compiler.histories import batches, history, undone
from tests.compiler.slow_twin import Follower, Objects, SlowTwin, happen

SEEDS = range(40)
NODES = (None, "node-0", "node-1")


def follow(steps: list[list[Event]], node: str | None) -> Follower:
    """Applies `steps`, and compares with a scan after each."""
    index, follower, objects = Index(node), Follower(), Objects()
    for step in steps:
        for event in step:
            happen(objects, event)
        follower.follow(index.apply(step))
        twin = SlowTwin(objects, node)
        assert follower.subjects == twin.subjects
        assert follower.members == twin.members
    return follower


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_index_agrees_with_a_scan_after_every_batch(seed: int, node: str | None) -> None:
    rng = Random(seed)
    follow(batches(rng, history(rng, 80)), node)


@pytest.mark.parametrize("seed", SEEDS)
def test_way_does_not_show(seed: int) -> None:
    """Split, squashed, each batch in reverse order: the same state in the end."""
    rng = Random(seed)
    events = history(rng, 60)
    last: Objects = {}
    for event in events:
        happen(last, event)
    ways = [
        [[event] for event in events],
        [events],
        [[event] for event in reversed(last.values())],
        [list(last.values())],
        batches(rng, [event for event in events for _ in range(2)]),
    ]
    ends = [follow(way, None) for way in ways]
    assert all((end.subjects, end.members) == (ends[0].subjects, ends[0].members) for end in ends)


@pytest.mark.parametrize("seed", SEEDS)
def test_way_back_leads_to_nothing(seed: int) -> None:
    rng = Random(seed)
    events = history(rng, 40)
    end = follow(batches(rng, events) + batches(rng, undone(events)), None)
    assert end.subjects == end.members == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_known_changes_nothing(seed: int) -> None:
    rng = Random(seed)
    events = history(rng, 40)
    index, last = Index(), Objects()
    for event in events:
        happen(last, event)
    index.apply(events)
    for event in last.values():
        assert index.apply([event]) == Changes({}, {}, frozenset())
