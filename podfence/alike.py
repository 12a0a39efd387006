"""Answers that are alike, put together: both families of a pod, and replicas, mostly."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec
from msgspec.structs import replace

from podfence.answers import Answer, EndOut, MissOut, Place, Side


def alike(answers: Iterable[tuple[Hashable, Answer]]) -> list[Answer]:
    """Those that differ in nothing but which pods, nodes and addresses they are about, together: both families of a
    pod, and replicas, mostly. What stands before each is the same only where that is known already."""
    keys: dict[Hashable, bytes] = {}
    groups: dict[bytes, list[Answer]] = {}
    for known, one in answers:
        key = keys.get(known) or keys.setdefault(known, _key(one))
        groups.setdefault(key, []).append(one)
    return [_together(group) for group in groups.values()]


def _key(one: Answer) -> bytes:
    blank = [
        replace(
            side,
            pod="",
            # Where the other direction denies, it does not matter which entry of this one admits which family.
            rules=[] if side.allowed and one.verdict == "denied" else side.rules,
            misses=[
                MissOut(
                    miss.place,
                    # The text of a block's obstacle tells the address.
                    [replace(o, text="") if o.kind in ("block", "except") else o for o in miss.obstacles],
                )
                for miss in side.misses
            ],
        )
        for side in (one.egress, one.ingress)
    ]
    nobody = EndOut([], "")
    return msgspec.json.encode(replace(one, src=nobody, dst=nobody, egress=blank[0], ingress=blank[1]))


def _together(group: list[Answer]) -> Answer:
    first = group[0]
    return replace(
        first,
        src=_joined([one.src for one in group]),
        dst=_joined([one.dst for one in group]),
        egress=replace(first.egress, rules=_rules([one.egress for one in group])),
        ingress=replace(first.ingress, rules=_rules([one.ingress for one in group])),
    )


def _rules(sides: list[Side]) -> list[Place]:
    found: list[Place] = []
    for side in {id(side): side for side in sides}.values():
        found += [place for place in side.rules if place not in found]
    return found


def _joined(ends: list[EndOut]) -> EndOut:
    def distinct(lists: Iterable[list[str]]) -> list[str]:
        return list(dict.fromkeys(each for one in lists for each in one))

    return EndOut(
        distinct(end.names for end in ends),
        ends[0].kind,
        distinct(end.addresses for end in ends),
        distinct(end.nodes for end in ends),
    )
