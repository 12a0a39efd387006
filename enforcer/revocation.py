"""Which existing flows may not go on at a node: those that a new connection of the same kind could not begin. Pure.

Each half is judged where its pod is, so only pods of this node count, and a flow between two nodes ends if either end
forbids it. What the node itself made is never ended (semantics, row 27), nor is anything of a pod whose interface is
not known yet: its rules are closed, not its flows over.

A table may hold 100,000 flows with as many strangers. Pods with the same labels, and addresses that no block tells
apart, are one place, and the verdict is asked once for flows between the same places.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterator

from compiler.allowset import AllowSet
from compiler.compile import Compiled
from compiler.verdict import End, Flow, verdict
from enforcer.conntrack_answer import Tracked
from enforcer.layout import NodeView, local_pods
from policy.cidr import Address, Family, Prefix
from policy.model import DIRECTIONS, Direction, Protocol

_PROTOCOLS: dict[int, Protocol] = {6: "TCP", 17: "UDP", 132: "SCTP"}


class Judge:
    """Answers for one node, of one moment: nobody may change `compiled` while it is asked. `own` are the node's
    addresses; flows of `released` ones end whatever policies say, as do those of addresses in the node's pod blocks
    that nobody has: their owner is gone."""

    def __init__(
        self, compiled: Compiled, node: NodeView, own: Collection[Address], released: Collection[Address] = ()
    ) -> None:
        self._compiled = compiled
        self._node = node
        self._own = frozenset(own)
        self._released = frozenset(released)
        pods = local_pods(compiled, node.name)
        self._local = frozenset(address for pod in pods for address in pod.addresses)
        self._isolated: dict[Direction, frozenset[Address]] = {}
        cuts: dict[Family, set[int]] = {4: set(), 6: set()}
        for direction in DIRECTIONS:
            isolated = [p for p in pods if p.key in node.veths and compiled.allow(p, direction).isolated]
            self._isolated[direction] = frozenset(address for pod in isolated for address in pod.addresses)
            for allow in {id(found): found for pod in isolated for found in [compiled.allow(pod, direction)]}.values():
                for family, edges in cuts.items():
                    edges.update(_edges(allow, family))
        for block in node.pod_cidrs:
            cuts[block.family].update((block.network, block.last + 1))
        self._cuts = {family: sorted(edges) for family, edges in cuts.items()}
        self._singular = self._own | self._released | self._local
        self._kinds: dict[Hashable, int] = {}
        self._places: dict[bytes, int] = {}
        self._answers: dict[tuple[int, int, int, bytes], bool] = {}

    def forbids(self, flow: Tracked) -> bool:
        src, dst, protocol, port, _, _ = flow
        places = self._places
        asked = (places.get(src) or self._place(src), places.get(dst) or self._place(dst), protocol, port)
        answer = self._answers.get(asked)
        if answer is None:
            answer = self._judge(unpacked(src), unpacked(dst), protocol, int.from_bytes(port, "big"))
            self._answers[asked] = answer
        return answer

    def _place(self, packed: bytes) -> int:
        """A number for all that no policy can tell from this address. Subjects and the node are themselves."""
        address = unpacked(packed)
        kind: Hashable = address
        if address not in self._singular:
            pod = self._compiled.pod_at(address)
            stretch = bisect_right(self._cuts[address.family], address.value)
            kind = pod and (pod.namespace, frozenset(pod.labels.items()), pod.ports), address.family, stretch
        # From 1: a place is never false.
        found = self._places[packed] = self._kinds.setdefault(kind, len(self._kinds) + 1)
        return found

    def _judge(self, src: Address, dst: Address, protocol: int, port: int) -> bool:
        if src in self._own:
            return False
        if self._ownerless(src) or self._ownerless(dst):
            return True
        ingress, egress = dst in self._isolated["ingress"], src in self._isolated["egress"]
        if not (ingress or egress):
            return False
        asked = Flow(self._end(src), self._end(dst), _PROTOCOLS.get(protocol, "other"), port)
        said = verdict(self._compiled, asked, self._node.node_egress)
        return (ingress and not said.ingress.allowed) or (egress and not said.egress.allowed)

    def _ownerless(self, address: Address) -> bool:
        if address in self._own or address in self._local:
            return False
        return address in self._released or any(_holds(block, address) for block in self._node.pod_cidrs)

    def _end(self, address: Address) -> End:
        return End(self._compiled.pod_at(address), address, self._node.name if address in self._own else "")


def unpacked(packed: bytes) -> Address:
    return Address(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))


def _edges(allow: AllowSet, family: Family) -> Iterator[int]:
    for grant in allow.grants:
        for low, high in grant.peers.addresses.of(family):
            yield low
            yield high + 1


def _holds(block: Prefix, address: Address) -> bool:
    return block.family == address.family and block.network <= address.value <= block.last
