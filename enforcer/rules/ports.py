"""Rules that only a node with bridged pods has. A node whose pods are all routed has none of them.

iptables sees what a bridge forwards too (br_netfilter): the bridge as both interfaces, the ports beside it. Sets can't
look for a port (the `physdev:` of a hash:net,iface matches nothing: no rule can ask for it), so rules tell ports, and a
bridge is closed as a whole: a port that is no uplink is a pod's, also one that nobody knows yet.

    FORWARD   neighbour solicitations and advertisements from port to port                    ─► pass
              what hosts say to routers and routers to hosts, to and from an uplink's port     ─► pass
    source    another than a leaf knows, from an uplink's port                                 ─► back
              the same from any other port of the bridge                                       ─► PODFENCE-SPOOFED
    dest.     a group of addresses (multicast, broadcast)  ─► PODFENCE-GROUPS: ports of uplinks, and of pods that no
                                                               policy isolates for ingress, pass; the rest is dropped
              another, by an uplink's port, or routed to a bridge that has an uplink           ─► back
              the same by any other port                                                       ─► PODFENCE-UNKNOWN
"""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.rules import names
from enforcer.rules.ruleset import (
    Bridged,
    Drop,
    Dst,
    Goto,
    IcmpType,
    InInterface,
    Match,
    OutInterface,
    PortIn,
    PortOut,
    Proto,
    Return,
    Rule,
)
from enforcer.rules.view import NodeView
from policy.cidr import Family, Prefix, parse_cidr
from policy.model import Direction

GROUPS: dict[Family, tuple[Prefix, ...]] = {
    4: (parse_cidr("224.0.0.0/4"), parse_cidr("255.255.255.255/32")),
    6: (parse_cidr("ff00::/8"),),
}
# Neighbour solicitation and advertisement. Their receivers drop them unless the hop limit is 255, so none was routed.
_NEIGHBOURS = (135, 136)
# Reports of multicast listeners and router solicitation; queries to listeners and router advertisement.
_TO_ROUTERS, _FROM_ROUTERS = (131, 132, 133, 143), (130, 134)


def neighbour_passes(family: Family, node: NodeView) -> tuple[Rule, ...]:
    """Of IPv6 only: ARP never comes to iptables."""
    bridges = node.pod_bridges
    if family == 4 or not bridges:
        return ()
    uplinks = [port for ports in bridges.values() for port in ports]
    return (
        *(_icmp(kind, Bridged()) for kind in _NEIGHBOURS),
        *(_icmp(kind, PortOut(port)) for port in uplinks for kind in _TO_ROUTERS),
        *(_icmp(kind, PortIn(port), Bridged()) for port in uplinks for kind in _FROM_ROUTERS),
    )


def _icmp(kind: int, *place: Match) -> Rule:
    return Rule((Proto("ipv6-icmp"), IcmpType(kind), *place), Return())


def group_rules(direction: Direction, family: Family, node: NodeView) -> tuple[Rule, ...]:
    if direction == "egress":
        return ()
    to = Goto(names.GROUPS)
    return tuple(Rule((Dst(group), OutInterface(name)), to) for name in node.pod_bridges for group in GROUPS[family])


def groups_chain(open_ports: Iterable[str], node: NodeView) -> tuple[Rule, ...]:
    """`open_ports` are those of pods that may receive whatever comes."""
    uplinks = [port for ports in node.pod_bridges.values() for port in ports]
    last = Rule((), Return() if node.mode == "audit" else Drop())
    return (*(Rule((PortOut(port),), Return()) for port in (*uplinks, *open_ports)), last)


def bridge_rules(direction: Direction, family: Family, node: NodeView) -> tuple[Rule, ...]:
    """The end of the chain of what no leaf takes."""
    bridges = node.pod_bridges.items()
    return tuple(rule for name, ports in bridges for rule in _closed(direction, family, node, name, ports))


def _closed(
    direction: Direction, family: Family, node: NodeView, name: str, uplinks: tuple[str, ...]
) -> Iterable[Rule]:
    bridge, port = (OutInterface(name), PortOut) if direction == "ingress" else (InInterface(name), PortIn)
    liar = Goto(names.UNKNOWN if direction == "ingress" else names.SPOOFED)
    yield from (Rule((bridge, port(uplink)), Return()) for uplink in uplinks)
    known = [interface for interface in node.veths.values() if node.bridges.get(interface) == name]
    if node.unknown == "open":
        yield from (Rule((bridge, port(interface)), liar) for interface in known)
        return
    if direction == "egress":
        if family == 6:
            # Every pod says so when it starts, from a link-local address and to all ports: dropped, but no lie.
            quiet = Return() if node.mode == "audit" else Drop()
            yield from (Rule((bridge, Proto("ipv6-icmp"), IcmpType(kind), Bridged()), quiet) for kind in _TO_ROUTERS)
        strangers = [interface for interface in node.strangers if node.bridges.get(interface) == name]
        yield from (Rule((bridge, port(interface)), Goto(names.UNKNOWN)) for interface in strangers)
    # What is routed to a bridge with an uplink may be for a host that is no pod.
    yield Rule((bridge, Bridged()) if direction == "ingress" and uplinks else (bridge,), liar)
