"""The rules of one node, laid out from the allow-sets of its pods.

The paths of a packet, in the filter table of one family (`-j` comes back, `-g` does not):

    FORWARD, first rule ─j─► PODFENCE-FORWARD
        established, or an ICMP error of something known,
        and its connection not revoked                           ─► back: other firewalls keep their say
        an answer of a revoked connection                        ─► PODFENCE-REVOKED, refused
        ─j─► PODFENCE-EGRESS    a tree over the source address   (back: this end allows)
        ─j─► PODFENCE-INGRESS   a tree over the destination

    INPUT, first rule ─j─► PODFENCE-INPUT      what a pod sends to its own node
        loopback, neighbour discovery, DHCP                      ─► back
        established and revoked connections                      as above
        ─j─► PODFENCE-EGRESS    (with node egress "allow": only the source address is checked)

    PODFENCE-EGRESS ─g─► leaf: address and veth ─g─► PF-e-<pod> ─g─► PF-a-<allow-set> ─► back, or ─g─► PODFENCE-DENY-OUT
                    ─g─► PODFENCE-OUT-OTHER: what no leaf knows
        a known address on its own veth (a pod that nothing isolates)  ─► back
        another node's pod's address in this node's blocks, by an uplink ─► back
        another source on a pod's veth, or a pod's address elsewhere   ─► PODFENCE-SPOOFED, dropped
        an address of the node's pods that nobody is known to have,
        or one on an interface of which nobody knows whose pod's it is ─► PODFENCE-UNKNOWN, dropped
        anything else: not from a pod of this node                     ─► back

    PODFENCE-DENY-OUT   a subject in audit ─► counted, told, back: the other end is asked too
                        any other          ─► counted, told, refused
    PODFENCE-DENY-IN    the same; but a new flow of an address not known to be a pod's or a node's is dropped

Ingress is the same with the destination. What pods on bridges add is drawn in `ports`. On a node in audit SPOOFED and
UNKNOWN count, tell and come back; a node that is off has no rules at all. Locally made packets pass neither hook: the
node always reaches its pods.
Unknown is dropped and not rejected: a drop is tried again, a reject fails the application.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from compiler.allowset import AllowSet
from compiler.compile import Compiled
from enforcer.rules import names
from enforcer.rules.allow import AllowChain, allow_rules
from enforcer.rules.base import base_chains
from enforcer.rules.dispatch import Chains, dispatch
from enforcer.rules.leaves import Leaves, PodRules, leaves_of, pod_rules
from enforcer.rules.members import SetSpec, everyone_set, fill
from enforcer.rules.others import abroad_set, other_rules, stranger_sets, veth_sets
from enforcer.rules.ports import groups_chain
from enforcer.rules.ruleset import HookName, IpSet, Return, RuleSet
from enforcer.rules.subjects import Subject, host_set, hosts, node_sets, subjects_of
from enforcer.rules.view import NodeView
from policy.cidr import Address, Family
from policy.model import DIRECTIONS, Direction, Pod

__all__ = ["NodeView", "lay_out", "layout"]

HOOKS: Mapping[HookName, str] = {"FORWARD": names.FORWARD, "INPUT": names.INPUT}


class Layout(Struct, frozen=True):
    """One family's wanted rules, in symbols: `specs` are the sets whose members are the index's business, `sets` those
    that follow from the node's own pods. Sets carry their identity as name, without a generation. A node that is off
    has nothing at all."""

    family: Family
    hooks: Mapping[HookName, str]
    chains: Chains
    specs: dict[str, SetSpec]
    sets: dict[str, IpSet]

    def ruleset(self, specified: Iterable[IpSet]) -> RuleSet:
        """The whole, with the specified sets as they are at some moment."""
        return RuleSet(
            self.family, dict(self.hooks), self.chains, self.sets | {ipset.name: ipset for ipset in specified}
        )


class Made:
    """What a layout has made, for the next one to take over: chains of allow-sets by the identity of the allow-set,
    which is kept alive beside them, and the rules of pods by key. `elsewhere` are isolated pods without an address of
    the family, which have none. After a layout it holds just what is in use."""

    def __init__(self) -> None:
        self.chains: dict[tuple[int, Direction], tuple[AllowSet, AllowChain]] = {}
        self.pods: dict[tuple[str, Direction], PodRules] = {}
        self.elsewhere: set[tuple[str, Direction]] = set()


def local_pods(compiled: Compiled, node: str) -> tuple[Pod, ...]:
    """The pods that `node` enforces for, by key: selectable and with an address (semantics, rows 23 and 24)."""
    return tuple(sorted((p for p in compiled.cluster.pods if is_local(p, node)), key=lambda pod: pod.key))


def is_local(pod: Pod, node: str) -> bool:
    return pod.node == node and pod.selectable and bool(pod.addresses)


def layout(compiled: Compiled, node: NodeView, family: Family) -> RuleSet:
    """The wanted rule-set of `node` in one family, with the members of this moment."""
    found = lay_out(subjects_of(local_pods(compiled, node.name), compiled, node), node, family, Made())
    return found.ruleset(fill(spec, compiled) for spec in found.specs.values())


def lay_out(subjects: Sequence[Subject], node: NodeView, family: Family, made: Made) -> Layout:
    """The wanted rules for `subjects`, which are all of the node. What is in `made` already costs nothing."""
    earlier = Made()
    earlier.chains, earlier.pods = made.chains, made.pods
    made.chains, made.pods, made.elsewhere = {}, {}, set()
    if node.mode == "off":
        return Layout(family, {}, {}, {}, {})
    drawing = _Drawing(subjects, node, family, earlier, made)
    for direction in DIRECTIONS:
        drawing.draw(direction)
    drawing.draw_node()
    return Layout(family, HOOKS, drawing.chains, drawing.specs, drawing.sets)


class _Drawing:
    """A layout in the making: chains and sets as far as they are drawn."""

    def __init__(self, subjects: Sequence[Subject], node: NodeView, family: Family, earlier: Made, made: Made) -> None:
        self._node = node
        self._family = family
        self._earlier = earlier
        self._made = made
        self._subjects = subjects
        self._audits = any(subject.mode == "audit" for subject in self._subjects)
        self._veths, self._strangers = veth_sets(node.routed, family), stranger_sets(node, family)
        self._abroad = abroad_set(node, family)
        self._root = self._input_root()
        self.chains: Chains = base_chains(family, node, self._root, self._audits)
        # They are there whoever is isolated, so that rules stay the same, and what these have counted.
        told = [everyone_set(family, self._refuses_ingress())] if node.deny == "reject" else []
        nodes = [host_set(node, family)] if node.deny == "reject" else []
        self.specs: dict[str, SetSpec] = {spec.name: spec for spec in told}
        sets = [*self._veths, *self._strangers, *self._abroad, *nodes, *node_sets(self._subjects, node, family)]
        self.sets = {found.name: found for found in sets}

    def draw(self, direction: Direction) -> None:
        other = names.OTHERS[direction]
        sets = ([found.name for found in each] for each in (self._veths, self._strangers, self._abroad))
        self.chains[other] = other_rules(direction, self._family, self._node, *sets)
        leaves: Leaves = {}
        counted: dict[str, list[Address]] = {"denied": [], "audited": []} if self._audits else {"denied": []}
        for subject in self._subjects:
            if subject.attachment is None:
                continue
            own = subject.own[self._family]
            if subject.allow[direction].isolated and subject.mode != "off":
                if not own:
                    # No packet of this family would come to its chain.
                    self._made.elsewhere.add((subject.key, direction))
                    continue
                leaves |= self._isolate(subject, direction).leaves
                counted["audited" if subject.mode == "audit" else "denied"] += own
            elif subject.attachment.bridge:
                # No set can look for a port, so it is a leaf where a routed pod is one entry of a set.
                leaves |= leaves_of(subject.key, own, subject.attachment, direction, Return())
        self.chains |= dispatch(direction, names.DISPATCH[direction], leaves, other)
        for word, addresses in counted.items():
            name = names.set_name(self._family, f"{word}-{direction}")
            self.sets[name] = IpSet(name, "hash:ip", hosts(addresses), counters=True)

    def draw_node(self) -> None:
        """What only nodes with bridged pods have."""
        if not self._node.pod_bridges:
            return
        bridged = [(s, s.attachment) for s in self._subjects if s.attachment and s.attachment.bridge]
        open_ports = [
            at.interface
            for subject, at in bridged
            if subject.mode != "enforce" or not subject.allow["ingress"].isolated
        ]
        self.chains[names.GROUPS] = groups_chain(open_ports, self._node)
        if self._root == names.NODE:
            leaves: Leaves = {}
            for subject, at in bridged:
                leaves |= leaves_of(subject.key, subject.own[self._family], at, "egress", Return())
            self.chains |= dispatch("egress", self._root, leaves, names.OTHERS["egress"])

    def _input_root(self) -> str:
        """Where packets to the node go: with node egress "allow" only their source is asked for."""
        if self._node.node_egress == "enforce":
            return names.DISPATCH["egress"]
        return names.NODE if self._node.pod_bridges else names.OTHERS["egress"]

    def _refuses_ingress(self) -> bool:
        """Whether there is anybody whom an answer may tell that ingress is denied."""
        return any(
            subject.mode == "enforce" and subject.allow["ingress"].isolated and subject.own[self._family]
            for subject in self._subjects
            if subject.attachment
        )

    def _isolate(self, subject: Subject, direction: Direction) -> PodRules:
        assert subject.attachment
        chain = self._allow_chain(subject.allow[direction], direction)
        self.specs.update((spec.name, spec) for spec in chain.sets)
        if chain.rules:
            self.chains[chain.name] = chain.rules
        which = (subject.key, direction)
        own, earlier = subject.own[self._family], self._earlier.pods.get(which)
        rules = self._made.pods[which] = pod_rules(subject.pod, own, subject.attachment, chain, direction, earlier)
        self.chains[rules.name] = rules.chain
        return rules

    def _allow_chain(self, allow: AllowSet, direction: Direction) -> AllowChain:
        key = (id(allow), direction)
        known = self._made.chains.get(key) or self._earlier.chains.get(key)
        found = known or (allow, allow_rules(allow, direction, self._family))
        self._made.chains[key] = found
        return found[1]
