"""Findings for code hosts: SARIF 2.1.0, and the annotations of GitHub's workflow commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from podfence.output import printable

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class Known(Struct, frozen=True):
    id: str
    title: str
    severity: str
    fix: str


class Found(Struct, frozen=True):
    """`object` is `namespace/name`, and `field` of it; `file` is "" where no file holds it."""

    id: str
    severity: str
    object: str
    field: str
    file: str
    line: int
    text: str


def sarif(rules: Sequence[Known], findings: Iterable[Found]) -> dict[str, Any]:
    numbers = {rule.id: number for number, rule in enumerate(rules)}
    driver = {
        "name": "podfence",
        "semanticVersion": version("podfence"),
        "rules": [
            {
                "id": rule.id,
                "shortDescription": {"text": rule.title},
                "help": {"text": rule.fix},
                "defaultConfiguration": {"level": rule.severity},
            }
            for rule in rules
        ],
    }
    results = [
        {
            "ruleId": each.id,
            "ruleIndex": numbers[each.id],
            "level": each.severity,
            "message": {"text": printable(each.text)},
            "locations": [_location(each)],
        }
        for each in findings
    ]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _location(found: Found) -> dict[str, Any]:
    """By object and field, and where a file holds it by line. A relative file stays so: code hosts resolve it against
    the checkout."""
    name = printable(found.object)
    place: dict[str, Any] = {
        "logicalLocations": [
            {
                "name": name,
                "fullyQualifiedName": printable(f"{found.object} {found.field}".rstrip()),
                "kind": "resource",
            }
        ]
    }
    if found.file:
        path = PurePath(found.file)
        uri = quote(path.as_posix()) if not path.is_absolute() else path.as_uri()
        region = {"startLine": max(found.line, 1)}
        place["physicalLocation"] = {"artifactLocation": {"uri": uri}, "region": region}
    return place


def github_lines(findings: Iterable[Found]) -> Iterator[str]:
    """Each is a command to the runner, so that a name could be one as well: `%`, line ends, and in properties `:` and
    `,` are escaped as the runner wants them."""
    words = {"note": "notice", "warning": "warning", "error": "error"}
    for each in findings:
        place = f"file={_property(each.file)},line={max(each.line, 1)}," if each.file else ""
        text = printable(each.text).replace("%", "%25")
        yield f"::{words[each.severity]} {place}title={_property(each.id)}::{text}"


def _property(text: str) -> str:
    return printable(text).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
