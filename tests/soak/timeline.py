"""What holds since when: the versions of pods, policies and namespaces, and the changes between them.

A change is in transition from `sent`, just before the API server has it, until `done`, when every agent has said that
its kernel holds it. At a moment everything is in force that was done before, and of what was sent by then any part that
keeps the order within a kind: kinds are told of by streams of their own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product

from tests.oracle.fields import Object

KINDS = ("Pod", "NetworkPolicy", "Namespace")
BOUND = 3.0  # seconds, of a transition while agents run and the API server answers
_KEPT = 12.0  # seconds for which a change is remembered after it was done, and after what is being judged was sent
Versions = tuple[int, ...]  # by KINDS


@dataclass
class Change:
    number: int
    what: str
    sent: float
    versions: Versions  # once it is in force
    kinds: frozenset[str]
    slack: float = 0.0  # what faults add to its bound
    done: float | None = None


@dataclass
class Damage:
    """What others did to a node's rules: until it is repaired anything may pass there, or nothing."""

    node: str
    what: str
    began: float
    bound: float
    done: float | None = None


@dataclass
class Timeline:
    """Thread-safe. `overdue` are transitions that were longer than their bound."""

    objects: dict[tuple[str, int], list[Object]]  # (kind, version)
    changes: deque[Change] = field(default_factory=deque)
    damages: deque[Damage] = field(default_factory=deque)
    absences: deque[Damage] = field(default_factory=deque)  # of agents, which end no flows meanwhile
    widths: list[float] = field(default_factory=list)
    widths_beside_faults: list[float] = field(default_factory=list)
    repairs: list[tuple[str, float]] = field(default_factory=list)
    overdue: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.now: Versions = (0, 0, 0)  # as the API server has it
        self.judged = float(
            "inf"
        )  # when the probe was sent that is being judged: on a busy machine that may be long ago
        self._oldest: Versions = self.now  # before the first change that is remembered
        self._count = 0

    def begin(
        self, what: str, sent: float, slack: float, new: dict[str, list[Object]], kinds: frozenset[str] = frozenset()
    ) -> Change:
        """`new` objects of some kinds; `kinds` are others that are to be waited for too."""
        with self.lock:
            versions = list(self.now)
            for kind, objects in new.items():
                at = KINDS.index(kind)
                versions[at] += 1
                self.objects[kind, versions[at]] = objects
            self._count += 1
            change = Change(self._count, what, sent, tuple(versions), kinds.union(new), slack)
            self.now = change.versions
            self.changes.append(change)
            return change

    def finish(self, changes: list[Change], now: float) -> None:
        with self.lock:
            for each in changes:
                each.done = now
                (self.widths_beside_faults if each.slack else self.widths).append(now - each.sent)
                if now - each.sent > BOUND + each.slack:
                    self.overdue.append(f"{each.what}: {now - each.sent:.2f} s, not {BOUND + each.slack:g}")
            while self.changes and self._forgets(self.changes[0].done, now):
                self._oldest = self.changes.popleft().versions
            for key in [key for key in self.objects if key[1] < self._oldest[KINDS.index(key[0])]]:
                del self.objects[key]

    def _forgets(self, done: float | None, now: float) -> bool:
        return done is not None and done < min(now, self.judged) - _KEPT

    def damage(self, node: str, what: str, began: float, bound: float) -> Damage:
        with self.lock:
            found = Damage(node, what, began, bound)
            self.damages.append(found)
            return found

    def repaired(self, damage: Damage, now: float) -> None:
        with self.lock:
            damage.done = now
            self.repairs.append((damage.what, now - damage.began))
            if now - damage.began > damage.bound:
                self.overdue.append(f"{damage.what} on {damage.node}: {now - damage.began:.2f} s, not {damage.bound:g}")
            while self.damages and self._forgets(self.damages[0].done, now):
                self.damages.popleft()

    def leaves(self, node: str, now: float) -> Damage:
        """The node's agent is about to go."""
        with self.lock:
            found = Damage(node, "no agent", now, 0)
            self.absences.append(found)
            return found

    def returned(self, absence: Damage, now: float) -> None:
        with self.lock:
            absence.done = now
            while self.absences and self._forgets(self.absences[0].done, now):
                self.absences.popleft()

    def unmet(self, damage: Damage, now: float) -> None:
        """It was none: from now on it excuses nothing."""
        with self.lock:
            damage.done = now

    def admissible(self, began: float, ended: float) -> list[Versions]:
        """The states that could be in force while a packet was on its way; one where nothing was in transition."""
        with self.lock:
            base, moving = self._oldest, []
            for each in self.changes:
                if each.done is not None and each.done < began:
                    base = each.versions
                elif each.sent <= ended:
                    moving.append(each)
        if not moving:
            return [base]
        steps = [[base[at]] for at in range(len(KINDS))]
        for each in moving:
            for at, versions in enumerate(steps):
                if each.versions[at] != versions[-1]:
                    versions.append(each.versions[at])
        return list(product(*steps))

    def in_force(self, began: float, ended: float) -> list[Versions]:
        """The states that could be in force at any moment between: fewer than `admissible` gives for all that time, in
        which it mixes what was never in transition together."""
        with self.lock:
            edges = {edge for each in self.changes for edge in (each.sent, each.done or ended) if began < edge < ended}
        moments = sorted({began, ended, *edges})
        return list(dict.fromkeys(state for moment in moments for state in self.admissible(moment, moment)))

    def damaged(self, node: str, began: float, ended: float) -> bool:
        with self.lock:
            return _among(self.damages, node, began, ended)

    def absent(self, node: str, began: float, ended: float) -> bool:
        with self.lock:
            return _among(self.absences, node, began, ended)

    def recent(self, moment: float) -> list[str]:
        """For a report: what was going on about `moment`."""
        with self.lock:
            told = [
                (each.sent, f"{each.sent - moment:+8.3f} s  {each.what}  (done {_after(each.done, moment)})")
                for each in self.changes
            ]
            told += [
                (
                    each.began,
                    f"{each.began - moment:+8.3f} s  {each.what} on {each.node}  (done {_after(each.done, moment)})",
                )
                for each in self.damages
            ]
        return [text for _, text in sorted(told)]


def _among(spans: Iterable[Damage], node: str, began: float, ended: float) -> bool:
    return any(
        each.node == node and each.began <= ended and (each.done is None or each.done >= began) for each in spans
    )


def _after(done: float | None, moment: float) -> str:
    return "not yet" if done is None else f"{done - moment:+.3f} s"
