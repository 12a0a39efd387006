"""Existing flows that proposed policies would cut, each with the policies that do it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from msgspec import Struct

from compiler.allowset import PolicyRef
from compiler.compile import Compiled
from compiler.verdict import End, Flow, Half, verdict
from enforcer.connections.revocation import unpacked
from enforcer.kernel.conntrack_answer import Tracked
from enforcer.rules.layout import NodeView
from policy.cidr import Address

_NAMES = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}
_WITH_PORTS = ("TCP", "UDP", "SCTP")


class Cut(Struct, frozen=True):
    """`count` connections of one kind, by their first packets' source, and where these went after destination NAT.
    `port` is 0 where the protocol has none. `egress` and `ingress` are the policies that isolate the source and the
    destination without a rule that admits this; `gone` are the addresses whose pod is no more."""

    src: End
    dst: End
    protocol: str
    port: int
    count: int
    egress: tuple[PolicyRef, ...] = ()
    ingress: tuple[PolicyRef, ...] = ()
    gone: tuple[Address, ...] = ()


def cuts(
    compiled: Compiled,
    node: NodeView,
    own: Collection[Address],
    released: Collection[Address],
    flows: Iterable[Tracked],
) -> list[Cut]:
    """What is to be said of `flows`, which are forbidden; those that are most first. `own` and `released` are what
    `revocation.Judge` was told."""
    kinds = Counter((flow.src, flow.dst, flow.protocol, bytes(flow.port)) for flow in flows)
    found = []
    for (src, dst, number, port), count in kinds.most_common():
        protocol = protocol_name(number)
        one, other = (_end(compiled, node, own, unpacked(each)) for each in (src, dst))
        known = Flow(one, other, protocol, int.from_bytes(port, "big") if protocol in _WITH_PORTS else 0)
        said = verdict(compiled, known, node.node_egress)
        egress = _policies(said.egress, one, node)
        ingress = _policies(said.ingress, other, node)
        gone = tuple(each.address for each in (one, other) if each.address and _is_gone(each, node, released))
        found.append(Cut(one, other, protocol, known.port, count, egress, ingress, gone))
    return found


def _policies(half: Half, subject: End, node: NodeView) -> tuple[PolicyRef, ...]:
    """Each half is judged where its pod is."""
    here = subject.pod is not None and subject.pod.node == node.name and subject.pod.key in node.veths
    return half.policies if here and not half.allowed else ()


def _is_gone(end: End, node: NodeView, released: Collection[Address]) -> bool:
    """Whether the address was one of the node's pods', and none has it."""
    if end.pod or end.node or end.address is None:
        return False
    if end.address in released:
        return True
    return any(block.holds(end.address) for block in node.pod_cidrs)


def _end(compiled: Compiled, node: NodeView, own: Collection[Address], address: Address) -> End:
    return End(compiled.pod_at(address), address, node.name if address in own else "")


def protocol_name(number: int) -> str:
    """As policies call it; ICMP of both families alike."""
    return _NAMES.get(number, f"protocol {number}")
