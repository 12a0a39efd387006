"""The list of mutants is complete and fits the code; `python -m tests.mutation.run` tries them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.run import ROOT

# 32 and 33, about changes and new pods, come with what changes rules in place.
ROWS = set(range(1, 41)) - {32, 33}


def test_every_row_has_a_mutant() -> None:
    assert {each.row for each in mutants()} == ROWS


def test_every_row_has_a_test_of_its_own() -> None:
    named = re.findall(r"^def test_row_(\d\d)_", "\n".join(_sources()), re.MULTILINE)
    assert {int(number) for number in named} == ROWS


def test_no_two_tests_have_one_name() -> None:
    for source in _sources():
        names = Counter(re.findall(r"^def (test_\w+)", source, re.MULTILINE))
        assert max(names.values()) == 1


def _sources() -> list[str]:
    return [file.read_text() for file in Path(ROOT, "tests/semantics").glob("test_*.py")]


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: f"row {mutant.row} {mutant.breaks}")
def test_the_mutant_fits_the_code(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.source) == 1
    compile(text.replace(mutant.source, mutant.replacement), mutant.file, "exec")
