"""Chains and sets of another engine, written down as `iptables-restore` and `ipset restore` read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from msgspec import Struct

from compiler.allowset import BoundRule
from compiler.bind import bind
from compiler.compile import Compiled
from compiler.peers import EVERYONE, PeerSet
from compiler.ports import PortSet, union_of
from compiler.prefixes import cover
from enforcer.kernel.backend import Backend, feed
from enforcer.rules.allow import port_matches
from enforcer.rules.layout import NodeView, local_pods
from enforcer.rules.render import rule_text
from enforcer.rules.ruleset import Count, Rule
from policy.cidr import Address
from policy.model import Direction, NetworkPolicy, Pod

BUILT_IN = ("INPUT", "FORWARD", "OUTPUT")


class Text:
    """Rules by chain in the order that they are added in; sets, each once."""

    def __init__(self) -> None:
        self._chains: dict[str, list[str]] = {}
        self._sets: dict[str, list[str]] = {}

    def rule(self, chain: str, *rules: str) -> None:
        self._chains.setdefault(chain, []).extend(rules)

    def has(self, chain: str) -> bool:
        return chain in self._chains

    def addresses(self, name: str, members: Iterable[Address]) -> str:
        """A set of addresses; its name."""
        if name not in self._sets:
            self._sets[name] = [f"create {name} hash:ip family inet maxelem 1048576"]
            self._sets[name] += (f"add {name} {address}" for address in members if address.family == 4)
        return name

    def blocks(self, name: str, peers: PeerSet) -> str:
        """A set of the peers' address blocks; its name."""
        if name not in self._sets:
            self._sets[name] = [f"create {name} hash:net family inet maxelem 1048576"]
            for entry in cover(peers.addresses.of(4), 4):
                self._sets[name].append(f"add {name} {entry.prefix}{' nomatch' if entry.nomatch else ''}")
        return name

    def install(self, backend: Backend) -> None:
        feed(["ipset", "restore"], "".join(f"{line}\n" for lines in self._sets.values() for line in lines), "ipset")
        lines = ["*filter", *(f":{chain} - [0:0]" for chain in self._chains if chain not in BUILT_IN)]
        lines += (f"-A {chain} {rule}" for chain, rules in self._chains.items() for rule in rules)
        feed([backend.program(4, "restore"), "--noflush"], "\n".join([*lines, "COMMIT", ""]), "filter table")

    def rewrite(self, backend: Backend) -> None:
        """Everything once more, as an engine does that writes all that there should be: the sets are emptied and
        filled, the filter table is replaced."""
        lines: list[str] = []
        for name, (create, *entries) in self._sets.items():
            lines += [create, f"flush {name}", *entries]
        feed(["ipset", "restore", "-exist"], "\n".join([*lines, ""]), "ipset")
        lines = ["*filter", *(f":{chain} ACCEPT [0:0]" for chain in BUILT_IN)]
        lines += (f":{chain} - [0:0]" for chain in self._chains if chain not in BUILT_IN)
        lines += (f"-A {chain} {rule}" for chain, rules in self._chains.items() for rule in rules)
        feed([backend.program(4, "restore")], "\n".join([*lines, "COMMIT", ""]), "filter table")


class Granted(Struct, frozen=True):
    """One rule of a policy, as an engine sees it that keeps policies apart: `peers`, entry by entry, may use `ports`,
    the matches of each of them in `iptables` words."""

    peers: tuple[PeerSet, ...]
    ports: tuple[str, ...]


class Local(Struct, frozen=True):
    """What every engine works from: the pods of the node, and the policies that select any of them."""

    compiled: Compiled
    view: NodeView
    pods: tuple[Pod, ...]
    pods_by_namespace: dict[str, list[Pod]]

    def selecting(self, pod: Pod, direction: Direction) -> tuple[NetworkPolicy, ...]:
        return tuple(policy for policy in self.compiled.selecting(pod) if direction in policy.isolates)

    def active(self) -> tuple[NetworkPolicy, ...]:
        found = {policy.key: policy for pod in self.pods for policy in self.compiled.selecting(pod)}
        return tuple(found[key] for key in sorted(found))

    def subjects(self, policy: NetworkPolicy) -> Iterator[Address]:
        """The addresses of the pods that `policy` selects, on every node."""
        for pod in self.pods_by_namespace[policy.namespace]:
            if pod.selectable and policy.subjects.matches(pod.labels):
                yield from pod.addresses

    def members(self, peers: PeerSet) -> Iterator[Address]:
        for address, _, _ in sorted(self.compiled.members(peers), key=lambda member: member[0]):
            yield address


def local(compiled: Compiled, view: NodeView) -> Local:
    by_namespace: dict[str, list[Pod]] = {}
    for pod in compiled.cluster.pods:
        by_namespace.setdefault(pod.namespace, []).append(pod)
    return Local(compiled, view, local_pods(compiled, view.name), by_namespace)


def granted(policy: NetworkPolicy, direction: Direction) -> tuple[Granted, ...]:
    return tuple(Granted(tuple(p for _, p in rule.peers), _ports(rule)) for rule in bind(policy, direction, ()))


def _ports(rule: BoundRule) -> tuple[str, ...]:
    """Named ports are left out: no scenario has any."""
    numbered = union_of(ports for _, ports in rule.ports if isinstance(ports, PortSet))
    return tuple(rule_text(Rule(matches, Count())) for matches in port_matches(numbered))


def peer_matches(text: Text, here: Local, peers: PeerSet, end: str, prefix: str) -> list[str]:
    """The lookups that find one entry of a rule's peers at `end` of a packet, in sets whose names begin with `prefix`;
    "" where everyone is meant."""
    if peers == EVERYONE:
        return [""]
    found = []
    if peers.pods:
        found.append(text.addresses(f"{prefix}{short('pods', repr(peers.pods))}", here.members(peers)))
    if peers.addresses:
        found.append(text.blocks(f"{prefix}{short('blocks', repr(peers.addresses))}", PeerSet((), peers.addresses)))
    return [f"-m set --match-set {name} {end}" for name in found]


def joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def short(*parts: str) -> str:
    """Sixteen characters that stand for the parts, as every engine has them in its names."""
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest().upper()
