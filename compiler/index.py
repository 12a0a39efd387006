"""The live index: events in, and out comes which allow-sets and which members they changed.

    events ──squash──► objects put in place ──► subjects ──► sources in use ──► members
                       (addresses in question      (allow-sets   (counted by
                        are remembered first)       compared)     reference)

Members are not stored. Those of a source are found when it comes into use; after that an address is asked before and
after a batch what it is a member of, and only addresses in question are asked: those of pods that changed, and those
in a namespace whose labels did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeGuard

from compiler.allowset import AllowSet
from compiler.changes import Changes, Deleted, Event, MemberChange, Subject, SubjectChange
from compiler.classes import Membership
from compiler.compile import State
from compiler.delta import NO_MEMBERS, member_changes
from compiler.live import LiveSources
from compiler.members import sources_of
from compiler.peers import Source
from compiler.population import name_label
from compiler.subjects import NO_SUBJECT, Subjects
from policy.cidr import Address
from policy.model import Namespace, NetworkPolicy, Pod


class Index(State):
    """The allow-sets of the pods of interest, and the sources that these use, kept up with events.

    `node`: whose pods are of interest; None for all. `uses` says which sources an allow-set needs."""

    def __init__(self, node: str | None = None, uses: Callable[[AllowSet], Iterable[Source]] = sources_of) -> None:
        self._node = node
        self._uses = uses
        super().__init__()

    def clear(self) -> None:
        super().clear()
        self._live = LiveSources(self._population)
        self._subjects = Subjects(self._uses)

    def apply(self, events: Iterable[Event]) -> Changes:
        """Takes all of `events` in, of which the last about an object counts, and compiles once."""
        pods, namespaces, policies = _latest(events)
        before: dict[Address, Membership] = {}
        doubtful: set[str] = set()
        for key, pod in pods.items():
            self._put_pod(key, pod, before, doubtful)
        for name, namespace in namespaces.items():
            self._put_namespace(name, namespace, before)
        for (space, name), policy in policies.items():
            if self._policies.get(space, name) != policy:
                self._policies.set(space, name, policy)
                doubtful |= self._subjects.inside(space)
        changed: dict[Subject, SubjectChange] = {}
        sources: set[Source] = set()
        for key in doubtful:
            now = self.pods.get(key)
            allowed = (self.allow(now, "ingress"), self.allow(now, "egress")) if self._is_subject(now) else NO_SUBJECT
            self._subjects.put(key, allowed, changed, sources)
        return self._settled(changed, sources, before)

    def _settled(
        self, subjects: dict[Subject, SubjectChange], sources: set[Source], before: dict[Address, Membership]
    ) -> Changes:
        """Lets go of sources first, so that nobody moves in them, and takes up others last, with the members of now."""
        taken_up = [source for source in sources if self._subjects.uses(source) and source not in self._live]
        released = frozenset([source for source in sources if source in self._live and not self._subjects.uses(source)])
        for source in released:
            self._live.discard(source)
        members = member_changes(before, self._live.membership, released) if before else {}
        for source in taken_up:
            members[source] = MemberChange(self._live.add(source), NO_MEMBERS)
        return Changes(subjects, members, released)

    def _put_pod(self, key: str, pod: Pod | None, before: dict[Address, Membership], doubtful: set[str]) -> None:
        old = self.pods.get(key)
        if old == pod:
            return
        for known in (old, pod):
            if known:
                self._ask(known.addresses, before)
                if self._is_subject(known):
                    doubtful.add(key)
        if pod:
            self._population.put(key, pod)
        else:
            self._population.remove(key)

    def _put_namespace(self, name: str, namespace: Namespace | None, before: dict[Address, Membership]) -> None:
        space = self._population.spaces.get(name)
        now = namespace.labels if namespace else name_label(name)
        if space and self._live.tell_apart(space.labels, now):
            for found in space.classes.values():
                for pod in found.pods.values():
                    self._ask(pod.addresses, before)
            self._live.namespace_changes(space)
        self._population.declare(name, namespace)

    def _ask(self, addresses: Iterable[Address], before: dict[Address, Membership]) -> None:
        """What the addresses are members of before the batch; nothing that bears on it has changed yet."""
        if self._live:
            for address in addresses:
                if address not in before:
                    before[address] = self._live.membership(address)

    def _is_subject(self, pod: Pod | None) -> TypeGuard[Pod]:
        """On a node, a pod without an address is none (semantics, row 24)."""
        return (
            pod is not None
            and (self._node is None or pod.node == self._node)
            and bool(pod.addresses)
            and pod.selectable
        )


def _latest(
    events: Iterable[Event],
) -> tuple[dict[str, Pod | None], dict[str, Namespace | None], dict[tuple[str, str], NetworkPolicy | None]]:
    """The last word on each object."""
    pods: dict[str, Pod | None] = {}
    namespaces: dict[str, Namespace | None] = {}
    policies: dict[tuple[str, str], NetworkPolicy | None] = {}
    for event in events:
        match event:
            case Pod():
                pods[event.key] = event
            case NetworkPolicy():
                policies[event.namespace, event.name] = event
            case Namespace():
                namespaces[event.name] = event
            case Deleted("Pod"):
                pods[f"{event.namespace}/{event.name}"] = None
            case Deleted("NetworkPolicy"):
                policies[event.namespace, event.name] = None
            case Deleted():
                namespaces[event.name] = None
    return pods, namespaces, policies
