"""The import contracts hold, cover what they should, and can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("policy", "compiler", "enforcer", "podfence", "lab")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_contracts_hold(copy: Path) -> None:
    ran = lint_imports(copy)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("policy/model.py", "import compiler", "Data flows one way"),
        ("compiler/__init__.py", "import enforcer", "Data flows one way"),
        ("enforcer/__init__.py", "import podfence.output", "Data flows one way"),
        ("lab/__init__.py", "import compiler", "The lab knows objects only"),
        ("enforcer/__init__.py", "import lab", "No layer reaches into the lab"),
        ("enforcer/keeping/keep.py", "import enforcer.agent.loop", "Only the command line starts an agent"),
        ("policy/cidr.py", "import socket", "policy, compiler and rules are pure"),
        ("compiler/__init__.py", "import threading", "policy, compiler and rules are pure"),
        ("compiler/__init__.py", "import time", "policy, compiler and rules are pure"),
        ("enforcer/rules/plan.py", "import subprocess", "policy, compiler and rules are pure"),
        ("enforcer/readback/meaning.py", "import enforcer.kernel.iptables", "The enforcer's rooms"),
        ("enforcer/rules/layout.py", "import enforcer.readback.verify", "The enforcer's rooms"),
    ],
)
def test_each_contract_can_fail(copy: Path, module: str, line: str, contract: str) -> None:
    with (copy / module).open("a") as file:
        file.write(f"\n{line}\n")
    ran = lint_imports(copy)
    assert ran.returncode == 1
    broken = [each for each in ran.stdout.splitlines() if each.endswith("BROKEN")]
    assert [each for each in broken if each.startswith(contract)], ran.stdout
