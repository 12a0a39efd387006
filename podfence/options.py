"""The options that commands share, so that they are spelled and explained alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from policy.model import PROTOCOLS, Protocol

Name = TypeVar("Name", bound=str)
Callback = TypeVar("Callback", bound=Callable[..., Any])
FLOW_PROTOCOLS = (*PROTOCOLS, "ICMP")


def protocol_named(text: str, known: Sequence[Name]) -> Name | None:
    """The one of `known` that `text` is, in ASCII letters of either case: to Unicode, `ſctp` is SCTP as well."""
    return next((each for each in known if text.isascii() and each == text.upper()), None)


def port(text: str) -> tuple[Protocol, int]:
    """`8080`, `8080/tcp`, `53/UDP` → protocol and number; without one it is TCP. For `type=` of an option."""
    number, _slash, name = text.partition("/")
    protocol = protocol_named(name or "tcp", PROTOCOLS)
    if protocol and number.isascii() and number.isdigit() and len(number) <= 5 and 0 < int(number) < 65536:
        return protocol, int(number)
    raise click.BadParameter(f"{text!r} is not a port: 1 to 65535, with /tcp, /udp or /sctp")


format_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="How to print the answer.",
)
files_option = click.option(
    "-f",
    "--filename",
    "paths",
    metavar="PATH",
    multiple=True,
    required=True,
    help="A file or folder of manifests, or - for stdin; may be given again.",
)
recursive_option = click.option("-R", "--recursive", is_flag=True, help="Read folders below the given ones too.")
namespace_option = click.option(
    "-n", "--namespace", default="default", show_default=True, help="Namespace of names that are given without one."
)
node_egress_option = click.option(
    "--node-egress",
    type=click.Choice(["enforce", "allow"]),
    default="enforce",
    show_default=True,
    help="What a pod may send to its own node: what its egress rules allow, or everything.",
)


def api_options(callback: Callback) -> Callback:
    """Which cluster: `context` and `kubeconfig`, None where they are not given, for `enforcer.cluster.api_config`."""
    kubeconfig = click.option(
        "--kubeconfig", metavar="FILE", help="Instead of $KUBECONFIG, a pod's own account, or ~/.kube/config."
    )
    context = click.option("--context", metavar="NAME", help="Another context of the kubeconfig than its current one.")
    return context(kubeconfig(callback))


def agents_options(help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--agents`, and where they are."""

    def both(callback: Callable[..., Any]) -> Callable[..., Any]:
        namespace = click.option(
            "--agents-namespace", default="podfence-system", show_default=True, help="Where the agents are."
        )
        return click.option("--agents", "through_agents", is_flag=True, help=help_text)(namespace(callback))

    return both
