"""The smallest change that turns a verdict: an entry more in a rule that nearly admits, a rule more in a policy that
isolates, or a policy more; or what admits taken away.

Each candidate is compiled, and only one that turns every flow is kept. Of those the one that changes the fewest other
flows is the smallest, then the one that writes least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from compiler.blast import Flows, blast, name_of
from compiler.candidates import Ask, Changed
from compiler.compile import Compiled
from compiler.narrow import narrowings
from compiler.ports import PortSet, port_range
from compiler.verdict import Flow, Half, NodeEgress, verdict
from compiler.widen import widenings
from policy.model import PROTOCOLS, Direction


class Fix(Struct, frozen=True):
    """Policies that turn the verdict, with what else they open and close."""

    changes: tuple[Changed, ...]
    after: Compiled
    opens: tuple[Flows, ...]
    closes: tuple[Flows, ...]


def opening(compiled: Compiled, ask: Ask) -> Fix | None:
    """The change that lets every flow pass; None where no policy can."""
    now, changes = compiled, list[Changed]()
    for direction in ("egress", "ingress"):
        denied = [flow for flow in ask.flows if not _half(now, flow, direction, ask.node_egress).allowed]
        if not denied:
            continue
        wanted = replace(ask, flows=tuple(denied))
        best = _best(now, widenings(now, wanted, direction), wanted, direction, True)
        if best is None:
            return None
        now = _with(now, best)
        changes.append(best)
    return _made(compiled, now, changes, ask)


def closing(compiled: Compiled, ask: Ask) -> Fix | None:
    """The change that lets none of the flows pass; None where no policy can, as between a pod and its own node."""
    best: tuple[tuple[int, int], Changed] | None = None
    for direction in ("ingress", "egress"):
        found = _scored(compiled, narrowings(compiled, ask, direction), ask, direction, False)
        first = min(found, key=lambda each: each[0], default=None)
        if first and (best is None or first[0] < best[0]):
            best = first
    return _made(compiled, _with(compiled, best[1]), [best[1]], ask) if best else None


def _made(before: Compiled, after: Compiled, changes: Sequence[Changed], ask: Ask) -> Fix:
    opened, closed = blast(before, after, ask.node_egress)
    return Fix(_merged(changes), after, tuple(_others(opened, ask)), tuple(_others(closed, ask)))


def _merged(changes: Sequence[Changed]) -> tuple[Changed, ...]:
    """One entry a policy: a policy may be changed for both directions."""
    found: dict[str, Changed] = {}
    for each in changes:
        before = found.get(each.policy.key)
        if before:
            each = Changed(each.policy, before.old, before.edits + each.edits, f"{before.text}, and {each.text}")
        found[each.policy.key] = each
    return tuple(found.values())


def _others(flows: Sequence[Flows], ask: Ask) -> Iterator[Flows]:
    """Without what was asked for."""
    asked: dict[tuple[str, str], PortSet] = {}
    for flow in ask.flows:
        if flow.src.pod and flow.dst.pod and flow.protocol in PROTOCOLS:
            pair = name_of(flow.src.pod), name_of(flow.dst.pod)
            known = next(protocol for protocol in PROTOCOLS if protocol == flow.protocol)
            asked[pair] = asked.get(pair, PortSet()).union(port_range(known, flow.port, flow.port))
    for each in flows:
        ports = each.ports.difference(asked.get((each.src, each.dst), PortSet()))
        if ports:
            yield replace(each, ports=ports)


def _best(
    compiled: Compiled, candidates: Iterator[Changed], ask: Ask, direction: Direction, allowed: bool
) -> Changed | None:
    found = _scored(compiled, candidates, ask, direction, allowed)
    first = min(found, key=lambda each: each[0], default=None)
    return first[1] if first else None


def _scored(
    compiled: Compiled, candidates: Iterator[Changed], ask: Ask, direction: Direction, allowed: bool
) -> Iterator[tuple[tuple[int, int], Changed]]:
    """Those that do turn the half, each with its score."""
    for at, candidate in enumerate(candidates):
        after = _with(compiled, candidate)
        if all(_half(after, flow, direction, ask.node_egress).allowed is allowed for flow in ask.flows):
            opened, closed = blast(compiled, after, ask.node_egress)
            others = [*_others(opened, ask), *_others(closed, ask)]
            yield (len(others), at), candidate


def _with(compiled: Compiled, change: Changed) -> Compiled:
    policies = [policy for policy in compiled.cluster.policies if policy.key != change.policy.key]
    return Compiled(replace(compiled.cluster, policies=[*policies, change.policy]))


def _half(compiled: Compiled, flow: Flow, direction: Direction, node_egress: NodeEgress) -> Half:
    answer = verdict(compiled, flow, node_egress)
    return answer.ingress if direction == "ingress" else answer.egress
