"""Policies that mean something else than was probably meant. Nothing here is an error of the API: `policy.validate` has
those; each finding says why it is suspected and what would mend it.

Ids are stable: one that is given up is never used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from compiler.compile import Compiled
from compiler.places import places
from policy.model import Direction, NetworkPolicy, Pod
from policy.source import Path

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")
PEERS: dict[Direction, str] = {"ingress": "from", "egress": "to"}


class Rule(Struct, frozen=True):
    """One lint. `needs_pods`: it says nothing where no pod is known, since then nothing would match anything."""

    id: str
    title: str
    severity: Severity
    fix: str
    needs_pods: bool = False


class Finding(Struct, frozen=True):
    """`path` is the field of the policy that it is about."""

    rule: Rule
    policy: NetworkPolicy
    path: Path
    reason: str
    severity: Severity


def finding(rule: Rule, policy: NetworkPolicy, path: Path, reason: str, severity: Severity | None = None) -> Finding:
    return Finding(rule, policy, path, reason, severity or rule.severity)


class World:
    """What the lints ask of a cluster, found once. Of pods that no policy can tell apart one stands for all."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.policies = compiled.cluster.policies
        known = places(compiled)
        self.pods = [place.pod for place in known]
        self.counts = {place.pod.key: len(place.pods) for place in known}
        self._by_namespace: dict[str, list[Pod]] = {}
        for pod in self.pods:
            self._by_namespace.setdefault(pod.namespace, []).append(pod)

    def in_namespace(self, namespace: str) -> list[Pod]:
        return self._by_namespace.get(namespace, [])

    def subjects(self, policy: NetworkPolicy) -> list[Pod]:
        return [pod for pod in self.in_namespace(policy.namespace) if policy.subjects.matches(pod.labels)]


def rules_with_paths(policy: NetworkPolicy, direction: Direction) -> Iterator[tuple[Path, int]]:
    """Of the rules that count and were understood."""
    for number, rule in enumerate(policy.rules(direction)):
        if rule.understood:
            yield ("spec", direction, number), number
