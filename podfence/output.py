"""What reaches the terminal: answers as text, JSON or YAML on stdout, progress on stderr.

Names come from the cluster and may hold terminal escapes, so text passes `printable` on its way out. Colour is a
matter of `click.style`; `click.echo` removes it where stdout is no terminal, and `main` where NO_COLOR is set.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import click

Form = Literal["text", "json", "yaml"]


def printable(text: str) -> str:
    """`text` with everything that a terminal might act on, line ends and bidirectional marks too, as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]()#+!|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def markdown(text: str) -> str:
    """`text` for a cell of a Markdown table: nothing in it is markup, and `@name` calls nobody."""
    return printable(text).translate(_MARKDOWN).replace("@", "@\N{ZERO WIDTH SPACE}").replace("://", ":\\/\\/")


def line(text: str, **style: Any) -> None:
    """One line of text on stdout, in `click.style`'s colours."""
    click.secho(printable(text), **style)


def show(form: Form, answer: object, text: Callable[[], Iterable[str]]) -> None:
    """`answer`, of structs, containers and scalars, as a document; or the lines of `text`, for people."""
    if form == "text":
        for each in text():
            line(each)
        return
    import msgspec

    plain = msgspec.to_builtins(answer, enc_hook=str)
    if form == "json":
        # ASCII only: a control character beyond the first 32 would reach the terminal raw otherwise.
        click.echo(json.dumps(plain, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(plain, sort_keys=False), nl=False)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for work of `total` steps, where that is a terminal; call what it gives with each step's size."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    with click.progressbar(length=total, label=printable(label), file=sys.stderr) as bar:
        yield bar.update
