"""What one pod adds to dispatch: the leaves of its addresses, which check where the pod is attached.

A routed pod is behind its veth. Of a bridged one iptables sees the bridge as interface and the port beside it:

    from the pod                       came in by its port, whatever becomes of it then
    to the pod, on one bridge          leaves by its port
    to the pod, routed to the bridge   leaves by the bridge: the neighbour table decides by which port, later
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from enforcer.rules import names
from enforcer.rules.allow import AllowChain
from enforcer.rules.ruleset import (
    Bridged,
    Dst,
    Goto,
    InInterface,
    Match,
    OutInterface,
    PortIn,
    PortOut,
    Return,
    Rule,
    Src,
)
from enforcer.rules.view import Attachment
from policy.cidr import BITS, Address, Prefix
from policy.model import Direction, Pod

Leaves = dict[Address, tuple[Rule, ...]]


class PodRules(Struct, frozen=True):
    """What an isolated pod adds in one direction: its chain, which leads to `allow`, and its leaves."""

    pod: Pod
    attachment: Attachment
    allow: AllowChain
    name: str
    chain: tuple[Rule, ...]
    leaves: Leaves


def pod_rules(
    pod: Pod,
    addresses: Sequence[Address],
    attachment: Attachment,
    allow: AllowChain,
    direction: Direction,
    known: PodRules | None,
) -> PodRules:
    """A pod reaches itself, through a Service too (semantics, row 29). `known` is what the pod had, taken over where it
    still holds."""
    if (
        known
        and known.pod is pod
        and known.attachment == attachment
        and known.allow is allow
        and [*known.leaves] == [*addresses]
    ):
        return known
    key = pod.key
    own = (Rule((_far_end(direction, address),), Return(), comment=key) for address in addresses)
    name = names.pod_chain(direction, pod.namespace, pod.name, pod.uid)
    chain = (*own, Rule((), Goto(allow.name), comment=key))
    leaves = leaves_of(key, addresses, attachment, direction, Goto(name))
    return PodRules(pod, attachment, allow, name, chain, leaves)


def leaves_of(
    pod: str, addresses: Iterable[Address], attachment: Attachment, direction: Direction, target: Goto | Return
) -> Leaves:
    """Of the pod of that key. Elsewhere than at its attachment its address leads nowhere that policies know, and comes
    from a liar."""
    elsewhere = Goto(names.UNKNOWN if direction == "ingress" else names.SPOOFED)
    places = _places(direction, attachment)
    return {
        address: (
            *(Rule((_near_end(direction, address), *place), target, pod) for place in places),
            Rule((_near_end(direction, address),), elsewhere, pod),
        )
        for address in addresses
    }


def _places(direction: Direction, at: Attachment) -> tuple[tuple[Match, ...], ...]:
    if not at.bridge:
        return ((OutInterface(at.interface) if direction == "ingress" else InInterface(at.interface),),)
    if direction == "egress":
        return ((PortIn(at.interface),),)
    return (PortOut(at.interface),), (OutInterface(at.bridge), Bridged(inverted=True))


def host(address: Address) -> Prefix:
    return Prefix(address.family, address.value, BITS[address.family])


def _near_end(direction: Direction, address: Address) -> Match:
    return Dst(host(address)) if direction == "ingress" else Src(host(address))


def _far_end(direction: Direction, address: Address) -> Match:
    return Src(host(address)) if direction == "ingress" else Dst(host(address))
