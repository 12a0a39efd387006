"""Noticed, repaired, counted: what somebody else did to our rules, in one line for each family.

    watch ─ something changed, or it is time ─► read back, plan, write ─► again, until nothing is left to write

What is found wrong is told by the steps that put it right. What no packet meets is left to `Keeper.tidy`, and is no
repair where the kernel is lazy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from msgspec import Struct

from enforcer.keeping.keep import Keeper
from enforcer.kernel.drift import Wrote
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Plan, Transaction
from policy.cidr import Family

# Seconds after which everything is read back, whatever the watch says: what others do while we write hides behind it.
FULL = 60.0
_TRIES = 3
_SOON = 0.2
_NAMED = 3


class Watching(Protocol):
    """As `drift.Watch`."""

    def look(self) -> None: ...

    def ours(self, wrote: Wrote | None = None) -> None: ...

    def changed(self) -> bool: ...


class Repair(Struct, frozen=True):
    """What was wrong in one family, and is right again."""

    family: Family
    what: str

    def __str__(self) -> str:
        return f"IPv{self.family}: {self.what}"


class Repairer:
    """`repaired` counts, by family, how often something was wrong. Of the keeper's thread."""

    def __init__(
        self, keeper: Keeper, watch: Watching, clock: Callable[[], float] = time.monotonic, every: float = FULL
    ) -> None:
        self._keeper = keeper
        self._watch = watch
        self._clock = clock
        self._every = every
        self._due = clock() + every
        self._pause = 0.0  # until the next try, longer each time, where somebody does not stop
        self._entries = self._entries_now()
        self.repaired: dict[Family, int] = dict.fromkeys(keeper.families, 0)

    def ours(self, plans: Iterable[Plan]) -> None:
        """After each change of our own, which `plans` were: what the watch sees now is no news, unless it is more than
        they do."""
        transactions = [step for steps in plans for step in steps if isinstance(step, Transaction)]
        if not transactions:
            self._watch.ours(Wrote())
            return
        before, self._entries = self._entries, self._entries_now()
        # Where jumps are put into others' chains, nobody knows whether some were there.
        if before is None or self._entries is None or any(step.jump or step.unjump for step in transactions):
            self._watch.ours()
            return
        grown = {family: entries - before[family] for family, entries in self._entries.items()}
        self._watch.ours(Wrote(len(transactions), grown))

    def _entries_now(self) -> dict[Family, int] | None:
        """As legacy tables count what is ours: a chain has one at its head and one at its end. None where a family is
        not known."""
        counts = self._keeper.counts()
        if len(counts) < len(self._keeper.families):
            return None
        return {family: each.rules + 2 * each.chains for family, each in counts.items()}

    def check(self) -> tuple[Repair, ...]:
        """Looks, and where somebody changed anything, or it was long ago, brings it to what is wanted. What the keeper
        raises passes through; then the next call tries again."""
        if not self._watch.changed() and self._clock() < self._due:
            return ()
        self._due = self._clock()
        found: list[Repair] = []
        for _ in range(_TRIES):
            # Before the reading, so that what changes behind it is seen.
            self._watch.look()
            plans = self._keeper.repair()
            found += (
                Repair(f, describe(steps)) for f, steps in zip(self._keeper.families, plans, strict=True) if steps
            )
            if not any(plans):
                self._pause = 0.0
                break
        else:
            # Somebody is still at it. What came after the last reading may be all there is to see of it.
            self._pause = min(max(_SOON, 2 * self._pause), self._every)
        self._entries = self._entries_now()
        self._due = self._clock() + (self._pause or self._every)
        for repair in found:
            self.repaired[repair.family] += 1
        return tuple(found)


def describe(steps: Plan) -> str:
    """What was wrong, by what puts it right."""
    return "; ".join(part for step in steps for part in _parts(step))


def _parts(step: MakeSet | ChangeSet | Transaction | DropSet) -> Iterator[str]:
    match step:
        case MakeSet(_, ipset):
            yield f"set {ipset.name} made anew"
        case ChangeSet(name, add, remove):
            counts = [f"{len(add)} elements were missing"] if add else []
            counts += [f"{len(remove)} too many"] if remove else []
            yield f"set {name}: {', '.join(counts)}"
        case DropSet(name):
            yield f"set {name} was not ours"
        case Transaction(_, write, delete, jump, _, insert):
            if jump:
                yield f"the jump in {' and '.join(jump)} was not in its place"
            if write or insert:
                yield f"chains differed: {_some([*write, *insert])}"
            if delete:
                yield f"chains were not ours: {_some([*delete])}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + more
