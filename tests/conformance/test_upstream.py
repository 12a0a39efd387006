"""All 48 cases of upstream's end-to-end suite: through evaluator and simulated rules, and with real packets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import judge
from tests.conformance.kernel import Packets
from tests.conformance.upstream import cases, steps

CASES = cases()
LISTED = Path(__file__).parents[3] / "shared/conformance/upstream-e2e.tsv"
each_case = pytest.mark.parametrize("case", CASES, ids=[f"{case['number']:02} {case['title']}" for case in CASES])


@pytest.fixture(scope="module")
def packets() -> Iterator[Packets]:
    with Packets() as running:
        yield running


@each_case
def test_verdicts_and_rules(case: dict[str, Any]) -> None:
    for step in steps(case):
        assert step.expected
        assert list(judge.wrong(step, by_half=False)) == []


@pytest.mark.kernel
@each_case
def test_real_packets_in_both_families_and_backends(case: dict[str, Any], packets: Packets) -> None:
    for step in steps(case):
        assert list(packets.wrong(step)) == []


def test_there_are_48() -> None:
    assert [case["number"] for case in CASES] == list(range(1, 49))


@pytest.mark.skipif(not LISTED.exists(), reason=f"others' list of the cases is not beside the checkout: {LISTED}")
def test_none_is_missing_or_has_other_pods() -> None:
    listed = [line.split("\t") for line in LISTED.read_text().splitlines()[1:]]
    assert [(str(case["number"]), case["pods"]) for case in CASES] == [(row[0], row[2]) for row in listed]
    for case, row in zip(CASES, listed, strict=True):
        assert ("step2" in row[4] or "then" in row[3]) is (len(case["steps"]) > 1), row[1]
