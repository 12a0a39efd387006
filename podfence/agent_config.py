"""The file of `podfence node agent --config`: a YAML mapping from option to value, as the defaults of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from policy.errors import UnreadableInput, UsageError
from policy.labels import quoted


def config_option(name: str = "config") -> Any:
    """`--config FILE`, read before all other options, so that what it says is their default."""

    def read(ctx: click.Context, _: click.Parameter, path: str | None) -> str | None:
        if path:
            ctx.default_map = defaults(Path(path), ctx.command)
        return path

    return click.option(
        f"--{name}",
        type=click.Path(dir_okay=False),
        is_eager=True,
        callback=read,
        metavar="FILE",
        help="A YAML file with options by name, such as `mode: audit`; flags and environment go before it.",
    )


def options_of(command: click.Command) -> dict[str, click.Option]:
    """By the name that they have in the file: that of the flag without its dashes."""
    found = {}
    for each in command.params:
        if isinstance(each, click.Option):
            longest = max(each.opts, key=len)
            found[longest.lstrip("-")] = each
    return found


def defaults(path: Path, command: click.Command) -> dict[str, Any]:
    """What the file says, by parameter. UnreadableInput where it is no YAML, UsageError for what is no option, or a
    value of the wrong shape; values themselves are judged by the command, as those of flags are."""
    options = options_of(command)
    known = ", ".join(sorted(set(options) - {"config"}))
    found: dict[str, Any] = {}
    for key, value in _mapping(path).items():
        option = options.get(key)
        if option is None or key == "config":
            raise UsageError(f"{path}: {quoted(str(key))}: no option has this name; there are {known}")
        listed = isinstance(value, list)
        texts = value if listed else [value]
        if not all(isinstance(text, str) for text in texts) or (listed and not option.multiple):
            expected = "a value or a list of values" if option.multiple else "one value"
            raise UsageError(f"{path}: {key}: expected {expected}")
        found[str(option.name)] = tuple(texts) if option.multiple else value
    return found


def _mapping(path: Path) -> dict[str, Any]:
    import yaml

    from policy.read_yaml import parse_yaml

    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UnreadableInput(str(path), 0, f"not UTF-8: {error.reason}") from None
    parsed = parse_yaml(text, str(path))  # a key that stands twice is an error to it, and to nobody else
    if not parsed.documents:
        return {}
    if len(parsed.documents) > 1 or not isinstance(parsed.documents[0][1], dict):
        raise UnreadableInput(str(path), parsed.documents[-1][0], "expected one mapping from option to value")
    # Scalars as they are written: `off` is a mode here, and no boolean.
    try:
        found: dict[str, Any] = yaml.load(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError:  # a second document that is empty
        raise UnreadableInput(str(path), 0, "expected one mapping from option to value") from None
    return found
