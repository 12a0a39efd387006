"""The smallest change that turns a verdict: an entry more in a rule that nearly admits, a rule more in a policy that
isolates, or a policy more; or what admits taken away.

Each candidate is compiled, and only one that turns every flow is kept. Of those the one that changes the fewest other
flows is the smallest, then the one that writes least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from compiler.blast import Flows, blast, name_of
from compiler.compile import Compiled
from compiler.explain import other_end
from compiler.ports import PortSet, port_range
from compiler.verdict import End, Flow, Half, NodeEgress, verdict
from policy.cidr import BITS, Prefix, parse_cidr
from policy.edit import Append, Edit, Remove
from policy.model import PROTOCOLS, Direction, IPBlock, NetworkPolicy, Peer, Pod, Port, Rule
from policy.nearmiss import Asked, gap
from policy.selector import Selector, in_, namespace_named, not_in, selector
from policy.write import peer_tree, port_tree, rule_tree

_OF_ONE_POD = frozenset(
    {
        *("apps.kubernetes.io/pod-index", "batch.kubernetes.io/controller-uid", "controller-uid"),
        *("controller-revision-hash", "pod-template-generation", "pod-template-hash"),
        *("statefulset.kubernetes.io/pod-name", "batch.kubernetes.io/job-completion-index"),
    }
)
_PORT_KINDS = frozenset({"protocol", "port", "service port", "named port", "icmp"})
_NAMES = ("app.kubernetes.io/name", "app", "k8s-app", "name", "run", "component")
_LARGEST = 65535


class Changed(Struct, frozen=True):
    """One policy as it would be. `edits` lead from the `old` one to it; None is a new policy."""

    policy: NetworkPolicy
    old: NetworkPolicy | None
    edits: tuple[Edit, ...]
    text: str


class Fix(Struct, frozen=True):
    """Policies that turn the verdict, with what else they open and close."""

    changes: tuple[Changed, ...]
    after: Compiled
    opens: tuple[Flows, ...]
    closes: tuple[Flows, ...]


class Ask(Struct, frozen=True):
    """The flows that are to have another verdict. `blocks` are the prefixes of an end that is a block of addresses."""

    flows: tuple[Flow, ...]
    node_egress: NodeEgress = "enforce"
    blocks: tuple[Prefix, ...] = ()


def opening(compiled: Compiled, ask: Ask) -> Fix | None:
    """The change that lets every flow pass; None where no policy can."""
    now, changes = compiled, list[Changed]()
    for direction in ("egress", "ingress"):
        denied = [flow for flow in ask.flows if not _half(now, flow, direction, ask.node_egress).allowed]
        if not denied:
            continue
        wanted = replace(ask, flows=tuple(denied))
        best = _best(now, _widenings(now, wanted, direction), wanted, direction, True)
        if best is None:
            return None
        now = _with(now, best)
        changes.append(best)
    return _made(compiled, now, changes, ask)


def closing(compiled: Compiled, ask: Ask) -> Fix | None:
    """The change that lets none of the flows pass; None where no policy can, as between a pod and its own node."""
    best: tuple[tuple[int, int], Changed] | None = None
    for direction in ("ingress", "egress"):
        found = _scored(compiled, _narrowings(compiled, ask, direction), ask, direction, False)
        first = min(found, key=lambda each: each[0], default=None)
        if first and (best is None or first[0] < best[0]):
            best = first
    return _made(compiled, _with(compiled, best[1]), [best[1]], ask) if best else None


def _made(before: Compiled, after: Compiled, changes: Sequence[Changed], ask: Ask) -> Fix:
    opened, closed = blast(before, after, ask.node_egress)
    return Fix(_merged(changes), after, tuple(_others(opened, ask)), tuple(_others(closed, ask)))


def _merged(changes: Sequence[Changed]) -> tuple[Changed, ...]:
    """One entry a policy: a policy may be changed for both directions."""
    found: dict[str, Changed] = {}
    for each in changes:
        before = found.get(each.policy.key)
        if before:
            each = Changed(each.policy, before.old, before.edits + each.edits, f"{before.text}, and {each.text}")
        found[each.policy.key] = each
    return tuple(found.values())


def _others(flows: Sequence[Flows], ask: Ask) -> Iterator[Flows]:
    """Without what was asked for."""
    asked: dict[tuple[str, str], PortSet] = {}
    for flow in ask.flows:
        if flow.src.pod and flow.dst.pod and flow.protocol in PROTOCOLS:
            pair = name_of(flow.src.pod), name_of(flow.dst.pod)
            known = next(protocol for protocol in PROTOCOLS if protocol == flow.protocol)
            asked[pair] = asked.get(pair, PortSet()).union(port_range(known, flow.port, flow.port))
    for each in flows:
        ports = each.ports.difference(asked.get((each.src, each.dst), PortSet()))
        if ports:
            yield replace(each, ports=ports)


def _best(
    compiled: Compiled, candidates: Iterator[Changed], ask: Ask, direction: Direction, allowed: bool
) -> Changed | None:
    found = _scored(compiled, candidates, ask, direction, allowed)
    first = min(found, key=lambda each: each[0], default=None)
    return first[1] if first else None


def _scored(
    compiled: Compiled, candidates: Iterator[Changed], ask: Ask, direction: Direction, allowed: bool
) -> Iterator[tuple[tuple[int, int], Changed]]:
    """Those that do turn the half, each with its score."""
    for at, candidate in enumerate(candidates):
        after = _with(compiled, candidate)
        if all(_half(after, flow, direction, ask.node_egress).allowed is allowed for flow in ask.flows):
            opened, closed = blast(compiled, after, ask.node_egress)
            others = [*_others(opened, ask), *_others(closed, ask)]
            yield (len(others), at), candidate


def _with(compiled: Compiled, change: Changed) -> Compiled:
    policies = [policy for policy in compiled.cluster.policies if policy.key != change.policy.key]
    return Compiled(replace(compiled.cluster, policies=[*policies, change.policy]))


def _half(compiled: Compiled, flow: Flow, direction: Direction, node_egress: NodeEgress) -> Half:
    answer = verdict(compiled, flow, node_egress)
    return answer.ingress if direction == "ingress" else answer.egress


def _ends(flow: Flow, direction: Direction) -> tuple[End, End]:
    """Subject and peer."""
    return (flow.dst, flow.src) if direction == "ingress" else (flow.src, flow.dst)


def _widenings(compiled: Compiled, ask: Ask, direction: Direction) -> Iterator[Changed]:
    """Those that write least come first."""
    flow = ask.flows[0]
    subject, _ = _ends(flow, direction)
    if subject.pod is None:
        return
    ports, peers = _ports(ask), tuple(_peers(ask, direction, subject.pod.namespace))
    if not peers:
        return
    policies = [policy for policy in compiled.selecting(subject.pod) if direction in policy.isolates]
    other = other_end(compiled, flow, direction)
    asked = Asked(flow.protocol, flow.port, flow.dst.pod)
    for policy in policies:
        for at, rule in enumerate(policy.rules(direction)):
            if not rule.understood:
                continue
            kinds = {obstacle.kind for obstacle in gap(rule, policy.namespace, other, asked).obstacles}
            if kinds and kinds <= _PORT_KINDS and ports:
                yield _more_ports(policy, direction, at, rule, ports)
            elif kinds and not kinds & _PORT_KINDS and rule.peers:
                yield _more_peers(policy, direction, at, rule, peers)
    for policy in policies:
        yield _more_rules(policy, direction, Rule(peers, ports))
    name = _free_name(compiled, subject.pod.namespace, f"allow-{_word(subject.pod)}-{direction}")
    bare = NetworkPolicy(subject.pod.namespace, name, _subjects(ask, direction), (direction,))
    new = _with_rules(bare, direction, (Rule(peers, ports),))
    yield Changed(new, None, (), f"a new policy {new.key}")


def _ports(ask: Ask) -> tuple[Port, ...]:
    """None where only a rule for every port will do, as for ICMP."""
    found: dict[Port, None] = {}
    for flow in ask.flows:
        for protocol in PROTOCOLS:
            if flow.protocol == protocol:
                found[Port(protocol, flow.port, flow.port)] = None
    return tuple(found)


def _peers(ask: Ask, direction: Direction, namespace: str) -> Iterator[Peer]:
    ends = [_ends(flow, direction)[1] for flow in ask.flows]
    pods = [end.pod for end in ends if end.pod and end.pod.selectable]
    for space in dict.fromkeys(pod.namespace for pod in pods):
        chosen = _selector([pod for pod in pods if pod.namespace == space])
        yield Peer(chosen, None if space == namespace else namespace_named(space))
    rest = [end.address for end in ends if end.address and not (end.pod and end.pod.selectable)]
    blocks = ask.blocks if ask.blocks and rest else [Prefix(a.family, a.value, BITS[a.family]) for a in rest]
    yield from (Peer(block=IPBlock(prefix)) for prefix in dict.fromkeys(blocks))


def _subjects(ask: Ask, direction: Direction) -> Selector:
    subjects = [_ends(flow, direction)[0].pod for flow in ask.flows]
    return _selector([pod for pod in subjects if pod])


def _selector(pods: Sequence[Pod]) -> Selector:
    """The labels that the pods share, without those that belong to one pod or one roll-out."""
    shared = set(pods[0].labels.items()).intersection(*(pod.labels.items() for pod in pods))
    return selector(in_(key, value) for key, value in sorted(shared) if key not in _OF_ONE_POD)


def _more_ports(policy: NetworkPolicy, direction: Direction, at: int, rule: Rule, ports: tuple[Port, ...]) -> Changed:
    path = ("spec", direction, at, "ports")
    edits = tuple(Append(path, port_tree(port)) for port in ports)
    changed = _with_rule(policy, direction, at, replace(rule, ports=(*rule.ports, *ports)))
    return Changed(changed, policy, edits, f"one more port in {policy.key} spec.{direction}[{at}]")


def _more_peers(policy: NetworkPolicy, direction: Direction, at: int, rule: Rule, peers: tuple[Peer, ...]) -> Changed:
    path = ("spec", direction, at, "from" if direction == "ingress" else "to")
    edits = tuple(Append(path, peer_tree(peer)) for peer in peers)
    changed = _with_rule(policy, direction, at, replace(rule, peers=(*rule.peers, *peers)))
    return Changed(changed, policy, edits, f"one more peer in {policy.key} spec.{direction}[{at}]")


def _more_rules(policy: NetworkPolicy, direction: Direction, rule: Rule) -> Changed:
    rules = policy.ingress if direction == "ingress" else policy.egress
    edits = (Append(("spec", direction), rule_tree(rule, direction)),)
    changed = _with_rules(policy, direction, (*rules, rule))
    return Changed(changed, policy, edits, f"one more {direction} rule in {policy.key}")


def _with_rule(policy: NetworkPolicy, direction: Direction, at: int, rule: Rule) -> NetworkPolicy:
    rules = list(policy.rules(direction))
    rules[at] = rule
    return _with_rules(policy, direction, tuple(rules))


def _with_rules(policy: NetworkPolicy, direction: Direction, rules: tuple[Rule, ...]) -> NetworkPolicy:
    return replace(policy, ingress=rules) if direction == "ingress" else replace(policy, egress=rules)


def _narrowings(compiled: Compiled, ask: Ask, direction: Direction) -> Iterator[Changed]:
    halves = [_half(compiled, flow, direction, ask.node_egress) for flow in ask.flows]
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
    return Changed(_with_rules(policy, direction, left), policy, tuple(edits), text)


def _isolating(compiled: Compiled, ask: Ask, direction: Direction) -> Iterator[Changed]:
    """A new policy that isolates the subject and allows everything but what was asked: every other port to everyone,
    and the port itself to everyone but the peer."""
    subject, peer = _ends(ask.flows[0], direction)
    if subject.pod is None:
        return
    ports = _ports(ask)
    if not ports:
        return
    rules = [Rule(ports=tuple(_all_ports_but(ports)))]
    everyone_else = tuple(_everyone_but(peer, ask))
    if everyone_else:
        rules.append(Rule(everyone_else, ports))
    name = _free_name(compiled, subject.pod.namespace, f"deny-{_word(subject.pod)}-{direction}")
    bare = NetworkPolicy(subject.pod.namespace, name, _subjects(ask, direction), (direction,))
    new = _with_rules(bare, direction, tuple(rules))
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
    labels = {key: value for key, value in peer.pod.labels.items() if key not in _OF_ONE_POD}
    key = next((each for each in _NAMES if each in labels), min(labels, default=""))
    yield Peer(namespaces=selector([not_in("kubernetes.io/metadata.name", space)]))
    if key:
        yield Peer(selector([not_in(key, labels[key])]), namespace_named(space))


def _word(pod: Pod) -> str:
    return (pod.workload or pod.name).rpartition("/")[2]


def _free_name(compiled: Compiled, namespace: str, wanted: str) -> str:
    taken = {policy.key for policy in compiled.cluster.policies}
    name, number = wanted, 1
    while f"{namespace}/{name}" in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
