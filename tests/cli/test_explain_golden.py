"""The questions that operators ask, each a small manifest that says its question, and the answer beside it.

After a change that is meant: `UPDATE_GOLDEN=1 python -m pytest tests/cli/test_explain_golden.py`, then read the diff.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden/explain"
CASES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))


def commands(case: str) -> list[str]:
    """Those that the manifest's comment shows."""
    lines = (GOLDEN / f"{case}.yaml").read_text().splitlines()
    return [line.removeprefix("# $ ") for line in lines if line.startswith("# $ ")]


@pytest.mark.parametrize("case", CASES)
def test_the_answer(case: str) -> None:
    said = []
    for command in commands(case):
        program, *arguments = shlex.split(command)
        assert program == "podfence"
        ran = subprocess.run(
            [sys.executable, "-m", "podfence", *arguments],
            cwd=GOLDEN,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode in (0, 3), ran.stderr
        said.append(f"$ {command}\n{ran.stderr}{ran.stdout}")
    text = "\n".join(said)
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_there_is_a_case_for_each_question() -> None:
    assert len(CASES) >= 17
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)
