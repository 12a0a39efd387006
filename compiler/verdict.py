"""The verdict on a flow, with its why: the rules that admit it, or the policies that isolate.

A flow passes when the source's egress and the destination's ingress both allow it (semantics, row 3); each half is
answered by itself, from the allow-set of the pod at that end. Replies follow the flow.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from compiler.allowset import AllowSet, PolicyRef, RuleRef
from compiler.compile import State
from compiler.peers import PeerSet
from compiler.ports import NamedPort, PortSet
from policy.cidr import Address, Family
from policy.model import Direction, Pod

NodeEgress = Literal["enforce", "allow"]
Because = Literal["no pod", "finished", "open", "rule", "self", "own node", "no rule"]


class End(Struct, frozen=True):
    """One end of a flow: a pod with one of its addresses, a node, or an address outside. `address` is None where it is
    not known yet: the end then has one of its own, of which no block but the whole family can be sure (row 24).
    `node` is the node that the end *is*: a pod in its node's network is that node."""

    pod: Pod | None = None
    address: Address | None = None
    node: str = ""


class Flow(Struct, frozen=True):
    """The first packet of a connection. `protocol` is TCP, UDP, SCTP, or any other name for a protocol without their
    ports (ICMP), whose `port` is ignored."""

    src: End
    dst: End
    protocol: str
    port: int = 0


class Half(Struct, frozen=True):
    """One direction's answer. `rules` admit, down to the entries of peers and ports; `policies` isolate. `uncertain`:
    denied as far as is known, but a block might hold the address that the other end is yet to get."""

    direction: Direction
    allowed: bool
    because: Because
    isolated: bool = False
    rules: tuple[RuleRef, ...] = ()
    policies: tuple[PolicyRef, ...] = ()
    uncertain: bool = False


class Verdict(Struct, frozen=True):
    ingress: Half
    egress: Half

    @property
    def allowed(self) -> bool:
        return self.ingress.allowed and self.egress.allowed

    @property
    def uncertain(self) -> bool:
        """Whether the answer hangs on an address that is not known yet."""
        halves = (self.ingress, self.egress)
        return any(half.uncertain for half in halves) and all(half.allowed or half.uncertain for half in halves)


def verdict(compiled: State, flow: Flow, node_egress: NodeEgress = "enforce") -> Verdict:
    """The verdict on `flow`; `node_egress` says what a pod may send to its own node (semantics, row 28)."""
    return Verdict(_half(compiled, flow, "ingress", node_egress), _half(compiled, flow, "egress", node_egress))


def _half(compiled: State, flow: Flow, direction: Direction, node_egress: NodeEgress) -> Half:
    settled = half_without_rules(compiled, flow, direction, node_egress)
    if settled is not None:
        return settled
    subject, peer = (flow.dst, flow.src) if direction == "ingress" else (flow.src, flow.dst)
    assert subject.pod is not None
    allow = compiled.allow(subject.pod, direction)
    family = next((end.address.family for end in (flow.src, flow.dst) if end.address), None)
    question = Question(compiled, peer, flow.dst, flow.protocol, flow.port, family)
    if question.admitted(allow):
        return Half(direction, True, "rule", True, question.admitting(allow), allow.policies)
    uncertain = peer.address is None and question.possible(allow)
    return Half(direction, False, "no rule", True, policies=allow.policies, uncertain=uncertain)


def half_without_rules(compiled: State, flow: Flow, direction: Direction, node_egress: NodeEgress) -> Half | None:
    """The answer where rules need not be asked, on any port; None where they must be."""
    subject, peer = (flow.dst, flow.src) if direction == "ingress" else (flow.src, flow.dst)
    if subject.pod is None or not subject.pod.selectable:
        return Half(direction, True, "finished" if subject.pod and subject.pod.finished else "no pod")
    allow = compiled.allow(subject.pod, direction)
    if not allow.isolated:
        return Half(direction, True, "open")
    # What stands for a workload stands for several pods: to itself is to another one.
    if peer.pod is not None and peer.pod.key == subject.pod.key and not subject.pod.stands_in:
        return Half(direction, True, "self", True, policies=allow.policies)
    on_own_node = bool(peer.node) and peer.node == subject.pod.node
    if on_own_node and (direction == "ingress" or node_egress == "allow"):
        return Half(direction, True, "own node", True, policies=allow.policies)
    return None


class Question(Struct, frozen=True):
    """One flow, asked of one allow-set."""

    compiled: State
    peer: End
    dst: End
    protocol: str
    port: int
    family: Family | None

    def admitted(self, allow: AllowSet) -> bool:
        return any(self._ports(grant.ports) and self.peer_matches(grant.peers) for grant in allow.grants)

    def admitting(self, allow: AllowSet) -> tuple[RuleRef, ...]:
        """Every pair of entries, of every rule, that admits the flow."""
        return tuple(
            RuleRef(rule.ref.policy, rule.ref.direction, rule.ref.rule, peer_index, port_index)
            for rule in allow.bound
            for port_index, ports in rule.ports
            if self._ports(ports)
            for peer_index, peers in rule.peers
            if self.peer_matches(peers)
        )

    def possible(self, allow: AllowSet) -> bool:
        """Whether some address would be admitted."""
        return any(self._ports(grant.ports) and grant.peers.addresses for grant in allow.grants)

    def _ports(self, ports: PortSet | NamedPort) -> bool:
        if isinstance(ports, PortSet):
            return ports.contains(self.protocol, self.port)
        pod = self.dst.pod
        return (
            pod is not None
            and pod.selectable
            and any(
                known.name == ports.name
                and known.protocol == ports.protocol == self.protocol
                and known.port == self.port
                for known in pod.ports
            )
        )

    def peer_matches(self, peers: PeerSet) -> bool:
        pod = self.peer.pod
        if pod is not None and peers.matches_pod(pod, self.compiled.namespaces):
            return True
        if self.peer.address is not None:
            return peers.addresses.contains(self.peer.address)
        families: tuple[Family, ...] = (self.family,) if self.family else (4, 6)
        return all(peers.addresses.is_whole(family) for family in families)
