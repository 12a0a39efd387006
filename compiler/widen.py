"""Changes of policies that let a flow pass in one direction: an entry more, a rule more, a policy more."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from compiler.candidates import Ask, Changed, ends_of, free_name, ports_of, selector_of, subjects_of, with_rules, word
from compiler.compile import Compiled
from compiler.explain import other_end
from policy.cidr import BITS, Prefix
from policy.edit import Append
from policy.model import Direction, IPBlock, NetworkPolicy, Peer, Port, Rule
from policy.nearmiss import gap
from policy.obstacles import Asked
from policy.selector import namespace_named
from policy.write import peer_tree, port_tree, rule_tree

_PORT_KINDS = frozenset({"protocol", "port", "service port", "named port", "icmp"})


def widenings(compiled: Compiled, ask: Ask, direction: Direction) -> Iterator[Changed]:
    """Those that write least come first."""
    flow = ask.flows[0]
    subject, _ = ends_of(flow, direction)
    if subject.pod is None:
        return
    ports, peers = ports_of(ask), tuple(_peers(ask, direction, subject.pod.namespace))
    if not peers:
        return
    policies = [policy for policy in compiled.selecting(subject.pod) if direction in policy.isolates]
    other = other_end(compiled, flow, direction)
    asked = Asked(flow.protocol, flow.port, flow.dst.pod)
    for policy in policies:
        for at, rule in enumerate(policy.rules(direction)):
            if not rule.understood:
                continue
            kinds = {obstacle.kind for obstacle in gap(rule, policy.namespace, other, asked).obstacles}
            if kinds and kinds <= _PORT_KINDS and ports:
                yield _more_ports(policy, direction, at, rule, ports)
            elif kinds and not kinds & _PORT_KINDS and rule.peers:
                yield _more_peers(policy, direction, at, rule, peers)
    for policy in policies:
        yield _more_rules(policy, direction, Rule(peers, ports))
    name = free_name(compiled, subject.pod.namespace, f"allow-{word(subject.pod)}-{direction}")
    bare = NetworkPolicy(subject.pod.namespace, name, subjects_of(ask, direction), (direction,))
    new = with_rules(bare, direction, (Rule(peers, ports),))
    yield Changed(new, None, (), f"a new policy {new.key}")


def _peers(ask: Ask, direction: Direction, namespace: str) -> Iterator[Peer]:
    ends = [ends_of(flow, direction)[1] for flow in ask.flows]
    pods = [end.pod for end in ends if end.pod and end.pod.selectable]
    for space in dict.fromkeys(pod.namespace for pod in pods):
        chosen = selector_of([pod for pod in pods if pod.namespace == space])
        yield Peer(chosen, None if space == namespace else namespace_named(space))
    rest = [end.address for end in ends if end.address and not (end.pod and end.pod.selectable)]
    blocks = ask.blocks if ask.blocks and rest else [Prefix(a.family, a.value, BITS[a.family]) for a in rest]
    yield from (Peer(block=IPBlock(prefix)) for prefix in dict.fromkeys(blocks))


def _more_ports(policy: NetworkPolicy, direction: Direction, at: int, rule: Rule, ports: tuple[Port, ...]) -> Changed:
    path = ("spec", direction, at, "ports")
    edits = tuple(Append(path, port_tree(port)) for port in ports)
    changed = _with_rule(policy, direction, at, replace(rule, ports=(*rule.ports, *ports)))
    return Changed(changed, policy, edits, f"one more port in {policy.key} spec.{direction}[{at}]")


def _more_peers(policy: NetworkPolicy, direction: Direction, at: int, rule: Rule, peers: tuple[Peer, ...]) -> Changed:
    path = ("spec", direction, at, "from" if direction == "ingress" else "to")
    edits = tuple(Append(path, peer_tree(peer)) for peer in peers)
    changed = _with_rule(policy, direction, at, replace(rule, peers=(*rule.peers, *peers)))
    return Changed(changed, policy, edits, f"one more peer in {policy.key} spec.{direction}[{at}]")


def _more_rules(policy: NetworkPolicy, direction: Direction, rule: Rule) -> Changed:
    rules = policy.ingress if direction == "ingress" else policy.egress
    edits = (Append(("spec", direction), rule_tree(rule, direction)),)
    changed = with_rules(policy, direction, (*rules, rule))
    return Changed(changed, policy, edits, f"one more {direction} rule in {policy.key}")


def _with_rule(policy: NetworkPolicy, direction: Direction, at: int, rule: Rule) -> NetworkPolicy:
    rules = list(policy.rules(direction))
    rules[at] = rule
    return with_rules(policy, direction, tuple(rules))
