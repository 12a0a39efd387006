"""Rules bound to one subject: peers made into peer-sets, ports into numbers where the subject decides them."""

from __future__ import annotations

from compiler.allowset import BoundRule, PolicyRef, RuleRef
from compiler.peers import EVERYONE, PeerSet, peers_of
from compiler.ports import ALL_PORTS, FULL, NamedPort, PortSet, port_range, union_of
from policy.model import ContainerPort, Direction, NetworkPolicy, Port, Rule

EVERY_PEER: tuple[tuple[int | None, PeerSet], ...] = ((None, EVERYONE),)
EVERY_PORT: tuple[tuple[int | None, PortSet | NamedPort], ...] = ((None, ALL_PORTS),)


def bind(policy: NetworkPolicy, direction: Direction, ports: tuple[ContainerPort, ...]) -> tuple[BoundRule, ...]:
    """The rules of `policy` in `direction` for a subject that declares `ports`. A rule that was not understood is
    left out, so it grants nothing (semantics, row 34)."""
    ref = PolicyRef(policy.key, policy.source)
    return tuple(
        BoundRule(ref, RuleRef(policy.key, direction, index), _peers(rule, policy), _ports(rule, direction, ports))
        for index, rule in enumerate(policy.rules(direction))
        if rule.understood
    )


def _peers(rule: Rule, policy: NetworkPolicy) -> tuple[tuple[int | None, PeerSet], ...]:
    """ "If this field is empty or missing, this rule matches all sources" (or destinations; row 9)."""
    if not rule.peers:
        return EVERY_PEER
    return tuple((index, peers_of(peer, policy.namespace)) for index, peer in enumerate(rule.peers))


def _ports(
    rule: Rule, direction: Direction, declared: tuple[ContainerPort, ...]
) -> tuple[tuple[int | None, PortSet | NamedPort], ...]:
    """ "If this field is empty or missing, this rule matches all ports" (row 10)."""
    if not rule.ports:
        return EVERY_PORT
    return tuple((index, _port(port, direction, declared)) for index, port in enumerate(rule.ports))


def _port(port: Port, direction: Direction, declared: tuple[ContainerPort, ...]) -> PortSet | NamedPort:
    if port.port is None:
        (full,) = FULL
        return port_range(port.protocol, *full)
    if isinstance(port.port, int):
        return port_range(port.protocol, port.port, port.port if port.end is None else port.end)
    if direction == "egress":
        return NamedPort(port.protocol, port.port)
    # The destination is the subject, so the name resolves here, for sources outside the cluster too (row 20).
    return union_of(
        port_range(known.protocol, known.port, known.port)
        for known in declared
        if known.name == port.port and known.protocol == port.protocol
    )
