"""JSON text to plain values or to raw items, each of which msgspec then decodes by itself.

A list of objects, as `kubectl get -o json` writes it, is cut into its items without decoding them. What that fast
way cannot take is read whole; both ways give the same objects. Lines are found only when a message asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from policy.errors import UnreadableInput
from policy.labels import quoted
from policy.source import Path


class Head(Struct):
    """What tells an object's kind. `items` are those of a list, undecoded; None in any other object."""

    kind: str = ""
    apiVersion: str = ""  # noqa: N815 (the API's own spelling)
    items: list[Raw] | None = None


_HEAD = msgspec.json.Decoder(Head)
# As the API server and kubectl write an item: sorted keys, so that version and kind come first.
_SORTED_HEAD = re.compile(rb'\{\s*"apiVersion":\s*"([\w./-]+)",\s*"kind":\s*"(\w+)"')
_BETWEEN_ITEMS = re.compile(rb"[\s,]*")
_MALFORMED = re.compile(r"^JSON is malformed: | \(byte (\d+)\)$")


def read_head(data: bytes, file: str) -> Head | None:
    """The head of the one value in a file; None where it must be read whole, being no object or an odd one.
    UnreadableInput where it is no JSON."""
    try:
        return _HEAD.decode(data)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as error:
        reason = str(error)
        offset = re.search(r"\(byte (\d+)\)$", reason)
        line = data.count(b"\n", 0, int(offset[1]) if offset else len(data.rstrip())) + 1
        reason = "it ends in the middle of a value" if "truncated" in reason else _MALFORMED.sub("", reason)
        raise UnreadableInput(file, line, f"not JSON: {reason}") from None
    except RecursionError:
        raise UnreadableInput(file, 1, "nested too deeply") from None


def item_head(item: Raw) -> Head | None:
    """The head of an item of a list, as `read_head` gives it."""
    match = _SORTED_HEAD.match(item)
    if match and not match[2].endswith(b"List"):
        return Head(match[2].decode(), match[1].decode())
    try:
        return _HEAD.decode(item)
    except msgspec.ValidationError:
        return None


def item_offsets(data: bytes, items: Iterable[Raw]) -> Iterator[tuple[int, int]]:
    """Where each item of a list starts in `data`: its offset, and its line counted from 1."""
    position, counted, line = max(data.find(b'"items"'), 0), 0, 1
    for item in map(bytes, items):
        # Only the first must be searched for; searching for something this long is slow.
        position = _BETWEEN_ITEMS.match(data, position).end()  # type: ignore[union-attr]
        if not data.startswith(item, position):
            position = data.find(item, position)
        line += data.count(b"\n", counted, position)
        counted = position
        yield position, line
        position += len(item)


def item_starts(data: bytes, items: Sequence[Raw]) -> Iterator[int]:
    """Where each item starts, without a look at most of them: they follow each other. -1 where that is not so."""
    first = bytes(items[0]) if items else b""
    position = data.find(first, max(data.find(b'"items"'), 0))
    for item in items:
        position = _BETWEEN_ITEMS.match(data, position).end() if position >= 0 else -1  # type: ignore[union-attr]
        if position < 0 or data[position : position + 64] != memoryview(item)[:64]:
            position = -1
        yield position
        position += len(memoryview(item)) if position >= 0 else 0


def parse_json(data: bytes | Raw, file: str, line: int = 1) -> Any:
    """A value whole, which starts on `line`. UnreadableInput where a key stands twice in one object, which JSON
    readers settle silently."""
    text = bytes(data).decode()
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _Twice as error:
        raise UnreadableInput(file, line + _line_of_duplicate(text), str(error)) from None
    except RecursionError:
        raise UnreadableInput(file, line, "nested too deeply") from None
    except ValueError as error:
        raise UnreadableInput(file, line, f"not JSON: {error}") from None


class _Twice(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Twice(f"the key {quoted(twice)} stands twice in one object")
    return tree


def _line_of_duplicate(text: str) -> int:
    seen: set[Path] = set()
    for path, offset in _fields(text):
        if path in seen:
            return text.count("\n", 0, offset)
        seen.add(path)
    return 0


class JsonPlace(Struct, frozen=True, eq=False):
    """Locates the fields of the value that stands in `data` from `start`, on `line`, to `end`."""

    data: bytes
    start: int
    end: int
    line: int

    def __repr__(self) -> str:
        return "…"  # not the whole file, in the failure of every test

    def __call__(self, path: Path) -> int:
        lines = _lines(self)
        return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), self.line)


@lru_cache(maxsize=64)
def _lines(place: JsonPlace) -> dict[Path, int]:
    text = place.data[place.start : place.end].decode()
    lines: dict[Path, int] = {}
    line, counted = place.line, 0
    for path, offset in _fields(text):
        line += text.count("\n", counted, offset)
        counted = offset
        lines.setdefault(path, line)
    return lines


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]|[^\s\[\]{},:"]+')


def _fields(text: str) -> Iterator[tuple[Path, int]]:
    """The path of every key and list item of valid JSON, in order, with its offset."""
    steps: list[Any] = []  # one for each open container; None where an object's next key is due
    for match in _TOKEN.finditer(text):
        first = match[0][0]
        step = steps[-1] if steps else ""
        if first in "}]":
            steps.pop()
        elif first == ",":
            steps[-1] = step + 1 if isinstance(step, int) else None
        elif step is None:
            steps[-1] = json.loads(match[0])
            yield tuple(steps), match.start()
        else:
            if isinstance(step, int):
                yield tuple(steps), match.start()
            if first in "{[":
                steps.append(None if first == "{" else 0)
