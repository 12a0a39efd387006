"""What the ways to change a policy have in common: the change itself, and the ends and ports that it is for."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from compiler.compile import Compiled
from compiler.verdict import End, Flow, NodeEgress
from policy.cidr import Prefix
from policy.edit import Edit
from policy.model import PROTOCOLS, Direction, NetworkPolicy, Pod, Port, Rule
from policy.selector import Selector, in_, selector

OF_ONE_POD = frozenset(
    {
        *("apps.kubernetes.io/pod-index", "batch.kubernetes.io/controller-uid", "controller-uid"),
        *("controller-revision-hash", "pod-template-generation", "pod-template-hash"),
        *("statefulset.kubernetes.io/pod-name", "batch.kubernetes.io/job-completion-index"),
    }
)


class Changed(Struct, frozen=True):
    """One policy as it would be. `edits` lead from the `old` one to it; None is a new policy."""

    policy: NetworkPolicy
    old: NetworkPolicy | None
    edits: tuple[Edit, ...]
    text: str


class Ask(Struct, frozen=True):
    """The flows that are to have another verdict. `blocks` are the prefixes of an end that is a block of addresses."""

    flows: tuple[Flow, ...]
    node_egress: NodeEgress = "enforce"
    blocks: tuple[Prefix, ...] = ()


def ends_of(flow: Flow, direction: Direction) -> tuple[End, End]:
    """Subject and peer."""
    return (flow.dst, flow.src) if direction == "ingress" else (flow.src, flow.dst)


def ports_of(ask: Ask) -> tuple[Port, ...]:
    """None where only a rule for every port will do, as for ICMP."""
    found: dict[Port, None] = {}
    for flow in ask.flows:
        for protocol in PROTOCOLS:
            if flow.protocol == protocol:
                found[Port(protocol, flow.port, flow.port)] = None
    return tuple(found)


def subjects_of(ask: Ask, direction: Direction) -> Selector:
    subjects = [ends_of(flow, direction)[0].pod for flow in ask.flows]
    return selector_of([pod for pod in subjects if pod])


def selector_of(pods: Sequence[Pod]) -> Selector:
    """The labels that the pods share, without those that belong to one pod or one roll-out."""
    shared = set(pods[0].labels.items()).intersection(*(pod.labels.items() for pod in pods))
    return selector(in_(key, value) for key, value in sorted(shared) if key not in OF_ONE_POD)


def with_rules(policy: NetworkPolicy, direction: Direction, rules: tuple[Rule, ...]) -> NetworkPolicy:
    return replace(policy, ingress=rules) if direction == "ingress" else replace(policy, egress=rules)


def word(pod: Pod) -> str:
    return (pod.workload or pod.name).rpartition("/")[2]


def free_name(compiled: Compiled, namespace: str, wanted: str) -> str:
    taken = {policy.key for policy in compiled.cluster.policies}
    name, number = wanted, 1
    while f"{namespace}/{name}" in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
