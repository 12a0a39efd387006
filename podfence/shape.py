"""What the compiler says of policies and ends, in the form of an answer."""

from __future__ import annotations

from msgspec.structs import replace

from compiler.allowset import PolicyRef, RuleRef
from compiler.explain import Side as Explained
from compiler.verdict import End
from podfence.answers import EndOut, MissOut, ObstacleOut, Place, Side
from policy.obstacles import Obstacle
from policy.source import path_text


def name_of(end: End, given: str) -> str:
    return end.pod.key if end.pod else given


def end_of(end: End, given: str, sort: str) -> EndOut:
    node = end.pod.node if end.pod else end.node
    addresses = [] if sort in ("block", "internet") and not end.pod else [str(end.address)] * bool(end.address)
    return EndOut([name_of(end, given)], sort, addresses, [node] if node else [])


def side_of(side: Explained, pod: str) -> Side:
    half = side.half
    sources = {policy.policy: policy for policy in half.policies}
    return Side(
        pod,
        half.allowed,
        half.because,
        [rule_place(ref, sources[ref.policy]) for ref in half.rules],
        list(map(policy_place, half.policies)),
        [
            MissOut(
                rule_place(_precise(miss.rule, miss.obstacles), miss.policy)
                if miss.rule
                else policy_place(miss.policy),
                [ObstacleOut(each.kind, each.text, each.change) for each in miss.obstacles],
            )
            for miss in side.misses
        ],
    )


_OF_PORTS = frozenset({"protocol", "port", "service port", "named port", "icmp"})


def _precise(rule: RuleRef, obstacles: tuple[Obstacle, ...]) -> RuleRef:
    """Pointing at the entry of `ports` where nothing but that is in the way."""
    return replace(rule, peer=None) if {each.kind for each in obstacles} <= _OF_PORTS else rule


def rule_place(ref: RuleRef, policy: PolicyRef) -> Place:
    source = policy.source
    return Place(ref.policy, path_text(ref.path), *((source.file, source.line_of(ref.path)) if source else ("", 0)))


def policy_place(policy: PolicyRef) -> Place:
    return Place(policy.policy, "", *((policy.source.file, policy.source.line) if policy.source else ("", 0)))
