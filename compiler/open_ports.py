"""What may pass between two ends on every port at once: the question of `verdict`, asked without a port."""

from __future__ import annotations

from msgspec import Struct

from compiler.allowset import RuleRef
from compiler.compile import State
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.verdict import Because, End, Flow, NodeEgress, Question, half_without_rules
from policy.model import Direction


class OpenHalf(Struct, frozen=True):
    """The `ports` that one direction allows, and those that are `possible`: allowed, or so if the other end gets an
    address that some rule's block holds."""

    direction: Direction
    ports: PortSet
    possible: PortSet
    because: Because


class Open(Struct, frozen=True):
    """Both halves must allow (semantics, row 3)."""

    egress: OpenHalf
    ingress: OpenHalf

    @property
    def ports(self) -> PortSet:
        return self.egress.ports.intersection(self.ingress.ports)

    @property
    def possible(self) -> PortSet:
        return self.egress.possible.intersection(self.ingress.possible)


def open_ports(compiled: State, src: End, dst: End, node_egress: NodeEgress = "enforce") -> Open:
    return Open(_half(compiled, src, dst, "egress", node_egress), _half(compiled, src, dst, "ingress", node_egress))


def granting_rules(compiled: State, src: End, dst: End, direction: Direction) -> list[tuple[RuleRef, PortSet]]:
    """The rules of an isolated direction that allow something, each with the ports."""
    question, pod = _question(compiled, src, dst, direction), (dst if direction == "ingress" else src).pod
    found = []
    for rule in compiled.allow(pod, direction).bound if pod else ():
        if any(question.peer_matches(peers) for _, peers in rule.peers):
            ports = union_of(_numbers(ports, dst) for _, ports in rule.ports)
            if ports:
                found.append((rule.ref, ports))
    return found


def _half(compiled: State, src: End, dst: End, direction: Direction, node_egress: NodeEgress) -> OpenHalf:
    settled = half_without_rules(compiled, Flow(src, dst, "TCP"), direction, node_egress)
    if settled is not None:
        return OpenHalf(direction, ALL_PORTS, ALL_PORTS, settled.because)
    subject, peer = (dst, src) if direction == "ingress" else (src, dst)
    assert subject.pod is not None
    question = _question(compiled, src, dst, direction)
    known, possible = NO_PORTS, NO_PORTS
    for grant in compiled.allow(subject.pod, direction).grants:
        if question.peer_matches(grant.peers):
            known = known.union(_numbers(grant.ports, dst))
        elif peer.address is None and grant.peers.addresses:
            possible = possible.union(_numbers(grant.ports, dst))
    return OpenHalf(direction, known, known.union(possible), "rule" if known else "no rule")


def _question(compiled: State, src: End, dst: End, direction: Direction) -> Question:
    family = next((end.address.family for end in (src, dst) if end.address), None)
    return Question(compiled, src if direction == "ingress" else dst, dst, "TCP", 0, family)


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
