"""The engine, as the tests ask it: verdicts and simulated rules for plain API objects. The only module of the proof
that imports it, so that oracle and generator stay apart from what they judge."""

from __future__ import annotations

from functools import cache

from compiler.compile import compile_cluster
from compiler.verdict import End as EngineEnd
from compiler.verdict import Flow as EngineFlow
from compiler.verdict import NodeEgress, Verdict, verdict
from enforcer.readback.simulate import Packet, Simulator
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.ruleset import HookName, IpProtocol
from policy.cidr import Address, Family, parse_address
from policy.decode import decode_objects
from policy.model import Pod
from tests.oracle import End, Flow, Half
from tests.oracle.fields import Object

UPLINK = "eth0"
BRIDGE = "br0"
Uplinks = tuple[str, ...]
UPLINKS: tuple[Uplinks, Uplinks] = ((UPLINK,), ())
# Every how many ports a flow is also sent between pods on bridges.
BRIDGED = 3


class Engine:
    """One cluster, compiled; the rules of its nodes are laid out when they are first asked."""

    def __init__(self, objects: list[Object], node_egress: NodeEgress = "enforce") -> None:
        self.decoded = decode_objects(objects)
        self.compiled = compile_cluster(self.decoded.cluster)
        self._node_egress = node_egress
        self._nodes = {address: node for node in self.decoded.cluster.nodes for address in node.addresses}
        self._simulator = cache(self._lay_out)

    def verdict(self, flow: Flow) -> Verdict:
        return verdict(self.compiled, self.flow(flow), self._node_egress)

    def flow(self, flow: Flow) -> EngineFlow:
        return EngineFlow(self._end(flow.src), self._end(flow.dst), flow.protocol, flow.port)

    def halves(self, flow: Flow) -> tuple[Half, Half]:
        """Ingress and egress with their reasons, in the oracle's terms."""
        answer = self.verdict(flow)
        ingress, egress = (
            Half(
                half.allowed,
                frozenset(ref.policy for ref in half.policies),
                frozenset((ref.policy, ref.rule, ref.peer, ref.port) for ref in half.rules),
            )
            for half in (answer.ingress, answer.egress)
        )
        return ingress, egress

    def simulated(self, flow: Flow) -> bool:
        """Whether the rules of every node on the path let the flow's first packet pass: with nodes that know their
        uplink and with nodes that do not, which must make no difference; and, for some flows, with pods on a bridge."""
        asked = self.flow(flow)
        src, dst = _policed(asked.src), _policed(asked.dst)
        walks: list[tuple[str, HookName, str, str]] = []
        if src:
            to_own_node = asked.dst.node == src.node
            near = dst is not None and dst.node == src.node
            out = _veth(dst) if dst and near else UPLINK
            walks.append((src.node, "INPUT", _veth(src), "") if to_own_node else (src.node, "FORWARD", _veth(src), out))
        if dst and not (src and src.node == dst.node) and asked.src.node != dst.node:
            walks.append((dst.node, "FORWARD", UPLINK, _veth(dst)))
        knowing, unknowing = (all(self._passes(flow, uplinks, False, *walk) for walk in walks) for uplinks in UPLINKS)
        assert knowing == unknowing, f"{flow}: {'passes' if knowing else 'is denied'} if the uplink is known, only"
        if flow.port % BRIDGED == 0:
            bridged = all(self._passes(flow, (UPLINK, BRIDGE), True, *walk) for walk in walks)
            assert knowing == bridged, f"{flow}: {'passes' if bridged else 'is denied'} on bridged nodes only"
        return knowing

    def _passes(
        self, flow: Flow, uplinks: Uplinks, bridged: bool, node: str, hook: HookName, came_by: str, leaves_by: str
    ) -> bool:
        src, dst = parse_address(flow.src.address), parse_address(flow.dst.address)
        protocol = _ip_protocol(flow.protocol, src.family)
        packet = Packet(src, dst, protocol, flow.port, came_by, leaves_by)
        if bridged:
            in_port, out_port = (name if name.startswith("veth:") else "" for name in (came_by, leaves_by))
            came_by, leaves_by = BRIDGE if in_port else came_by, BRIDGE if out_port else leaves_by
            # What comes from elsewhere is routed to the bridge: by which port it leaves is not known yet.
            out_port = out_port if in_port else ""
            packet = Packet(src, dst, protocol, flow.port, came_by, leaves_by, in_port=in_port, out_port=out_port)
        return self._simulator(node, src.family, uplinks, bridged).walk(hook, packet).outcome == "accept"

    def _lay_out(self, node: str, family: Family, uplinks: Uplinks, bridged: bool) -> Simulator:
        veths = {pod.key: _veth(pod) for pod in local_pods(self.compiled, node)}
        blocks = next((each.pod_cidrs for each in self.decoded.cluster.nodes if each.name == node), ())
        bridges = dict.fromkeys(veths.values(), BRIDGE) if bridged else {}
        view = NodeView(node, veths, blocks, uplinks, self._node_egress, bridges=bridges)
        return Simulator(layout(self.compiled, view, family))

    def _end(self, end: End) -> EngineEnd:
        """A pod that is done, and an address without a pod, are whoever has the address now."""
        address = parse_address(end.address)
        pod = self.compiled.pods.get(end.pod)
        if pod is None or pod.finished:
            pod = self.compiled.pod_at(address) or pod
        node = pod.node if pod and pod.host_network and not pod.finished else ""
        if not node and not _policed(EngineEnd(pod)):
            node = self._node_at(address)
        return EngineEnd(pod, address, node)

    def _node_at(self, address: Address) -> str:
        if address in self._nodes:
            return self._nodes[address].name
        pods = self.decoded.cluster.pods
        return next((p.node for p in pods if p.host_network and not p.finished and address in p.addresses), "")


def _policed(end: EngineEnd) -> Pod | None:
    return end.pod if end.pod is not None and end.pod.selectable else None


def _veth(pod: Pod) -> str:
    return f"veth:{pod.key}"


def _ip_protocol(protocol: str, family: Family) -> IpProtocol:
    if protocol == "ICMP":
        return "icmp" if family == 4 else "ipv6-icmp"
    known: dict[str, IpProtocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
    return known[protocol]
