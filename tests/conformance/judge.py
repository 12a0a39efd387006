"""What the evaluator and the simulated rules say of a case, against what is expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.conformance.tables import FAMILIES, Case, Expected, Family, dual, flow
from tests.engine import Engine


def wrong(case: Case, families: Sequence[Family] = FAMILIES, by_half: bool = True) -> Iterator[tuple[Expected, str]]:
    """Each verdict that is missed, once, and what was said instead. Without `by_half` it is expected as a whole."""
    objects = dual(case.objects)
    engine = Engine(objects)
    for expected in case.expected:
        for family in families:
            asked = flow(objects, expected, family)
            ingress, egress = (half.allowed for half in engine.halves(asked))
            agrees = (ingress and egress) == expected.passes
            if not agrees or (by_half and (ingress, egress) != (expected.ingress, expected.egress)):
                yield expected, f"IPv{family} verdict: ingress {ingress}, egress {egress}"
                break
            if engine.simulated(asked) != expected.passes:
                yield expected, f"IPv{family} rules: {'denied' if expected.passes else 'passes'}"
                break
