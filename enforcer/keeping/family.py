"""One family of a node's rules in the kernel: what is there, what is wanted, and the steps from one to the other.

Three ways lead from a change to the kernel, each at the cost of what it looks at: members only (`change_members`), the
allow-sets of some pods (`patch`), everything (`lay_out`, which also starts from a kernel that is not known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from compiler.changes import MemberChange, Subject, SubjectChange
from compiler.index import Index
from compiler.peers import Source
from enforcer.rules import subjects
from enforcer.rules.effects import Role, in_place, roles
from enforcer.rules.layout import Layout, Made, NodeView, lay_out
from enforcer.rules.members import LiveSet
from enforcer.rules.patch import patch, patch_plan
from enforcer.rules.plan import Actual, after, plan, with_elements
from enforcer.rules.rename import Known
from enforcer.rules.ruleset import Element
from enforcer.rules.steps import ChangeSet, DropSet, Plan, Transaction
from policy.cidr import Family

# After how many changes that left something behind it is taken out, quiet moment or not.
MOST_UNTIDY = 64
# Steps, and what waits for the part of them that is still under way.
Begun = tuple[Plan, Callable[[], None]]
NOTHING: Begun = ((), lambda: None)


class Kernel(Protocol):
    """What holds the rules: a host's kernel, or a fake that answers for one. `lazy`: where rules were deleted, the next
    change waits for that; it is better done when there is none."""

    @property
    def lazy(self) -> bool: ...

    def read(self, family: Family) -> Actual: ...

    def begin(self, steps: Plan) -> Callable[[], None]:
        """Carries out the steps in order, and may leave the last part under way; what comes back waits for it."""
        ...


class Delta(Struct):
    """Elements that one set is to get and to lose."""

    add: set[Element]
    remove: set[Element]


class FamilyCounts(Struct, frozen=True):
    """What the kernel holds of one family of ours, in numbers."""

    chains: int
    rules: int
    sets: int
    entries: int


class FamilyKeeper:
    """One family. `_live` holds the wanted members of every specified set; the installed ones differ from them by
    `_pending`, by identity. `_renamed` has the names of sets by identity. Where `_actual` is None nothing is known, and
    `lay_out` begins with reading the kernel."""

    def __init__(self, family: Family, kernel: Kernel, index: Index) -> None:
        self.family = family
        self._kernel = kernel
        self._index = index
        self._made = Made()
        self._layout: Layout | None = None
        self._renamed = Known()
        self._live: dict[str, LiveSet] = {}
        self._users: dict[Source, list[LiveSet]] = {}
        self._let_go: set[Source] = set()
        self._pending: dict[str, Delta] = {}
        self._actual: Actual | None = None
        self._roles: dict[str, Role] | None = None
        self._untidy = 0

    @property
    def behind(self) -> bool:
        """Whether the kernel may lack members, or more."""
        return self._actual is None or self._layout is None or bool(self._pending)

    def forget(self) -> None:
        """What the kernel holds is not known any more, and members may be missed."""
        self._actual = self._layout = self._roles = None
        self._renamed.names = {}
        self._live, self._users, self._pending = {}, {}, {}
        self._let_go.clear()

    def follow(self, members: Mapping[Source, MemberChange], released: Iterable[Source]) -> None:
        """Takes over changes of members. Of `released` sources nobody says any more who comes and goes: where one is
        taken up again while its set still stands, that is made anew."""
        if not self._let_go.isdisjoint(members):
            self.forget()
        self._let_go.update(source for source in released if self._users.get(source))
        for source, change in members.items():
            for live in self._users.get(source, ()):
                appeared, disappeared = live.change(source, change.joined, change.left)
                if appeared or disappeared:
                    delta = self._pending.setdefault(live.spec.name, Delta(set(), set()))
                    # What one source lets go of another may bring back.
                    delta.add, delta.remove = (
                        (delta.add - disappeared) | (appeared - delta.remove),
                        (delta.remove - appeared) | (disappeared - delta.add),
                    )
                    if not (delta.add or delta.remove):
                        del self._pending[live.spec.name]

    def change_members(self) -> Begun | None:
        """Changes elements in place; None where that is not safe, or not possible."""
        if self._actual is None or not all(self._has_room(name, delta) for name, delta in self._pending.items()):
            return None
        names = self._renamed.names
        changes = [
            ChangeSet(names[name], tuple(sorted(delta.add)), tuple(sorted(delta.remove)))
            for name, delta in self._pending.items()
        ]
        if self._roles is None:
            chains = self._actual.tables.chains
            self._roles = roles({name: [counted.rule for counted in rules] for name, rules in chains.items()})
        steps = in_place(changes, self._roles)
        return None if steps is None else self._begin(steps)

    def counts(self) -> FamilyCounts | None:
        """None while it is not known."""
        if self._actual is None:
            return None
        chains, sets = self._actual.tables.chains, self._actual.sets
        specified = {self._renamed.names[name]: live for name, live in self._live.items()}
        entries = sum(len(specified[name]) if name in specified else len(s.ipset.elements) for name, s in sets.items())
        return FamilyCounts(len(chains), sum(map(len, chains.values())), len(sets), entries)

    def _has_room(self, name: str, delta: Delta) -> bool:
        """Elements come before others go, so for a while both are there."""
        assert self._actual is not None
        return len(self._live[name]) + len(delta.remove) <= self._actual.sets[self._renamed.names[name]].maxelem

    def patch(self, changes: Mapping[Subject, SubjectChange]) -> Begun | None:
        """Gives some pods other allow-sets; None where more than that may differ."""
        if self._actual is None or self._layout is None or self._pending or self._untidy >= MOST_UNTIDY:
            return None
        found = patch(self._layout, self._made, changes)
        if found is None:
            return None
        self._layout = found.of(self._layout)
        for name in found.unused:
            installed, live = self._actual.sets[self._renamed.names[name]], self._live.pop(name)
            # From now on nobody keeps it up.
            self._actual.sets[installed.ipset.name] = with_elements(installed, live.elements)
            for source, _ in live.spec.sources:
                self._users[source].remove(live)
        for spec in found.specs:
            self._follow(LiveSet(spec, self._index))
        sets = [self._live[spec.name].ipset for spec in found.specs]
        steps = patch_plan(self._actual, found, sets, self._renamed, self._kernel.lazy)
        self._untidy += 1
        known = self._roles
        begun = self._begin(steps)
        if known is not None:
            # As they were written: what `found` calls sets by is their identity, not their name.
            written = [step.write | step.insert for step in steps if isinstance(step, Transaction)]
            found_roles = known | {name: role for chains in written for name, role in roles(chains).items()}
            self._roles = {name: role for name, role in found_roles.items() if name in self._actual.sets}
        return begun

    def lay_out(self, pods: Sequence[subjects.Subject], view: NodeView, tidily: bool) -> Begun:
        """Lays everything out, and plans from what the kernel holds. What no packet meets any more may stay where it
        need not be `tidily`."""
        wanted = self._layout = lay_out(pods, view, self.family, self._made)
        self._actual = self._installed()
        known, self._live, self._users = self._live, {}, {}
        for name, spec in wanted.specs.items():
            live = known.get(name)
            self._follow(live if live and live.spec == spec else LiveSet(spec, self._index))
        return self._planned(tidily or self._untidy >= MOST_UNTIDY)

    def tidy(self) -> Begun:
        """Takes out what no packet meets any more."""
        if not self._untidy or self._actual is None:
            return NOTHING
        self._actual = self._installed()
        return self._planned(tidily=True)

    def _planned(self, tidily: bool) -> Begun:
        assert self._layout is not None and self._actual is not None
        wanted = self._layout.ruleset(live.ipset for live in self._live.values())
        steps = plan(self._actual, wanted, self._renamed, lazily=self._kernel.lazy and not tidily)
        if tidily:
            self._untidy = 0
        else:
            steps = tuple(step for step in steps if not isinstance(step, DropSet))
            self._untidy += 1
        return self._begin(steps)

    def _follow(self, live: LiveSet) -> None:
        self._live[live.spec.name] = live
        for source, _ in live.spec.sources:
            self._users.setdefault(source, []).append(live)

    def _installed(self) -> Actual:
        """What the kernel holds; sets whose members changed in place since it was read are seen through `_live`."""
        if self._actual is None:
            return self._kernel.read(self.family)
        sets = dict(self._actual.sets)
        for name, live in self._live.items():
            elements = live.elements
            if delta := self._pending.get(name):
                elements = (elements - delta.add) | delta.remove
            installed = sets[self._renamed.names[name]]
            if installed.ipset.elements is not elements:
                sets[installed.ipset.name] = with_elements(installed, elements)
        return replace(self._actual, sets=sets)

    def _begin(self, steps: Plan) -> Begun:
        """The steps are on their way; where one fails, everything is forgotten."""
        self._pending = {}
        self._let_go.clear()
        if not steps:
            return NOTHING
        assert self._actual is not None
        wait = self._kernel.begin(steps)
        if any(isinstance(step, Transaction) for step in steps):
            self._roles = None
        self._actual = after(self._actual, steps)
        return steps, wait
