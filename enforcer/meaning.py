"""What a node's filter should do with each packet, said from allow-sets and the node's attachments alone.

The second path to the same answer as `layout`, which it never asks: no chain, set or rule is known here. In order:

- INPUT: what is no matter of policy passes (loopback, DHCP, neighbour discovery).
- Packets and ICMP errors of a connection that was let through and is not revoked pass; the answers of a revoked one
  are denied.
- Everything else needs both its halves, each looked at from the near end (INPUT has the egress half only): a pod's
  address must be on the pod's interface, and then what its allow-set says holds; no other address may be there, or in
  a block that only pods of this node have addresses in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from msgspec import Struct

from compiler import intervals
from compiler.allowset import OPEN, AllowSet
from compiler.compile import Compiled, Member
from compiler.intervals import Intervals
from compiler.peers import PeerSet
from compiler.ports import NamedPort, PortSet
from compiler.prefixes import WHOLE
from enforcer.fields import Interfaces, connections, protocol_services, service, services
from enforcer.layout import NodeView
from enforcer.regions import CONNECTION, DST, ICMP, IN, OUT, SERVICE, SRC, SRC_PORT, Fields
from enforcer.ruleset import HookName
from policy.cidr import Address, Family
from policy.model import DIRECTIONS, Direction, Pod

NEAR = {"ingress": DST, "egress": SRC}
FAR = {"ingress": SRC, "egress": DST}
INTERFACE = {"ingress": OUT, "egress": IN}
# Reports of multicast listeners (RFC 2710, RFC 3810), solicitations and neighbour advertisements (RFC 4861).
_NEIGHBOUR_DISCOVERY: Intervals = ((131, 133), (135, 136), (143, 143))
_DHCP: dict[Family, tuple[int, int]] = {4: (68, 67), 6: (546, 547)}


Offer = tuple[Intervals, Intervals]


class Subject(Struct, frozen=True):
    """A pod of the node, by `addresses` of which no other subject has any; `own` are those that are its own. `veth` is
    "" where no interface is known to lead to it: then nothing passes. `allow` is OPEN where it is not isolated."""

    pod: Pod
    addresses: Intervals
    own: Intervals
    veth: str
    allow: AllowSet


class Meaning:
    """What is wanted of one family on one node."""

    def __init__(self, compiled: Compiled, node: NodeView, family: Family) -> None:
        self._compiled = compiled
        self._node = node
        self._family = family
        here = [p for p in compiled.cluster.pods if p.node == node.name and p.selectable and p.addresses]
        self._pods = here
        self.veths = sorted(set(node.veths.values()))
        self.blocks = intervals.normal((b.network, b.last) for b in node.pod_cidrs if b.family == family)
        ((_, self.last_address),) = WHOLE[family]
        # Allow-sets share peer-sets, and a peer-set may have many members.
        self._offers = cache(self._granted)
        self.subjects = {direction: self._subjects(direction) for direction in DIRECTIONS}

    def directions(self, hook: HookName) -> tuple[Direction, ...]:
        return DIRECTIONS if hook == "FORWARD" else ("egress",)

    def allow_of(self, subject: Subject, hook: HookName) -> AllowSet:
        """With node egress "allow", what a pod sends to its own node is nobody's business (semantics, row 28)."""
        return OPEN if hook == "INPUT" and self._node.node_egress == "allow" else subject.allow

    def passing(self, hook: HookName, interfaces: Interfaces) -> dict[str, Fields]:
        """What passes whoever sends it, by what it is."""
        found: dict[str, Fields] = {
            "it belongs to a connection that was let through": {CONNECTION: connections(["ESTABLISHED"], marked=False)},
            "it is an ICMP error about a connection that was let through": {
                CONNECTION: connections(["RELATED"], marked=False),
                SERVICE: self._icmp,
            },
        }
        if hook == "INPUT":
            client, server = _DHCP[self._family]
            found["it comes over loopback"] = {IN: interfaces.named(["lo"])}
            found["it asks for a DHCP lease"] = {SERVICE: service("udp", server), SRC_PORT: ((client, client),)}
            if self._family == 6:
                found["it is neighbour discovery"] = {SERVICE: self._icmp, ICMP: _NEIGHBOUR_DISCOVERY}
        return found

    @property
    def revoked(self) -> Fields:
        """What is denied of the rest, whoever sends it."""
        return {CONNECTION: connections(marked=True, direction="REPLY")}

    @property
    def _icmp(self) -> Intervals:
        return protocol_services("icmp" if self._family == 4 else "ipv6-icmp")

    def offers(self, allow: AllowSet) -> tuple[Offer, ...]:
        """Services and the far addresses that may use them, with the members of this moment."""
        return tuple(offer for grant in allow.grants for offer in self._offers(grant.ports, grant.peers))

    def _granted(self, ports: PortSet | NamedPort, peers: PeerSet) -> Iterable[Offer]:
        if isinstance(ports, PortSet):
            members = self._addresses_of(self._compiled.members(peers))
            return [(services(ports), intervals.union(members, peers.addresses.of(self._family)))]
        at: dict[int, list[Member]] = {}
        for member in self._compiled.named_members(ports, peers):
            at.setdefault(member[2], []).append(member)
        return [(service(ports.protocol.lower(), port), self._addresses_of(found)) for port, found in at.items()]

    def _addresses_of(self, members: Iterable[Member]) -> Intervals:
        return intervals.normal((a.value, a.value) for a, _, _ in members if a.family == self._family)

    def terms(self, interfaces: Interfaces) -> Iterator[Fields]:
        """All that a packet is asked for, so that it can be cut into what matters."""
        yield from self.passing("INPUT", interfaces).values()
        yield self.revoked
        allow_sets = {(d, id(s.allow)): s.allow for d in DIRECTIONS for s in self.subjects[d]}
        for (direction, _), allow in allow_sets.items():
            for offered, far in self.offers(allow):
                yield {SERVICE: offered, FAR[direction]: far}
        for direction in DIRECTIONS:
            yield {NEAR[direction]: self.blocks, INTERFACE[direction]: interfaces.named(self.veths)}
            for subject in self.subjects[direction]:
                yield {NEAR[direction]: subject.addresses, INTERFACE[direction]: interfaces.named([subject.veth])}
                yield {FAR[direction]: subject.own}

    def _subjects(self, direction: Direction) -> list[Subject]:
        """Each address once. One that several pods claim, of whom it can't be told whose it is, is closed for all."""
        owned: dict[str, list[int]] = {pod.key: [] for pod in self._pods}
        closed: dict[int, Pod] = {}
        for pod in self._pods:
            for value in self._addresses(pod):
                holder = self._compiled.pod_at(Address(self._family, value))
                if holder is None:
                    closed.setdefault(value, pod)
                elif holder.key == pod.key:
                    owned[pod.key].append(value)
        found = [(pod, owned[pod.key], self._node.veths.get(pod.key, "")) for pod in self._pods if owned[pod.key]]
        found += ((pod, [value], "") for value, pod in closed.items())
        return [
            Subject(
                pod,
                intervals.normal((value, value) for value in values),
                intervals.normal((value, value) for value in owned[pod.key]),
                veth,
                self._compiled.allow(pod, direction),
            )
            for pod, values, veth in found
        ]

    def _addresses(self, pod: Pod) -> list[int]:
        return [address.value for address in pod.addresses if address.family == self._family]
