"""The index under what stands on it: sets that follow its changes hold what a fresh compilation fills them with."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from compiler.allowset import AllowSet
from compiler.changes import Subject
from compiler.compile import compile_cluster
from compiler.index import Index
from compiler.peers import Source
from enforcer.rules.allow import allow_rules
from enforcer.rules.members import LiveSet, SetSpec, fill
from policy.model import Cluster, Namespace, NetworkPolicy, Pod
from tests.compiler.histories import batches, history
from tests.compiler.slow_twin import Objects, happen


def specs(allow: AllowSet) -> Iterator[SetSpec]:
    """Every set that one allow-set needs, whatever its direction."""
    for direction in ("ingress", "egress"):
        for family in (4, 6):
            yield from allow_rules(allow, direction, family).sets  # type: ignore[arg-type]


def sources(allow: AllowSet) -> Iterator[Source]:
    return (source for spec in specs(allow) for source, _ in spec.sources)


def compiled(objects: Objects) -> Cluster:
    found = [*objects.values()]
    return Cluster(
        [each for each in found if isinstance(each, Namespace)],
        [each for each in found if isinstance(each, Pod)],
        [each for each in found if isinstance(each, NetworkPolicy)],
        [],
        [],
        [],
    )


@pytest.mark.parametrize("seed", range(30))
def test_sets_that_follow_hold_what_they_should(seed: int) -> None:
    rng = Random(seed)
    index, objects, live = Index("node-0", sources), Objects(), dict[str, LiveSet]()
    allowed: dict[Subject, AllowSet] = {}
    for batch in batches(rng, history(rng, 80)):
        for event in batch:
            happen(objects, event)
        changes = index.apply(batch)
        for source, moved in changes.members.items():
            for each in live.values():
                each.change(source, moved.joined, moved.left)
        for subject, change in changes.subjects.items():
            allowed.pop(subject, None)
            if change.new:
                allowed[subject] = change.new
        wanted = {spec.name: spec for allow in allowed.values() for spec in specs(allow)}
        live = {name: live.get(name) or LiveSet(spec, index) for name, spec in wanted.items()}
        fresh = compile_cluster(compiled(objects))
        assert {name: each.ipset for name, each in live.items()} == {
            name: fill(spec, fresh) for name, spec in wanted.items()
        }
