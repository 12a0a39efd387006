"""Egress: pods that can reach something but no DNS, and blocks that hold the cloud's metadata or the nodes."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.allowset import AllowSet
from compiler.bind import bind
from compiler.lint import Finding, Rule, World, finding, rules_with_paths
from compiler.ports import NO_PORTS, NamedPort, PortSet, union_of
from policy.cidr import Address, parse_address
from policy.model import NetworkPolicy, Pod
from policy.source import Path

NO_DNS = Rule(
    "PF010",
    "egress isolation without DNS",
    "warning",
    "allow 53/UDP and 53/TCP to the cluster's DNS, as in the example's policy dns",
    True,
)
METADATA = Rule(
    "PF011",
    "opening to the metadata address",
    "warning",
    "except 169.254.169.254/32 from the block (and fd00:ec2::254/128), or name who is meant",
)
NODES = Rule("PF012", "opening to node addresses", "note", "except the nodes' addresses from the block")
_METADATA: tuple[Address, ...] = (parse_address("169.254.169.254"), parse_address("fd00:ec2::254"))
_KUBELET = 10250


def lint(world: World) -> Iterator[Finding]:
    yield from _dns(world)
    nodes = [(node.name, address) for node in world.compiled.cluster.nodes for address in node.addresses]
    for policy in world.policies:
        for path, number in rules_with_paths(policy, "egress"):
            yield from _openings(policy, path, number, nodes)


def _dns(world: World) -> Iterator[Finding]:
    """Once for each set of policies that together leave pods without. Who may reach nothing at all needs no names."""
    seen: dict[tuple[str, ...], tuple[AllowSet, Pod, int]] = {}
    for pod in world.pods:
        allow = world.compiled.allow(pod, "egress")
        if allow.isolated and allow.grants and not _has_dns(allow, world.pods):
            key = tuple(ref.policy for ref in allow.policies)
            first = seen.get(key, (allow, pod, 0))
            seen[key] = (first[0], first[1], first[2] + world.counts[pod.key])
    by_key = {policy.key: policy for policy in world.policies}
    for allow, pod, count in seen.values():
        granting = {rule.policy for grant in allow.grants for rule in grant.rules}
        policy = next(by_key[ref.policy] for ref in allow.policies if ref.policy in granting)
        others = f" and {count - 1} more" if count > 1 else ""
        reason = f"{pod.key}{others} may reach some, but nobody at 53/UDP: names will not resolve"
        yield finding(NO_DNS, policy, ("spec", "egress"), reason)


def _has_dns(allow: AllowSet, pods: list[Pod]) -> bool:
    for grant in allow.grants:
        if isinstance(grant.ports, NamedPort):
            named = grant.ports
            found = (known for pod in pods for known in pod.ports if known.port == 53 and known.protocol == "UDP")
            if named.protocol == "UDP" and any(known.name == named.name for known in found):
                return True
        elif grant.ports.contains("UDP", 53):
            return True
    return False


def _openings(policy: NetworkPolicy, path: Path, number: int, nodes: list[tuple[str, Address]]) -> Iterator[Finding]:
    (bound,) = (rule for rule in bind(policy, "egress", ()) if rule.ref.rule == number)
    ports = union_of(each for _, each in bound.ports if isinstance(each, PortSet)) or NO_PORTS
    for at, peers in bound.peers:
        where = (*path, "to", at) if at is not None else path
        held = [each for each in _METADATA if peers.addresses.contains(each)]
        if held and ports.contains("TCP", 80):
            what = "the block holds" if at is not None else "no `to` means everywhere,"
            yield finding(METADATA, policy, where, f"{what} {' and '.join(map(str, held))}, at 80/TCP")
        inside = [(name, each) for name, each in nodes if peers.addresses.contains(each)]
        if inside and at is not None and ports:
            name, address = inside[0]
            more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            kubelet = ports.contains("TCP", _KUBELET)
            reason = f"the block holds {address} of node {name}{more}" + (", its kubelet too" if kubelet else "")
            yield finding(NODES, policy, where, reason, "warning" if kubelet else None)
