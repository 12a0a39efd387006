"""A node's rules kept up with events, at a cost that follows the change and not the cluster.

    events ─► index ─► members only ────────────────────────► elements of sets, in place where that is proven safe
                 ├───► other allow-sets of isolated pods ───► the ends of their chains, and what these lead to
                 └───► pods of the node, or any other case ─► laid out anew, taking over what is known, and planned

What the kernel holds is read once, at the start, and from then on known by what was carried out. After a step that
failed it is unknown: it is read back, and planned anew from there.

While the rules of one family are on their way into the kernel, those of the other are worked out. Sets that nothing
looks in any more decide nothing, and to destroy one means waiting for the kernel: that is left for a quiet moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache

from compiler.allowset import AllowSet
from compiler.changes import Changes, Deleted, Event, Subject, SubjectChange, pod_key
from compiler.index import Index
from compiler.peers import EVERY_POD, Source
from enforcer.keeping.family import Begun, FamilyCounts, FamilyKeeper, Kernel
from enforcer.rules.allow import sources
from enforcer.rules.layout import NodeView, is_local
from enforcer.rules.modes import Mode, mode_of
from enforcer.rules.steps import Plan
from enforcer.rules.subjects import subjects_of
from policy.cidr import Address, Family
from policy.model import Namespace, Pod


class Keeper:
    """Owns the index and the dataplane of one node; one thread only. After `start`, and after each `handle` that does
    not raise, every family of the kernel holds what the objects mean."""

    def __init__(self, view: NodeView, families: Iterable[Family], kernel: Kernel) -> None:
        self._view = view
        self._kernel = kernel
        self.families = tuple(families)  # in the order of the plans that every method gives
        self.index = Index(view.name, self._uses)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets everything, whatever state a defect left it in, but for what the kernel holds: from there the next
        `bring` goes to what is taken in until then."""
        self._pods: dict[str, Pod] = {}
        self._addresses: set[Address] = set()
        # What was taken in and not brought yet, but for members of sets.
        self._subjects: dict[Subject, SubjectChange] = {}
        self._moved = True
        self.index.clear()
        self._families = [FamilyKeeper(family, self._kernel, self.index) for family in self.families]

    def start(self, events: Iterable[Event]) -> tuple[Plan, ...]:
        """Takes in everything that there is, and brings the kernel there from whatever it holds."""
        self.take(events)
        return self._settled(self._all(self._laying_out(tidily=True)))

    def handle(self, events: Iterable[Event], view: NodeView | None = None) -> tuple[Plan, ...]:
        """`take` and `bring` in one."""
        self.take(events)
        return self.bring(view)

    def take(self, events: Iterable[Event]) -> Changes:
        """Takes a batch of events into the index; the rules follow with the next `bring`."""
        changes, moved = self._take(events)
        for each in self._families:
            each.follow(changes.members, changes.released)
        for subject, change in changes.subjects.items():
            earlier = self._subjects.get(subject)
            self._subjects[subject] = SubjectChange(earlier.old, change.new) if earlier else change
        self._moved |= moved
        return changes

    def bring(self, view: NodeView | None = None) -> tuple[Plan, ...]:
        """Brings the kernel to what was taken in, and to another view of the node where that changed; the steps by
        family. KernelRejected or HostRefused leaves what was in force, and the next call makes good what is missing."""
        if view is not None and view != self._view:
            self._view, self._moved = view, True
        lay_out = self._laying_out(tidily=False)
        return self._settled(self._all(lambda each: self._brought(each) or lay_out(each)))

    def _settled(self, plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
        """Nothing is left to bring."""
        self._subjects, self._moved = {}, False
        return plans

    @property
    def behind(self) -> bool:
        """Whether the kernel may lack something of what was taken in."""
        return self._moved or bool(self._subjects) or any(each.behind for each in self._families)

    def counts(self) -> dict[Family, FamilyCounts]:
        """What the kernel holds of ours, as far as is known without reading it."""
        return {each.family: found for each in self._families if (found := each.counts())}

    def repair(self) -> tuple[Plan, ...]:
        """Reads the kernel back, since somebody else may have changed it, and brings it to what is wanted. See
        `repair.Repairer`, which says when."""
        for each in self._families:
            each.forget()
        return self._all(self._laying_out(tidily=False))

    def tidy(self) -> tuple[Plan, ...]:
        """Takes out what `handle` left behind; for a quiet moment. The steps by family, which change no verdict."""
        return self._all(lambda each: each.tidy())

    def _all(self, begin: Callable[[FamilyKeeper], Begun]) -> tuple[Plan, ...]:
        """Each family's part is begun, then all are waited for, whatever fails."""
        try:
            with ExitStack() as waits:
                done = []
                for each in self._families:
                    steps, wait = begin(each)
                    waits.callback(wait)
                    done.append(steps)
        except BaseException:
            # Families that were not reached have missed changes, as the one that failed has.
            for each in self._families:
                each.forget()
            raise
        return tuple(done)

    def _brought(self, each: FamilyKeeper) -> Begun | None:
        """By one of the short ways, where there is one."""
        if self._moved:
            return None
        return each.patch(self._subjects) if self._subjects else each.change_members()

    def _laying_out(self, tidily: bool) -> Callable[[FamilyKeeper], Begun]:
        """The long way of any family; what the node's pods are is found out once for all of them, where one asks."""
        pods = cache(lambda: subjects_of(self._pods.values(), self.index, self._view))
        return lambda each: each.lay_out(pods(), self._view, tidily)

    def _uses(self, allow: AllowSet) -> set[Source]:
        """The sources whose members sets hold for an allow-set, in any family: its own sets, and how it denies."""
        found = {source for each in self._families for source in sources(allow, each.family)}
        return found | {EVERY_POD} if allow.isolated else found

    def _take(self, events: Iterable[Event]) -> tuple[Changes, bool]:
        """What the events change, and whether pods of this node came, went or are others now, or in another mode."""
        taken = list(events)
        before = {key: self.index.pods.get(key) for event in taken if (key := pod_key(event))}
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
