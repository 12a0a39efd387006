"""Allow-sets: what one pod may do in one direction, in a form that is the same for the same meaning.

Grants are held by peer: each pod term, and each address, stands in exactly one grant, with every port that it has
in full. So the number of grants is bounded by how many different port-sets peers have, never by how many policies say
so, and no member is copied. How many rules and lookups that takes on a packet's way is the enforcer's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from compiler import intervals
from compiler.budget import BUDGET, BeyondBudget, Meter, most_within
from compiler.peers import PeerSet, PodTerm, peer_set
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, union_of
from compiler.prefixes import WHOLE, AddressSet
from policy.cidr import Family
from policy.model import PROTOCOLS, Direction
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

    `policies` isolate; `bound` are the rules as they were written, which explanation asks for the entries. Policies by
    the keys `too_large` isolate and grant nothing, since together their rules are more than `budget` has room for."""

    isolated: bool
    grants: tuple[Grant, ...] = ()
    policies: tuple[PolicyRef, ...] = ()
    bound: tuple[BoundRule, ...] = ()
    too_large: tuple[str, ...] = ()


OPEN = AllowSet(False)
_FAMILIES: tuple[Family, Family] = (4, 6)


def allow_set(policies: Iterable[PolicyRef], bound: Sequence[BoundRule]) -> AllowSet:
    """The canonical allow-set of a subject that `policies` isolate, which grant what `bound` says. Where that is beyond
    the budget the largest policies grant nothing."""
    refs = tuple(sorted(policies, key=lambda ref: ref.policy))
    try:
        return AllowSet(True, _within(Meter(BUDGET), bound), refs, tuple(bound))
    except BeyondBudget:
        return _as_far_as_it_goes(refs, bound)


def _as_far_as_it_goes(refs: tuple[PolicyRef, ...], bound: Sequence[BoundRule]) -> AllowSet:
    """With the smallest policies that the budget bears together."""
    rules: dict[str, list[BoundRule]] = {}
    for rule in bound:
        rules.setdefault(rule.policy.policy, []).append(rule)
    smallest_first = sorted(rules, key=lambda policy: (sum(map(_entries, rules[policy])), policy))
    count, grants = most_within(
        smallest_first, lambda some, meter: _within(meter, [rule for policy in some for rule in rules[policy]])
    )
    kept, too_large = set(smallest_first[:count]), tuple(sorted(smallest_first[count:]))
    return AllowSet(True, grants, refs, tuple(rule for rule in bound if rule.policy.policy in kept), too_large)


def _entries(rule: BoundRule) -> int:
    return sum(len(peers) for _, peers in rule.peers) + len(rule.ports)


def _within(meter: Meter, bound: Sequence[BoundRule]) -> tuple[Grant, ...]:
    """The grants, where it can be borne to find them and to spread them over rules and sets."""
    grants = canonical(bound, meter)
    numbered = [(grant.ports, len(grant.peers)) for grant in grants if isinstance(grant.ports, PortSet)]
    known: set[frozenset[int]] = set()
    for protocol in PROTOCOLS:
        for _, over in intervals.sweep([ports.of(protocol) for ports, _ in numbered], meter.spend):
            if over not in known:
                known.add(over)
                meter.spend(sum(numbered[at][1] for at in over))
    return grants


def canonical(bound: Sequence[BoundRule], meter: Meter | None = None) -> tuple[Grant, ...]:
    meter = meter or Meter()
    terms: dict[PodTerm, _Held] = {}
    blocks: dict[AddressSet, _Held] = {}
    names: dict[NamedPort, list[tuple[PeerSet, RuleRef]]] = {}
    for rule in bound:
        peers = _together([peers for _, peers in rule.peers])
        if not peers:
            continue
        numbered = union_of(ports for _, ports in rule.ports if isinstance(ports, PortSet))
        for _, ports in rule.ports:
            if isinstance(ports, NamedPort):
                meter.spend(len(peers))
                names.setdefault(ports, []).append((peers, rule.ref))
        if not numbered:
            continue
        for term in peers.pods:
            terms.setdefault(term, []).append((numbered, rule.ref))
        if peers.addresses:
            blocks.setdefault(peers.addresses, []).append((numbered, rule.ref))
    named = [
        Grant(name, _together([peers for peers, _ in found]), tuple(sorted({ref for _, ref in found})))
        for name, found in sorted(names.items())
    ]
    return (*_numbered(terms, blocks, meter), *named)


# Port-sets that something has, each with the rule that says so.
_Held = list[tuple[PortSet, RuleRef]]


class _Group:
    """What has one port-set."""

    __slots__ = ("refs", "spans", "terms")

    def __init__(self) -> None:
        self.terms: set[PodTerm] = set()
        self.spans: dict[Family, list[tuple[int, int]]] = {4: [], 6: []}
        self.refs: set[RuleRef] = set()

    @property
    def peers(self) -> PeerSet:
        return peer_set(self.terms, AddressSet(*(intervals.normal(self.spans[family]) for family in _FAMILIES)))


def _numbered(terms: dict[PodTerm, _Held], blocks: dict[AddressSet, _Held], meter: Meter) -> Iterable[Grant]:
    groups: dict[PortSet, _Group] = {}
    everyone_has = ALL_PORTS
    every, holds = [*blocks], [*blocks.values()]
    for family in _FAMILIES:
        covered: list[tuple[int, int]] = []
        group_of: dict[frozenset[int], _Group] = {}
        for span, over in intervals.sweep([addresses.of(family) for addresses in every], meter.spend):
            if over not in group_of:
                found = [held for number in over for held in holds[number]]
                meter.spend(sum(ports.ranges for ports, _ in found))
                ports = union_of(ports for ports, _ in found)
                group_of[over] = groups.setdefault(ports, _Group())
                group_of[over].refs.update(ref for _, ref in found)
                everyone_has = everyone_has.intersection(ports)
            group_of[over].spans[family].append(span)
            covered.append(span)
        if intervals.normal(covered) != WHOLE[family]:
            everyone_has = NO_PORTS
    for term, held in terms.items():
        meter.spend(len(held) + everyone_has.ranges)
        ports = union_of(ports for ports, _ in held)
        if everyone_has and everyone_has.covers(ports):
            continue
        group = groups.setdefault(ports.union(everyone_has) if everyone_has else ports, _Group())
        group.terms.add(term)
        group.refs.update(ref for _, ref in held)
    for ports, group in sorted(groups.items(), key=lambda item: item[0]):
        yield Grant(ports, group.peers, tuple(sorted(group.refs)))


def _together(every: Sequence[PeerSet]) -> PeerSet:
    """In one go: a rule may name as many blocks as fit in an object, and joined one by one they would cost the square
    of that."""
    if len(every) == 1:
        return every[0]
    spans = (intervals.normal(span for each in every for span in each.addresses.of(family)) for family in _FAMILIES)
    return peer_set((term for each in every for term in each.pods), AddressSet(*spans))
