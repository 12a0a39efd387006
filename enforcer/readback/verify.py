"""Whether what is installed does what is wanted: proven for every packet, or a packet on which they differ.

What is installed is walked box by box (`decompile`, `walk`), what is wanted comes from allow-sets (`meaning`,
`halves`), and neither knows the other. A node is kept from being the product of all its pods: what a hook jumps to are
units, each walked for the near ends of one direction at a time. A packet is denied if any unit denies it; so

- what a unit denies must be denied by some half, and
- what a half denies must be denied by some unit that no rule of others can keep a packet from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from compiler.compile import Compiled
from enforcer.readback.decompile import Strange, reachable, terms_of
from enforcer.readback.fields import Interfaces, PacketSpace
from enforcer.readback.halves import Wanted
from enforcer.readback.meaning import HOOKS, Meaning
from enforcer.readback.regions import Box, meet, met, split, without_all
from enforcer.readback.simulate import Packet
from enforcer.readback.walk import Ends, Walker
from enforcer.rules import names
from enforcer.rules.layout import NodeView
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import Drop, Goto, HookName, Jump, Reject, Return
from policy.cidr import Address
from policy.model import DIRECTIONS, Direction


class Difference(Struct, frozen=True):
    """A packet that is not treated as wanted; or, with `unknown`, may not be: it says what can't be judged. `settled`
    says why it is wanted so, unless allow-sets and attachments decide that."""

    hook: HookName
    packet: Packet
    wanted: Literal["accept", "deny"]
    settled: str = ""
    unknown: str = ""


class _Unit(Struct, frozen=True):
    """What a hook leads to: `chain`, or None for denial at once. `reach` are the packets that get there unless another
    unit denies them; `sure` is whether nobody else's rule comes before."""

    chain: str | None
    reach: list[Box]
    sure: bool

    @property
    def direction(self) -> Direction:
        """Whose near ends it is walked for: only time hangs on it."""
        return "ingress" if self.chain == names.DISPATCH["ingress"] else "egress"


def verify(actual: Actual, compiled: Compiled, node: NodeView) -> Difference | None:
    """A difference in the family of `actual`, if there is any, and rather a certain one; None is a proof."""
    unsure = None
    for difference in _Verifier(actual, compiled, node).differences():
        if not difference.unknown:
            return difference
        unsure = unsure or difference
    return unsure


class _Verifier:
    def __init__(self, actual: Actual, compiled: Compiled, node: NodeView) -> None:
        self._builtin = actual.tables.builtin
        interfaces = Interfaces()
        meaning = Meaning(compiled, node, actual.family)
        roots = [target for hook in HOOKS for target in self._builtin.get(hook, ()) if target]
        chains = reachable(actual, roots, interfaces, node.mark)
        terms = [*terms_of(chains), *meaning.terms(interfaces)]
        here = [Address(actual.family, low) for s in meaning.subjects["egress"] for low, _ in s.addresses]
        self._packets = PacketSpace(actual.family, node.mark, interfaces, terms, here)
        self._walker = Walker(chains, self._packets.space)
        self._wanted = {hook: Wanted(meaning, hook, self._packets.space, interfaces) for hook in HOOKS}

    def differences(self) -> Iterator[Difference]:
        for hook in HOOKS:
            units, strange = self._units(hook)
            yield from self._unknown(hook, strange)
            for unit in units:
                yield from self._settled(hook, unit)
            yield from self._passing(hook, without_all(self._wanted[hook].revoked, [box for box, _ in strange]), units)
            for direction in DIRECTIONS:
                yield from self._judged(hook, direction, units, [box for box, _ in strange])

    def _units(self, hook: HookName) -> tuple[list[_Unit], list[tuple[Box, Strange]]]:
        units: list[_Unit] = []
        strange: list[tuple[Box, Strange]] = []
        boxes, sure = self._wanted[hook].everything, True
        for name in self._builtin.get(hook, ()):
            if not name:
                sure = False
                continue
            back: list[Box] = []
            for cuts, target in self._walker.cuts(name):
                hits, boxes = split(boxes, cuts)
                match target:
                    case Return():
                        back += hits
                    case Drop() | Reject():
                        units.append(_Unit(None, hits, sure))
                    case Jump(chain):
                        units.append(_Unit(chain, hits, sure))
                        boxes += hits
                    case Goto(chain):
                        units.append(_Unit(chain, hits, sure))
                        back += hits
                    case Strange():
                        strange += ((box, target) for box in hits)
            boxes = back + boxes
        return [unit for unit in units if unit.reach], strange

    def _walk(self, unit: _Unit, boxes: Iterable[Box]) -> tuple[list[Box], Ends]:
        """What comes back of those `boxes` that reach the unit, and where the others ended."""
        there = met(boxes, unit.reach)
        if unit.chain is None:
            return [], Ends(there)
        ends = Ends()
        return self._walker.walk(unit.chain, there, ends), ends

    def _settled(self, hook: HookName, unit: _Unit) -> Iterator[Difference]:
        """What passes whatever the halves say, and the unit denies."""
        _, ends = self._walk(unit, self._wanted[hook].passing)
        yield from self._unknown(hook, ends.unknown)
        yield from self._found(hook, ends.denied)

    def _judged(
        self, hook: HookName, direction: Direction, units: Sequence[_Unit], strange: list[Box]
    ) -> Iterator[Difference]:
        """What the units of one direction deny and no half does; what its halves deny and no unit does."""
        wanted = self._wanted[hook]
        own = [unit for unit in units if unit.direction == direction]
        usual = (names.DISPATCH[direction], names.OTHERS[direction], names.NODE)
        main = max((unit for unit in own if unit.sure), key=lambda unit: unit.chain in usual, default=None)
        others = [unit for unit in units if unit is not main]
        missed = without_all(wanted.judged, [*strange, *(main.reach if main else ())])
        for half in wanted.halves[direction]:
            here = met(wanted.judged, [half.near])
            perhaps = met(missed, [half.near])
            for unit in own:
                back, ends = self._walk(unit, here)
                yield from self._unknown(hook, ends.unknown)
                for denied in ends.denied:
                    for box in half.judge(denied)[0]:
                        yield from self._found(hook, self._allowed_elsewhere(wanted, direction, box))
                if unit is main:
                    perhaps += back
            yield from self._passing(hook, [part for box in perhaps for part in half.judge(box)[1]], others)

    def _allowed_elsewhere(self, wanted: Wanted, direction: Direction, box: Box) -> Iterator[Box]:
        """What of `box` the other direction allows too."""
        for other in DIRECTIONS:
            if other != direction:
                for half in wanted.halves[other]:
                    if near := meet(box, half.near):
                        yield from half.judge(near)[0]

    def _passing(self, hook: HookName, boxes: list[Box], units: Sequence[_Unit]) -> Iterator[Difference]:
        """What of `boxes`, which should be denied, no unit denies, or only one that others' rules come before."""
        for sure in (True, False):
            perhaps = boxes
            for unit in units:
                if boxes and unit.sure == sure:
                    back, ends = self._walk(unit, boxes)
                    yield from self._unknown(hook, ends.unknown)
                    boxes = back + without_all(boxes, unit.reach)
        yield from self._found(hook, boxes)
        if perhaps and not boxes:
            yield from self._found(hook, perhaps, f"others' rules come before podfence's jump in {hook}")

    def _unknown(self, hook: HookName, found: Iterable[tuple[Box, Strange]]) -> Iterator[Difference]:
        for box, strange in found:
            yield from self._found(hook, [box], strange.why)

    def _found(self, hook: HookName, boxes: Iterable[Box], unknown: str = "") -> Iterator[Difference]:
        for box in boxes:
            point = self._packets.point(box)
            allowed, settled = self._wanted[hook].answer(point)
            yield Difference(hook, self._packets.packet(point), "accept" if allowed else "deny", settled, unknown)
