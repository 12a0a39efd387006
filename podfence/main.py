"""The entry point: which commands there are, and what a command's end looks like.

A command is the attribute `command` of the module of its name, imported when it is asked for. Its callback returns
the exit code (None is 0) and raises `PodfenceError` for everything it means to refuse; here errors become one line
each on stderr and an exit code, as `docs/exit-codes.md` has it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import click

from podfence.output import printable
from policy.errors import PodfenceError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "validate": "Check manifests as the API server would.",
    "lint": "Find policies that mean something else than was meant.",
    "explain": "Say why a flow is allowed or denied.",
    "verdicts": "Answer many flows at once.",
    "diff": "Show the flows that a change opens and closes.",
    "matrix": "Show who reaches whom.",
    "reach": "Show what can be reached from a pod or workload.",
    "test": "Hold expectations about flows to manifests or packets.",
    "node": "Render, plan, apply, read back or remove a node's rules.",
    "rehearse": "Show which connections proposed policies would cut.",
    "status": "Show every node's agent of a cluster, a line each.",
    "lab": "Build a cluster of network namespaces and probe it.",
    "demo": "Enforce an example on a lab and prove it with packets.",
    "completion": "Print a script that completes commands and names.",
}
EXIT_CODES = """\b
Exit codes:
  0  done, or answered
  1  findings, or an expectation missed
  2  usage
  3  cannot be known from what could be read
  4  input that cannot be parsed
  5  the host refuses: a tool, permission or kernel feature is missing
"""
INTERNAL, INTERRUPTED, PIPE_CLOSED = 70, 130, 141
NODE_ONLY = ("inotify_simple", "pyroute2")


_completing = False


@contextmanager
def completing() -> Iterator[None]:
    """Within, commands know the names of what their parameters stand for."""
    global _completing
    _completing = True
    try:
        yield
    finally:
        _completing = False


class LazyGroup(click.Group):
    """Knows its commands by name and summary; imports one when it is to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"podfence.{cmd_name}").command
        if _completing:
            from podfence.complete import with_names

            return with_names(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        commands = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="podfence")
@click.pass_context
def podfence(ctx: click.Context) -> None:
    """Enforce Kubernetes NetworkPolicy with ipset and iptables, and explain every verdict."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main(arguments: Sequence[str] | None = None, name: str = "podfence") -> int:
    """Run one command; the exit code. No exception leaves, and no traceback unless PODFENCE_DEBUG is set."""
    if os.environ.get("_PODFENCE_COMPLETE"):
        return _complete(os.environ["_PODFENCE_COMPLETE"])
    # Debian keeps iptables, ipset and ip where the PATH of people does not look.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    try:
        with podfence.make_context(name, list(sys.argv[1:] if arguments is None else arguments)) as ctx:
            code: int | None = podfence.invoke(ctx)
        sys.stdout.flush()
        return code or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        # The reader left. Python flushes stdout once more as it ends, which would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("PODFENCE_DEBUG"):
            import traceback  # slow to import

            traceback.print_exc()
        text, code = ending(error)
        for line in text.split("\n"):
            click.echo(f"podfence: {printable(line)}", err=True)
        return code


def _complete(instruction: str) -> int:
    """What a shell's completion script asks for."""
    from click.shell_completion import shell_complete

    from podfence.complete import VARIABLE

    with completing():
        return shell_complete(podfence, {}, "podfence", VARIABLE, instruction)


def ending(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit code."""
    match error:
        case PodfenceError():
            return str(error), error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            return f"which command? see {error.ctx.command_path if error.ctx else 'podfence'} --help", 2
        case click.UsageError(ctx=click.Context() as ctx):
            return f"{error.format_message()} (see {ctx.command_path} --help)", 2
        case click.ClickException():
            return error.format_message(), 2
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] in NODE_ONLY:
            return f"{name} is not installed: pip install 'podfence[node]'", 5
        case OSError():
            return str(error), 5
    return f"unexpected {type(error).__name__}: {error} (PODFENCE_DEBUG=1 shows where)", INTERNAL
