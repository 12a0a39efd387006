"""Parts that several kinds have, from wire structs to the model. What is wrong is reported, and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from policy.decode_wire import WireMeta
from policy.labels import label_key_problem, label_value_problem
from policy.model import Labels, Protocol
from policy.source import Path
from policy.validate import Report

_PROTOCOLS: dict[str | None, Protocol] = {
    None: "TCP",
    "": "TCP",
    "TCP": "TCP",
    "UDP": "UDP",
    "SCTP": "SCTP",
}
_Parsed = TypeVar("_Parsed")


def labels_of(meta: WireMeta | None, path: Path, report: Report) -> Labels:
    """Those of the metadata at `path`, their syntax checked."""
    labels = (meta.labels if meta else None) or {}
    for key, value in labels.items():
        if reason := label_key_problem(key) or label_value_problem(value):
            report.say((*path, "labels", key), reason)
    return labels


def port_number(number: int | None, path: Path, report: Report) -> int:
    """`number`, or 0 where it is no port."""
    if number is None:
        report.say(path, "missing, expected a number from 1 to 65535")
    elif 1 <= number <= 65535:
        return number
    else:
        report.wrong_type(path, number, "a number from 1 to 65535")
    return 0


def protocol_named(name: str | None, path: Path, report: Report) -> Protocol | None:
    """Row 18: absent, it is TCP. None where it is no protocol."""
    protocol = _PROTOCOLS.get(name)
    if protocol is None:
        report.wrong_type(path, name, "TCP, UDP or SCTP")
    return protocol


def parsed(
    texts: Iterable[tuple[Path, str | None]], parse: Callable[[str], _Parsed], report: Report
) -> tuple[_Parsed, ...]:
    """Each text once, in order; what cannot be parsed is reported."""
    found: dict[_Parsed, None] = {}
    for path, text in texts:
        if text:
            try:
                found[parse(text)] = None
            except ValueError as error:
                report.say(path, f"{error}, expected one")
    return tuple(found)


def entries(texts: list[str] | None, path: Path) -> list[tuple[Path, str | None]]:
    return [((*path, at), text) for at, text in enumerate(texts or ())]
