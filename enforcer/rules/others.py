"""What no leaf of dispatch takes: pods that nothing isolates, packets that are no pod's, and lies.

A packet from a pod's veth with an address that is not the pod's own is a lie, whatever the address. So an interface
must be known as a pod's by its name alone: an entry of `0.0.0.0/0,veth` in a hash:net,iface set. Such a set takes no
more than 64 interfaces with one network, since it hashes the network only; so the veths are spread over several sets by
a hash of their names. Only packets from or to an interface that is neither a pod's nor an uplink look through them all.

Interfaces that are surely a pod's, but nobody knows whose (strangers), are in sets of their own: what comes from them
is no lie, but closed until known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from enforcer.rules import names
from enforcer.rules.ports import bridge_rules, group_rules
from enforcer.rules.ruleset import Dst, Element, Goto, InInterface, InSet, IpSet, OutInterface, Return, Rule, Src
from enforcer.rules.subjects import hosts
from enforcer.rules.view import NodeView
from policy.cidr import Family, Prefix
from policy.model import Direction

INTERFACES_PER_SET = 64


def veth_sets(veths: Iterable[str], family: Family, kind: str = "veths") -> list[IpSet]:
    """As many sets as it takes, a power of two, so that few changes of pods change how many there are."""
    every = sorted(set(veths))
    count, any_network = 4, Prefix(family, 0, 0)
    while True:
        spread: list[set[Element]] = [set() for _ in range(count)]
        for veth in every:
            spread[_place(veth) % count].add(Element(any_network, interface=veth))
        if all(len(each) <= INTERFACES_PER_SET for each in spread):
            return [
                IpSet(names.set_name(family, f"{kind}{number}of{count}"), "hash:net,iface", frozenset(each))
                for number, each in enumerate(spread)
            ]
        count *= 2


@lru_cache(maxsize=1 << 12)
def _place(veth: str) -> int:
    return int(names.digest(veth), 16)


def stranger_sets(node: NodeView, family: Family) -> list[IpSet]:
    """None where there are no routed strangers, or where they are open."""
    routed = [name for name in node.strangers if name not in node.bridges]
    return veth_sets(routed, family, "strangers") if routed and node.unknown == "closed" else []


def abroad_set(node: NodeView, family: Family) -> list[IpSet]:
    """None where there are no such addresses, no uplinks to them, or where nothing is closed by its address."""
    found = hosts(address for address in node.abroad if address.family == family)
    if not found or not node.plain_uplinks or node.unknown == "open":
        return []
    return [IpSet(names.set_name(family, "abroad"), "hash:ip", found)]


def other_rules(
    direction: Direction,
    family: Family,
    node: NodeView,
    veths: Sequence[str],
    strangers: Sequence[str],
    abroad: Sequence[str],
) -> tuple[Rule, ...]:
    """The chain; `veths` and `strangers` are the names of the sets of interfaces, `abroad` of that of addresses. One
    that is another node's pod's by now is believed of an uplink alone: a pod that has just got it here is not known
    yet."""
    end: Literal["src", "dst"] = "dst" if direction == "ingress" else "src"
    liar = names.UNKNOWN if direction == "ingress" else names.SPOOFED
    near, interface = (Dst, OutInterface) if direction == "ingress" else (Src, InInterface)
    blocks = node.pod_cidrs if node.unknown == "closed" else ()
    return (
        Rule((InSet(names.set_name(family, "known"), (end, end)),), Return()),
        Rule((InSet(names.set_name(family, "pods"), (end,)),), Goto(liar)),
        *group_rules(direction, family, node),
        *(Rule((InSet(name, (end,)), interface(uplink)), Return()) for name in abroad for uplink in node.plain_uplinks),
        *(Rule((near(block),), Goto(names.UNKNOWN)) for block in blocks if block.family == family),
        *(Rule((interface(name),), Return()) for name in node.plain_uplinks),
        *(Rule((InSet(name, (end, end)),), Goto(liar)) for name in veths),
        *(Rule((InSet(name, (end, end)),), Goto(names.UNKNOWN)) for name in strangers),
        *bridge_rules(direction, family, node),
    )
