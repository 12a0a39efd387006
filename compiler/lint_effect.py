"""What has no effect: rules of a direction that the policy does not have, and what another one says already."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.allowset import BoundRule
from compiler.bind import bind
from compiler.lint import Finding, Rule, World, finding, rules_with_paths
from compiler.peers import EVERYONE, PeerSet, peer_set
from compiler.ports import NO_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.prefixes import NO_ADDRESSES
from policy.model import DIRECTIONS, Direction, NetworkPolicy
from policy.source import path_text

NO_DIRECTION = Rule("PF005", "rules without effect", "error", "add the direction to policyTypes, or remove the rules")
RULE_TWICE = Rule("PF006", "rule contained in another", "note", "remove the rule")
POLICY_TWICE = Rule("PF007", "policy contained in another", "note", "remove the policy")
_TYPES: dict[Direction, str] = {"ingress": "Ingress", "egress": "Egress"}


def lint(world: World) -> Iterator[Finding]:
    by_namespace: dict[str, list[NetworkPolicy]] = {}
    for policy in world.policies:
        by_namespace.setdefault(policy.namespace, []).append(policy)
        yield from _without_direction(policy)
        for direction in DIRECTIONS:
            yield from _rules(policy, direction)
    for policies in by_namespace.values():
        yield from _policies(policies)


def _without_direction(policy: NetworkPolicy) -> Iterator[Finding]:
    for direction, rules in (("ingress", policy.ingress), ("egress", policy.egress)):
        side: Direction = "ingress" if direction == "ingress" else "egress"
        if rules and side not in policy.isolates:
            reason = f"policyTypes does not have {_TYPES[side]}, so its {len(rules)} rules mean nothing"
            yield finding(NO_DIRECTION, policy, ("spec", side), reason)


def _rules(policy: NetworkPolicy, direction: Direction) -> Iterator[Finding]:
    known = [number for _, number in rules_with_paths(policy, direction)]
    bound = dict(zip(known, _bound(policy, direction), strict=True))
    for number in known:
        for other in known:
            # Of two that say the same the later one is too much.
            same = _within(bound[other], bound[number])
            if other != number and _within(bound[number], bound[other]) and (not same or other < number):
                path = path_text(("spec", direction, other))
                yield finding(RULE_TWICE, policy, ("spec", direction, number), f"{path} allows all of it")
                break


def _policies(policies: list[NetworkPolicy]) -> Iterator[Finding]:
    for at, policy in enumerate(policies):
        for other_at, other in enumerate(policies):
            if other is not policy and _contained(policy, other):
                if _contained(other, policy) and at < other_at:
                    continue
                reason = f"{other.key} selects the same pods, isolates and allows all that it does"
                yield finding(POLICY_TWICE, policy, (), reason)
                break


def _contained(policy: NetworkPolicy, other: NetworkPolicy) -> bool:
    if not (other.subjects.is_everything or other.subjects == policy.subjects):
        return False
    if not set(policy.isolates) <= set(other.isolates):
        return False
    return all(
        any(_within(rule, wide) for wide in _bound(other, direction))
        for direction in DIRECTIONS
        for rule in _bound(policy, direction)
    )


def _bound(policy: NetworkPolicy, direction: Direction) -> tuple[BoundRule, ...]:
    """As for egress, where names of ports stay names."""
    flipped = bind(policy, direction, ())
    return tuple(
        BoundRule(rule.policy, rule.ref, rule.peers, _named_ports(policy, direction, rule)) for rule in flipped
    )


def _named_ports(
    policy: NetworkPolicy, direction: Direction, rule: BoundRule
) -> tuple[tuple[int | None, PortSet | NamedPort], ...]:
    written = policy.rules(direction)[rule.ref.rule].ports
    return tuple(
        (at, NamedPort(written[at].protocol, str(written[at].port)))
        if at is not None and isinstance(written[at].port, str)
        else (at, ports)
        for at, ports in rule.ports
    )


def _within(rule: BoundRule, other: BoundRule) -> bool:
    """Whether all that `rule` allows `other` does, as far as selectors show."""
    peers, wide = _peers(rule), _peers(other)
    if wide != EVERYONE and not (set(peers.pods) <= set(wide.pods) and not peers.addresses.difference(wide.addresses)):
        return False
    ports, names = _ports(rule)
    wide_ports, wide_names = _ports(other)
    return wide_ports.covers(ports) and all(name in wide_names or wide_ports.covers(_every(name)) for name in names)


def _every(name: NamedPort) -> PortSet:
    return port_range(name.protocol, 0, 65535)


def _peers(rule: BoundRule) -> PeerSet:
    addresses = NO_ADDRESSES
    for _, peers in rule.peers:
        addresses = addresses.union(peers.addresses)
    return peer_set((term for _, peers in rule.peers for term in peers.pods), addresses)


def _ports(rule: BoundRule) -> tuple[PortSet, set[NamedPort]]:
    numbers = union_of(ports for _, ports in rule.ports if isinstance(ports, PortSet))
    return numbers or NO_PORTS, {ports for _, ports in rule.ports if isinstance(ports, NamedPort)}
