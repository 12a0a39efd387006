"""A tree into a wire struct, with every field of a wrong type found, where msgspec stops at the first: what it
complains of is taken out, and the rest tried again. So there is one meaning, that of the struct, and no validator
beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from policy.decode_wire import WireMeta
from policy.source import Path
from policy.validate import Report, described, unknown_field

Wire = TypeVar("Wire", bound=Struct)
_MESSAGE = re.compile(r"(?P<reason>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")
_EXPECTED = {
    "int": "a whole number",
    "str": "text in quotes",
    "bool": "true or false",
    "object": "a mapping",
    "array": "a list",
}
_ZEROS: dict[str, Callable[[], Any]] = {"int": int, "str": str, "bool": bool, "object": dict, "array": list}
_MOST_PROBLEMS = 100


def convert(tree: Mapping[str, Any], wire: type[Wire], report: Report) -> Wire:
    """`tree` as a `wire`. Each field that does not fit is reported, and read as its text where text is expected, else
    as absent, or as an empty entry of its list. After a hundred of them, nothing of `tree` is read."""
    try:
        return msgspec.convert(tree, wire)
    except msgspec.ValidationError as error:
        reason = str(error)
    mended = msgspec.to_builtins(tree)  # a copy
    for _ in range(_MOST_PROBLEMS):
        _mend(mended, reason, report)
        try:
            return msgspec.convert(mended, wire)
        except msgspec.ValidationError as error:
            reason = str(error)
    report.say(("metadata",), f"more than {_MOST_PROBLEMS} wrong fields")
    return wire()


def _mend(tree: Any, message: str, report: Report) -> None:
    """Report what msgspec's `message` complains of, and take it out of `tree`."""
    match = _MESSAGE.fullmatch(message)
    reason, in_key, path_text = match.group("reason", "key", "path") if match else (message, None, "")
    steps: list[str | int] = []
    for name, index, _ in _STEP.findall(path_text or ""):
        steps.append(name or (int(index) if index else "..."))
    if unknown := re.search(r"unknown field `(.*)`", reason, re.DOTALL):
        holder = _at(tree, steps)
        report.say((*steps, unknown[1]), unknown_field(unknown[1], WireMeta.__struct_fields__))
        del holder[unknown[1]]
        return
    if in_key or "..." in steps:
        named = [step for step in steps if step != "..."]
        _mend_texts(_at(tree, named), tuple(named), report)
        return
    holder, last = _at(tree, steps[:-1]), steps[-1]
    expected = re.findall(r"`([^`]*)`", reason)[0].split(" | ") if reason.startswith("Expected") else []
    words = " or ".join(_EXPECTED[kind] for kind in expected if kind in _EXPECTED)
    report.say(tuple(steps), f"{described(holder[last])}, expected {words}" if words else reason)
    holder[last] = _substitute(holder[last], expected)


def _mend_texts(texts: dict[Any, Any], path: Path, report: Report) -> None:
    """The keys and values of a mapping of texts, such as labels: msgspec does not name the entry."""
    for key, value in list(texts.items()):
        if not (isinstance(key, str) and isinstance(value, str)):
            report.wrong_type((*path, str(key)), value if isinstance(key, str) else key, "text in quotes")
            del texts[key]
            texts[_text(key)] = _text(value)


def _substitute(value: Any, expected: list[str]) -> Any:
    """What stands for a value of the wrong type: its text where text is expected, else nothing."""
    if "str" in expected and isinstance(value, (bool, int, float)):
        return _text(value)
    return None if "null" in expected or not expected else _ZEROS[expected[0]]()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else ""


def _at(tree: Any, path: list[str | int]) -> Any:
    for step in path:
        tree = tree[step]
    return tree
