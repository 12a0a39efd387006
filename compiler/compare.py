"""Two clusters compared: which flows one lets through that the other does not, and the rules that make the difference.

    old ─► places ─► allowed ─┐
                              ├─► units: the same pods on both sides ─► opened and closed, each with its causes
    new ─► places ─► allowed ─┘

What is opened and what is closed are differences of whole port-sets, and of whole regions of addresses. A pod is the
same on both sides by its name, else by its workload, whose pods have other names after each rollout. A flow with an
end that only one side has is there only on that side; that a pod gets an address of another family is no policy's
doing, and no change. What a pod's own node sends it always passes, and is no news.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from compiler.allowed import Allowed
from compiler.allowset import RuleRef
from compiler.compile import Compiled
from compiler.places import FAMILIES, FlowFamily, families_between, places
from compiler.ports import NO_PORTS, PortSet
from compiler.prefixes import WHOLE, AddressSet
from compiler.regions import NOWHERE, Region, difference, region_of
from compiler.units import SIDES, Group, Side, Unit, units
from policy.cidr import Family
from policy.model import DIRECTIONS, Direction

Kind = Literal["opened", "closed"]


class Cause(Struct, frozen=True, order=True):
    """What changed a flow: a rule that admits on one side only (`rule`), a policy that isolates there only, or that an
    end is there only (`policy` is ""). `side` is where it can be read."""

    side: Side
    direction: Direction
    policy: str = ""
    rule: RuleRef | None = None


class Change(Struct, frozen=True):
    """Flows from each of `src` to each of `dst`, at `ports`, that one side alone lets through. Of `src` and `dst` one
    may be empty: the other end is `outside` then, addresses that are no pod's. `families` is empty where it is true of
    every family that the ends have."""

    kind: Kind
    src: tuple[Group, ...]
    dst: tuple[Group, ...]
    ports: PortSet
    causes: tuple[Cause, ...]
    outside: AddressSet | None = None
    families: tuple[FlowFamily, ...] = ()


def compare(old: Compiled, new: Compiled) -> tuple[Change, ...]:
    """Every flow between pods, and with the outside, that is not the same in both; alike ones together."""
    sides: dict[Side, Allowed] = {"old": Allowed(old, places(old)), "new": Allowed(new, places(new))}
    found = _Comparison(sides, units(sides["old"].places, sides["new"].places))
    changes = [
        *found.between_pods("opened"),
        *found.with_outside("opened"),
        *found.between_pods("closed"),
        *found.with_outside("closed"),
    ]
    return _joined(changes)


class _Comparison:
    def __init__(self, sides: dict[Side, Allowed], units: list[Unit]) -> None:
        self._sides = sides
        self._units = units

    def between_pods(self, kind: Kind) -> Iterator[Change]:
        having, lacking = _order(kind)
        for src, dst in self._doubtful():
            if src is dst and src.is_one_pod:
                continue
            gained: dict[FlowFamily, PortSet] = {}
            families = self._families(src, dst)
            for family in families:
                more = self._ports(having, src, dst, family).difference(self._ports(lacking, src, dst, family))
                if more:
                    gained[family] = more
            yield from self._pair_changes(kind, src, dst, gained, families)

    def with_outside(self, kind: Kind) -> Iterator[Change]:
        having, lacking = _order(kind)
        for unit in self._units:
            for direction in DIRECTIONS:
                more = difference(self._region(having, unit, direction), self._region(lacking, unit, direction))
                for ports, addresses in more.items():
                    causes = self._outside_causes(kind, unit, direction, ports, addresses)
                    src, dst = ((), (unit.group,)) if direction == "ingress" else ((unit.group,), ())
                    yield Change(kind, src, dst, ports, causes, addresses)

    def _doubtful(self) -> Iterator[tuple[Unit, Unit]]:
        """Every pair of which one half, or an end, may have changed."""
        changed = {direction: [self._differs(unit, direction) for unit in self._units] for direction in DIRECTIONS}
        for src, egress in zip(self._units, changed["egress"], strict=True):
            for dst, ingress in zip(self._units, changed["ingress"], strict=True):
                if egress or ingress:
                    yield src, dst

    def _differs(self, unit: Unit, direction: Direction) -> bool:
        if unit.old is None or unit.new is None:
            return True
        for family in (4, 6, 0):
            one = self._sides["old"].row(unit.old, direction, family)
            other = self._sides["new"].row(unit.new, direction, family)
            if one is None or other is None:
                if one is not other:
                    return True
            elif any(
                (NO_PORTS if peer.old is None else one.get(peer.old, NO_PORTS))
                != (NO_PORTS if peer.new is None else other.get(peer.new, NO_PORTS))
                for peer in self._units
            ):
                return True
        return False

    def _families(self, src: Unit, dst: Unit) -> tuple[FlowFamily, ...]:
        """Those that they have in common wherever both are there. A side that knows no address yet is asked what it
        says of the other's families."""
        found: list[frozenset[FlowFamily]] = []
        for side in SIDES:
            one, other, known = src.on(side), dst.on(side), self._sides[side].places
            if one is not None and other is not None:
                found.append(frozenset(families_between(known[one], known[other])))
        with_addresses = [each for each in found if each != {0}]
        common = frozenset[FlowFamily].intersection(*with_addresses) if with_addresses else frozenset[FlowFamily]((0,))
        return tuple(sorted(common)) if found else ()

    def _ports(self, side: Side, src: Unit, dst: Unit, family: FlowFamily) -> PortSet:
        """No port where an end is not there."""
        one, other = src.on(side), dst.on(side)
        return NO_PORTS if one is None or other is None else self._sides[side].ports(one, other, family)

    def _pair_changes(
        self, kind: Kind, src: Unit, dst: Unit, gained: dict[FlowFamily, PortSet], families: Sequence[FlowFamily]
    ) -> Iterator[Change]:
        by_ports: dict[PortSet, list[FlowFamily]] = {}
        for family, ports in gained.items():
            by_ports.setdefault(ports, []).append(family)
        for ports, found in by_ports.items():
            causes = {cause for family in found for cause in self._causes(kind, src, dst, family, ports)}
            said = () if len(found) == len(families) else tuple(found)
            yield Change(kind, (src.group,), (dst.group,), ports, tuple(sorted(causes, key=_cause_key)), None, said)

    def _causes(self, kind: Kind, src: Unit, dst: Unit, family: FlowFamily, ports: PortSet) -> Iterator[Cause]:
        having, lacking = _order(kind)
        for direction in DIRECTIONS:
            subject, peer = (dst, src) if direction == "ingress" else (src, dst)
            at, its_peer = subject.on(having), peer.on(having)
            was, its_peer_was = subject.on(lacking), peer.on(lacking)
            assert at is not None and its_peer is not None
            if was is None:
                yield Cause(having, direction)
                continue
            if its_peer_was is None:
                continue  # the other end is what is new
            more = ports.difference(self._sides[lacking].half(was, its_peer_was, direction, family))
            if more and self._sides[having].allow(at, direction).isolated:
                refs = self._sides[having].admitting(at, its_peer, direction, family, more)
                yield from (Cause(having, direction, ref.policy, ref) for ref in refs)
            elif more:
                yield from self._isolating(lacking, was, direction)

    def _isolating(self, side: Side, subject: int, direction: Direction) -> Iterator[Cause]:
        """The policies that close what the other side leaves open."""
        for policy in self._sides[side].allow(subject, direction).policies:
            yield Cause(side, direction, policy.policy)

    def _region(self, side: Side, unit: Unit, direction: Direction) -> Region:
        """What the unit has with mere addresses, in the families that it has on both sides, as far as is known."""
        at = unit.on(side)
        if at is None:
            return NOWHERE
        families: frozenset[Family] = frozenset((4, 6))
        for one in SIDES:
            where = unit.on(one)
            if where is not None:
                families &= self._sides[one].places[where].families or families
        wanted = AddressSet(*(WHOLE[family] if family in families else () for family in FAMILIES))
        found = region_of(self._sides[side].allow(at, direction))
        cut = {ports: addresses.intersection(wanted) for ports, addresses in found.items()}
        return {ports: addresses for ports, addresses in cut.items() if addresses}

    def _outside_causes(
        self, kind: Kind, unit: Unit, direction: Direction, ports: PortSet, addresses: AddressSet
    ) -> tuple[Cause, ...]:
        having, lacking = _order(kind)
        at, was = unit.on(having), unit.on(lacking)
        assert at is not None
        if was is None:
            return (Cause(having, direction),)
        allow = self._sides[having].allow(at, direction)
        if not allow.isolated:
            return tuple(self._isolating(lacking, was, direction))
        return tuple(
            Cause(having, direction, rule.ref.policy, RuleRef(rule.ref.policy, direction, rule.ref.rule, index))
            for rule in allow.bound
            if any(isinstance(entry, PortSet) and entry.intersection(ports) for _, entry in rule.ports)
            for index, peers in rule.peers
            if peers.addresses.intersection(addresses)
        )


def _order(kind: Kind) -> tuple[Side, Side]:
    """The side that has what the other lacks."""
    return ("new", "old") if kind == "opened" else ("old", "new")


def _cause_key(cause: Cause) -> tuple[object, ...]:
    rule = cause.rule
    place = (rule.rule, -1 if rule.peer is None else rule.peer) if rule else (-1, -1)
    return cause.direction, cause.policy, cause.side, place


def _joined(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Changes that differ in their sources only are one, then those that differ in their destinations only."""
    by_dst: dict[Hashable, list[Change]] = {}
    for each in changes:
        by_dst.setdefault((each.kind, each.dst, each.ports, each.causes, each.outside, each.families), []).append(each)
    found = [replace(same[0], src=_together(each.src for each in same)) for same in by_dst.values()]
    by_src: dict[Hashable, list[Change]] = {}
    for each in found:
        by_src.setdefault((each.kind, each.src, each.ports, each.causes, each.outside, each.families), []).append(each)
    return tuple(replace(same[0], dst=_together(each.dst for each in same)) for same in by_src.values())


def _together(groups: Iterable[tuple[Group, ...]]) -> tuple[Group, ...]:
    pods: dict[str, set[str]] = {}
    for each in chain.from_iterable(groups):
        pods.setdefault(each.name, set()).update(each.pods)
    return tuple(Group(name, tuple(sorted(keys))) for name, keys in pods.items())
