"""Manifests on their way into a command: loaded, and what is wrong with them said on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import BinaryIO, TextIO

import click

from podfence.load import Loaded, load
from podfence.output import printable
from policy.errors import UsageError


def standard_input() -> BinaryIO:
    """UsageError where it was closed before podfence began, as by `<&-`."""
    # The type of sys.stdin leaves out what its documentation says: it may be None.
    found: TextIO | None = sys.stdin
    if found is None:
        raise UsageError("stdin is closed, and - is to read it")
    return found.buffer


def read(
    paths: Sequence[str], recursive: bool, contents: Mapping[str, bytes] | None = None, about: Sequence[str] = ()
) -> Loaded:
    """What the files hold, `-` being stdin, and `contents`. See `load`."""
    stdin = standard_input() if "-" in paths else None
    return load(paths, recursive=recursive, stdin=stdin, contents=contents, about=about)


def read_cluster(
    paths: Sequence[str], recursive: bool, contents: Mapping[str, bytes] | None = None, about: Sequence[str] = ()
) -> Loaded:
    """What the files hold. A wrong object is used as far as it was understood, which never opens anything, and its
    problems are warnings here: `podfence validate` is the command that fails on them."""
    loaded = read(paths, recursive, contents, about)
    for problem in loaded.problems:
        click.secho(f"warning: {printable(str(problem))}", err=True, fg="yellow")
    return loaded
