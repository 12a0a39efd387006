"""YAML text to plain values, as Kubernetes reads it: YAML 1.1 words and numbers as go-yaml v2 resolves them.

libyaml's events are turned into dicts, lists and scalars here, so that a key that stands twice in a mapping is an
error, an alias costs what it stands for, and depth is bounded. Lines of fields are looked up only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct
from yaml import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    MarkedYAMLError,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml._yaml import CParser
from yaml.reader import ReaderError

from policy.errors import UnreadableInput
from policy.labels import quoted
from policy.yaml_scalars import resolve

MAX_DEPTH = 200
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
# libyaml reads ahead of its events, and newer ones have a limit of their own: 1,000 levels of brackets.
_LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"
# How many values aliases may add to those that are written out: ample for hand-made files, nothing for a bomb.
MAX_ALIASED = 100_000
_OBJECT_DEPTH = 4  # of the objects in a sequence of Lists


_TAG = "tag:yaml.org,2002:"
_TAGS: dict[str, tuple[type, ...]] = {
    _TAG + "bool": (bool,),
    _TAG + "int": (int,),
    _TAG + "float": (int, float),
    _TAG + "null": (type(None),),
}


class Span(NamedTuple):
    """Where a mapping stands in the text: characters from `start` to `end`; `line` counts from 1."""

    start: int
    line: int
    column: int
    end: int


class Parsed(Struct):
    """The documents of a text in order, each with its line, empty ones left out; and the places of mappings near their
    root by `id`."""

    documents: list[tuple[int, Any]]
    spans: dict[int, Span]


class _Open:
    """A container that is still being filled. `key` is the pending key of a mapping, `lines` its keys so far."""

    __slots__ = ("anchor", "before", "key", "lines", "mark", "merge", "value")

    def __init__(self, value: Any, mark: Any, anchor: str | None, before: int) -> None:
        self.value = value
        self.mark = mark
        self.anchor = anchor
        self.before = before
        self.key: str | None = None
        self.merge = False
        self.lines: dict[str, int] = {}


class _Anchored(NamedTuple):
    value: Any
    size: int


def parse_yaml(text: str, file: str) -> Parsed:
    """The documents in `text`. UnreadableInput where it is no YAML, or one that Kubernetes would not read."""
    builder = _Builder(file)
    try:
        parser = CParser(text)
        while (event := parser.get_event()) is not None:
            handle = builder.handlers.get(type(event))
            if handle:
                handle(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        if error.problem == _LIBYAML_TOO_DEEP:
            raise UnreadableInput(file, line, _TOO_DEEP) from None
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise UnreadableInput(file, line, f"not YAML: {reason}") from None
    except ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise UnreadableInput(file, line, f"not YAML: {error.reason}") from None
    return Parsed(builder.documents, builder.spans)


class _Builder:
    """Takes the events of one text in order. `count` is how many values it stands for, aliases counted in full."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[tuple[int, Any]] = []
        self.spans: dict[int, Span] = {}
        self.stack: list[_Open] = []
        self.anchors: dict[str, _Anchored | None] = {}
        self.count = 0
        self.aliased = 0
        self.handlers: dict[type[Any], Callable[[Any], None]] = {
            ScalarEvent: self.scalar,
            MappingStartEvent: self.start_mapping,
            SequenceStartEvent: self.start_sequence,
            MappingEndEvent: self.end,
            SequenceEndEvent: self.end,
            AliasEvent: self.alias,
            DocumentStartEvent: self.start_document,
            DocumentEndEvent: self.end_document,
        }

    def fail(self, event: Any, reason: str) -> UnreadableInput:
        return UnreadableInput(self.file, event.start_mark.line + 1, reason)

    def start_document(self, event: Any) -> None:
        self.anchors = {}
        self.stack = [_Open([], event.end_mark, None, self.count)]

    def end_document(self, _event: Any) -> None:
        root = self.stack.pop()
        self.documents += [(root.mark.line + 1, value) for value in root.value if value is not None]

    def scalar(self, event: Any) -> None:
        value = event.value
        plain, merge = event.implicit[0], False
        if plain:
            merge = value == "<<"
            value = resolve(value)
        elif event.tag and not event.implicit[1]:
            value = self.tagged(event)
        self.count += 1
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(value, 1)
        self.add(value, event, merge)

    def tagged(self, event: Any) -> Any:
        """A scalar with a tag of its own. Tags that mean nothing to Kubernetes leave the text as it is."""
        kinds = _TAGS.get(event.tag)
        if not kinds:
            return event.value
        value = resolve(event.value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.fail(event, f"not a !!{event.tag.rpartition(':')[2]}: {quoted(event.value)}")
        return value

    def start_mapping(self, event: Any) -> None:
        self.push({}, event)

    def start_sequence(self, event: Any) -> None:
        self.push([], event)

    def push(self, value: Any, event: Any) -> None:
        if len(self.stack) > MAX_DEPTH:
            raise self.fail(event, _TOO_DEEP)
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Open(value, event.start_mark, event.anchor, self.count))
        self.count += 1

    def end(self, event: Any) -> None:
        done = self.stack.pop()
        if len(self.stack) <= _OBJECT_DEPTH and isinstance(done.value, dict):
            mark = done.mark
            self.spans[id(done.value)] = Span(mark.index, mark.line + 1, mark.column, event.end_mark.index)
        if done.anchor:
            self.anchors[done.anchor] = _Anchored(done.value, self.count - done.before)
        self.add(done.value, event, False)

    def alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            raise self.fail(event, f"the alias *{event.anchor} has no anchor before it")
        anchored = self.anchors[event.anchor]
        if anchored is None:
            raise self.fail(event, f"the alias *{event.anchor} stands inside itself")
        self.count += anchored.size
        self.aliased += anchored.size
        if self.aliased > MAX_ALIASED:
            raise self.fail(event, f"aliases stand for more than {MAX_ALIASED} values")
        self.add(anchored.value, event, False)

    def add(self, value: Any, event: Any, merge: bool) -> None:
        """A finished value goes into the container around it: as an item, as a key, or as the value of a key."""
        top = self.stack[-1]
        container = top.value
        if isinstance(container, list):
            container.append(value)
        elif top.key is None:
            key = self.key(value, event)
            top.key, top.merge = key, merge
            if key in top.lines:
                reason = f"the key {quoted(key)} stands twice in one mapping, first on line {top.lines[key]}"
                raise self.fail(event, reason)
            top.lines[key] = event.start_mark.line + 1
        else:
            if top.merge:
                self.merge(top, value, event)
            else:
                container[top.key] = value
            top.key = None

    def key(self, value: Any, event: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return str(value)
        raise self.fail(event, "a mapping's key must be text")

    def merge(self, into: _Open, value: Any, event: Any) -> None:
        """`<<`: keys that the mapping itself writes win. Readers differ where they stand before it: an error."""
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise self.fail(event, "<< must name a mapping, or a list of mappings")
        for source in sources:
            for key in source.keys() & into.lines.keys():
                if into.value.get(key) != source[key]:
                    raise self.fail(event, f"<< must stand before the key {quoted(key)}, which overrides it")
            for key, merged in source.items():
                into.value.setdefault(key, merged)
