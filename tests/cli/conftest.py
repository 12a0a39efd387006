"""Commands are tested as people run them: a process, its arguments, what it prints and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def podfence() -> Run:
    """Runs `podfence ARGUMENTS`; keywords are `stdin` and environment variables in capitals."""

    def run(*arguments: object, stdin: str = "", **environment: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "podfence", *map(str, arguments)],
            input=stdin,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run
