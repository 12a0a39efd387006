"""What else a change of policies does: every flow between workloads that it opens or closes."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from compiler.compile import Compiled
from compiler.open_ports import open_ports
from compiler.ports import NO_PORTS, PortSet
from compiler.verdict import End, NodeEgress
from policy.model import DIRECTIONS, Direction, Pod


class Flows(Struct, frozen=True, order=True):
    """From one workload to another: the ports that are opened, or closed."""

    src: str
    dst: str
    ports: PortSet


class Unit(Struct, frozen=True, eq=False):
    """A workload, or a pod without one, by a pod of it. Replicas that policies tell apart are units of their own."""

    name: str
    pod: Pod
    several: bool


def units(compiled: Compiled) -> list[Unit]:
    first: dict[tuple[object, ...], Pod] = {}
    count: dict[tuple[object, ...], int] = {}
    for pod in compiled.cluster.pods:
        if not pod.selectable:
            continue
        policies = tuple(policy.key for policy in compiled.selecting(pod))
        key = (pod.namespace, pod.workload or pod.name, tuple(sorted(_shared(pod).items())), pod.ports, policies)
        first.setdefault(key, pod)
        count[key] = count.get(key, 0) + 1
    return [Unit(name_of(pod), pod, pod.stands_in or count[key] > 1) for key, pod in first.items()]


_OF_ONE_POD = frozenset({"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "pod-template-hash"})


def _shared(pod: Pod) -> dict[str, str]:
    return {key: value for key, value in pod.labels.items() if key not in _OF_ONE_POD}


def name_of(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.workload}" if pod.workload else pod.key


def blast(before: Compiled, after: Compiled, node_egress: NodeEgress = "enforce") -> tuple[list[Flows], list[Flows]]:
    """Opened and closed. Both clusters have the same pods."""
    every = units(before)
    opened: dict[tuple[str, str], PortSet] = {}
    closed: dict[tuple[str, str], PortSet] = {}
    for src, dst in _doubtful(before, after, every):
        pair = src.name, dst.name
        for one, other in _ends(src, dst):
            old = open_ports(before, one, other, node_egress).ports
            new = open_ports(after, one, other, node_egress).ports
            if more := new.difference(old):
                opened[pair] = opened.get(pair, NO_PORTS).union(more)
            if less := old.difference(new):
                closed[pair] = closed.get(pair, NO_PORTS).union(less)
    return [Flows(*pair, ports) for pair, ports in sorted(opened.items())], [
        Flows(*pair, ports) for pair, ports in sorted(closed.items())
    ]


def _doubtful(before: Compiled, after: Compiled, every: list[Unit]) -> Iterator[tuple[Unit, Unit]]:
    """Pairs of which one end's allow-set is another."""
    changed = {
        direction: {unit for unit in every if _means(before, unit, direction) != _means(after, unit, direction)}
        for direction in DIRECTIONS
    }
    if not any(changed.values()):
        return
    egress, ingress = changed["egress"], changed["ingress"]
    for src in every:
        for dst in every if src in egress else ingress:
            if src is not dst or src.several:
                yield src, dst


def _means(compiled: Compiled, unit: Unit, direction: Direction) -> object:
    """What the allow-set of a unit means; the policies that it comes from are left out."""
    allow = compiled.allow(unit.pod, direction)
    return allow.isolated, [(grant.ports, grant.peers) for grant in allow.grants]


def _ends(src: Unit, dst: Unit) -> Iterator[tuple[End, End]]:
    sources, targets = src.pod.addresses or (None,), dst.pod.addresses or (None,)
    for one in sources:
        for other in targets:
            if one is None or other is None or one.family == other.family:
                if src is dst:  # one replica to another: as if the address were another pod's
                    twin = Pod(src.pod.namespace, f"{src.pod.name}'s twin", src.pod.labels, ports=src.pod.ports)
                    yield End(twin, one), End(dst.pod, other)
                else:
                    yield End(src.pod, one), End(dst.pod, other)
