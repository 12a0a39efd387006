"""What a node's filter should do with each packet, said from allow-sets and the node's attachments alone.

The second path to the same answer as `layout`, which it never asks: no chain, set or rule is known here. In order:

- INPUT: what is no matter of policy passes (loopback, DHCP, neighbour discovery).
- Packets and ICMP errors of a connection that was let through and is not revoked pass; the answers of a revoked one
  are denied.
- Everything else needs both its halves, each looked at from the near end (INPUT has the egress half only): a pod's
  address must be on the pod's interface, and then what its allow-set says holds; no other address may be there, or in
  a block that only pods of this node have addresses in, but by an uplink one that a pod of another node has.
- The interface of a bridged pod is its port, and, of what is routed to the bridge, the bridge. Every other port of a
  bridge with pods is like a pod's interface, but for those of uplinks. Groups of addresses reach the ports of pods that
  nothing isolates. Neighbour discovery passes from port to port; routers are behind uplinks.
- A subject in audit, or off, is open. A node in audit denies nothing for where a packet comes from or goes. A node that
  is off denies nothing.
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
from enforcer.readback.fields import Interfaces, connections, protocol_services, service, services
from enforcer.readback.regions import CONNECTION, DST, ICMP, IN, OUT, PORT_IN, PORT_OUT, SERVICE, SRC, SRC_PORT, Fields
from enforcer.rules.modes import Mode, mode_of
from enforcer.rules.ruleset import HookName
from enforcer.rules.view import NodeView
from policy.cidr import Address, Family
from policy.model import DIRECTIONS, Direction, Pod

HOOKS: tuple[HookName, HookName] = ("FORWARD", "INPUT")
NEAR = {"ingress": DST, "egress": SRC}
FAR = {"ingress": SRC, "egress": DST}
INTERFACE = {"ingress": OUT, "egress": IN}
PORT = {"ingress": PORT_OUT, "egress": PORT_IN}
# Reports of multicast listeners (RFC 2710, RFC 3810), solicitations and neighbour advertisements (RFC 4861).
_NEIGHBOUR_DISCOVERY: Intervals = ((131, 133), (135, 136), (143, 143))
_DHCP: dict[Family, tuple[int, int]] = {4: (68, 67), 6: (546, 547)}
# From a host to any other; from hosts to routers; from routers to hosts.
_NEIGHBOURS: Intervals = ((135, 136),)
_TO_ROUTERS: Intervals = ((131, 133), (143, 143))
_FROM_ROUTERS: Intervals = ((130, 130), (134, 134))
# Class D and limited broadcast (RFC 1112, RFC 919); multicast (RFC 4291).
_GROUPS: dict[Family, Intervals] = {
    4: ((224 << 24, (240 << 24) - 1), ((1 << 32) - 1, (1 << 32) - 1)),
    6: ((0xFF << 120, (1 << 128) - 1),),
}


Offer = tuple[Intervals, Intervals]


class Subject(Struct, frozen=True):
    """A pod of the node, by `addresses` of which no other subject has any; `own` are those that are its own. `veth` is
    "" where no interface is known to lead to it: then nothing passes; `bridge` is "" where that is no port. `allow` is
    OPEN where nothing isolates it, or nothing is to come of it; `audited` says that this is for the mode."""

    pod: Pod
    addresses: Intervals
    own: Intervals
    veth: str
    bridge: str
    allow: AllowSet
    audited: bool


class Meaning:
    """What is wanted of one family on one node."""

    def __init__(self, compiled: Compiled, node: NodeView, family: Family) -> None:
        self._compiled = compiled
        self._node = node
        self._family = family
        here = [p for p in compiled.cluster.pods if p.node == node.name and p.selectable and p.addresses]
        opened = node.unknown == "open"
        self._pods = [pod for pod in here if pod.key in node.veths or not opened]
        self.is_off, self.is_lenient, self.is_open = node.mode == "off", node.mode == "audit", opened
        pods = {*node.veths.values(), *(() if opened else node.strangers)}
        self.veths = sorted(name for name in pods if name not in node.bridges)
        self.ports = sorted(name for name in pods if name in node.bridges)
        self.uplinks = {b: [u for u in node.uplinks if node.bridges.get(u) == b] for b in sorted(self._bridges())}
        blocks = () if opened else node.pod_cidrs
        self.blocks = intervals.normal((b.network, b.last) for b in blocks if b.family == family)
        abroad = intervals.normal((a.value, a.value) for a in node.abroad if a.family == family)
        self.abroad = intervals.intersection(abroad, self.blocks)
        self.plain_uplinks = sorted(set(node.uplinks) - {*pods, *node.strangers, *node.bridges, *self.uplinks})
        self.groups = _GROUPS[family] if self.uplinks else ()
        ((_, self.last_address),) = WHOLE[family]
        # Allow-sets share peer-sets, and a peer-set may have many members.
        self._offers = cache(self._granted)
        self.subjects = {direction: self._subjects(direction) for direction in DIRECTIONS}

    def directions(self, hook: HookName) -> tuple[Direction, ...]:
        return DIRECTIONS if hook == "FORWARD" else ("egress",)

    def allow_of(self, subject: Subject, hook: HookName) -> AllowSet:
        """With node egress "allow", what a pod sends to its own node is nobody's business (semantics, row 28)."""
        return OPEN if hook == "INPUT" and self._node.node_egress == "allow" else subject.allow

    def _bridges(self) -> set[str]:
        """Those with a port that may be a pod's."""
        return {bridge for port, bridge in self._node.bridges.items() if port not in self._node.uplinks}

    def everything(self, hook: HookName, interfaces: Interfaces) -> list[Fields]:
        """What a hook sees. The port that a packet leaves by is known where it came in by one of the same bridge."""
        if hook == "INPUT":
            return [{IN: interfaces.some, OUT: interfaces.none, PORT_OUT: interfaces.none}]
        routed: Fields = {IN: interfaces.some, OUT: interfaces.some, PORT_OUT: interfaces.none}
        if not self.uplinks:
            return [routed]
        through = {PORT_IN: interfaces.some, PORT_OUT: interfaces.some}
        return [routed, {IN: interfaces.some, OUT: interfaces.some} | through]

    def passing(self, hook: HookName, interfaces: Interfaces) -> dict[str, Fields]:
        """What passes whoever sends it, by what it is."""
        if self.is_off:
            return {"the node is off": {}}
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
        elif self._family == 6 and self.uplinks:
            through, uplinks = interfaces.some, interfaces.named(u for ports in self.uplinks.values() for u in ports)
            between = {
                "neighbours look for each other": {ICMP: _NEIGHBOURS, PORT_OUT: through},
                "a host speaks to routers": {ICMP: _TO_ROUTERS, PORT_OUT: uplinks},
                "a router speaks to hosts": {ICMP: _FROM_ROUTERS, PORT_IN: uplinks, PORT_OUT: through},
            }
            found |= {why: {SERVICE: self._icmp} | term for why, term in between.items()}
        return found

    def place(self, direction: Direction, subject: Subject, interfaces: Interfaces) -> tuple[int, list[Fields]]:
        """Where packets of a subject may be seen, in terms that share no value of a field; and that field."""
        if not subject.veth:
            return INTERFACE[direction], []
        own = interfaces.named([subject.veth])
        if not subject.bridge:
            return INTERFACE[direction], [{INTERFACE[direction]: own}]
        by_port: list[Fields] = [{PORT[direction]: own}]
        if direction == "ingress":
            by_port.append({PORT_OUT: interfaces.none, OUT: interfaces.named([subject.bridge])})
        return PORT[direction], by_port

    @property
    def open_ports(self) -> list[str]:
        """The ports that groups of addresses reach, beside those of uplinks."""
        found = {
            self._node.veths[pod.key]
            for pod in self._pods
            if pod.key in self._node.veths and not self._asked_of(pod, "ingress").isolated
        }
        return sorted(found.intersection(self.ports))

    def _asked_of(self, pod: Pod, direction: Direction) -> AllowSet:
        """What the pod's allow-set denies of it is denied, unless its mode is another."""
        return self._compiled.allow(pod, direction) if self._mode(pod) == "enforce" else OPEN

    def _mode(self, pod: Pod) -> Mode:
        return mode_of(self._compiled.namespaces.get(pod.namespace, {}), self._node.mode)

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
        for hook in HOOKS:
            yield from self.passing(hook, interfaces).values()
            yield from self.everything(hook, interfaces)
        yield self.revoked
        allow_sets = {(d, id(s.allow)): s.allow for d in DIRECTIONS for s in self.subjects[d]}
        for (direction, _), allow in allow_sets.items():
            for offered, far in self.offers(allow):
                yield {SERVICE: offered, FAR[direction]: far}
        for direction in DIRECTIONS:
            yield {NEAR[direction]: self.blocks, INTERFACE[direction]: interfaces.named(self.veths)}
            yield {NEAR[direction]: self.abroad, INTERFACE[direction]: interfaces.named(self.plain_uplinks)}
            yield {NEAR[direction]: self.groups, INTERFACE[direction]: interfaces.named(self.uplinks)}
            yield {PORT[direction]: interfaces.named(self.ports)}
            for ports in self.uplinks.values():
                yield {PORT[direction]: interfaces.named(ports)}
            for subject in self.subjects[direction]:
                yield from self.place(direction, subject, interfaces)[1]
                yield {NEAR[direction]: subject.addresses, FAR[direction]: subject.own}
        yield {PORT_OUT: interfaces.named(self.open_ports)}

    def _subjects(self, direction: Direction) -> list[Subject]:
        """Each address once. One that several pods claim, of whom it can't be told whose it is, is closed for all; so
        are those that the node keeps closed."""
        owned: dict[str, list[int]] = {pod.key: [] for pod in self._pods}
        closed: dict[int, Pod] = {}
        for pod in self._pods:
            for value in self._addresses(pod):
                address = Address(self._family, value)
                holder = self._compiled.pod_at(address)
                if holder is None or address in self._node.closed:
                    closed.setdefault(value, pod)
                elif holder.key == pod.key:
                    owned[pod.key].append(value)
        veths = self._node.veths
        found = [(pod, owned[pod.key], veths.get(pod.key, "")) for pod in self._pods if owned[pod.key]]
        found += ((pod, [value], "") for value, pod in closed.items())
        return [
            Subject(
                pod,
                intervals.normal((value, value) for value in values),
                intervals.normal((value, value) for value in owned[pod.key]),
                veth,
                self._node.bridges.get(veth, ""),
                self._asked_of(pod, direction),
                self._mode(pod) == "audit" and self._compiled.allow(pod, direction).isolated,
            )
            for pod, values, veth in found
        ]

    def _addresses(self, pod: Pod) -> list[int]:
        return [address.value for address in pod.addresses if address.family == self._family]
