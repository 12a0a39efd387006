"""Which existing flows may not go on at a node: those that a new connection of the same kind could not begin. Pure.

Each half is judged where its pod is, so only pods of this node count, and a flow between two nodes ends if either end
forbids it. What the node itself made is never ended (semantics, row 27), nor is anything of a pod whose interface is
not known yet: its rules are closed, not its flows over. Nor do policies end flows of pods that they are not enforced
for.

A table may hold 100,000 flows with as many strangers. Pods with the same labels, and addresses that no block tells
apart, are one place, and the verdict is asked once for flows between the same places.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator

from compiler.allowset import AllowSet
from compiler.compile import State
from compiler.verdict import End, Flow, verdict
from enforcer.connections.gate import Gate
from enforcer.kernel.conntrack_answer import Tracked
from enforcer.kernel.conntrack_wire import packed
from enforcer.rules.layout import NodeView
from policy.cidr import BITS, Address, Family
from policy.model import DIRECTIONS, Direction, Labels, Pod, Protocol

_PROTOCOLS: dict[int, Protocol] = {6: "TCP", 17: "UDP", 132: "SCTP"}


class Edges:
    """Where the address blocks of allow-sets begin and end, kept from one judge to the next; an allow-set is known by
    its identity, and kept alive beside them. After a judge asked it holds what that judge needs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[AllowSet, dict[Family, tuple[int, ...]]]] = {}

    def of(self, allows: Iterable[AllowSet]) -> Iterator[dict[Family, tuple[int, ...]]]:
        before, self._known = self._known, {}
        for allow in allows:
            found = before.get(id(allow)) or (allow, {family: tuple(_edges(allow, family)) for family in BITS})
            self._known[id(allow)] = found
            yield found[1]


class Judge:
    """Answers for one node. `local` are its pods (see `layout.local_pods`), `own` its addresses; flows of `released`
    addresses end whatever policies say, as do those of addresses in the node's pod blocks that nobody has: their owner
    is gone. `enforced`: whether the policies of a pod end its flows.

    Where another thread changes `state`, behind `gate`, each answer is that of one moment: what was found before a
    change is not mixed with what is found after it. It costs what the node's pods cost, never what the cluster does."""

    def __init__(
        self,
        state: State,
        node: NodeView,
        local: Collection[Pod],
        own: Collection[Address],
        released: Collection[Address] = (),
        enforced: Callable[[Pod], bool] = lambda _: True,
        gate: Gate | None = None,
        edges: Edges | None = None,
    ) -> None:
        self._state = state
        self._node = node
        self._own = frozenset(own)
        self._released = frozenset(released)
        self._local = frozenset(address for pod in local for address in pod.addresses)
        self._attached = [pod for pod in local if pod.key in node.veths]
        self._enforced = enforced
        self._singular = self._own | self._released | self._local
        self._gate = gate or Gate()
        self._known_edges = edges or Edges()
        self._isolated: dict[Direction, dict[Address, AllowSet]] = {}
        self._labels: dict[str, Labels] = {}
        self._cuts: dict[Family, list[int]] = {}
        self._kinds: dict[Hashable, int] = {}
        self._places: dict[bytes, int] = {}
        self._answers: dict[tuple[int, int, int, bytes], bool] = {}
        self._version = self._gate.version
        with self._gate:
            self._begin()

    def _begin(self) -> None:
        """Forgets what may not be so any more; the gate is closed. Of addresses whose pods changed it is whose they are
        and what labels these have; flows between pods of some labels are what they were, as long as allow-sets and
        namespaces are."""
        others = self._gate.touched_since(self._version)
        self._version = self._gate.version
        isolated: dict[Direction, dict[Address, AllowSet]] = {direction: {} for direction in DIRECTIONS}
        for pod in self._attached:
            if self._enforced(pod):
                own = [a for a in pod.addresses if (holder := self._state.pod_at(a)) and holder.key == pod.key]
                for direction, known in isolated.items():
                    allow = self._state.allow(pod, direction)
                    if allow.isolated:
                        known.update(dict.fromkeys(own, allow))
        labels = dict(self._state.namespaces)
        if labels != self._labels or isolated != self._isolated:
            self._cuts, self._kinds, self._answers, others = {}, {}, {}, None
        if others is None:
            self._places = {}
        else:
            for address in others:
                self._places.pop(packed(address), None)
        self._labels, self._isolated = labels, isolated

    def forbids(self, flow: Tracked) -> bool:
        src, dst, protocol, port, _, _ = flow
        places = self._places
        # An answer that is known needs no gate: everything known is of one moment.
        answer = self._answers.get((places.get(src, 0), places.get(dst, 0), protocol, port))
        return self._find(src, dst, protocol, port) if answer is None else answer

    def _find(self, src: bytes, dst: bytes, protocol: int, port: bytes) -> bool:
        if not self._cuts:
            self._cut()
        with self._gate:
            if self._gate.version != self._version:
                self._begin()
            asked = (self._place(src), self._place(dst), protocol, port)
            answer = self._answers.get(asked)
            if answer is None:
                answer = self._judge(unpacked(src), unpacked(dst), protocol, int.from_bytes(port, "big"))
                self._answers[asked] = answer
            return answer

    def _cut(self) -> None:
        """Outside of the gate: blocks may be many, and an allow-set never changes."""
        cuts: dict[Family, set[int]] = {family: set() for family in BITS}
        distinct = {id(allow): allow for isolated in self._isolated.values() for allow in isolated.values()}
        for edges in self._known_edges.of(distinct.values()):
            for family, known in edges.items():
                cuts[family].update(known)
        for block in self._node.pod_cidrs:
            cuts[block.family].update((block.network, block.last + 1))
        self._cuts = {family: sorted(edges) for family, edges in cuts.items()}

    def _place(self, end: bytes) -> int:
        """A number for all that no policy can tell from this address. Subjects and the node are themselves."""
        found = self._places.get(end)
        if found:
            return found
        address = unpacked(end)
        pod = self._state.pod_at(address)
        stretch: Hashable = address
        if address not in self._singular and self._cuts:
            stretch = address.family, bisect_right(self._cuts[address.family], address.value)
        labels = pod and (pod.namespace, frozenset(pod.labels.items()), pod.ports)
        kind = labels, address in self._node.abroad, stretch
        # From 1: no place is 0.
        found = self._places[end] = self._kinds.setdefault(kind, len(self._kinds) + 1)
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
        said = verdict(self._state, asked, self._node.node_egress)
        return (ingress and not said.ingress.allowed) or (egress and not said.egress.allowed)

    def _ownerless(self, address: Address) -> bool:
        if address in self._own or address in self._local:
            return False
        # Where the rules let the unknown pass, its flows go on too.
        closes = self._node.mode == "enforce" and self._node.unknown == "closed"
        blocks = self._node.pod_cidrs if closes else ()
        if address in self._released:
            return True
        return any(block.holds(address) for block in blocks) and address not in self._node.abroad

    def _end(self, address: Address) -> End:
        return End(self._state.pod_at(address), address, self._node.name if address in self._own else "")


def unpacked(end: bytes) -> Address:
    return Address(4 if len(end) == 4 else 6, int.from_bytes(end, "big"))


def _edges(allow: AllowSet, family: Family) -> Iterator[int]:
    for grant in allow.grants:
        for low, high in grant.peers.addresses.of(family):
            yield low
            yield high + 1
