"""SECURITY.md names a test for each promise; each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_it_exists(file: str, name: str) -> None:
    assert name.startswith("test_") and name in functions_of(file)


def test_each_promise_has_one() -> None:
    section = TEXT.partition("## Promises")[2].partition("## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 10
    for row in rows:
        assert "::test_" in row, row


def test_links_lead_somewhere() -> None:
    for page in ("SECURITY.md", "docs/attacks.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), (page, target)
