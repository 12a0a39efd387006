"""One direction's wanted answer for all packets, in boxes: a half for each subject, and one for everybody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from msgspec import Struct

from compiler import intervals
from compiler.allowset import AllowSet
from compiler.intervals import Intervals
from enforcer.readback.fields import Interfaces
from enforcer.readback.meaning import FAR, INTERFACE, NEAR, PORT, Meaning, Offer, Subject
from enforcer.readback.regions import SERVICE, Box, Cut, Space, meet, met, split, with_field, without_all
from enforcer.rules.ruleset import HookName
from policy.model import DIRECTIONS, Direction


class Half(Struct, frozen=True):
    """The packets whose near end is in `near`; no two halves of a direction share one. What is not in `place` is
    denied, unless the half is `lenient`; what is, is allowed, or where there are `offers` by one of them."""

    near: Box
    place: Cut
    offers: tuple[Cut, ...] | None = None
    lenient: bool = False

    def judge(self, box: Box) -> tuple[list[Box], list[Box]]:
        """The parts of `box`, which lies near, that are allowed and denied."""
        left, denied = split([box], [self.place])
        allowed: list[Box] = []
        if self.lenient:
            allowed, denied = denied, []
        if self.offers is None:
            return allowed + left, denied
        for offer in self.offers:
            hits, left = split(left, [offer])
            allowed += hits
        return allowed, denied + left


class Wanted:
    """Everything wanted of a hook, in boxes: `passing` whatever the halves say, `revoked` which is denied, and
    `judged`, which the halves decide. The three share no packet, and together they are all packets of the hook."""

    def __init__(self, meaning: Meaning, hook: HookName, space: Space, interfaces: Interfaces) -> None:
        self._meaning = meaning
        self._hook = hook
        self._space = space
        self._interfaces = interfaces
        self._offers: dict[tuple[Direction, int], Cut] = {}
        self.everything = space.boxes(meaning.everything(hook, interfaces))
        self._passing = {name: space.boxes([term]) for name, term in meaning.passing(hook, interfaces).items()}
        passing = [box for boxes in self._passing.values() for box in boxes]
        revoked = space.boxes([meaning.revoked])
        self.passing = met(self.everything, passing)
        rest = without_all(self.everything, passing)
        self.revoked = met(rest, revoked)
        self.judged = without_all(rest, revoked)
        directions = meaning.directions(hook)
        self.halves = {d: self._halves(d) if d in directions else [self._open()] for d in DIRECTIONS}

    def answer(self, point: Box) -> tuple[bool, str]:
        """Whether a box of one atom a field passes; and, unless the halves decide that, why."""
        for name, boxes in self._passing.items():
            if met([point], boxes):
                return True, name
        if met([point], self.revoked):
            return False, "it answers on a connection that was revoked"
        asked = [half for halves in self.halves.values() for half in halves if meet(point, half.near)]
        return all(half.judge(point)[0] for half in asked), ""

    def _open(self) -> Half:
        return Half(self._space.full, Cut(SERVICE, [self._space.full]))

    def _halves(self, direction: Direction) -> list[Half]:
        subjects = self._meaning.subjects[direction]
        return [*(self._subject(direction, subject) for subject in subjects), *self._everybody_else(direction)]

    def _subject(self, direction: Direction, subject: Subject) -> Half:
        near = self._space.part({NEAR[direction]: subject.addresses})
        key, terms = self._meaning.place(direction, subject, self._interfaces)
        place = Cut(key, self._space.boxes(terms))
        lenient = self._meaning.is_lenient
        allow = self._meaning.allow_of(subject, self._hook)
        if not allow.isolated:
            return Half(near, place, lenient=lenient)
        # A pod reaches itself, whatever its policies say (semantics, row 29).
        own = Cut(FAR[direction], self._space.boxes([{FAR[direction]: subject.own}]))
        return Half(near, place, (own, self._offered(direction, allow)), lenient)

    def _offered(self, direction: Direction, allow: AllowSet) -> Cut:
        key = (direction, id(allow))
        if key not in self._offers:
            self._offers[key] = _by_service(self._space, FAR[direction], self._meaning.offers(allow))
        return self._offers[key]

    def _everybody_else(self, direction: Direction) -> list[Half]:
        """Nobody of the node: neither behind a pod's interface, nor where only pods have addresses. Groups of addresses
        reach ports that no single address may reach."""
        meaning = self._meaning
        taken = intervals.normal(span for subject in meaning.subjects[direction] for span in subject.addresses)
        nobodys = intervals.complement(taken, 0, meaning.last_address)
        groups = intervals.intersection(nobodys, meaning.groups if direction == "ingress" else ())
        single = intervals.difference(nobodys, groups)
        on_bridges = {name: [*ports] for name, ports in meaning.uplinks.items()}
        halves = [self._nobody(direction, single, on_bridges, routed=direction == "ingress")]
        if groups:
            ports = [*meaning.open_ports, *chain.from_iterable(meaning.uplinks.values())]
            halves.append(self._nobody(direction, groups, dict.fromkeys(on_bridges, ports), routed=False))
        return halves

    def _nobody(self, direction: Direction, spans: Intervals, ports: Mapping[str, list[str]], routed: bool) -> Half:
        """By which ports of each bridge they come or go; `routed` is whether also past all ports of a bridge that has
        some."""
        meaning, interfaces = self._meaning, self._interfaces
        near, interface = NEAR[direction], INTERFACE[direction]
        axis = self._space.axes[interface]
        pods = axis.mask(interfaces.named([*meaning.veths, *ports]))
        unclosed = intervals.difference(spans, meaning.blocks)
        places = [with_field(self._space.part({near: unclosed}), interface, axis.full & ~pods)]
        if abroad := intervals.intersection(spans, meaning.abroad):
            uplinks = axis.mask(interfaces.named(meaning.plain_uplinks))
            by_uplink = self._space.part({near: intervals.union(unclosed, abroad)})
            places = [
                with_field(places[0], interface, axis.full & ~pods & ~uplinks),
                with_field(by_uplink, interface, uplinks),
            ]
        for bridge, its_ports in ports.items():
            through = interfaces.named(its_ports)
            if its_ports and routed:
                through = intervals.union(through, interfaces.none)
            if meaning.is_open and spans != meaning.groups:
                everything = intervals.union(interfaces.none, interfaces.some)
                through = intervals.difference(everything, interfaces.named(meaning.ports))
            allowed = unclosed if routed or direction == "egress" else spans
            places.append(
                self._space.part({near: allowed, interface: interfaces.named([bridge]), PORT[direction]: through})
            )
        return Half(
            self._space.part({near: spans}),
            Cut(interface, [place for place in places if all(place)]),
            lenient=meaning.is_lenient,
        )


def _by_service(space: Space, far_field: int, offers: Iterable[Offer]) -> Cut:
    """Offers joined to groups of services that share none, each with all who may use them."""
    services, masks = [], []
    for offered, far in offers:
        services.append(offered)
        masks.append(space.axes[far_field].mask(far))
    groups: dict[int, list[tuple[int, int]]] = {}
    for span, over in intervals.sweep(services):
        together = 0
        for number in over:
            together |= masks[number]
        groups.setdefault(together, []).append(span)
    boxes = [
        with_field(space.part({SERVICE: intervals.normal(spans)}), far_field, far)
        for far, spans in groups.items()
        if far
    ]
    return Cut(SERVICE, boxes)
