"""A node's rules kept up with events, at a cost that follows the change and not the cluster.

    events ─► index ─► members only ────────────────────────► elements of sets, in place where that is proven safe
                 └───► other allow-sets, or pods of the node ► laid out anew, taking over what is known, and planned

What the kernel holds is read once, at the start, and from then on known by what was carried out. After a step that
failed it is unknown: it is read back, and planned anew from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from compiler.allowset import AllowSet
from compiler.changes import Changes, Deleted, Event, MemberChange
from compiler.index import Index
from compiler.peers import Source
from enforcer.allow import allow_rules
from enforcer.effects import Role, in_place, roles
from enforcer.layout import Made, NodeView, is_local, lay_out
from enforcer.members import LiveSet
from enforcer.modes import Mode, mode_of
from enforcer.names import split_generation
from enforcer.plan import Actual, after, plan, with_elements
from enforcer.rename import Known
from enforcer.ruleset import Element
from enforcer.steps import ChangeSet, Plan
from policy.cidr import Address, Family
from policy.model import Namespace, Pod


class Kernel(Protocol):
    """What holds the rules: a host's kernel, or a fake that answers for one."""

    def read(self, family: Family) -> Actual: ...

    def execute(self, steps: Plan) -> None: ...


class Keeper:
    """Owns the index and the dataplane of one node; one thread only. After `start`, and after each `handle` that does
    not raise, every family of the kernel holds what the objects mean."""

    def __init__(self, view: NodeView, families: Iterable[Family], kernel: Kernel) -> None:
        self._view = view
        self._pods: dict[str, Pod] = {}
        self._addresses: set[Address] = set()
        self.index = Index(view.name, self._uses)
        self._families = [_FamilyKeeper(family, kernel, self.index) for family in families]

    def start(self, events: Iterable[Event]) -> tuple[Plan, ...]:
        """Takes in everything that there is, and brings the kernel there from whatever it holds."""
        self._take(events)
        return self._bring(anew=True)

    def handle(self, events: Iterable[Event], view: NodeView | None = None) -> tuple[Plan, ...]:
        """Takes in a batch of events, and another view of the node where that changed; the steps by family.
        KernelRejected or HostRefused leaves what was in force, and what is missing is made good by the next call."""
        changes, moved = self._take(events)
        if view is not None and view != self._view:
            self._view, moved = view, True
        for each in self._families:
            each.follow(changes.members)
        return self._bring(anew=bool(moved or changes.subjects))

    def repair(self) -> tuple[Plan, ...]:
        """Reads the kernel back, since somebody else may have changed it, and brings it to what is wanted."""
        for each in self._families:
            each.forget()
        return self._bring(anew=True)

    def _bring(self, anew: bool) -> tuple[Plan, ...]:
        try:
            return tuple(self._bring_one(each, anew) for each in self._families)
        except BaseException:
            # Families that were not reached have missed changes, as the one that failed has.
            for each in self._families:
                each.forget()
            raise

    def _bring_one(self, each: _FamilyKeeper, anew: bool) -> Plan:
        steps = None if anew else each.change_members()
        return each.lay_out(self._pods.values(), self._view) if steps is None else steps

    def _uses(self, allow: AllowSet) -> set[Source]:
        """The sources whose members the sets of an allow-set hold, in any family. The direction decides which end of a
        packet is looked for in them, and not whose addresses they hold."""
        return {
            source
            for each in self._families
            for spec in allow_rules(allow, "ingress", each.family).sets
            for source, _ in spec.sources
        }

    def _take(self, events: Iterable[Event]) -> tuple[Changes, bool]:
        """What the events change, and whether pods of this node came, went or are others now, or in another mode."""
        taken = list(events)
        before = {key: self.index.pods.get(key) for event in taken if (key := _pod_key(event))}
        modes = {name: self._mode(name) for event in taken if (name := _namespace_name(event))}
        changes = self.index.apply(taken)
        moved = any(self._mode(name) != mode for name, mode in modes.items())
        for key, old in before.items():
            pod = self.index.pods.get(key)
            now = pod if pod and is_local(pod, self._view.name) else None
            known = self._pods.get(key)
            if now != known:
                if now:
                    self._pods[key] = now
                else:
                    del self._pods[key]
            # A pod of another node can have the address of one of ours: until its end is heard of, or by mistake.
            moved |= now != known or any(a in self._addresses for each in (old, pod) if each for a in each.addresses)
        if moved:
            self._addresses = {address for pod in self._pods.values() for address in pod.addresses}
        return changes, moved

    def _mode(self, namespace: str) -> Mode:
        return mode_of(self.index.namespaces.get(namespace, {}), self._view.mode)


def _namespace_name(event: Event) -> str:
    return (
        event.name if isinstance(event, Namespace) or (isinstance(event, Deleted) and event.kind == "Namespace") else ""
    )


def _pod_key(event: Event) -> str:
    if isinstance(event, Pod):
        return event.key
    return f"{event.namespace}/{event.name}" if isinstance(event, Deleted) and event.kind == "Pod" else ""


class Delta(Struct):
    """Elements that one set is to get and to lose."""

    add: set[Element]
    remove: set[Element]


class _FamilyKeeper:
    """One family. `_live` holds the wanted members of every specified set; the installed ones differ from them by
    `_pending`, by identity. Where `_actual` is None nothing is known, and `lay_out` begins with reading the kernel."""

    def __init__(self, family: Family, kernel: Kernel, index: Index) -> None:
        self.family = family
        self._kernel = kernel
        self._index = index
        self._made = Made()
        self._renamed: Known = {}
        self._live: dict[str, LiveSet] = {}
        self._users: dict[Source, list[LiveSet]] = {}
        self._pending: dict[str, Delta] = {}
        self._actual: Actual | None = None
        self._names: dict[str, str] = {}
        self._roles: dict[str, Role] | None = None

    def forget(self) -> None:
        """What the kernel holds is not known any more, and members may be missed."""
        self._actual = None
        self._live, self._users, self._pending = {}, {}, {}

    def follow(self, members: Mapping[Source, MemberChange]) -> None:
        """Takes over changes of members."""
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

    def change_members(self) -> Plan | None:
        """Changes elements in place; None where that is not safe, or not possible."""
        if self._actual is None or not all(self._has_room(name, delta) for name, delta in self._pending.items()):
            return None
        changes = [
            ChangeSet(self._names[name], tuple(sorted(delta.add)), tuple(sorted(delta.remove)))
            for name, delta in self._pending.items()
        ]
        if self._roles is None:
            chains = self._actual.tables.chains
            self._roles = roles({name: [counted.rule for counted in rules] for name, rules in chains.items()})
        steps = in_place(changes, self._roles)
        if steps is not None:
            self._execute(steps)
        return steps

    def _has_room(self, name: str, delta: Delta) -> bool:
        """Elements come before others go, so for a while both are there."""
        assert self._actual is not None
        return len(self._live[name]) + len(delta.remove) <= self._actual.sets[self._names[name]].maxelem

    def lay_out(self, pods: Iterable[Pod], view: NodeView) -> Plan:
        """Lays everything out, and plans from what the kernel holds."""
        ordered = sorted(pods, key=lambda pod: pod.key)
        wanted = lay_out(ordered, self._index, view, self.family, self._made)
        actual = self._installed()
        known = self._live
        self._live = {name: known.get(name) or LiveSet(spec, self._index) for name, spec in wanted.specs.items()}
        self._users = {}
        for live in self._live.values():
            for source, _ in live.spec.sources:
                self._users.setdefault(source, []).append(live)
        steps = plan(actual, wanted.ruleset(live.ipset for live in self._live.values()), self._renamed)
        self._execute(steps)
        self._actual = after(actual, steps)
        used = {split_generation(name)[0]: name for name in self._actual.sets}
        self._names = {name: used[name] for name in self._live}
        self._roles = None
        return steps

    def _installed(self) -> Actual:
        """What the kernel holds; sets whose members changed in place since it was read are seen through `_live`."""
        if self._actual is None:
            return self._kernel.read(self.family)
        sets = dict(self._actual.sets)
        for name, live in self._live.items():
            elements = live.elements
            if delta := self._pending.get(name):
                elements = (elements - delta.add) | delta.remove
            sets[self._names[name]] = with_elements(sets[self._names[name]], elements)
        return Actual(self.family, self._actual.tables, sets)

    def _execute(self, steps: Plan) -> None:
        if steps:
            self._kernel.execute(steps)
        self._pending = {}
