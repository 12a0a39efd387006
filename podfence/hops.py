"""The nodes that a flow meets, and what the objects say of it on each. Pure: a laptop knows it as well as a node."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from compiler.verdict import End, Flow, verdict
from enforcer.rules.modes import Mode, mode_of
from enforcer.rules.ruleset import HookName
from podfence.asking import Asking, Port
from podfence.ends import Named
from policy.model import DIRECTIONS, Direction, Pod

NO_NODE = "no node with rules is on the way of this flow, or its pods have no node or address yet"
_MOST = 8


class Hop(Struct, frozen=True):
    """One node that sees a flow. `deciding` are the directions that are decided there; `arrives` and `leaves` are the
    pods that the packet comes from and goes to on this node, None for anywhere else."""

    node: str
    hook: HookName
    deciding: tuple[Direction, ...]
    arrives: Pod | None
    leaves: Pod | None


def flows_to_walk(asking: Asking, src: Named, dst: Named, port: Port) -> tuple[list[Flow], list[str]]:
    """Those that are asked about and have addresses, as many as anyone reads; and what was left out."""
    flows = [flow for flow in asking.flows(src, dst, port) if flow.src.address and flow.dst.address]
    more = len(flows) - _MOST
    return flows[:_MOST], [f"{more} more flows: name pods, not workloads"] if more > 0 else []


def hops(flow: Flow) -> Iterator[Hop]:
    """The nodes of the two ends, in the order that the packet meets them. What a node sends itself meets no rule."""
    src, dst = policed(flow.src), policed(flow.dst)
    if src and src.node:
        if flow.dst.node == src.node:
            yield Hop(src.node, "INPUT", ("egress",), src, None)
        elif dst and dst.node == src.node:
            yield Hop(src.node, "FORWARD", ("egress", "ingress"), src, dst)
        else:
            yield Hop(src.node, "FORWARD", ("egress",), src, None)
    if dst and dst.node and not (src and src.node == dst.node) and flow.src.node != dst.node:
        yield Hop(dst.node, "FORWARD", ("ingress",), None, dst)


def policed(end: End) -> Pod | None:
    return end.pod if end.pod is not None and end.pod.selectable else None


def wanted(asking: Asking, flow: Flow, hop: Hop, mode: Mode | None) -> bool:
    """What the objects say of the directions that the node decides, where it is in `mode`; None: policies alone."""
    answer = verdict(asking.compiled, flow, asking.node_egress)
    halves = {"egress": answer.egress, "ingress": answer.ingress}
    return all(
        halves[direction].allowed or not _enforced(asking, flow, direction, mode)
        for direction in DIRECTIONS
        if direction in hop.deciding
    )


def _enforced(asking: Asking, flow: Flow, direction: Direction, mode: Mode | None) -> bool:
    pod = (flow.src if direction == "egress" else flow.dst).pod
    return mode is None or pod is None or mode_of(asking.compiled.namespaces.get(pod.namespace, {}), mode) == "enforce"
