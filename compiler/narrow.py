"""Changes of policies that deny a flow in one direction: what admits it taken away, or, where no policy isolates, one
that allows everything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from compiler.candidates import OF_ONE_POD, Ask, Changed, ends_of, free_name, ports_of, subjects_of, with_rules, word
from compiler.compile import Compiled
from compiler.verdict import End, verdict
from policy.cidr import BITS, Prefix, parse_cidr
from policy.edit import Edit, Remove
from policy.model import PROTOCOLS, Direction, IPBlock, NetworkPolicy, Peer, Port, Rule
from policy.selector import namespace_named, not_in, selector

_NAMES = ("app.kubernetes.io/name", "app", "k8s-app", "name", "run", "component")
_LARGEST = 65535


def narrowings(compiled: Compiled, ask: Ask, direction: Direction) -> Iterator[Changed]:
    answers = [verdict(compiled, flow, ask.node_egress) for flow in ask.flows]
    halves = [answer.ingress if direction == "ingress" else answer.egress for answer in answers]
    if any(half.because not in ("open", "rule") for half in halves):
        return
    admitting = {(ref.policy, ref.rule, ref.peer, ref.port) for half in halves for ref in half.rules}
    policies = {key for key, *_ in admitting}
    if len(policies) == 1:
        (policy,) = (each for each in compiled.cluster.policies if each.key in policies)
        for what in ("port", "peer", "rule"):
            fewer = _fewer(policy, direction, {entry[1:] for entry in admitting}, what)
            if fewer:
                yield fewer
    if not admitting:
        yield from _isolating(compiled, ask, direction)


def _fewer(
    policy: NetworkPolicy, direction: Direction, admitting: set[tuple[int, int | None, int | None]], what: str
) -> Changed | None:
    """Without the entries that admit; None where a list would be left empty, which would open it to all."""
    rules, edits, field = list(policy.rules(direction)), list[Edit](), "from" if direction == "ingress" else "to"
    gone: set[int] = set()
    for number in {each[0] for each in admitting}:
        entries = [each for each in admitting if each[0] == number]
        rule = rules[number]
        if what == "rule":
            gone.add(number)
            edits.append(Remove(("spec", direction, number)))
        elif what == "port":
            out = {port for _, _, port in entries}
            if None in out or len(out) == len(rule.ports):
                return None
            rules[number] = replace(rule, ports=tuple(p for at, p in enumerate(rule.ports) if at not in out))
            edits += (Remove(("spec", direction, number, "ports", at)) for at in out if at is not None)
        else:
            out = {peer for _, peer, _ in entries}
            if None in out or len(out) == len(rule.peers):
                return None
            rules[number] = replace(rule, peers=tuple(p for at, p in enumerate(rule.peers) if at not in out))
            edits += (Remove(("spec", direction, number, field, at)) for at in out if at is not None)
    left = tuple(rule for at, rule in enumerate(rules) if at not in gone)
    words = ", ".join(sorted(f"spec.{direction}[{number}]" for number in {each[0] for each in admitting}))
    text = f"without {words} of {policy.key}" if what == "rule" else f"one {what} less in {words} of {policy.key}"
    return Changed(with_rules(policy, direction, left), policy, tuple(edits), text)


def _isolating(compiled: Compiled, ask: Ask, direction: Direction) -> Iterator[Changed]:
    """A new policy that isolates the subject and allows everything but what was asked: every other port to everyone,
    and the port itself to everyone but the peer."""
    subject, peer = ends_of(ask.flows[0], direction)
    if subject.pod is None:
        return
    ports = ports_of(ask)
    if not ports:
        return
    rules = [Rule(ports=tuple(_all_ports_but(ports)))]
    everyone_else = tuple(_everyone_but(peer, ask))
    if everyone_else:
        rules.append(Rule(everyone_else, ports))
    name = free_name(compiled, subject.pod.namespace, f"deny-{word(subject.pod)}-{direction}")
    bare = NetworkPolicy(subject.pod.namespace, name, subjects_of(ask, direction), (direction,))
    new = with_rules(bare, direction, tuple(rules))
    yield Changed(new, None, (), f"a new policy {new.key}; it also closes ICMP, which no rule with ports allows")


def _all_ports_but(ports: Sequence[Port]) -> Iterator[Port]:
    for protocol in PROTOCOLS:
        numbers = sorted(port.port for port in ports if port.protocol == protocol and isinstance(port.port, int))
        low = 1
        if not numbers:
            yield Port(protocol)
            continue
        for number in [*numbers, _LARGEST + 1]:
            if low < number:
                yield Port(protocol, low, number - 1)
            low = number + 1


def _everyone_but(peer: End, ask: Ask) -> Iterator[Peer]:
    if peer.pod is None or not peer.pod.selectable:
        if peer.address is None:
            return
        outs = ask.blocks or (Prefix(peer.address.family, peer.address.value, BITS[peer.address.family]),)
        for text in ("0.0.0.0/0", "::/0"):
            whole = parse_cidr(text)
            excepts = tuple(each for each in outs if each.family == whole.family)
            if whole not in excepts:
                yield Peer(block=IPBlock(whole, excepts))
        return
    space = peer.pod.namespace
    labels = {key: value for key, value in peer.pod.labels.items() if key not in OF_ONE_POD}
    key = next((each for each in _NAMES if each in labels), min(labels, default=""))
    yield Peer(namespaces=selector([not_in("kubernetes.io/metadata.name", space)]))
    if key:
        yield Peer(selector([not_in(key, labels[key])]), namespace_named(space))
