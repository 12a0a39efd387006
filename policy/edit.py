"""Small edits of the text of one object in a file: everything that is not changed stays as it was written, comments,
order and style too."""

from __future__ import annotations

import json
from typing import Any

import yaml
from msgspec import Struct
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from policy.read_json import JsonPlace
from policy.source import Path, Source
from policy.source_yaml import YamlPlace, composed
from policy.yaml_scalars import resolve


class Append(Struct, frozen=True):
    """`value` becomes the last entry of the list at `path`, which is made where it is absent or null."""

    path: Path
    value: Any


class Remove(Struct, frozen=True):
    """The entry at `path`, which is that of a list, goes; where it is the only one the list is empty then."""

    path: Path


Edit = Append | Remove


class NotEditable(Exception):
    """The text is of a form that these edits can't be made in."""


def edit(source: Source, edits: list[Edit]) -> tuple[str, str]:
    """The whole text of the file that `source` is of, before and after."""
    place = source.locate
    if isinstance(place, YamlPlace):
        whole, start, end, column, as_json = place.text, place.span.start, place.span.end, place.span.column, False
    elif isinstance(place, JsonPlace):
        whole = place.data.decode()
        start, end = (len(place.data[:at].decode()) for at in (place.start, place.end))
        column, as_json = 0, True
    else:
        raise NotEditable("the object does not stand by itself in the file")
    text = " " * column + whole[start:end]
    # From the back, so that what stands before keeps its place: paths count as they are in the old text.
    for each in sorted(edits, key=lambda one: [str(step).zfill(6) for step in one.path], reverse=True):
        text = _one(text, each, as_json)
    return whole, whole[:start] + text[column:] + whole[end:]


def _one(text: str, change: Edit, as_json: bool) -> str:
    root = composed(text)
    if root is None:
        raise NotEditable("the object uses what is defined outside of it")
    if isinstance(change, Remove):
        return _removed(text, root, change.path)
    parent, key = _at(root, change.path[:-1]), change.path[-1]
    if not isinstance(parent, MappingNode):
        raise NotEditable("there is nothing to append to")
    for known, value in parent.value:
        if known.value == key:
            if isinstance(value, SequenceNode):
                return _appended(text, value, change.value, as_json)
            if isinstance(value, ScalarNode) and value.value in ("", "null", "~"):
                at = value.start_mark.index
                return f"{text[:at].rstrip()} [{_flow(change.value, as_json)}]{text[value.end_mark.index :]}"
            raise NotEditable("what should be a list is none")
    return _with_key(text, parent, str(key), [change.value], as_json)


def _at(node: Node, path: Path) -> Node:
    for step in path:
        if isinstance(node, SequenceNode) and isinstance(step, int):
            node = node.value[step]
        elif isinstance(node, MappingNode):
            found = [value for key, value in node.value if key.value == step]
            if not found:
                raise NotEditable(f"{step} is not written there")
            node = found[0]
        else:
            raise NotEditable(f"{step} is not written there")
    return node


def _appended(text: str, node: SequenceNode, value: Any, as_json: bool) -> str:
    if node.flow_style:
        at = node.end_mark.index - 1
        head = text[:at].rstrip()
        gap = text[len(head) : at]
        comma = ", " if node.value else ""
        if node.value and "\n" in gap and "\n" in text[node.start_mark.index : node.value[0].start_mark.index]:
            comma = ",\n" + " " * node.value[-1].start_mark.column  # an entry a line
        return f"{head}{comma}{_flow(value, as_json)}{gap}{text[at:]}"
    at = _end_of(text, node.value[-1])
    return f"{text[:at]}\n{_block([value], node.start_mark.column)}{text[at:]}"


def _with_key(text: str, node: MappingNode, key: str, value: Any, as_json: bool) -> str:
    if node.flow_style:
        at = node.end_mark.index - 1
        comma = ", " if node.value else ""
        name = json.dumps(key) if as_json else key
        return f"{text[:at].rstrip()}{comma}{name}: {_flow(value, as_json)}{text[at:]}"
    at = _end_of(text, node.value[-1][1])
    return f"{text[:at]}\n{_block({key: value}, node.start_mark.column)}{text[at:]}"


def _removed(text: str, root: Node, path: Path) -> str:
    node, at = _at(root, path[:-1]), path[-1]
    if not isinstance(node, SequenceNode) or not isinstance(at, int):
        raise NotEditable("only an entry of a list can go")
    if len(node.value) == 1:
        end = node.end_mark.index if node.flow_style else _end_of(text, node.value[0])
        return f"{text[: node.start_mark.index].rstrip()} []{text[end:]}"
    item, last = node.value[at], at == len(node.value) - 1
    if node.flow_style:
        start = node.value[at - 1].end_mark.index if last else item.start_mark.index
        end = item.end_mark.index if last else node.value[at + 1].start_mark.index
        return text[:start] + text[end:]
    start = _line_start(text, text.rindex("-", 0, item.start_mark.index))
    end = (
        _end_of(text, item) + 1 if last else _line_start(text, text.rindex("-", 0, node.value[at + 1].start_mark.index))
    )
    return text[:start] + text[end:] if end <= len(text) else text[:start].rstrip("\n")


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _end_of(text: str, node: Node) -> int:
    """Where a value's last line ends: a block's end mark is only at what follows it, after blank lines and comments."""
    lines = text[: node.end_mark.index].split("\n")
    if isinstance(node, MappingNode | SequenceNode) and not node.flow_style:
        lines[-1] = ""
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    at = len("\n".join(lines))
    # A comment behind a value on its own line belongs to it.
    rest = text[at:].partition("\n")[0]
    return at + len(rest) if rest.lstrip().startswith("#") else at


def _flow(value: Any, as_json: bool) -> str:
    if as_json:
        return json.dumps(value)
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10_000).strip()


def _block(value: Any, column: int) -> str:
    text = yaml.dump(value, Dumper=_Indented, default_flow_style=False, sort_keys=False, width=110)
    return "\n".join(" " * column + line for line in text.rstrip("\n").split("\n"))


class _Dumper(yaml.SafeDumper):
    """Texts that Kubernetes would read as something else, `y` or `1_000`, are quoted; PyYAML knows fewer of them."""


def _text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if resolve(text) == text else "'")


_Dumper.add_representer(str, _text)


class _Indented(_Dumper):
    """Lists stand indented below their key, as Kubernetes' own examples have them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def block_text(value: Any) -> str:
    """An object as YAML, in the same style."""
    return yaml.dump(value, Dumper=_Indented, default_flow_style=False, sort_keys=False, width=110)
