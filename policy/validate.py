"""Findings about one object, and the checks that every kind shares. Nothing here decides what an object means."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from policy.errors import Problem, problem
from policy.labels import quoted
from policy.source import Path, Source

# A plain dict is known at once; asking the abstract class takes ten times as long, dozens of times a policy.
MAPPING = (dict, Mapping)


class Report:
    """Collects what is wrong with one object, `name` of which may be learnt later. Each field is complained of once,
    and nothing below it any more: what follows from it is no news."""

    def __init__(self, kind: str, source: Source | None, name: str = "") -> None:
        self.kind = kind
        self.source = source
        self.name = name
        self._reasons: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def about(self, step: str) -> bool:
        """Whether something is wrong with a field called `step`, or below it."""
        return any(step in path for path in self._reasons)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem(self.source, self.kind, self.name, path, reason) for path, reason in self._reasons.items())

    def say(self, path: Path, reason: str) -> None:
        if not any(path[:length] in self._reasons for length in range(len(path) + 1)):
            self._reasons[path] = reason

    def wrong_type(self, path: Path, value: Any, expected: str) -> None:
        self.say(path, f"{described(value)}, expected {expected}")

    def unknown_fields(self, value: Mapping[Any, Any], path: Path, known: Collection[str]) -> bool:
        """Whether `value` has fields that are not `known`; case matters, as for the API server."""
        unknown = [key for key in value if key not in known]
        for key in unknown:
            self.say((*path, str(key)), unknown_field(str(key), known))
        return bool(unknown)

    def items(self, value: Any, path: Path) -> list[tuple[Path, Any]]:
        """The entries of a list with their paths. Absent and null are an empty list, as the API has it."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong_type(path, value, "a list")
            return []
        return [((*path, at), entry) for at, entry in enumerate(value)]

    def mappings(self, value: Any, path: Path) -> list[tuple[Path, Mapping[str, Any] | None]]:
        """Entries that must be mappings; None for one that is not. A null entry is none either, though the API
        server reads it as `{}`: as a rule or a port that would be everything."""
        entries = self.items(value, path)
        for at, entry in entries:
            if not isinstance(entry, MAPPING):
                self.wrong_type(at, entry, "a mapping")
        return [(at, entry if isinstance(entry, MAPPING) else None) for at, entry in entries]


def unknown_field(key: str, known: Collection[str]) -> str:
    from difflib import get_close_matches  # slow to import, and rarely needed

    folded = {field.lower(): field for field in known}
    close = get_close_matches(key.lower(), folded, n=1, cutoff=0.6)
    if close:
        return f"unknown field, did you mean {folded[close[0]]!r}?"
    return f"unknown field, expected one of {', '.join(sorted(known))}"


def described(value: Any) -> str:
    """What a value of the wrong kind is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {'true' if value else 'false'}"
    if isinstance(value, (int, float)):
        return f"the number {str(value)[:40]}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return "a mapping" if isinstance(value, MAPPING) else "a list" if isinstance(value, (list, tuple)) else "unknown"
