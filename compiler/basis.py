"""What an answer rests on: rows of the table of meanings, each the API's text or a choice of podfence's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from compiler.verdict import End, Flow, Half
from policy.model import PROTOCOLS, NetworkPolicy

Source = Literal["spec", "open", "ours"]


class Row(Struct, frozen=True, order=True):
    """A row of the semantics. `spec`: the API's text says so. `open`: it leaves the case open, and podfence chose.
    `ours`: the API server would not have it so, and podfence had to do something."""

    number: int
    source: Source
    text: str


_ROWS = {
    row.number: row
    for row in (
        Row(1, "spec", "a pod that no policy of a direction selects is open in it"),
        Row(2, "spec", "policies add up, and what none allows is denied"),
        Row(7, "spec", "a policy without rules for a direction that it isolates allows nothing"),
        Row(10, "open", "a rule without ports allows ICMP too"),
        Row(16, "open", "an ipBlock matches the address of a pod or node too, as the node sees it after NAT"),
        Row(20, "spec", "a port's name is looked up at the destination pod"),
        Row(22, "open", "a rule with ports allows no ICMP"),
        Row(23, "open", "a pod in its node's network is its node: policies neither select nor match it"),
        Row(24, "spec", "a finished pod is no pod: its address may be someone else's"),
        Row(27, "spec", "a pod's own node reaches it"),
        Row(28, "open", "what a pod sends to its own node follows its egress rules"),
        Row(29, "spec", "a pod reaches itself"),
        Row(30, "open", "policies see the backend pod and its port, not the Service's"),
        Row(31, "open", "where the source's address is rewritten on the way, the rewritten one counts"),
        Row(34, "ours", "what is not understood isolates and grants nothing"),
        Row(38, "ours", "a workload in a file stands for the pods that it would make"),
    )
}


def rows_of(half: Half, flow: Flow, policies: Iterable[NetworkPolicy]) -> tuple[Row, ...]:
    """The rows that one direction's answer rests on; `policies` are those that isolate its subject."""
    subject, peer = (flow.dst, flow.src) if half.direction == "ingress" else (flow.src, flow.dst)
    return tuple(_ROWS[number] for number in sorted(set(_numbers(half, flow, subject, peer, tuple(policies)))))


def row(number: int) -> Row:
    return _ROWS[number]


def _numbers(half: Half, flow: Flow, subject: End, peer: End, policies: tuple[NetworkPolicy, ...]) -> Iterable[int]:
    match half.because:
        case "no pod":
            yield 23 if subject.pod and subject.pod.host_network else 1
            return
        case "finished":
            yield 24
            return
        case "open":
            yield 1
        case "self":
            yield 29
        case "own node":
            yield 27 if half.direction == "ingress" else 28
        case "rule" | "no rule":
            yield from _of_rules(half, flow, subject, peer, policies)
    if subject.pod and subject.pod.stands_in:
        yield 38


def _of_rules(half: Half, flow: Flow, subject: End, peer: End, policies: tuple[NetworkPolicy, ...]) -> Iterable[int]:
    yield 2
    by_key = {policy.key: policy for policy in policies}
    rules = [rule for policy in policies for rule in policy.rules(half.direction)]
    if half.allowed:
        entries = [by_key[ref.policy].rules(half.direction)[ref.rule] for ref in half.rules]
        blocks = [
            ref.peer is not None and rule.peers[ref.peer].block is not None
            for ref, rule in zip(half.rules, entries, strict=True)
        ]
        if blocks and all(blocks) and (peer.pod or peer.node):
            yield 16
        if flow.protocol not in PROTOCOLS:
            yield 10
        named = [
            ref.port is not None and isinstance(rule.ports[ref.port].port, str)
            for ref, rule in zip(half.rules, entries, strict=True)
        ]
        if named and all(named):
            yield 20
    elif not rules:
        yield 7
    if not half.allowed and any(not rule.understood for rule in rules):
        yield 34
    if not half.allowed and flow.protocol not in PROTOCOLS and any(rule.ports for rule in rules):
        yield 22
    if peer.pod and peer.pod.finished:
        yield 24
    elif peer.pod and peer.pod.host_network:
        yield 23
    if half.direction == "egress" and peer.node and subject.pod and peer.node == subject.pod.node:
        yield 28
