"""Break-glass: the node is opened, and stays open through restarts, until it is closed again.

Two ways, each enough: a file in the agent's state folder, which `podfence node open` writes whether or not an agent
lives, and the annotation `podfence.io/break-glass` of the Node. Both hold the reason, for the log and for everybody
who asks for the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from policy.errors import HostRefused

ANNOTATION = "podfence.io/break-glass"
FILE = "open"
NO_REASON = "(no reason given)"


def opened_by(state_dir: str, annotations: Mapping[str, str]) -> str:
    """Who opened the node and why; "" where nobody has."""
    with suppress(OSError, UnicodeDecodeError):
        return f"podfence node open: {(Path(state_dir) / FILE).read_text().strip() or NO_REASON}"
    if ANNOTATION in annotations:
        return f"annotation {ANNOTATION} of the Node: {annotations[ANNOTATION].strip() or NO_REASON}"
    return ""


def open_node(state_dir: str, reason: str) -> None:
    try:
        Path(state_dir).mkdir(mode=0o755, parents=True, exist_ok=True)
        (Path(state_dir) / FILE).write_text(f"{reason}\n")
    except OSError as error:
        raise HostRefused(f"{Path(state_dir) / FILE}: {error.strerror}") from None


def close_node(state_dir: str) -> bool:
    """Whether it was open by the file."""
    path = Path(state_dir) / FILE
    there = path.exists()
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostRefused(f"{path}: {error.strerror}") from None
    return there
