"""What may pass between two ends on every port at once: the question of `verdict`, asked without a port."""

from __future__ import annotations

from msgspec import Struct

from compiler.allowset import AllowSet, RuleRef
from compiler.compile import Compiled
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.verdict import Because, End, Flow, NodeEgress, Question, half_without_rules
from policy.cidr import Family
from policy.model import Direction


class OpenHalf(Struct, frozen=True):
    """The ports that one direction allows; `rules` are those that do, each with what it allows."""

    direction: Direction
    ports: PortSet
    because: Because
    rules: tuple[tuple[RuleRef, PortSet], ...] = ()


class Open(Struct, frozen=True):
    egress: OpenHalf
    ingress: OpenHalf

    @property
    def ports(self) -> PortSet:
        """Both must allow (semantics, row 3)."""
        return self.egress.ports.intersection(self.ingress.ports)


def open_ports(compiled: Compiled, src: End, dst: End, node_egress: NodeEgress = "enforce") -> Open:
    return Open(_half(compiled, src, dst, "egress", node_egress), _half(compiled, src, dst, "ingress", node_egress))


def _half(compiled: Compiled, src: End, dst: End, direction: Direction, node_egress: NodeEgress) -> OpenHalf:
    flow = Flow(src, dst, "TCP")
    settled = half_without_rules(compiled, flow, direction, node_egress)
    if settled is not None:
        return OpenHalf(direction, ALL_PORTS, settled.because)
    subject, peer = (dst, src) if direction == "ingress" else (src, dst)
    assert subject.pod is not None
    allow: AllowSet = compiled.allow(subject.pod, direction)
    family: Family | None = next((end.address.family for end in (src, dst) if end.address), None)
    question = Question(compiled, peer, dst, "TCP", 0, family)
    granted = union_of(_numbers(grant.ports, dst) for grant in allow.grants if question.peer_matches(grant.peers))
    rules = []
    for rule in allow.bound:
        if any(question.peer_matches(peers) for _, peers in rule.peers):
            ports = union_of(_numbers(ports, dst) for _, ports in rule.ports)
            if ports:
                rules.append((rule.ref, ports))
    return OpenHalf(direction, granted, "rule" if granted else "no rule", tuple(rules))


def _numbers(ports: PortSet | NamedPort, dst: End) -> PortSet:
    """A name is looked up at the destination pod (semantics, row 20)."""
    if isinstance(ports, PortSet):
        return ports
    pod = dst.pod
    if pod is None or not pod.selectable:
        return NO_PORTS
    return union_of(
        port_range(known.protocol, known.port, known.port)
        for known in pod.ports
        if known.name == ports.name and known.protocol == ports.protocol
    )
