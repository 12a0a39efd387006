"""All ports between two ends at once: what `compiler.verdict` says of one port, said of every one."""

from __future__ import annotations

from msgspec import Struct

from compiler.compile import Compiled
from compiler.peers import PeerSet
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.verdict import End, NodeEgress
from policy.cidr import Family
from policy.model import Direction


class Between(Struct, frozen=True):
    """`known` ports are allowed; `possible` ones too, if an end gets an address that some rule's block holds."""

    known: PortSet
    possible: PortSet


def ports_between(compiled: Compiled, src: End, dst: End, node_egress: NodeEgress = "enforce") -> Between:
    """What a pod at `src` may use at `dst`, both halves together (semantics, row 3)."""
    halves = [_half(compiled, src, dst, direction, node_egress) for direction in ("ingress", "egress")]
    ingress, egress = halves
    return Between(ingress.known.intersection(egress.known), ingress.possible.intersection(egress.possible))


_ALL = Between(ALL_PORTS, ALL_PORTS)


def _half(compiled: Compiled, src: End, dst: End, direction: str, node_egress: NodeEgress) -> Between:
    subject, peer = (dst, src) if direction == "ingress" else (src, dst)
    if subject.pod is None or not subject.pod.selectable:
        return _ALL
    side: Direction = "ingress" if direction == "ingress" else "egress"
    allow = compiled.allow(subject.pod, side)
    itself = peer.pod is not None and peer.pod.key == subject.pod.key and not subject.pod.stands_in
    own_node = bool(peer.node) and peer.node == subject.pod.node and (side == "ingress" or node_egress == "allow")
    if not allow.isolated or itself or own_node:
        return _ALL
    family = next((end.address.family for end in (src, dst) if end.address), None)
    known, possible = NO_PORTS, NO_PORTS
    for grant in allow.grants:
        ports = _numbered(grant.ports, dst)
        if _matches(compiled, grant.peers, peer, family):
            known = known.union(ports)
        elif peer.address is None and grant.peers.addresses:
            possible = possible.union(ports)
    return Between(known, known.union(possible))


def _numbered(ports: PortSet | NamedPort, dst: End) -> PortSet:
    if isinstance(ports, PortSet):
        return ports
    declared = dst.pod.ports if dst.pod and dst.pod.selectable else ()
    known = [each for each in declared if each.name == ports.name and each.protocol == ports.protocol]
    return union_of(port_range(each.protocol, each.port, each.port) for each in known)


def _matches(compiled: Compiled, peers: PeerSet, peer: End, family: Family | None) -> bool:
    if peer.pod is not None and peers.matches_pod(peer.pod, compiled.namespaces):
        return True
    if peer.address is not None:
        return peers.addresses.contains(peer.address)
    families: tuple[Family, ...] = (family,) if family else (4, 6)
    return all(peers.addresses.is_whole(each) for each in families)
