"""Why a packet is treated as it is: its walk through what is installed, and which policy or attachment wants what."""

from __future__ import annotations

from msgspec import Struct

from compiler import intervals
from compiler.compile import Compiled
from compiler.verdict import End, Flow, verdict
from enforcer.readback.meaning import Meaning, Subject
from enforcer.readback.simulate import Outcome, Packet, Simulator
from enforcer.rules.layout import NodeView
from enforcer.rules.parse import Foreign
from enforcer.rules.plan import Actual
from enforcer.rules.render import rule_text
from enforcer.rules.ruleset import Count, HookName, Rule, RuleSet
from policy.cidr import Address
from policy.model import Direction, Pod
from policy.source import path_text


class Reason(Struct, frozen=True):
    """What one direction says of a packet, in words: which policies isolate, which rules admit, who is where."""

    direction: Direction
    allowed: bool
    text: str


class Matched(Struct, frozen=True):
    """A rule that a packet matched, as iptables writes it, and how many packets it has counted by now."""

    chain: str
    text: str
    packets: int


def installed_walk(actual: Actual, hook: HookName, packet: Packet) -> tuple[Outcome, tuple[str, ...]]:
    """How it ends, and the rules that it matched, as iptables writes them. Rules that podfence does not know are passed
    over."""
    outcome, matched = counted_walk(actual, hook, packet)
    return outcome, tuple(f"-A {each.chain} {each.text}" for each in matched)


def counted_walk(actual: Actual, hook: HookName, packet: Packet) -> tuple[Outcome, tuple[Matched, ...]]:
    """As `installed_walk`, rule by rule, with the counters as they were read. Nothing is sent."""
    chains = {
        name: tuple(c.rule if isinstance(c.rule, Rule) else Rule((), Count()) for c in rules)
        for name, rules in actual.tables.chains.items()
    }
    sets = {name: found.ipset for name, found in actual.sets.items()}
    found: list[Matched] = []
    for target in actual.tables.builtin.get(hook, ()):
        if target:
            walk = Simulator(RuleSet(actual.family, {hook: target}, chains, sets)).walk(hook, packet)
            for step in walk.steps:
                counted = actual.tables.chains[step.chain][step.rule]
                rule = counted.rule
                text = rule.text if isinstance(rule, Foreign) else rule_text(rule)
                found.append(Matched(step.chain, text, counted.packets))
            if walk.outcome != "accept":
                return walk.outcome, tuple(found)
    return "accept", tuple(found)


def reasons(compiled: Compiled, node: NodeView, hook: HookName, packet: Packet) -> tuple[Reason, ...]:
    """What each half says that the hook asks, of a packet that halves decide."""
    meaning = Meaning(compiled, node, packet.src.family)
    return tuple(_Asked(compiled, node, meaning, hook, packet).reason(d) for d in meaning.directions(hook))


class _Asked(Struct, frozen=True):
    compiled: Compiled
    node: NodeView
    meaning: Meaning
    hook: HookName
    packet: Packet

    def reason(self, direction: Direction) -> Reason:
        packet = self.packet
        near, interface, port = packet.src, packet.in_interface, packet.in_port
        if direction == "ingress":
            near, interface, port = packet.dst, packet.out_interface, packet.out_port
        subjects = self.meaning.subjects[direction]
        subject = next((s for s in subjects if intervals.contains(s.addresses, near.value)), None)
        if subject is None:
            return self._stranger(direction, near, interface, port)
        where = f"{near} is {subject.pod.key}'s"
        if not subject.veth:
            return self._place(direction, f"{where}, and no interface is known to lead to it")
        if not self._is_there(subject, direction, interface, port):
            seen = port or interface
            return self._place(direction, f"{where}, which is behind {subject.veth} and not behind {seen}")
        if subject.audited:
            return Reason(direction, True, f"{subject.pod.key} is in audit: what its policies deny passes")
        if not self.meaning.allow_of(subject, self.hook).isolated:
            return Reason(direction, True, f"nothing isolates {subject.pod.key}")
        return self._half(direction, subject.pod)

    def _is_there(self, subject: Subject, direction: Direction, interface: str, port: str) -> bool:
        if not subject.bridge:
            return interface == subject.veth
        return port == subject.veth or (direction == "ingress" and not port and interface == subject.bridge)

    def _place(self, direction: Direction, text: str) -> Reason:
        """Denied for where it comes from or goes, which a node in audit does not."""
        lenient = self.meaning.is_lenient
        return Reason(direction, lenient, f"{text}; the node is in audit" if lenient else text)

    def _stranger(self, direction: Direction, near: Address, interface: str, port: str) -> Reason:
        bridge = interface in self.meaning.uplinks
        if bridge and direction == "ingress" and intervals.contains(self.meaning.groups, near.value):
            if port in (*self.meaning.open_ports, *self.meaning.uplinks[interface]):
                return Reason(direction, True, f"{near} is a group of addresses, which {port} gets")
            return self._place(direction, f"{near} is a group of addresses, which no isolated pod behind {port} gets")
        if interface in self.meaning.veths:
            return self._place(direction, f"{near} is no address of the pod behind {interface}")
        if interface in self.meaning.plain_uplinks and intervals.contains(self.meaning.abroad, near.value):
            return Reason(direction, True, f"{near} is a pod's of another node, to which {interface} leads")
        if intervals.contains(self.meaning.blocks, near.value):
            return self._place(direction, f"{near} is in a block of this node's pods, and no pod is known to have it")
        if bridge and not self._is_open(direction, interface, port):
            return self._place(direction, f"{near} is no address of the pod behind {port or 'any port'} of {interface}")
        return Reason(direction, True, f"{near} is no pod's of this node")

    def _is_open(self, direction: Direction, bridge: str, port: str) -> bool:
        uplinks = self.meaning.uplinks[bridge]
        if self.meaning.is_open:
            return port in uplinks or port not in self.meaning.ports
        return port in uplinks or (direction == "ingress" and not port and bool(uplinks))

    def _half(self, direction: Direction, pod: Pod) -> Reason:
        src, dst = (End(self.compiled.pod_at(a), a) for a in (self.packet.src, self.packet.dst))
        answer = verdict(self.compiled, Flow(src, dst, self.packet.protocol.upper(), self.packet.port))
        half = answer.ingress if direction == "ingress" else answer.egress
        if half.because == "self":
            return Reason(direction, True, f"{pod.key} reaches itself")
        isolating = ", ".join(policy.policy for policy in half.policies)
        if not half.allowed:
            return Reason(direction, False, f"{pod.key} is isolated by {isolating}, and no rule allows it")
        rules = "; ".join(dict.fromkeys(f"{ref.policy}: {path_text(ref.path)}" for ref in half.rules))
        return Reason(direction, True, f"{pod.key} is isolated by {isolating}, and allowed by {rules}")
