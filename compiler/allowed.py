"""Which ports one place may use at another: whole port-sets, from the allow-sets, for many pairs of places.

The answer of one direction is a row: what each peer has at one subject. Rows are made once for each allow-set, family
and direction, by asking each term for its places, never each pair for its terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from compiler.allowset import AllowSet, RuleRef
from compiler.compile import Compiled
from compiler.matching import pass_all, tests_of
from compiler.peers import PeerSet, PodTerm
from compiler.places import FlowFamily, Place, families_between
from compiler.ports import ALL_PORTS, NO_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.prefixes import AddressSet
from policy.model import Direction
from policy.selector import Selector

# By the number of the peer's place; None where everything is allowed.
Row = Mapping[int, PortSet] | None


class Allowed:
    """Answers for the `places` of one cluster, which are called by their number. Nobody may change it meanwhile."""

    def __init__(self, compiled: Compiled, places: Sequence[Place]) -> None:
        self.compiled = compiled
        self.places = places
        self._by_namespace: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            self._by_namespace.setdefault(place.namespace, []).append(number)
        self._allow: dict[tuple[int, Direction], AllowSet] = {}
        self._rows: dict[tuple[int, Direction, FlowFamily], Row] = {}
        self._row_of: dict[tuple[int, Direction, FlowFamily], Row] = {}
        self._ingress: dict[FlowFamily, list[Row]] = {}
        self._selected: dict[PodTerm, list[int]] = {}
        self._spaces: dict[Selector, list[str]] = {}
        self._held: dict[tuple[AddressSet, FlowFamily], list[int]] = {}

    def allow(self, subject: int, direction: Direction) -> AllowSet:
        found = self._allow.get((subject, direction))
        if found is None:
            found = self._allow[subject, direction] = self.compiled.allow(self.places[subject].pod, direction)
        return found

    def row(self, subject: int, direction: Direction, family: FlowFamily) -> Row:
        """What each place has as the peer of `subject`: no port where it is not in the row."""
        key = (subject, direction, family)
        if key not in self._row_of:
            allow = self.allow(subject, direction)
            shared = (id(allow), direction, family)
            if shared not in self._rows:
                self._rows[shared] = self._row(allow, family) if allow.isolated else None
            self._row_of[key] = self._rows[shared]
        return self._row_of[key]

    def half(self, subject: int, peer: int, direction: Direction, family: FlowFamily) -> PortSet:
        """What one direction lets through between two places, whatever the other says."""
        row = self.row(subject, direction, family)
        return ALL_PORTS if row is None else row.get(peer, NO_PORTS)

    def ports(self, src: int, dst: int, family: FlowFamily) -> PortSet:
        """What a pod of `src` may use at another pod of `dst`: both halves must allow it (semantics, row 3)."""
        return _both(src, dst, self.row(dst, "ingress", family), self.row(src, "egress", family))

    def ports_from(self, src: int, family: FlowFamily) -> Iterator[PortSet]:
        """`ports` at each place, in order."""
        rows = self._ingress.get(family)
        if rows is None:
            rows = [self.row(dst, "ingress", family) for dst in range(len(self.places))]
            self._ingress[family] = rows
        egress = self.row(src, "egress", family)
        return (_both(src, dst, ingress, egress) for dst, ingress in enumerate(rows))

    def by_family(self, src: int, dst: int) -> dict[FlowFamily, PortSet]:
        return {family: self.ports(src, dst, family) for family in self.families(src, dst)}

    def families(self, src: int, dst: int) -> tuple[FlowFamily, ...]:
        """Those in which the two can speak; none where they are one and the same pod, which is not asked about."""
        if src == dst and self.places[src].is_one_pod:
            return ()
        return families_between(self.places[src], self.places[dst])

    def admitting(
        self, subject: int, peer: int, direction: Direction, family: FlowFamily, ports: PortSet
    ) -> tuple[RuleRef, ...]:
        """The entries of the rules that let any of `ports` through."""
        place = self.places[peer]
        dst = place if direction == "egress" else self.places[subject]
        return tuple(
            RuleRef(rule.ref.policy, rule.ref.direction, rule.ref.rule, peer_index)
            for rule in self.allow(subject, direction).bound
            if union_of(numbered(entry, dst) for _, entry in rule.ports).intersection(ports)
            for peer_index, peers in rule.peers
            if peers.matches_pod(place.pod, self.compiled.namespaces) or place.is_held_by(peers.addresses, family)
        )

    def _row(self, allow: AllowSet, family: FlowFamily) -> Row:
        row: dict[int, PortSet] = {}
        for grant in allow.grants:
            for peer in self._peers(grant.peers, family):
                ports = grant.ports
                if isinstance(ports, NamedPort):
                    # Only in egress, where the peer is the destination (semantics, row 20).
                    ports = numbered(ports, self.places[peer])
                if ports:
                    row[peer] = row[peer].union(ports) if peer in row else ports
        return row

    def _peers(self, peers: PeerSet, family: FlowFamily) -> set[int]:
        found = {number for term in peers.pods for number in self._selected_by(term)}
        if peers.addresses:
            found.update(self._held_by(peers.addresses, family))
        return found

    def _selected_by(self, term: PodTerm) -> list[int]:
        found = self._selected.get(term)
        if found is None:
            spaces = self._spaces.get(term.namespaces)
            if spaces is None:
                labels = self.compiled.namespaces
                spaces = [name for name in self._by_namespace if term.namespaces.matches(labels[name])]
                self._spaces[term.namespaces] = spaces
            tests = tests_of(term.pods)
            inside = (number for space in spaces for number in self._by_namespace[space])
            found = [number for number in inside if pass_all(tests, self.places[number].pod.labels)]
            self._selected[term] = found
        return found

    def _held_by(self, addresses: AddressSet, family: FlowFamily) -> list[int]:
        found = self._held.get((addresses, family))
        if found is None:
            found = [number for number, place in enumerate(self.places) if place.is_held_by(addresses, family)]
            self._held[addresses, family] = found
        return found


def _both(src: int, dst: int, ingress: Row, egress: Row) -> PortSet:
    """What both halves allow."""
    if ingress is None:
        return ALL_PORTS if egress is None else egress.get(dst, NO_PORTS)
    found = ingress.get(src, NO_PORTS)
    if found is NO_PORTS or egress is None:
        return found
    return found.intersection(egress.get(dst, NO_PORTS))


def numbered(ports: PortSet | NamedPort, dst: Place) -> PortSet:
    """A name looked up at the destination."""
    if isinstance(ports, PortSet):
        return ports
    known = [each for each in dst.pod.ports if each.name == ports.name and each.protocol == ports.protocol]
    return union_of(port_range(each.protocol, each.port, each.port) for each in known)
