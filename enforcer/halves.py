"""One direction's wanted answer for all packets, in boxes: a half for each subject, and one for everybody else."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from compiler import intervals
from compiler.allowset import AllowSet
from enforcer.fields import Interfaces
from enforcer.meaning import FAR, INTERFACE, NEAR, Meaning, Offer, Subject
from enforcer.regions import IN, OUT, SERVICE, Box, Cut, Space, meet, met, split, with_field, without_all
from enforcer.ruleset import HookName
from policy.model import DIRECTIONS, Direction


class Half(Struct, frozen=True):
    """The packets whose near end is in `near`; no two halves of a direction share one. What is not in `place` is
    denied; what is, is allowed, or where there are `offers` by one of them."""

    near: Box
    place: Cut
    offers: tuple[Cut, ...] | None = None

    def judge(self, box: Box) -> tuple[list[Box], list[Box]]:
        """The parts of `box`, which lies near, that are allowed and denied."""
        left, denied = split([box], [self.place])
        if self.offers is None:
            return left, denied
        allowed: list[Box] = []
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
        out = interfaces.some if hook == "FORWARD" else interfaces.none
        self.everything = space.boxes([{IN: interfaces.some, OUT: out}])
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
        return [*(self._subject(direction, subject) for subject in subjects), self._everybody_else(direction)]

    def _subject(self, direction: Direction, subject: Subject) -> Half:
        near = self._space.part({NEAR[direction]: subject.addresses})
        on = self._interfaces.named([subject.veth]) if subject.veth else ()
        place = Cut(INTERFACE[direction], self._space.boxes([{INTERFACE[direction]: on}]))
        allow = self._meaning.allow_of(subject, self._hook)
        if not allow.isolated:
            return Half(near, place)
        # A pod reaches itself, whatever its policies say (semantics, row 29).
        own = Cut(FAR[direction], self._space.boxes([{FAR[direction]: subject.own}]))
        return Half(near, place, (own, self._offered(direction, allow)))

    def _offered(self, direction: Direction, allow: AllowSet) -> Cut:
        key = (direction, id(allow))
        if key not in self._offers:
            self._offers[key] = _by_service(self._space, FAR[direction], self._meaning.offers(allow))
        return self._offers[key]

    def _everybody_else(self, direction: Direction) -> Half:
        """Nobody of the node: neither behind a pod's interface, nor where only pods have addresses."""
        taken = intervals.normal(span for subject in self._meaning.subjects[direction] for span in subject.addresses)
        nobodys = intervals.complement(taken, 0, self._meaning.last_address)
        near, interface = NEAR[direction], INTERFACE[direction]
        veths = self._space.axes[interface].mask(self._interfaces.named(self._meaning.veths))
        place = self._space.part({near: intervals.difference(nobodys, self._meaning.blocks)})
        place = with_field(place, interface, self._space.axes[interface].full & ~veths)
        return Half(self._space.part({near: nobodys}), Cut(interface, [place] if all(place) else []))


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
