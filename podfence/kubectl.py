"""A plugin of kubectl: `kubectl podfence …` runs `kubectl-podfence`, and completes with `kubectl_complete-podfence`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from podfence import main as entry

# What kubectl (cobra) is to do with the answers: nothing more, nor a blank behind what leads further, or to offer files
# instead.
_NO_FILES, _NO_BLANK, _FILES = ":4", ":6", ":0"


def main() -> int:
    return entry.main(name="kubectl podfence")


def complete(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each thing that can stand in the last argument's place, with what it is after a tab, and
    what kubectl is to do then."""
    from click.shell_completion import ShellComplete

    from podfence.complete import VARIABLE

    words = list(sys.argv[1:] if arguments is None else arguments) or [""]
    try:
        with entry.completing():
            items = ShellComplete(entry.podfence, {}, "podfence", VARIABLE).get_completions(words[:-1], words[-1])
    except Exception:
        items = []
    files = any(item.type in ("file", "dir") for item in items)
    for item in items:
        if item.type == "plain":
            print(f"{item.value}\t{' '.join(item.help.split())}" if item.help else item.value)
    leads = any(item.value.endswith("/") for item in items)
    print(_FILES if files else _NO_BLANK if leads else _NO_FILES)
    return 0
