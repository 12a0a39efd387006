"""Whole runs of the command line, start of the interpreter and imports included."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.record import Figure, Size, figure
from podfence.load import load

EXAMPLE = Path(__file__).parents[1] / "manifests/examples/shop"


def measure(size: Size) -> Iterator[Figure]:
    runs, flows = (9, 10_000) if size == "full" else (2, 100)
    files = ["-f", str(EXAMPLE)]
    yield figure("podfence --help", _times(runs, ["--help"]), "ms")
    explain = ["explain", "shop/web-0", "shop/web-1", "--port", "8080/tcp", *files]
    yield figure("podfence explain, on the example", _times(runs, explain), "ms")
    verdicts = ["verdicts", *files, "--flows", "-"]
    yield figure("podfence verdicts, on the example", _times(runs, verdicts, _flows(flows)), "ms", flows=flows)


def _times(runs: int, arguments: Sequence[str], stdin: str = "") -> list[float]:
    """Milliseconds from start to end of each run."""
    found = []
    for _ in range(runs):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "podfence", *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        found.append((time.monotonic() - began) * 1000)
        if done.returncode:
            raise RuntimeError(f"podfence {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return found


def _flows(count: int) -> str:
    draw = random.Random(1)
    pods = [pod.key for pod in load([str(EXAMPLE)]).cluster.pods]
    asked = (
        {"src": draw.choice(pods), "dst": draw.choice(pods), "protocol": "TCP", "port": draw.randrange(1, 65536)}
        for _ in range(count)
    )
    return "".join(f"{json.dumps(flow)}\n" for flow in asked)
