"""Every benchmark works, in small; how fast anything is says only a full run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record import read
from benchmarks.run import names

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[2]
PATIENCE = 120


@pytest.mark.parametrize("name", names())
def test_a_quick_run_records_figures(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.run", name, "--size", "quick", "--into", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    # Ends with 1 where a target is missed, which a run of this size may.
    assert not done.stderr
    assert done.returncode in (0, 1)
    found = read(tmp_path)[name]
    assert found.figures
    for figure in found.figures:
        assert 0 <= figure.low <= figure.median <= figure.high
        assert figure.samples >= 1
    kinds = [repr((figure.what, sorted(figure.case.items()))) for figure in found.figures]
    assert len(kinds) == len(set(kinds)), "two figures of the same thing"
