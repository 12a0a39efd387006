"""The verdict on a flow with all that people ask next: for what is denied, how near each policy came and what it
rests on.

The verdict is `verdict`'s. That a rule does not admit is taken from it; why it does not comes from `policy.nearmiss`.
"""

from __future__ import annotations

from msgspec import Struct

from compiler.allowset import PolicyRef, RuleRef
from compiler.basis import Row, row, rows_of
from compiler.compile import Compiled
from compiler.verdict import End, Flow, Half, NodeEgress, Verdict, verdict
from policy.model import Direction, NetworkPolicy
from policy.nearmiss import gap
from policy.obstacles import Asked, Obstacle, Other

_NO_RULE = 20.0


class Miss(Struct, frozen=True):
    """How near one isolating policy came: its closest rule, with the entries of peers and ports that came nearest, and
    what is in the way. `rule` is None where the policy has no rule for the direction."""

    policy: PolicyRef
    rule: RuleRef | None
    obstacles: tuple[Obstacle, ...]

    @property
    def cost(self) -> float:
        return sum(obstacle.cost for obstacle in self.obstacles)


class Side(Struct, frozen=True):
    """One direction's answer. `misses`, one for each policy that isolates where the flow is denied, nearest first."""

    half: Half
    misses: tuple[Miss, ...]
    rows: tuple[Row, ...]


class Explanation(Struct, frozen=True):
    flow: Flow
    verdict: Verdict
    egress: Side
    ingress: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        """In the order that the packet meets them."""
        return self.egress, self.ingress


def explain(compiled: Compiled, flow: Flow, node_egress: NodeEgress = "enforce", service_port: int = 0) -> Explanation:
    """`service_port` is the one that the client asked a Service for, where one translated the flow to what it is."""
    answer = verdict(compiled, flow, node_egress)
    egress, ingress = (_side(compiled, flow, half, service_port) for half in (answer.egress, answer.ingress))
    return Explanation(flow, answer, egress, ingress)


def _side(compiled: Compiled, flow: Flow, half: Half, service_port: int) -> Side:
    subject = flow.dst if half.direction == "ingress" else flow.src
    selecting = compiled.selecting(subject.pod) if subject.pod else ()
    policies = [policy for policy in selecting if half.direction in policy.isolates]
    misses: tuple[Miss, ...] = ()
    if not half.allowed:
        too_large = compiled.allow(subject.pod, half.direction).too_large if subject.pod else ()
        found = [
            _too_large(policy)
            if policy.key in too_large
            else _miss(compiled, flow, half.direction, policy, service_port)
            for policy in policies
        ]
        misses = tuple(sorted(found, key=lambda miss: (miss.cost, miss.policy.policy)))
    rows = rows_of(half, flow, policies)
    if any(obstacle.kind == "named port" for miss in misses[:1] for obstacle in miss.obstacles):
        rows = (*rows, row(20))
    return Side(half, misses, rows)


def _too_large(policy: NetworkPolicy) -> Miss:
    text = "its rules are too many that multiply, so none of them grants anything"
    return Miss(PolicyRef(policy.key, policy.source), None, (Obstacle("too large", text, _NO_RULE),))


def _miss(compiled: Compiled, flow: Flow, direction: Direction, policy: NetworkPolicy, service_port: int) -> Miss:
    ref = PolicyRef(policy.key, policy.source)
    rules = policy.rules(direction)
    if not rules:
        return Miss(ref, None, (Obstacle("no rule", f"it has no {direction} rule, so it allows nothing", _NO_RULE),))
    other = other_end(compiled, flow, direction)
    asked = Asked(flow.protocol, flow.port, flow.dst.pod, service_port)
    gaps = [gap(rule, policy.namespace, other, asked) for rule in rules]
    at = min(range(len(gaps)), key=lambda number: gaps[number].cost)
    return Miss(ref, RuleRef(policy.key, direction, at, gaps[at].peer, gaps[at].port), gaps[at].obstacles)


def other_end(compiled: Compiled, flow: Flow, direction: Direction) -> Other:
    """The end that the rules of `direction` are asked about."""
    end = flow.src if direction == "ingress" else flow.dst
    pod = end.pod if end.pod and end.pod.selectable else None
    labels = compiled.namespaces[pod.namespace] if pod else {}
    return Other("source" if direction == "ingress" else "destination", pod, labels, end.address, _what(end))


def _what(end: End) -> str:
    """What an end is that policies do not take for a pod."""
    if end.pod and end.pod.finished:
        return f"{end.pod.key} is finished, and its address nobody's"
    if end.pod and end.pod.host_network:
        return f"{end.pod.key} is in the network of its node {end.node}".rstrip()
    if end.node:
        return f"node {end.node} is no pod"
    return f"{end.address} is no pod's address" if end.address else "it is no pod"
