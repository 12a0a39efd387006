"""`podfence node denials`: what is denied on this host, from its agent or, without one, from the kernel itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from podfence.node_glass import state_dir_option
from podfence.options import format_option
from podfence.output import Form, line
from policy.errors import UsageError

if TYPE_CHECKING:
    from enforcer.agent.denials import Denial


@click.command("denials")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--count", type=click.IntRange(1), help="End after so many lines.")
@click.option(
    "--names",
    "paths",
    multiple=True,
    metavar="PATH",
    help="Manifests that name pods and policies where no agent runs here; '-' is standard input.",
)
@click.option(
    "--log-group", type=click.IntRange(1, 65535), default=100, show_default=True, help="Read where no agent runs here."
)
@state_dir_option
@format_option
def denials_command(
    follow: bool, count: int | None, paths: tuple[str, ...], log_group: int, state_dir: str, form: Form
) -> int:
    """Say which packets are denied on this host: between whom, in which direction, and which policies isolate.

    Repeats are counted and told every 5 seconds, and a pod has 2 lines a second at most.
    """
    found = from_agent(state_dir, follow) or from_kernel(log_group, paths, follow)
    try:
        show(islice(found, count), form)
    finally:
        found.close()
    return 0


def show(found: Iterator[Denial], form: Form) -> None:
    """Each by itself, as soon as it is there: a line of text or JSON, or a document of YAML."""
    import msgspec

    from enforcer.agent.denials import sentence

    for denial in found:
        plain = msgspec.to_builtins(denial)
        if form == "text":
            line(sentence(denial))
        elif form == "json":
            click.echo(json.dumps(plain, separators=(",", ":")))
        else:
            import yaml

            click.echo(yaml.safe_dump(plain, sort_keys=False, explicit_start=True), nl=False)


Found = Any


def from_agent(state_dir: str, follow: bool) -> Found:
    """Denials of late and, with `follow`, new ones until interrupted; None where no agent answers."""
    import msgspec

    from enforcer.agent.denials import Denial
    from enforcer.agent.serve_local import alive, ask

    if not alive(state_dir):
        return None
    answers = ask(state_dir, {"ask": "denials", "follow": follow}, timeout=None)
    return (msgspec.convert(answer, Denial) for answer in answers if answer)


def from_kernel(log_group: int, paths: tuple[str, ...], follow: bool) -> Found:
    """Reads the log group by itself; UsageError where it was not to follow, since the kernel remembers nothing."""
    from compiler.compile import compile_cluster
    from enforcer.agent.denials import StateNames, Teller
    from enforcer.kernel.nflog import NflogReader
    from podfence.inputs import read_cluster
    from policy.model import Cluster

    if not follow:
        raise UsageError("no agent runs here, and the kernel remembers no denials: follow them with -f")
    cluster = read_cluster(paths, False).cluster if paths else Cluster([], [], [], [], [], [])
    teller = Teller(StateNames(compile_cluster(cluster), interface_name), time.monotonic, time.time)
    reader = NflogReader(log_group)

    def found() -> Iterator[Denial]:
        with reader:
            while True:
                yield from teller.take(reader.read(1.0))

    return found()


def interface_name(index: int) -> str:
    """Its number where it is gone already."""
    with suppress(OSError):
        return socket.if_indextoname(index)
    return str(index)
