"""The rules of one node, laid out from the allow-sets of its pods.

The paths of a packet, in the filter table of one family (`-j` comes back, `-g` does not):

    FORWARD, first rule ─j─► PODFENCE-FORWARD
        established, or an ICMP error of something known,
        and its connection not revoked                           ─► back: other firewalls keep their say
        an answer of a revoked connection                        ─► PODFENCE-REVOKED, refused
        ─j─► PODFENCE-EGRESS    a tree over the source address   (back: this end allows)
        ─j─► PODFENCE-INGRESS   a tree over the destination

    INPUT, first rule ─j─► PODFENCE-INPUT      what a pod sends to its own node
        loopback, neighbour discovery, DHCP, link-local and unspecified sources  ─► back
        established and revoked connections                                      as above
        ─j─► PODFENCE-EGRESS    (with node egress "allow": only the source address is checked)

    PODFENCE-EGRESS ─g─► leaf: address and veth ─g─► PF-e-<pod> ─g─► PF-a-<allow-set> ─► back, or ─g─► PODFENCE-DENY-OUT
                    ─g─► PODFENCE-OUT-OTHER: what no leaf knows
        a known address on its own veth (a pod that nothing isolates)  ─► back
        another source on a pod's veth, or a pod's address elsewhere   ─► PODFENCE-SPOOFED, dropped
        an address of the node's pods that nobody is known to have     ─► PODFENCE-UNKNOWN, dropped
        anything else: not from a pod of this node                     ─► back

Ingress is the same with the destination. Locally made packets pass neither hook: the node always reaches its pods.
Unknown is dropped and not rejected: a drop is tried again, a reject fails the application.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from compiler.allowset import AllowSet
from compiler.compile import Compiled, State
from compiler.verdict import NodeEgress
from enforcer import names
from enforcer.allow import AllowChain, allow_rules
from enforcer.base import DEFAULT_MARK, base_chains
from enforcer.dispatch import Chains, dispatch
from enforcer.members import SetSpec, fill
from enforcer.modes import Mode
from enforcer.others import other_rules, veth_sets
from enforcer.ruleset import (
    Dst,
    Element,
    Goto,
    HookName,
    InInterface,
    IpSet,
    Match,
    OutInterface,
    Return,
    Rule,
    RuleSet,
    Src,
)
from policy.cidr import BITS, Address, Family, Prefix
from policy.model import DIRECTIONS, Direction, Pod


class NodeView(Struct, frozen=True):
    """What layout needs to know of a node. `veths`: pod key to the interface that leads to it; a local pod that is
    missing here can't be told from a spoofed one, so nothing passes to or from its addresses. `pod_cidrs`: where an
    address must be a pod's of this node, so that one that nobody is known to have is closed. `uplinks`: interfaces
    known to be no pod's, which saves their packets the search for a pod behind them; leaving one out is never wrong.
    `bridges`: which of those interfaces are ports of a bridge, and of which; an interface that is not there is routed.
    `strangers`: interfaces that are surely a pod's, though nobody knows yet whose: closed until known. `mode`: the
    node's, which a namespace's label overrides. `unknown`: "open" lets what is not known yet pass, which is unsafe: a
    new pod is not isolated until the agent has seen it."""

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


class Layout(Struct, frozen=True):
    """One family's wanted rules, in symbols: `specs` are the sets whose members are the index's business, `sets` those
    that follow from the node's own pods. Sets carry their identity as name, without a generation."""

    family: Family
    chains: Chains
    specs: dict[str, SetSpec]
    sets: dict[str, IpSet]

    def ruleset(self, specified: Iterable[IpSet]) -> RuleSet:
        """The whole, with the specified sets as they are at some moment."""
        hooks: dict[HookName, str] = {"FORWARD": names.FORWARD, "INPUT": names.INPUT}
        return RuleSet(self.family, hooks, self.chains, self.sets | {ipset.name: ipset for ipset in specified})


class PodRules(Struct, frozen=True):
    """What one pod adds in one direction: its chain, which leads to `allow`, and the leaves of its addresses."""

    pod: Pod
    veth: str
    allow: AllowChain
    name: str
    chain: tuple[Rule, ...]
    leaves: dict[Address, tuple[Rule, ...]]


class Made:
    """What a layout has made, for the next one to take over: chains of allow-sets by the identity of the allow-set,
    which is kept alive beside them, and the rules of pods by key. After a layout it holds just what is in use."""

    def __init__(self) -> None:
        self.chains: dict[tuple[int, Direction], tuple[AllowSet, AllowChain]] = {}
        self.pods: dict[tuple[str, Direction], PodRules] = {}


def local_pods(compiled: Compiled, node: str) -> tuple[Pod, ...]:
    """The pods that `node` enforces for, by key: selectable and with an address (semantics, rows 23 and 24)."""
    return tuple(sorted((p for p in compiled.cluster.pods if is_local(p, node)), key=lambda pod: pod.key))


def is_local(pod: Pod, node: str) -> bool:
    return pod.node == node and pod.selectable and bool(pod.addresses)


def layout(compiled: Compiled, node: NodeView, family: Family) -> RuleSet:
    """The wanted rule-set of `node` in one family, with the members of this moment."""
    found = lay_out(local_pods(compiled, node.name), compiled, node, family, Made())
    return found.ruleset(fill(spec, compiled) for spec in found.specs.values())


def lay_out(pods: Sequence[Pod], state: State, node: NodeView, family: Family, made: Made) -> Layout:
    """The wanted rules for `pods`, which are those of the node. What is in `made` already costs nothing."""
    owned = {pod.key: _owned(pod, state, family) for pod in pods}
    attached = veth_sets(node.veths.values(), family)
    uplinks = [name for name in node.uplinks if name not in node.veths.values()]
    chains: Chains = dict(base_chains(family, node.node_egress, node.deny, node.log_group, node.mark))
    specs: dict[str, SetSpec] = {}
    sets = {found.name: found for found in (*attached, *_node_sets(pods, owned, node, family))}
    earlier = Made()
    earlier.chains, earlier.pods, made.chains, made.pods = made.chains, made.pods, {}, {}
    for direction in DIRECTIONS:
        other = names.OTHERS[direction]
        chains[other] = other_rules(direction, family, node.pod_cidrs, uplinks, [each.name for each in attached])
        leaves: dict[Address, tuple[Rule, ...]] = {}
        for pod in pods:
            allow = state.allow(pod, direction)
            if not allow.isolated or pod.key not in node.veths:
                continue
            chain = _allow_chain(allow, direction, family, earlier, made)
            specs.update((spec.name, spec) for spec in chain.sets)
            if chain.rules:
                chains[chain.name] = chain.rules
            rules = _pod_rules(pod, owned[pod.key], node.veths[pod.key], chain, direction, earlier.pods)
            made.pods[pod.key, direction] = rules
            chains[rules.name] = rules.chain
            leaves.update(rules.leaves)
        chains.update(dispatch(direction, names.DISPATCH[direction], leaves, other))
        denied = names.set_name(family, f"denied-{direction}")
        sets[denied] = IpSet(denied, "hash:ip", frozenset(map(_host, leaves)), counters=True)
    return Layout(family, chains, specs, sets)


def _allow_chain(allow: AllowSet, direction: Direction, family: Family, earlier: Made, made: Made) -> AllowChain:
    key = (id(allow), direction)
    known = made.chains.get(key) or earlier.chains.get(key) or (allow, allow_rules(allow, direction, family))
    made.chains[key] = known
    return known[1]


def _pod_rules(
    pod: Pod,
    addresses: list[Address],
    veth: str,
    allow: AllowChain,
    direction: Direction,
    earlier: Mapping[tuple[str, Direction], PodRules],
) -> PodRules:
    """A pod reaches itself, through a Service too (semantics, row 29)."""
    known = earlier.get((pod.key, direction))
    if known and known.pod is pod and known.veth == veth and known.allow is allow and [*known.leaves] == addresses:
        return known
    own = (Rule((_far_end(direction, address),), Return(), comment=pod.key) for address in addresses)
    name = names.pod_chain(direction, pod.namespace, pod.name, pod.uid)
    chain = (*own, Rule((), Goto(allow.name), comment=pod.key))
    leaves = {address: _leaf(pod, direction, address, veth, name) for address in addresses}
    return PodRules(pod, veth, allow, name, chain, leaves)


def _leaf(pod: Pod, direction: Direction, address: Address, veth: str, chain: str) -> tuple[Rule, ...]:
    near = _near_end(direction, address)
    if direction == "ingress":
        # Elsewhere than to its veth a pod's address leads nowhere that policies know.
        return Rule((near, OutInterface(veth)), Goto(chain), pod.key), Rule((near,), Goto(names.UNKNOWN), pod.key)
    return Rule((near, InInterface(veth)), Goto(chain), pod.key), Rule((near,), Goto(names.SPOOFED), pod.key)


def _owned(pod: Pod, state: State, family: Family) -> list[Address]:
    """The pod's addresses of one family, without those that are another pod's by now."""
    known = (address for address in pod.addresses if address.family == family)
    return [address for address in known if (holder := state.pod_at(address)) and holder.key == pod.key]


def _node_sets(
    pods: Sequence[Pod], owned: Mapping[str, list[Address]], node: NodeView, family: Family
) -> Iterable[IpSet]:
    """`known`: which address stands behind which veth. `pods`: all addresses of pods, those without a veth too, which
    are closed by being here and not in `known`."""
    known = frozenset(
        Element(_host(address).prefix, interface=node.veths[pod.key])
        for pod in pods
        if pod.key in node.veths
        for address in owned[pod.key]
    )
    addresses = frozenset(_host(address) for pod in pods for address in pod.addresses if address.family == family)
    yield IpSet(names.set_name(family, "known"), "hash:net,iface", known)
    yield IpSet(names.set_name(family, "pods"), "hash:ip", addresses)


def _host(address: Address) -> Element:
    return Element(Prefix(address.family, address.value, BITS[address.family]))


def _near_end(direction: Direction, address: Address) -> Match:
    prefix = _host(address).prefix
    return Dst(prefix) if direction == "ingress" else Src(prefix)


def _far_end(direction: Direction, address: Address) -> Match:
    prefix = _host(address).prefix
    return Src(prefix) if direction == "ingress" else Dst(prefix)
