"""Decoded objects, put together into one cluster: what each alone cannot know.

Wrong input never widens access, so what cannot be read whole is closed, by a policy of ours that isolates it in both
directions and grants nothing:

    a Pod, or a workload's template, with unreadable metadata             that pod
    a Namespace with unreadable metadata                                  its pods
    two objects of one kind and name that differ                          the pod; the namespace's pods; for policies
                                                                          both isolate, and neither grants
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from policy.errors import Problem, problem
from policy.model import (
    DIRECTIONS,
    Cluster,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Rule,
    Service,
)
from policy.selector import EVERYTHING, NAMESPACE_NAME_LABEL, Selector, in_, selector
from policy.source import Source
from policy.workloads import top_workload

Object = Namespace | Pod | NetworkPolicy | Service | EndpointSlice | Node
Known = TypeVar("Known", bound=Object)
_UNREADABLE_LABEL = "podfence.io/unreadable"


class Item(Struct):
    """One decoded object, if it is one that counts, with its kind and name as messages have them. `unreadable`: it
    holds less than was written. `owner` is the workload that a workload belongs to. `distinct`: the API server makes
    up its name, so that no other object is the same."""

    kind: str = ""
    name: str = ""
    object: Object | None = None
    problems: tuple[Problem, ...] = ()
    unreadable: bool = False
    owner: str = ""
    distinct: bool = False


class Decoded(Struct, frozen=True):
    """`problems` are sorted by place, each once."""

    cluster: Cluster
    problems: tuple[Problem, ...]


def gather(items: Iterable[Item]) -> Decoded:
    """The cluster of all `items`, in their order."""
    problems: set[Problem] = set()
    kept: dict[tuple[str, str, int], Item] = {}
    for item in items:
        problems.update(item.problems)
        if item.object is None:
            continue
        if item.distinct:
            kept[item.kind, item.name, len(kept) + 1] = item
            continue
        first = kept.setdefault((item.kind, item.name, 0), item)
        if first is not item and first.object:
            problems.add(_twice(first, item))
            if replace(first.object, source=None) != replace(item.object, source=None):
                # Which of the two is meant is unknown. The first stays; of policies the second isolates as well.
                first.unreadable = item.unreadable = True
                if isinstance(item.object, NetworkPolicy):
                    kept[item.kind, item.name, len(kept) + 1] = item
    return Decoded(_cluster(_without_needless(list(kept.values()))), tuple(sorted(problems)))


def _twice(first: Item, second: Item) -> Problem:
    assert first.object and second.object
    place = f", first at {first.object.source}" if first.object.source else ""
    return problem(second.object.source, second.kind, second.name, (), f"stands twice{place}, expected once")


def _without_needless(items: list[Item]) -> list[Item]:
    """Pods get the workload at the top of their chain. A workload needs no stand-in where its pods are there, or
    where what owns it stands for them."""
    pods = [(item, item.object) for item in items if isinstance(item.object, Pod)]
    stand_ins = {(pod.namespace, pod.workload): item for item, pod in pods if pod.stands_in}
    owners = {key: item.owner for key, item in stand_ins.items() if item.owner}
    covered = set()
    for item, pod in pods:
        if pod.workload and not pod.stands_in:
            top = top_workload(pod.workload, pod.namespace, owners)
            if top != pod.workload:
                item.object = replace(pod, workload=top)
            if not pod.finished:
                covered.add((pod.namespace, top))
    needless = set()
    for key, item in stand_ins.items():
        top_key = (key[0], top_workload(key[1], key[0], owners))
        if top_key in covered or (top_key != key and top_key in stand_ins):
            needless.add(id(item))
    return [item for item in items if id(item) not in needless]


def _cluster(items: list[Item]) -> Cluster:
    cluster = Cluster([], [], [], [], [], [])
    for item in items:
        match item.object:
            case Pod() as pod:
                if item.unreadable:
                    mark = {_UNREADABLE_LABEL: pod.name}
                    pod = replace(pod, labels={**pod.labels, **mark})
                    subject = selector([in_(_UNREADABLE_LABEL, pod.name)])
                    cluster.policies.append(_closing(pod.namespace, item, subject, pod.source))
                cluster.pods.append(pod)
            case Namespace() as namespace:
                if item.unreadable:
                    cluster.policies.append(_closing(namespace.name, item, EVERYTHING, namespace.source))
                cluster.namespaces.append(namespace)
            case NetworkPolicy() as policy:
                cluster.policies.append(_granting_nothing(policy) if item.unreadable else policy)
            case Service() as service:
                cluster.services.append(service)
            case EndpointSlice() as endpoint_slice:
                cluster.slices.append(endpoint_slice)
            case Node() as node:
                cluster.nodes.append(node)
    cluster.policies = _named_apart(cluster.policies)
    declared = {namespace.name for namespace in cluster.namespaces}
    namespaced = (cluster.pods, cluster.policies, cluster.services, cluster.slices)
    for name in dict.fromkeys(found.namespace for objects in namespaced for found in objects):
        if name not in declared:
            # Row 37: a Namespace that no file holds has only its name label.
            cluster.namespaces.append(Namespace(name, {NAMESPACE_NAME_LABEL: name}))
    return cluster


def _closing(namespace: str, item: Item, subjects: Selector, source: Source | None) -> NetworkPolicy:
    return NetworkPolicy(namespace, f"(unreadable {item.kind} {item.name})", subjects, DIRECTIONS, source=source)


def _named_apart(policies: list[NetworkPolicy]) -> list[NetworkPolicy]:
    """A number after the names of those that stand more than once: keys are unique."""
    named: dict[str, NetworkPolicy] = {}
    times: Counter[str] = Counter()
    for policy in policies:
        apart = policy
        while apart.key in named:
            times[policy.key] += 1
            apart = replace(policy, name=f"{policy.name} ({times[policy.key] + 1})")
        named[apart.key] = apart
    return list(named.values())


def _granting_nothing(policy: NetworkPolicy) -> NetworkPolicy:
    def void(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(Rule(understood=False) for _ in rules)

    return replace(policy, ingress=void(policy.ingress), egress=void(policy.egress))
