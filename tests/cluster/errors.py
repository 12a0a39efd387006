"""What goes wrong with a test cluster: one error, whose message ends with what the program said last."""

from __future__ import annotations

from pathlib import Path


class ClusterFailed(Exception):
    """The cluster, or a program of it, did not do what was asked."""


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for a message; says so where there is none."""
    try:
        text = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text[-lines:])
