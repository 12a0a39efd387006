"""Whole processes of Python and how long they take. Bytecode is cached, as it is where podfence is installed, whatever
the environment says."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from functools import cache


@cache
def _environment() -> dict[str, str]:
    """In which modules are compiled once; what writes no bytecode would compile all of them at each start."""
    folder = tempfile.mkdtemp(prefix="podfence-bytecode-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": folder}


def seconds(*arguments: str) -> float:
    """Of a whole process that ends with 0."""
    began = time.monotonic()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], _environment(), file_actions=quiet)
    _, status = os.waitpid(process, 0)
    taken = time.monotonic() - began
    if status:
        raise RuntimeError(f"{' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return taken
