"""LabelSelector, from the untyped tree to its canonical form; by apimachinery's `ValidateLabelSelector`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy.labels import label_key_problem, label_value_problem
from policy.selector import KeyTest, Selector, does_not_exist, exists, in_, not_in, selector
from policy.source import Path
from policy.validate import MAPPING, Report


def read_selector(value: Any, path: Path, report: Report) -> Selector | None:
    """None where it is absent; `report` has grown where it cannot be read."""
    if value is None:
        return None
    if not isinstance(value, MAPPING):
        report.wrong_type(path, value, "a mapping with matchLabels or matchExpressions")
        return None
    said = len(report)
    report.unknown_fields(value, path, ("matchLabels", "matchExpressions"))
    tests = _match_labels(value.get("matchLabels"), (*path, "matchLabels"), report)
    for at, entry in report.mappings(value.get("matchExpressions"), (*path, "matchExpressions")):
        if entry is not None and (test := _expression(entry, at, report)):
            tests.append(test)
    return selector(tests) if len(report) == said else None


def _match_labels(value: Any, path: Path, report: Report) -> list[KeyTest]:
    if value is None:
        return []
    if not isinstance(value, MAPPING):
        report.wrong_type(path, value, "a mapping of labels")
        return []
    for key, wanted in value.items():
        at = (*path, str(key))
        _label_key(key, at, report)
        _label_value(wanted, at, report)
    return [in_(key, wanted) for key, wanted in value.items() if isinstance(wanted, str)]


def _expression(value: Mapping[str, Any], path: Path, report: Report) -> KeyTest | None:
    report.unknown_fields(value, path, ("key", "operator", "values"))
    key, operator = value.get("key"), value.get("operator")
    if key is None:
        report.say((*path, "key"), "missing, expected a label key")
    else:
        _label_key(key, (*path, "key"), report)
    values = []
    for at, entry in report.items(value.get("values"), (*path, "values")):
        _label_value(entry, at, report)
        values.append(entry)
    if operator in ("In", "NotIn"):
        if not values:
            report.say((*path, "values"), f"empty, expected at least one value for {operator}")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            report.say((*path, "values"), f"given, expected none for {operator}")
    else:
        report.wrong_type((*path, "operator"), operator, "In, NotIn, Exists or DoesNotExist")
    if not isinstance(key, str) or not all(isinstance(entry, str) for entry in values):
        return None
    if operator == "In":
        return in_(key, *values)
    if operator == "NotIn":
        return not_in(key, *values)
    return exists(key) if operator == "Exists" else does_not_exist(key)


def _label_key(value: Any, path: Path, report: Report) -> None:
    if not isinstance(value, str):
        report.wrong_type(path, value, "a label key")
    elif reason := label_key_problem(value):
        report.say(path, reason)


def _label_value(value: Any, path: Path, report: Report) -> None:
    if not isinstance(value, str):
        report.wrong_type(path, value, "text in quotes")
    elif reason := label_value_problem(value):
        report.say(path, reason)
