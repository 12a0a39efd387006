"""Allow-sets: what one pod may do in one direction, in a form that is the same for the same meaning.

Grants are held by peer: each pod term, and each address, stands in exactly one grant, with every port that it has
in full. So the number of grants is bounded by how many different port-sets peers have, never by how many policies say
so, and no member is copied. How many rules and lookups that takes on a packet's way is the enforcer's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from compiler import intervals
from compiler.peers import NOBODY, PeerSet, PodTerm, peer_set
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, union_of
from compiler.prefixes import WHOLE, AddressSet
from policy.cidr import Family
from policy.model import Direction
from policy.source import Source


class RuleRef(Struct, frozen=True, order=True):
    """Where a permission comes from: one rule of a policy and, where a flow is explained, the entries of its peers
    and ports that admit it (None: the rule has no such list, so everything is meant)."""

    policy: str
    direction: Direction
    rule: int
    peer: int | None = None
    port: int | None = None

    @property
    def path(self) -> tuple[str | int, ...]:
        """The field in the policy, as precisely as it is known."""
        base: tuple[str | int, ...] = ("spec", self.direction, self.rule)
        if self.peer is not None:
            return (*base, "from" if self.direction == "ingress" else "to", self.peer)
        return base if self.port is None else (*base, "ports", self.port)


class PolicyRef(Struct, frozen=True, order=True):
    """A policy that isolates a pod: `namespace/name`, and its source where it came from a file."""

    policy: str
    source: Source | None = None


class BoundRule(Struct, frozen=True):
    """One rule bound to one subject, entry by entry. An absent list is one entry under the index None."""

    policy: PolicyRef
    ref: RuleRef
    peers: tuple[tuple[int | None, PeerSet], ...]
    ports: tuple[tuple[int | None, PortSet | NamedPort], ...]


class Grant(Struct, frozen=True):
    """`peers` may use `ports`. Where `ports` is a name it is looked up at each destination, which is a pod: one that
    a term selects, or that has one of the addresses. `rules` are all that contributed, sorted."""

    ports: PortSet | NamedPort
    peers: PeerSet
    rules: tuple[RuleRef, ...]


class AllowSet(Struct, frozen=True):
    """For one pod and direction. Where `isolated` is false everything is allowed and there are no grants.

    `policies` isolate; `bound` are the rules as they were written, which explanation asks for the entries."""

    isolated: bool
    grants: tuple[Grant, ...] = ()
    policies: tuple[PolicyRef, ...] = ()
    bound: tuple[BoundRule, ...] = ()


OPEN = AllowSet(False)


def allow_set(policies: Iterable[PolicyRef], bound: Sequence[BoundRule]) -> AllowSet:
    """The canonical allow-set of a subject that `policies` isolate, which grant what `bound` says."""
    return AllowSet(True, canonical(bound), tuple(sorted(policies, key=lambda ref: ref.policy)), tuple(bound))


def canonical(bound: Sequence[BoundRule]) -> tuple[Grant, ...]:
    by_term: dict[PodTerm, tuple[PortSet, set[RuleRef]]] = {}
    by_name: dict[NamedPort, tuple[PeerSet, set[RuleRef]]] = {}
    blocks: list[tuple[AddressSet, PortSet, RuleRef]] = []
    for rule in bound:
        peers = peer_set((t for _, p in rule.peers for t in p.pods), _all_addresses(p for _, p in rule.peers))
        if not peers:
            continue
        numbered = union_of(ports for _, ports in rule.ports if isinstance(ports, PortSet))
        for _, ports in rule.ports:
            if isinstance(ports, NamedPort):
                known, refs = by_name.get(ports, (NOBODY, set()))
                by_name[ports] = (_together(known, peers), refs | {rule.ref})
        if not numbered:
            continue
        for term in peers.pods:
            before, refs = by_term.get(term, (NO_PORTS, set()))
            by_term[term] = (before.union(numbered), refs | {rule.ref})
        if peers.addresses:
            blocks.append((peers.addresses, numbered, rule.ref))
    return _grants(by_term, by_name, blocks)


def _grants(
    by_term: dict[PodTerm, tuple[PortSet, set[RuleRef]]],
    by_name: dict[NamedPort, tuple[PeerSet, set[RuleRef]]],
    blocks: list[tuple[AddressSet, PortSet, RuleRef]],
) -> tuple[Grant, ...]:
    by_ports: dict[PortSet, tuple[set[PodTerm], dict[Family, list[tuple[int, int]]], set[RuleRef]]] = {}
    everyone_has = ALL_PORTS
    for family in (4, 6):
        covered: list[tuple[int, int]] = []
        for span, over in intervals.sweep([addresses.of(family) for addresses, _, _ in blocks]):
            ports = union_of(blocks[number][1] for number in over)
            group = by_ports.setdefault(ports, (set(), {4: [], 6: []}, set()))
            group[1][family].append(span)
            group[2].update(blocks[number][2] for number in over)
            covered.append(span)
            everyone_has = everyone_has.intersection(ports)
        if intervals.normal(covered) != WHOLE[family]:
            everyone_has = NO_PORTS
    for term, (ports, term_refs) in by_term.items():
        if everyone_has and everyone_has.covers(ports):
            continue
        group = by_ports.setdefault(ports.union(everyone_has), (set(), {4: [], 6: []}, set()))
        group[0].add(term)
        group[2].update(term_refs)
    grants = [
        Grant(ports, peer_set(terms, AddressSet(*(intervals.normal(spans[f]) for f in (4, 6)))), tuple(sorted(refs)))
        for ports, (terms, spans, refs) in sorted(by_ports.items(), key=lambda item: item[0])
    ]
    named = [Grant(name, peers, tuple(sorted(refs))) for name, (peers, refs) in sorted(by_name.items())]
    return tuple(grants + named)


def _all_addresses(peers: Iterable[PeerSet]) -> AddressSet:
    """In one go: a rule may name as many blocks as fit in an object, and joined one by one they would cost the square
    of that."""
    every = [peer.addresses for peer in peers]
    return AddressSet(*(intervals.normal(span for each in every for span in each.of(f)) for f in (4, 6)))


def _together(a: PeerSet, b: PeerSet) -> PeerSet:
    return peer_set((*a.pods, *b.pods), a.addresses.union(b.addresses))
