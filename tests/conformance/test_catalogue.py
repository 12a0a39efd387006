"""Our own truth table: by evaluator and simulated rules, and a spread of it with real packets."""

from __future__ import annotations

import pytest

from tests.conformance import judge
from tests.conformance.catalogue import PEERS, PORTS, WHOLE, cases
from tests.conformance.kernel import Packets
from tests.conformance.tables import flow
from tests.oracle import Oracle

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_every_case_by_evaluator_and_simulated_rules(part: int) -> None:
    asked = 0
    for case in list(cases())[part::PARTS]:
        assert list(judge.wrong(case)) == [], case.name
        asked += len(case.expected)
    assert asked > 10_000


def test_the_oracle_agrees_with_what_was_written_down() -> None:
    for case in list(cases())[::7]:
        oracle = Oracle(case.objects)
        for each in case.expected:
            assert oracle.verdict(flow(case.objects, each, 4)) == (each.ingress, each.egress), f"{case.name}: {each}"


@pytest.mark.kernel
@pytest.mark.slow
def test_every_peers_and_every_ports_with_real_packets() -> None:
    """A diagonal through the table: each row and each column at least once, in both directions."""
    table = list(cases())
    columns = 2 * len(PORTS)
    chosen = [
        table[row * columns + (2 * row + direction) % columns] for row in range(len(PEERS)) for direction in (0, 1)
    ]
    with Packets() as packets:
        for case in [*chosen, *table[-len(WHOLE) :]]:
            assert list(packets.wrong(case)) == [], case.name
