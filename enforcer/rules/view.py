"""What is to be known of a node before its rules can be laid out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from compiler.verdict import NodeEgress
from enforcer.rules.modes import Mode
from policy.cidr import Address, Prefix
from policy.model import Pod

# The bit of a connection's mark that says it is revoked; docs/adr says whose bits the others are.
DEFAULT_MARK = 0x1000


class Attachment(Struct, frozen=True):
    """How the node sees a pod's packets: by `interface`, the node's end of its veth. Where that is a port of `bridge`,
    iptables sees the bridge, and beside it the port; without `bridge` the veth is routed."""

    interface: str
    bridge: str = ""


class NodeView(Struct, frozen=True):
    """What layout needs to know of a node. `veths`: pod key to the interface that leads to it; a local pod that is
    missing here can't be told from a spoofed one, so nothing passes to or from its addresses. `pod_cidrs`: where an
    address must be a pod's of this node, so that one that nobody is known to have is closed. `uplinks`: interfaces
    known to be no pod's, which saves their packets the search for a pod behind them; leaving one out is never wrong,
    but for a port of a bridge that has pods, where every port that is no uplink is taken for a pod's.

    `bridges`: which of those interfaces, uplinks too, are ports of a bridge, and of which; an interface that is not
    there is routed. `strangers`: interfaces that are surely a pod's, though nobody knows yet whose: closed until known.
    `mode`: the node's, which a namespace's label overrides. `unknown`: "open" lets what is not known yet pass, which is
    unsafe: a new pod is not isolated until the agent has seen it. `closed`: addresses that let nothing pass for the
    moment. `abroad`: addresses in `pod_cidrs` that other nodes' pods are known to have, which only uplinks lead to.
    `hosts`: addresses that are known to be other nodes'."""

    name: str
    veths: Mapping[str, str]
    pod_cidrs: tuple[Prefix, ...] = ()
    uplinks: tuple[str, ...] = ()
    node_egress: NodeEgress = "enforce"
    deny: Literal["reject", "drop"] = "reject"
    log_group: int = 100
    mark: int = DEFAULT_MARK
    bridges: Mapping[str, str] = {}
    strangers: tuple[str, ...] = ()
    mode: Mode = "enforce"
    unknown: Literal["closed", "open"] = "closed"
    closed: frozenset[Address] = frozenset()
    abroad: frozenset[Address] = frozenset()
    hosts: frozenset[Address] = frozenset()

    def attachment(self, pod: str) -> Attachment | None:
        interface = self.veths.get(pod)
        return None if interface is None else Attachment(interface, self.bridges.get(interface, ""))

    @property
    def pod_bridges(self) -> dict[str, tuple[str, ...]]:
        """Each bridge with a port that may be a pod's, and its ports that are none."""
        found = sorted({bridge for port, bridge in self.bridges.items() if port not in self.uplinks})
        return {each: tuple(port for port in self.uplinks if self.bridges.get(port) == each) for each in found}

    @property
    def routed(self) -> list[str]:
        """The routed interfaces of pods that are known."""
        return [name for name in self.veths.values() if name not in self.bridges]

    @property
    def plain_uplinks(self) -> list[str]:
        """Uplinks that rules may name: a bridge with pods behind it says nothing of who sends, nor does a port."""
        pods = {*self.veths.values(), *self.strangers, *self.pod_bridges, *self.bridges}
        return [name for name in self.uplinks if name not in pods]


def abroad(pods: Iterable[Pod], node: str, pod_cidrs: Iterable[Prefix]) -> dict[str, frozenset[Address]]:
    """Of pods of other nodes, by key, the addresses that they have in the node's blocks: where a network gives them out
    of another order than the Node objects say, as Calico's own IPAM does."""
    spans = [(block.family, block.network, block.last) for block in pod_cidrs]
    found: dict[str, frozenset[Address]] = {}
    for pod in pods:
        for address in pod.addresses if pod.node and pod.node != node else ():
            for family, first, last in spans:
                if first <= address.value <= last and address.family == family and pod.selectable:
                    found[pod.key] = found.get(pod.key, frozenset()) | {address}
    return found


def host_addresses(pods: Iterable[Pod], node: str) -> frozenset[Address]:
    """Those of other nodes, which are those of the pods in their own network."""
    return frozenset(a for pod in pods if pod.host_network and pod.node != node for a in pod.addresses)
