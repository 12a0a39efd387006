"""Lines of fields in YAML text: the mapping that holds them is composed again, only when a message asks."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct
from yaml import MappingNode, Node, SequenceNode, YAMLError
from yaml._yaml import CParser

from policy.read_yaml import Span
from policy.source import Path


class YamlPlace(Struct, frozen=True, eq=False):
    """Locates the fields of the mapping at `span` of `text`."""

    text: str
    span: Span

    def __repr__(self) -> str:
        return "…"  # not the whole file, in the failure of every test

    def __call__(self, path: Path) -> int:
        node = _compose(self)
        line = self.span.line
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line = self.span.line + found[0].start_mark.line
            node = found[1]
        return line


class _Composer(CParser):
    """libyaml's composer without tag resolution: only keys and places matter here."""

    def resolve(self, kind: type[Node], value: object, implicit: object) -> str:
        return ""

    def descend_resolver(self, parent: object, index: object) -> None:
        pass

    def ascend_resolver(self) -> None:
        pass


@lru_cache(maxsize=64)
def _compose(place: YamlPlace) -> Node | None:
    """None where the mapping does not stand alone, as when it uses an anchor from outside."""
    text, span = place.text, place.span
    return composed(" " * span.column + text[span.start : span.end])


def composed(text: str) -> Node | None:
    """The nodes of the one document in `text`, with their places; None where it is none, or does not stand alone."""
    try:
        return _Composer(text).get_single_node()
    except YAMLError:
        return None


def _child(node: Node | None, step: str | int) -> tuple[Node, Node] | None:
    """The node that shows where the field stands (its key, or itself as an item), and its value."""
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return _fields(node).get(step) if isinstance(node, MappingNode) else None


@lru_cache(maxsize=1024)
def _fields(node: MappingNode) -> dict[object, tuple[Node, Node]]:
    """Its keys and values, those that it merges behind its own."""
    fields = {key.value: (key, value) for key, value in node.value}
    for merged in _merged(fields["<<"][1]) if "<<" in fields else ():
        fields = {**_fields(merged), **fields}
    return fields


def _merged(value: Node) -> list[MappingNode]:
    sources = value.value if isinstance(value, SequenceNode) else [value]
    return [source for source in sources if isinstance(source, MappingNode)]
