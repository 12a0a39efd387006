"""The outputs in docs/explain.md are those of real runs, now."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_explain_golden import GOLDEN

PAGE = Path(__file__).parents[2] / "docs/explain.md"
BLOCKS = [
    (match[1], match[2])
    for match in re.finditer(r"```\n\$ (podfence explain [^\n]*)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if "--live" not in match[1]
]


@pytest.mark.parametrize(("command", "said"), BLOCKS, ids=[command.rpartition("-f ")[2] for command, _ in BLOCKS])
def test_the_page_shows_what_is_printed(command: str, said: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "podfence", *shlex.split(command)[1:]],
        cwd=GOLDEN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr + ran.stdout == said


def test_the_page_has_outputs() -> None:
    assert len(BLOCKS) >= 7
