"""The API objects in the bytes of a file, lists taken apart, each with its place: not yet decoded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from msgspec import Raw, Struct

from policy.errors import UnreadableInput
from policy.json_unique import SMALL, check_list, check_object
from policy.needles import Needles
from policy.read_json import Head, JsonPlace, item_head, item_offsets, item_starts, parse_json, read_head
from policy.read_yaml import parse_yaml
from policy.source import Path, Source, path_text
from policy.source_yaml import YamlPlace
from policy.validate import described

# The place of an object, by the object itself and by its path in the file.
PlaceOf = Callable[[Mapping[str, Any], Path], Source | None]


class Document(Struct):
    """One object: its `body` as bytes of JSON or as a tree. An item of a PodList need not say its kind itself."""

    kind: str
    api_version: str
    body: Raw | Mapping[str, Any]
    source: Source | None = None


def documents(data: bytes, file: str, about: Iterable[str] = ()) -> list[Document]:
    """Those in a file of YAML or JSON. UnreadableInput where it is neither, or holds something that is no object.

    `about` are the namespaces that matter, of which `default` must not be one: objects that stand nowhere are there. Of
    a long list of JSON, items that can't be of those, nor be Namespaces or Nodes, may be passed over unread."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = "" if data.isascii() else data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableInput(file, line, f"not UTF-8: byte 0x{data[error.start]:02x}") from None
    if data.lstrip()[:1] not in (b"{", b"["):
        return _from_yaml(text or data.decode(), file)
    try:
        return _from_json(data, file, tuple(about))
    except UnreadableInput as not_json:
        if file.endswith(".json"):
            raise
        # YAML in flow style opens with the same characters, and JSON documents may be separated by ---.
        try:
            return _from_yaml(text or data.decode(), file)
        except UnreadableInput:
            raise not_json from None


def _from_yaml(text: str, file: str) -> list[Document]:
    found: list[Document] = []
    parsed = parse_yaml(text, file)
    for line, tree in parsed.documents:

        def place(tree: Mapping[str, Any], _: Path, line: int = line) -> Source:
            span = parsed.spans.get(id(tree))
            # An alias may stand for a whole object that is anchored deep in another one.
            return Source(file, span.line, YamlPlace(text, span)) if span else Source(file, line, lambda _: line)

        found += expand(tree, place, file, line)
    return found


def _from_json(data: bytes, file: str, about: tuple[str, ...] = ()) -> list[Document]:
    """A list of plain objects stays undecoded, and so does one object; anything else is read whole."""
    head = read_head(data, file)
    small = len(data) <= SMALL
    if small:
        parse_json(data, file)  # so that every duplicate key is found
    start = len(data) - len(data.lstrip())
    whole = JsonPlace(data, start, len(data), data.count(b"\n", 0, start) + 1)
    if head and head.items is None:
        if not small:
            check_object(Raw(data), whole, file)
        return [Document(head.kind, head.apiVersion, Raw(data), Source(file, whole.line, whole))]
    if head and head.items is not None and head.kind.endswith("List"):
        if about and not small and head.kind != "NodeList":  # whose items say nothing that tells them
            found = _json_items_about(data, file, head, about)
            if found is not None:
                return found
        heads = [item_head(item) for item in head.items]
        if all(item and item.items is None for item in heads):
            return list(_json_items(data, file, head, [item for item in heads if item], small))

    def place(_: Mapping[str, Any], path: Path) -> Source:
        return Source(file, whole(path), partial(_line_below, whole, path))

    return list(expand(parse_json(data, file), place, file, whole.line))


def _json_items(data: bytes, file: str, head: Head, items: list[Head], small: bool) -> Iterator[Document]:
    raws = head.items or []
    spans: list[tuple[int, int]] = []
    for raw, item, (start, line) in zip(raws, items, item_offsets(data, raws), strict=True):
        place = JsonPlace(data, start, start + len(memoryview(raw)), line)
        if not small:
            check_object(raw, place, file)
            spans.append((start, place.end))
        yield Document(*_typed(item.kind, item.apiVersion, head.kind, head.apiVersion), raw, Source(file, line, place))
    if not small:
        check_list(data, spans, file)


def _json_items_about(data: bytes, file: str, head: Head, about: tuple[str, ...]) -> list[Document] | None:
    """Those that could be of these namespaces, be Namespaces or Nodes; None where the list must be read whole.

    An item of a namespace holds its name in quotes, or an escape that could stand for it: one that holds neither is of
    another. So nothing that matters is passed over, however an item is written."""
    raws = head.items or []
    # `"Node` is how Nodes and lists of them begin, and some other words, which are read for nothing.
    needles = Needles(data, [*(json.dumps(name).encode() for name in about), b'"Node', rb"\u"])
    found: list[Document] = []
    spans: list[tuple[int, int]] = []
    line, counted = 1, 0
    for raw, start in zip(raws, item_starts(data, raws), strict=True):
        if start < 0:
            return None
        end = start + len(memoryview(raw))
        spans.append((start, end))
        if not needles.any_between(start, end):
            continue
        item = item_head(raw)
        if item is None or item.items is not None:
            return None
        line += data.count(b"\n", counted, start)
        counted = start
        place = JsonPlace(data, start, end, line)
        check_object(raw, place, file)
        kind = _typed(item.kind, item.apiVersion, head.kind, head.apiVersion)
        found.append(Document(*kind, raw, Source(file, line, place)))
    check_list(data, spans, file)
    return found


def _line_below(whole: JsonPlace, prefix: Path, path: Path) -> int:
    return whole((*prefix, *path))


def _typed(kind: str, api_version: str, list_kind: str, list_version: str) -> tuple[str, str]:
    """Items of a typed list, a PodList, may leave out what the list says, but not say another version alone."""
    if kind or list_kind == "List" or api_version not in ("", list_version):
        return kind, api_version
    return list_kind.removesuffix("List"), api_version or list_version


def expand(tree: Any, place: PlaceOf, file: str, line: int = 1, path: Path = ()) -> Iterator[Document]:
    """The objects in one value of a file: itself, or the items of the list that it is. `line` is its parent's."""
    if isinstance(tree, list) and not path:
        for at, entry in enumerate(tree):
            yield from expand(entry, place, file, line, (at,))
        return
    if not isinstance(tree, Mapping):
        raise UnreadableInput(file, line, f"{_at(path)}{described(tree)}, expected an API object")
    kind, version, source = _text(tree.get("kind")), _text(tree.get("apiVersion")), place(tree, path)
    if not (kind.endswith("List") and "items" in tree):
        yield Document(kind, version, tree, source)
        return
    line, items = source.line if source else line, tree["items"]
    if "items" in path or not isinstance(items, list | None):
        reason = "a list in a list" if "items" in path else f"items: {described(items)}"
        raise UnreadableInput(file, line, f"{_at(path)}{reason}, expected API objects")
    for at, entry in enumerate(items or []):
        for found in expand(entry, place, file, line, (*path, "items", at)):
            found.kind, found.api_version = _typed(found.kind, found.api_version, kind, version)
            yield found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _at(path: Path) -> str:
    return f"{path_text(path)}: " if path else ""
