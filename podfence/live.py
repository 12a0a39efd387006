"""What is installed, beside what the objects say: the flow's first packet walked through the rules of a node, without
sending anything, and the drift named where the two disagree."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from compiler.verdict import End, Flow
from enforcer.attachment.attach import Attached
from enforcer.keeping.host import attached, read
from enforcer.kernel.backend import Backend, detect
from enforcer.readback.simulate import Packet
from enforcer.readback.status import installed_mode
from enforcer.readback.why import Matched, counted_walk
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import IpProtocol
from podfence.answers import LiveOut, StepOut, WalkOut
from podfence.asking import Asking, Port
from podfence.ends import Named
from podfence.hops import NO_NODE, Hop, flows_to_walk, hops, policed, wanted
from policy.cidr import Family
from policy.errors import HostRefused, UsageError

if TYPE_CHECKING:
    from lab.cluster import Lab


def live_walks(
    asking: Asking, src: Named, dst: Named, port: Port, lab_name: str | None, node_name: str | None
) -> LiveOut:
    """Of each flow that is asked about, on each node that it meets and that can be read from here."""
    place = Here(asking, lab_name, node_name)
    walks: list[WalkOut] = []
    unseen: dict[str, None] = {}
    flows, left_out = flows_to_walk(asking, src, dst, port)
    unseen |= dict.fromkeys(left_out)
    for flow in flows:
        for hop in hops(flow):
            if place.can_read(hop.node):
                walks.append(_walk(asking, place, flow, hop))
            else:
                unseen[f"node {hop.node}: only what is installed on {place.name} can be read from here"] = None
    return LiveOut(walks, list(unseen) if walks or unseen else [NO_NODE])


class Here:
    """The node, or the nodes of a lab, whose kernel can be read. Each is read once."""

    def __init__(self, asking: Asking, lab_name: str | None, node_name: str | None) -> None:
        self._asking = asking
        self._node = node_name or socket.gethostname()
        self._read: dict[tuple[str, Family], Actual] = {}
        self._backends: dict[str, Backend] = {}
        self._attached: dict[str, Attached] = {}
        self.lab: Lab | None = None
        if lab_name:
            from lab.cluster import attach

            self.lab = attach(lab_name)
        elif node_name and node_name not in asking.known_nodes:
            raise UsageError(f"no node is called {node_name!r}; known are {', '.join(sorted(asking.known_nodes))}")

    @property
    def name(self) -> str:
        return "the lab's nodes" if self.lab else f"node {self._node}"

    def can_read(self, node: str) -> bool:
        return node in self.lab.nodes if self.lab else node == self._node

    def inside(self, node: str) -> AbstractContextManager[None]:
        return self.lab.inside(node) if self.lab else nullcontext()

    def backend(self, node: str) -> Backend:
        if node not in self._backends:
            with self.inside(node):
                self._backends[node] = detect()
        return self._backends[node]

    def read(self, node: str, family: Family) -> Actual:
        """What is installed now; HostRefused where it can't be read."""
        backend = self.backend(node)
        if family not in backend.families:
            raise HostRefused(f"node {node} has no IPv{family}")
        with self.inside(node):
            return read(backend, family)

    def read_once(self, node: str, family: Family) -> Actual:
        if (node, family) not in self._read:
            self._read[node, family] = self.read(node, family)
        return self._read[node, family]

    def _links(self, node: str) -> dict[str, str]:
        """A lab knows its pods' interfaces, which no route may tell; a host is looked at."""
        pods = [pod for pod in self.lab.cluster.pods if pod.node == node] if self.lab else []
        return {pod.key: self.lab.host(pod.key).link for pod in pods if self.lab and policed(End(pod))}

    def packet(self, flow: Flow, hop: Hop) -> Packet:
        """The first of `flow` as the node of `hop` sees it."""
        assert flow.src.address and flow.dst.address
        found = self._attachments(hop.node)
        far = min(found.uplinks, key=lambda name: name in found.bridges, default="")
        arrives = found.veths.get(hop.arrives.key, "") if hop.arrives else far
        leaves = found.veths.get(hop.leaves.key, "") if hop.leaves else "" if hop.hook == "INPUT" else far
        # Of a port iptables sees the bridge as the interface; on the way out the port too, but of bridged packets only.
        enters, exits = (found.bridges.get(name, "") for name in (arrives, leaves))
        return Packet(
            flow.src.address,
            flow.dst.address,
            ip_protocol(flow.protocol, flow.dst.address.family),
            flow.port,
            enters or arrives,
            exits or leaves,
            in_port=arrives if enters else "",
            out_port=leaves if exits and exits == enters else "",
        )

    def _attachments(self, node: str) -> Attached:
        if node not in self._attached:
            blocks = next((each.pod_cidrs for each in self._asking.compiled.cluster.nodes if each.name == node), ())
            with self.inside(node):
                self._attached[node] = attached(self._asking.compiled, node, self._links(node), blocks)
        return self._attached[node]


def ip_protocol(protocol: str, family: Family) -> IpProtocol:
    if protocol == "ICMP":
        return "icmp" if family == 4 else "ipv6-icmp"
    known: dict[str, IpProtocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
    return known[protocol]


def _walk(asking: Asking, here: Here, flow: Flow, hop: Hop) -> WalkOut:
    assert flow.dst.address
    family = flow.dst.address.family
    actual, packet = here.read_once(hop.node, family), here.packet(flow, hop)
    outcome, matched = counted_walk(actual, hop.hook, packet)
    allowed = wanted(asking, flow, hop, installed_mode(actual))
    service = packet.protocol if flow.protocol == "ICMP" else f"{packet.protocol} {packet.port}"
    enters = _interface(packet.in_interface, packet.in_port) or "no known interface"
    leaves = f", out by {_interface(packet.out_interface, packet.out_port)}" if packet.out_interface else ""
    return WalkOut(
        hop.node,
        family,
        hop.hook,
        f"{packet.src} -> {packet.dst} {service}, in by {enters}{leaves}",
        outcome,
        "accept" if allowed else "deny",
        steps(matched),
        _drift(actual, hop, outcome == "accept", allowed),
        allowed and not wanted(asking, flow, hop, None),
    )


def _interface(name: str, port: str) -> str:
    return f"{name}, port {port}" if port else name


def steps(matched: tuple[Matched, ...]) -> list[StepOut]:
    return [StepOut(each.chain, each.text, each.packets) for each in matched]


def _drift(actual: Actual, hop: Hop, accepts: bool, allowed: bool) -> str:
    if accepts == allowed:
        return ""
    if not any(actual.tables.builtin.get(hop.hook, ())):
        return f"nothing of podfence's is in force in {hop.hook}; the objects {'allow' if allowed else 'deny'} this"
    said = "the objects deny this flow, and the kernel lets it pass"
    if allowed:
        said = "the objects allow this flow, and the kernel denies it"
    return f"{said}: `podfence node plan` shows what is different"
