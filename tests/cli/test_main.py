"""How commands start and end, whichever they are."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import subprocess
import sys

import click
import pytest

from podfence.main import COMMANDS, ending
from podfence.output import printable
from policy.errors import HostRefused, UnknownVerdict, UnreadableInput, UsageError

HEAVY = ("kubernetes", "pyroute2", "networkx", "rich", "yaml", "compiler", "enforcer", "lab")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_imports_nothing_heavy() -> None:
    ran = python(
        "import sys; from podfence.main import main; assert main(['--help']) == 0;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    assert ran.returncode == 0, ran.stderr
    assert "validate" in ran.stdout
    assert not set(HEAVY) & set(ran.stderr.split())


def test_help_is_quick() -> None:
    """Against what it can't do without, in turns."""
    pairs = [(seconds("-m", "podfence", "--help"), seconds("-c", "import click")) for _ in range(8)]
    ours, bare = map(min, zip(*pairs, strict=True))
    assert ours < 2 * bare


def seconds(*arguments: str) -> float:
    """Of processor time, which other work on the machine hardly changes."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=quiet)
    _process, status, used = os.wait4(process, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name: str) -> None:
    assert importlib.util.find_spec(f"podfence.{name}"), "a name in the help that nothing answers to"


def leaves(command: click.Command) -> list[click.Command]:
    return (
        [leaf for each in command.commands.values() for leaf in leaves(each)]
        if hasattr(command, "commands")
        else [command]
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_and_yaml(name: str) -> None:
    """All that answer: an agent goes on, and what it says is its log."""
    for leaf in leaves(importlib.import_module(f"podfence.{name}").command):
        if leaf.name == "agent":
            continue
        (form,) = [option for option in leaf.params if "-o" in option.opts]
        assert {"json", "yaml"} <= set(form.type.choices), leaf.name


def test_options_of_one_name_are_explained_alike() -> None:
    """Which cluster, which change on top, which folders: what one command calls it, all do."""
    told: dict[str, set[tuple[str, str | None, object]]] = {}
    for leaf in [leaf for name in COMMANDS for leaf in leaves(importlib.import_module(f"podfence.{name}").command)]:
        for option in leaf.params:
            if isinstance(option, click.Option):
                told.setdefault(max(option.opts, key=len), set()).add((option.name, option.help, option.metavar))
    for name in ("--context", "--kubeconfig", "--with", "--without", "--recursive"):
        assert len(told[name]) == 1, told[name]


def test_help_documents_every_exit_code_of_the_error_tree(podfence) -> None:
    epilog = podfence("--help").stdout.partition("Exit codes:")[2]
    for error in (UsageError, UnknownVerdict, UnreadableInput, HostRefused):
        assert f"\n    {error.exit_code}  " in epilog


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "see podfence --help"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("--frobnicate",), "No such option"),
        (("lab",), "see podfence lab --help"),
        (("validate",), "Missing option '-f'"),
        (("validate", "-f", "-", "-o", "toml"), "'toml' is not one of"),
    ],
)
def test_usage_errors_are_one_line_and_end_with_2(podfence, arguments, said) -> None:
    ran = podfence(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("podfence: ")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("which pod?"), 2),
        (UnknownVerdict("no address"), 3),
        (UnreadableInput("a.yaml", 3, "tab"), 4),
        (HostRefused("no ipset"), 5),
        (click.FileError("a.yaml", "gone"), 2),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/run/x"), 5),
        (ModuleNotFoundError("No module named 'pyroute2.netlink'", name="pyroute2.netlink"), 5),
        (ModuleNotFoundError("No module named 'policy.gone'", name="policy.gone"), 70),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
def test_how_errors_end(error: Exception, code: int) -> None:
    assert ending(error)[1] == code


FAILING = """
import sys, click, podfence.main as entry
@click.command("broken")
def broken():
    raise ValueError("first\\nsecond \\x1b[31m")
entry.podfence.add_command(broken)
entry.LazyGroup.get_command = lambda self, ctx, name: broken
sys.exit(entry.main(["broken"]))
"""


def test_an_unexpected_error_is_a_line_and_a_hint(monkeypatch) -> None:
    monkeypatch.delenv("PODFENCE_DEBUG", raising=False)
    ran = python(FAILING)
    assert ran.returncode == 70
    assert ran.stderr.splitlines() == [
        "podfence: unexpected ValueError: first",
        r"podfence: second \x1b[31m (PODFENCE_DEBUG=1 shows where)",
    ]
    monkeypatch.setenv("PODFENCE_DEBUG", "1")
    assert "Traceback" in python(FAILING).stderr


ENDLESS = """
import sys, click, podfence.main as entry
@click.command("endless")
def endless():
    click.echo("up", err=True)
    while True:
        click.echo("line")
entry.LazyGroup.get_command = lambda self, ctx, name: endless
sys.exit(entry.main(["endless"]))
"""


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "up\n"
        assert process.wait(timeout=20) == 141


def test_an_interrupt_ends_with_130_and_no_traceback() -> None:
    # A shell's background jobs are born deaf to it, and so would their children be.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    with subprocess.Popen(
        [sys.executable, "-c", heard + ENDLESS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        assert process.stderr.readline() == "up\n"
        process.send_signal(2)
        assert process.stderr.read().strip() == ""
        assert process.wait(timeout=20) == 130


COLOURED = """
import sys, click, podfence.main as entry
from podfence.output import line
@click.command("coloured")
def coloured():
    line("denied", fg="red")
entry.LazyGroup.get_command = lambda self, ctx, name: coloured
sys.exit(entry.main(["coloured"]))
"""


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"), [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (False, {}, False)]
)
def test_colour_is_for_terminals_that_want_it(terminal: bool, environment: dict[str, str], coloured: bool) -> None:
    ours, theirs = os.openpty() if terminal else os.pipe()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run([sys.executable, "-c", COLOURED], stdout=theirs, env=inherited | environment, check=True, timeout=20)
    printed = os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)
    assert b"denied" in printed
    assert (b"\x1b[31m" in printed) is coloured


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shop/web-0", "shop/web-0"),
        ("naïve → 名", "naïve → 名"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("one\ntwo\r\t", r"one\ntwo\r\t"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202egpj", r"abc\u202egpj"),
        (os.fsdecode(b"\xff.yaml"), r"\udcff.yaml"),
    ],
)
def test_names_cannot_drive_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
