"""What the index should say, found by a plain scan of the objects; and a copy that follows the index by its changes."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.allowset import OPEN, AllowSet, BoundRule, PolicyRef, allow_set
from compiler.bind import bind
from compiler.changes import Changes, Deleted, Event, Subject
from compiler.peers import Member, PeerSet, PodTerm, Source
from compiler.ports import NamedPort
from policy.cidr import Address
from policy.model import DIRECTIONS, Direction, Namespace, NetworkPolicy, Pod
from policy.selector import NAMESPACE_NAME_LABEL

Objects = dict[tuple[str, str, str], Namespace | Pod | NetworkPolicy]


def identity(event: Event) -> tuple[str, str, str]:
    if isinstance(event, Deleted):
        return event.kind, event.namespace, event.name
    return type(event).__name__, "" if isinstance(event, Namespace) else event.namespace, event.name


def happen(objects: Objects, event: Event) -> None:
    if isinstance(event, Deleted):
        objects.pop(identity(event), None)
    else:
        objects[identity(event)] = event


class SlowTwin:
    """Everything by a scan, from the objects of one moment: `subjects` and `members` as the index reports them."""

    def __init__(self, objects: Objects, node: str | None) -> None:
        self.pods = [each for each in objects.values() if isinstance(each, Pod)]
        policies = [each for each in objects.values() if isinstance(each, NetworkPolicy)]
        self.policies = sorted(policies, key=lambda policy: policy.key)
        self.labels = {each.name: each.labels for each in objects.values() if isinstance(each, Namespace)}
        self.subjects: dict[Subject, AllowSet] = {
            (pod.key, direction): self.allow(pod, direction)
            for pod in self.pods
            if pod.selectable and pod.addresses and node in (None, pod.node)
            for direction in DIRECTIONS
        }
        self.members = {source: self.of(source) for allow in self.subjects.values() for source in _uses(allow)}

    def allow(self, pod: Pod, direction: Direction) -> AllowSet:
        isolating = [
            policy
            for policy in self.policies
            if direction in policy.isolates
            and policy.namespace == pod.namespace
            and policy.subjects.matches(pod.labels)
        ]
        bound: list[BoundRule] = []
        for policy in isolating:
            bound += bind(policy, direction, pod.ports)
        return allow_set((PolicyRef(p.key, p.source) for p in isolating), bound) if isolating else OPEN

    def of(self, source: Source) -> frozenset[Member]:
        if isinstance(source, PeerSet):
            chosen = (pod for pod in self.pods if self.selected(pod, source))
            return frozenset((a, None, 0) for pod in chosen for a in pod.addresses if self.owns(pod, a))
        name, peers = source
        return frozenset(
            (address, name.protocol, port.port)
            for pod in self.pods
            if pod.selectable
            for port in pod.ports
            if (port.name, port.protocol) == (name.name, name.protocol)
            for address in pod.addresses
            if self.owns(pod, address) and (self.selected(pod, peers) or peers.addresses.contains(address))
        )

    def owns(self, pod: Pod, address: Address) -> bool:
        """Of several pods with one address the only one that stays; while there is no such one, none."""
        holders = [each for each in self.pods if each.selectable and address in each.addresses]
        staying = holders if len(holders) == 1 else [each for each in holders if not each.deleting]
        return staying == [pod]

    def selected(self, pod: Pod, peers: PeerSet) -> bool:
        return any(self.in_term(pod, term) for term in peers.pods)

    def in_term(self, pod: Pod, term: PodTerm) -> bool:
        labels = self.labels.get(pod.namespace, {NAMESPACE_NAME_LABEL: pod.namespace})
        return pod.selectable and term.pods.matches(pod.labels) and term.namespaces.matches(labels)


def _uses(allow: AllowSet) -> Iterable[Source]:
    for grant in allow.grants:
        if isinstance(grant.ports, NamedPort):
            yield grant.ports, grant.peers
        elif grant.peers.pods:
            yield PeerSet(grant.peers.pods)


class Follower:
    """The state of an index, known only from its changes; a change that is none, or does not fit, is an error."""

    def __init__(self) -> None:
        self.subjects: dict[Subject, AllowSet] = {}
        self.members: dict[Source, frozenset[Member]] = {}

    def follow(self, changes: Changes) -> None:
        for subject, change in changes.subjects.items():
            assert change.old == self.subjects.pop(subject, None) != change.new
            if change.new is not None:
                self.subjects[subject] = change.new
        for source, moved in changes.members.items():
            known = self.members.get(source)
            assert known is None or moved.joined or moved.left, "a change of nothing"
            known = known or frozenset()
            assert not moved.joined & known and moved.left <= known and not moved.joined & moved.left
            self.members[source] = (known | moved.joined) - moved.left
        for source in changes.released:
            assert source not in changes.members
            del self.members[source]
