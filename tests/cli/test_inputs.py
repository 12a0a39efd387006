"""Manifests and flows that come through pipes, and a stdin that is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

POD = "{apiVersion: v1, kind: Pod, metadata: {name: web}}"


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash in which `podfence` is the command, and `$1`, `$2`… are the arguments."""
    begun = f'podfence() {{ "{sys.executable}" -m podfence "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", begun, "bash", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "line",
    [
        f"podfence validate -f <(echo '{POD}')",
        f"echo '{POD}' | podfence validate -f /dev/stdin",
        f"podfence validate -f /dev/stdin <<< '{POD}'",
        f"podfence validate -f <(echo '{POD}') -f <(echo '{POD.replace('web', 'api')}')",
        f"echo '{POD}' | podfence explain web web --port 80 -f /dev/stdin",
        f'podfence verdicts -f <(echo \'{POD}\') --flows <(echo \'{{"src": "web", "dst": "web"}}\')',
    ],
)
def test_pipes_are_read_like_files(line) -> None:
    ran = shell(line)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "line",
    [
        "podfence validate -f - <&-",
        "podfence explain web web --port 80 -f - <&-",
        "podfence lab up -f - <&-",
        'podfence verdicts -f "$1" --flows - <&-',
    ],
)
def test_a_closed_stdin_is_a_usage_error(line, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD)
    ran = shell(line, tmp_path / "pod.yaml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "stdin is closed" in ran.stderr
    assert ran.stderr.count("\n") == 1
