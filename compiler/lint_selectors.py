"""Selectors that select nothing, and list entries that were meant to be one, or two."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.lint import PEERS, Finding, Rule, World, finding, rules_with_paths
from compiler.peers import PodTerm, peers_of
from policy.model import DIRECTIONS, NetworkPolicy, Peer
from policy.selector import EVERYTHING
from policy.source import Path

SUBJECT = Rule("PF001", "policy selects no pod", "warning", "correct podSelector, or remove the policy", True)
PEER = Rule("PF002", "peer selects no pod", "warning", "correct the selectors, or remove the entry", True)
TWO_ENTRIES = Rule(
    "PF003",
    "two list entries where one may be meant",
    "warning",
    "remove the dash before podSelector, so that both selectors stand in one entry and both must match",
)
ONE_ENTRY = Rule(
    "PF004",
    "one list entry where two may be meant",
    "warning",
    "put a dash before the second selector, so that either may match",
    True,
)


def lint(world: World) -> Iterator[Finding]:
    for policy in world.policies:
        if not policy.subjects.is_everything and not world.subjects(policy):
            reason = f"no pod of namespace {policy.namespace} has {policy.subjects}"
            yield finding(SUBJECT, policy, ("spec", "podSelector"), reason)
        for direction in DIRECTIONS:
            for path, number in rules_with_paths(policy, direction):
                peers = policy.rules(direction)[number].peers
                yield from _entries(world, policy, (*path, PEERS[direction]), peers)


def _entries(world: World, policy: NetworkPolicy, path: Path, peers: tuple[Peer, ...]) -> Iterator[Finding]:
    for at, peer in enumerate(peers):
        before = peers[at - 1] if at else Peer()
        if before.namespaces is not None and before.pods is None and peer.pods is not None and peer.namespaces is None:
            reason = (
                f"the entry before allows every pod of its namespaces, and this one pods of {policy.namespace}:"
                " two entries are OR"
            )
            yield finding(TWO_ENTRIES, policy, (*path, at), reason)
        terms = peers_of(peer, policy.namespace).pods
        if terms and not any(_selects(world, term) for term in terms):
            yield _nothing(world, policy, (*path, at), peer)


def _selects(world: World, term: PodTerm) -> bool:
    return any(term.matches(pod, world.compiled.namespaces[pod.namespace]) for pod in world.pods)


def _nothing(world: World, policy: NetworkPolicy, path: Path, peer: Peer) -> Finding:
    if peer.namespaces is not None and peer.pods is not None and not peer.pods.is_everything:
        alone = PodTerm(peer.namespaces, EVERYTHING)
        own = any(peer.pods.matches(pod.labels) for pod in world.in_namespace(policy.namespace))
        if own and _selects(world, alone):
            reason = (
                f"no pod has {peer.pods} in a namespace with {peer.namespaces}, but pods of {policy.namespace} have the"
                " one, and other pods are in such namespaces: selectors in one entry are AND"
            )
            return finding(ONE_ENTRY, policy, path, reason)
    where = f"namespace {policy.namespace}" if peer.namespaces is None else f"a namespace with {peer.namespaces}"
    return finding(PEER, policy, path, f"no pod of {where} has {peer.pods or EVERYTHING}")
