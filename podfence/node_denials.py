"""`podfence node denials`: what is denied on this host, from its agent or, without one, from the kernel itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podfence.options import format_option
from podfence.output import Form, line
from policy.errors import HostRefused, UsageError

if TYPE_CHECKING:
    from enforcer.denials import Denial

AGENT_SOCKET = Path("/run/podfence/agent.sock")
_REQUEST = {False: b"denials\n", True: b"denials follow\n"}


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
@format_option
def denials_command(follow: bool, count: int | None, paths: tuple[str, ...], log_group: int, form: Form) -> int:
    """Say which packets are denied on this host: between whom, in which direction, and which policies isolate.

    Repeats are counted and told every 5 seconds, and a pod has 2 lines a second at most.
    """
    found = from_agent(AGENT_SOCKET, follow) or from_kernel(log_group, paths, follow)
    try:
        show(islice(found, count), form)
    finally:
        found.close()
    return 0


def show(found: Iterator[Denial], form: Form) -> None:
    """Each by itself, as soon as it is there: a line of text or JSON, or a document of YAML."""
    import msgspec

    from enforcer.denials import sentence

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


def from_agent(path: Path, follow: bool) -> Found:
    """Asks the agent at a socket in one line; it answers with a line of JSON for each denial, those of late first, and
    ends where it was not to follow. None where no agent listens. HostRefused where one may not be asked."""
    from enforcer.denials import decoded

    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        asked.connect(str(path))
        asked.sendall(_REQUEST[follow])
    except (FileNotFoundError, ConnectionRefusedError):
        asked.close()
        return None
    except OSError as error:
        asked.close()
        raise HostRefused(f"{path}: {error.strerror} (run it as root)") from None

    def found() -> Iterator[Denial]:
        with asked, asked.makefile("rb") as lines:
            yield from decoded(lines)

    return found()


def from_kernel(log_group: int, paths: tuple[str, ...], follow: bool) -> Found:
    """Reads the log group by itself; UsageError where it was not to follow, since the kernel remembers nothing."""
    from compiler.compile import compile_cluster
    from enforcer.denials import StateNames, Teller
    from enforcer.nflog import NflogReader
    from podfence.inputs import read_cluster
    from policy.model import Cluster

    if not follow:
        raise UsageError("no agent runs here, and the kernel remembers no denials: follow them with -f")
    cluster = read_cluster(paths, False).cluster if paths else Cluster([], [], [], [], [], [])
    teller = Teller(StateNames(compile_cluster(cluster), interface_name), time.time)
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
