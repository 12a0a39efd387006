"""Findings that somebody has looked at and wants: by a comment in the file, or by an annotation of the policy.

# podfence:ignore PF003            on the line of the finding, or in the comments right above it
podfence.io/lint-ignore: PF003     in metadata.annotations; several ids are separated by commas or spaces

A policy that comes from an API server has no comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from policy.documents import documents
from policy.errors import UnreadableInput

ANNOTATION = "podfence.io/lint-ignore"
_COMMENT = re.compile(r"#\s*podfence:ignore((?:[\s,]+PF\d+)+)")
_ID = re.compile(r"PF\d+")


class Place(Struct, frozen=True):
    """A finding: where it is ("" and 0 without a file), its policy's namespace/name, and its id."""

    file: str
    line: int
    policy: str
    id: str


class Ignores:
    """What files say, and policies as an API server sent them. A file that can't be read again (stdin) says nothing."""

    def __init__(self, files: Iterable[str], sent: Iterable[Raw] = ()) -> None:
        self._lines: dict[str, list[str]] = {}
        self._annotated: dict[tuple[str, str], frozenset[str]] = {}
        for raw in sent:
            self._annotated.update(_annotated(msgspec.json.decode(raw), ""))
        for name in files:
            try:
                data = Path(name).read_bytes()
            except OSError:
                continue
            text = data.decode(errors="replace")
            if "podfence:ignore" in text:
                self._lines[name] = text.splitlines()
            if ANNOTATION in text:
                self._annotated.update(_annotations(data, name))

    def has(self, place: Place) -> bool:
        return self._commented(place) or place.id in self._annotated.get((place.file, place.policy), ())

    def _commented(self, place: Place) -> bool:
        lines = self._lines.get(place.file, [])
        at = place.line - 1
        if not 0 <= at < len(lines):
            return False
        if place.id in _named(lines[at]):
            return True
        while at > 0 and lines[at - 1].lstrip().startswith("#"):
            at -= 1
            if place.id in _named(lines[at]):
                return True
        return False


def _named(line: str) -> frozenset[str]:
    found = _COMMENT.search(line)
    return frozenset(_ID.findall(found[1])) if found else frozenset()


def _annotations(data: bytes, name: str) -> dict[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], frozenset[str]] = {}
    try:
        known = documents(data, name)
    except UnreadableInput:
        return found
    for document in known:
        if document.kind == "NetworkPolicy":
            body = document.body
            found.update(_annotated(msgspec.json.decode(body) if isinstance(body, Raw) else body, name))
    return found


def _annotated(policy: Any, file: str) -> dict[tuple[str, str], frozenset[str]]:
    metadata = policy.get("metadata") if isinstance(policy, Mapping) else None
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    text = annotations.get(ANNOTATION) if isinstance(annotations, Mapping) else None
    if not isinstance(text, str) or not isinstance(metadata, Mapping):
        return {}
    key = f"{metadata.get('namespace') or 'default'}/{metadata.get('name')}"
    return {(file, key): frozenset(_ID.findall(text))}
