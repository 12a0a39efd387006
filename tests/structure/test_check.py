"""`make check` says everything that is wrong at once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("check", "format", "mypy", "lint-imports")


@pytest.mark.parametrize("failing", [(), *((tool,) for tool in TOOLS), TOOLS])
def test_check_runs_every_tool_and_fails_if_any_does(tmp_path: Path, failing: tuple[str, ...]) -> None:
    def program(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / path).chmod(0o755)

    fails = " ".join(failing)
    program("tools/setup", "exit 0")
    which = 'tool=$2; [ "$2" = ruff ] && tool=$3'
    program(".venv/bin/python", f'{which}; echo "ran $tool"; case " {fails} " in *" $tool "*) exit 1;; esac')
    program(".venv/bin/lint-imports", f'echo "ran lint-imports"; exit {int("lint-imports" in failing)}')
    shutil.copy(ROOT / "Makefile", tmp_path)
    ran = subprocess.run(["make", "check"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in ran.stdout.splitlines() if line.startswith("ran ")] == [f"ran {tool}" for tool in TOOLS]
    assert (ran.returncode != 0) is bool(failing)
