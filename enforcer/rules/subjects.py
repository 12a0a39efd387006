"""The pods that a node enforces for, each with what decides its rules; and the sets that follow from them alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from compiler.allowset import AllowSet
from compiler.compile import State
from enforcer.rules import names
from enforcer.rules.leaves import host
from enforcer.rules.modes import Mode, mode_of
from enforcer.rules.ruleset import Element, IpSet
from enforcer.rules.view import Attachment, NodeView
from policy.cidr import BITS, Address, Family
from policy.model import DIRECTIONS, Direction, Pod


class Subject(Struct, frozen=True):
    """`own` are the pod's addresses by family, neither another pod's by now nor closed; `attachment` is None where no
    interface is known to lead to it: then nothing passes. `allow` is what policies mean, whatever the mode."""

    pod: Pod
    key: str
    own: Mapping[Family, Sequence[Address]]
    attachment: Attachment | None
    mode: Mode
    allow: Mapping[Direction, AllowSet]


def subjects_of(pods: Iterable[Pod], state: State, node: NodeView) -> list[Subject]:
    """By key."""
    return sorted((_subject(pod, state, node) for pod in pods), key=lambda subject: subject.key)


def _subject(pod: Pod, state: State, node: NodeView) -> Subject:
    key = pod.key
    own: dict[Family, list[Address]] = {family: [] for family in BITS}
    for address in pod.addresses:
        if address not in node.closed and (holder := state.pod_at(address)) and holder.key == key:
            own[address.family].append(address)
    mode = mode_of(state.namespaces.get(pod.namespace, {}), node.mode)
    allow = {direction: state.allow(pod, direction) for direction in DIRECTIONS}
    return Subject(pod, key, own, node.attachment(key), mode, allow)


def node_sets(subjects: Sequence[Subject], node: NodeView, family: Family) -> Iterable[IpSet]:
    """`known`: which address stands behind which routed veth. `pods`: all addresses of pods, those without a veth too,
    which are closed by being here and not in `known`. `audited`: whose denials only count; there if there are any."""
    known = frozenset(
        Element(host(address), interface=subject.attachment.interface)
        for subject in subjects
        if subject.attachment and not subject.attachment.bridge
        for address in subject.own[family]
    )
    yield IpSet(names.set_name(family, "known"), "hash:net,iface", known)
    yield IpSet(names.set_name(family, "pods"), "hash:ip", hosts(_claimed(subjects, node, family)))
    audited = [address for subject in subjects if subject.mode == "audit" for address in subject.own[family]]
    if any(subject.mode == "audit" for subject in subjects):
        yield IpSet(names.set_name(family, "audited"), "hash:ip", hosts(audited))


def host_set(node: NodeView, family: Family) -> IpSet:
    """Nodes' addresses, and how often each was denied what it sent to this node's pods."""
    found = hosts(address for address in node.hosts if address.family == family)
    return IpSet(names.set_name(family, "hosts"), "hash:ip", found, counters=True)


def _claimed(subjects: Sequence[Subject], node: NodeView, family: Family) -> set[Address]:
    """Where the unknown is open, a pod without an interface has no address that is closed."""
    shown = [subject for subject in subjects if subject.attachment or node.unknown == "closed"]
    found = {address for subject in shown for address in subject.pod.addresses if address.family == family}
    if node.unknown == "open":
        found.difference_update(a for subject in subjects if not subject.attachment for a in subject.own[family])
    return found


def hosts(addresses: Iterable[Address]) -> frozenset[Element]:
    return frozenset(Element(host(address)) for address in addresses)
