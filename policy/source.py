"""Where an object came from, and where each of its fields stands, so that a message can point at file and line."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

Path = tuple[str | int, ...]
_LONGEST_STEP = 100


class Source(Struct, frozen=True, eq=False):
    """The place of one object in one file. `locate` finds the line of a field, or of the nearest ancestor of it that
    is written there; it may be slow, since only messages ask. Lines count from 1."""

    file: str
    line: int
    locate: Callable[[Path], int]

    def line_of(self, path: Path) -> int:
        return self.locate(path)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def path_text(path: Path) -> str:
    """A path in the API's own words: `spec.ingress[0].from[1].ipBlock.cidr`. What is no name is quoted, and cut."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif len(step) <= _LONGEST_STEP and step.replace("-", "").replace("_", "").isalnum():
            text += f".{step}" if text else step
        else:
            text += f"[{step[:_LONGEST_STEP]!r}]"
    return text
