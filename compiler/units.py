"""The same pods in two clusters: by their name, else by their workload, whose pods have other names after a rollout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from compiler.places import Place
from policy.model import Pod

Side = Literal["old", "new"]
SIDES: tuple[Side, Side] = ("old", "new")


class Group(Struct, frozen=True):
    """Equal pods, by their keys, under the name of their workload, or of the first of them."""

    name: str
    pods: tuple[str, ...]


class Unit(Struct, frozen=True):
    """Pods that are in one place on each side; None where they are not there."""

    group: Group
    old: int | None
    new: int | None
    is_one_pod: bool

    def on(self, side: Side) -> int | None:
        return self.old if side == "old" else self.new


def units(old: Sequence[Place], new: Sequence[Place]) -> list[Unit]:
    at_old, at_new = _where(old), _where(new)
    # The keys of the pods that are in this place on the old side and in that one on the new.
    pairs: dict[tuple[int | None, int | None], tuple[set[str], set[str]]] = {}
    for at, place in enumerate(new):
        for pod in place.pods:
            for partner in _partners(pod, at_old):
                was, now = pairs.setdefault((partner, at), (set(), set()))
                now.add(pod.key)
                if pod.key in at_old.pods:
                    was.add(pod.key)
    for at, place in enumerate(old):
        for pod in place.pods:
            if pod.key not in at_new.pods:
                for partner in _partners(pod, at_new):
                    pairs.setdefault((at, partner), (set(), set()))[0].add(pod.key)
    found_units = []
    for (was_at, now_at), keys in pairs.items():
        found = [known[at] for known, at in ((new, now_at), (old, was_at)) if at is not None]
        one = max(map(len, keys)) == 1 and not found[0].pod.stands_in
        found_units.append(Unit(Group(found[0].name, tuple(sorted(keys[0] | keys[1]))), was_at, now_at, one))
    return found_units


class _Where(Struct, frozen=True):
    pods: dict[str, int]
    workloads: dict[tuple[str, str], dict[int, None]]


def _where(known: Sequence[Place]) -> _Where:
    found = _Where({}, {})
    for at, place in enumerate(known):
        for pod in place.pods:
            found.pods[pod.key] = at
            if pod.workload:
                found.workloads.setdefault((pod.namespace, pod.workload), {})[at] = None
    return found


def _partners(pod: Pod, where: _Where) -> Iterable[int | None]:
    """Where the same pod is on the other side, or the pods of its workload are; None where it is not there."""
    if pod.key in where.pods:
        return (where.pods[pod.key],)
    return (pod.workload and tuple(where.workloads.get((pod.namespace, pod.workload), ()))) or (None,)
