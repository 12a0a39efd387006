"""A walk of whole regions of packets through installed chains, as the kernel would walk each packet.

A rule splits the boxes that reach it into those that match and those that go on.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from enforcer.readback.decompile import Line, Strange
from enforcer.readback.regions import Box, Cut, Space, split
from enforcer.rules.ruleset import Count, Drop, Goto, Jump, Nflog, Reject, Return, Target


class Ends(Struct):
    """Where the boxes of a walk ended that did not come back."""

    denied: list[Box] = field(default_factory=list)
    unknown: list[tuple[Box, Strange]] = field(default_factory=list)


class Walker:
    """Walks boxes of one space through chains. Kernels take no loops, so a walk ends."""

    def __init__(self, chains: Mapping[str, tuple[Line, ...]], space: Space) -> None:
        self._chains = chains
        self._space = space
        self._cuts: dict[str, tuple[tuple[tuple[Cut, ...], Target | Strange], ...]] = {}

    def cuts(self, chain: str) -> tuple[tuple[tuple[Cut, ...], Target | Strange], ...]:
        found = self._cuts.get(chain)
        if found is None:
            found = tuple((tuple(map(self._space.cut, line.conditions)), line.target) for line in self._chains[chain])
            self._cuts[chain] = found
        return found

    def walk(self, chain: str, boxes: list[Box], ends: Ends) -> list[Box]:
        """What comes back from `chain`; the rest is in `ends`."""
        back: list[Box] = []
        for cuts, target in self.cuts(chain):
            if not boxes:
                break
            hits, boxes = split(boxes, cuts)
            if not hits:
                continue
            match target:
                case Return():
                    back += hits
                case Drop() | Reject():
                    ends.denied += hits
                case Jump(name):
                    boxes += self.walk(name, hits, ends)
                case Goto(name):
                    back += self.walk(name, hits, ends)
                case Strange():
                    ends.unknown += ((box, target) for box in hits)
                case Nflog() | Count():
                    raise TypeError(target)
        return back + boxes
