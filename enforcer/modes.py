"""What a node does with a verdict, and how a namespace overrides it.

enforce    what is denied is refused
audit      what would be denied passes, and is counted and logged
off        as if no policy selected the pod
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
