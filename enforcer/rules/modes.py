"""What a node does with a verdict, and how a namespace overrides it.

    enforce    what is denied is refused
    audit      what would be denied passes, and is counted and logged
    off        as if no policy selected the pod; a node that is off has no rules at all

A namespace's mode is for its pods as subjects: each end of a flow follows its own. A label that widens is honoured as
given; who may set it is a matter of RBAC (docs/modes.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Mode = Literal["enforce", "audit", "off"]
MODE_LABEL = "podfence.io/mode"
_BY_NAME: dict[str, Mode] = {mode: mode for mode in get_args(Mode)}


def mode_of(namespace_labels: Mapping[str, str], node_mode: Mode) -> Mode:
    """The mode of a namespace's pods as subjects. A value that cannot be understood enforces: it never widens."""
    label = namespace_labels.get(MODE_LABEL)
    return node_mode if label is None else _BY_NAME.get(label, "enforce")


def mode_problems(namespaces: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """The labels that say no mode, one line each, by namespace."""
    return tuple(
        f"Namespace {name}: metadata.labels[{MODE_LABEL}]: none of {', '.join(_BY_NAME)}: {label!r}; so it enforces"
        for name, labels in sorted(namespaces.items())
        if (label := labels.get(MODE_LABEL)) is not None and label not in _BY_NAME
    )
