"""`podfence node agent`: follow the cluster and enforce on this node, until told to stop."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Literal

import click

from podfence.agent_config import config_option
from podfence.node_flows import mark_option
from podfence.node_options import backend_option, is_interface, pod_cidrs_of
from podfence.options import api_options, node_egress_option, recursive_option
from policy.errors import UsageError

if TYPE_CHECKING:
    from enforcer.agent.settings import Settings

PREFIX = "PODFENCE"
# Options that may be given again are called by one value, settings by all of them.
_PLURALS = {
    "filename": "files",
    "pod_cidr": "pod_cidrs",
    "interface": "interfaces",
    "host_interface": "host_interfaces",
}
_NODE_NAME = "NODE_NAME"  # what the downward API is usually asked to call it


def _choice(flag: str, choices: list[str], text: str) -> Any:
    return click.option(flag, type=click.Choice(choices), default=choices[0], show_default=True, help=text)


def _seconds(flag: str, default: float, text: str) -> Any:
    kind = click.FloatRange(min=0.1, max=86400)
    return click.option(flag, type=kind, default=default, show_default=True, metavar="SECONDS", help=text)


OPTIONS = (
    config_option(),
    click.option(
        "--node",
        default=lambda: os.environ.get(_NODE_NAME) or socket.gethostname(),
        show_default="$NODE_NAME, else this host's name",
        help="The Node to act for.",
    ),
    _choice("--mode", ["enforce", "audit", "off"], "What becomes of what policies deny; namespaces may override it."),
    _choice("--unknown", ["closed", "open"], "What becomes of packets of pods that are not known yet; open is unsafe."),
    _choice("--existing-flows", ["end", "keep"], "What becomes of open connections that a change forbids."),
    _choice("--deny", ["reject", "drop"], "What becomes of a denied packet."),
    node_egress_option,
    backend_option,
    click.option(
        "--pod-cidr",
        multiple=True,
        metavar="CIDR",
        help="Where only pods of this node have addresses; the Node object's podCIDRs where not given.",
    ),
    click.option(
        "--interface",
        multiple=True,
        metavar="NAMESPACE/POD=NAME",
        help="The interface that leads to a pod, where it is not found by itself.",
    ),
    click.option(
        "--host-interface",
        multiple=True,
        metavar="NAME",
        help="A link that is no pod's though it looks so; a trailing * stands for any rest.",
    ),
    mark_option,
    click.option(
        "--log-group",
        type=click.IntRange(1, 65535),
        default=100,
        show_default=True,
        help="The NFLOG group that is told of denied packets.",
    ),
    api_options,
    click.option(
        "-f",
        "--filename",
        multiple=True,
        metavar="PATH",
        help="Manifests instead of an API server, for nodes outside Kubernetes; read again when they change.",
    ),
    recursive_option,
    click.option(
        "--listen",
        default="127.0.0.1:9470",
        show_default=True,
        metavar="ADDRESS:PORT",
        help="Where /healthz, /readyz and /metrics are served; none where empty.",
    ),
    click.option("--state-dir", default="/run/podfence", show_default=True, help="Lock, local socket, and what lasts."),
    click.option(
        "--cni-results",
        default="/var/lib/cni/results",
        show_default=True,
        metavar="FOLDER",
        help="Where the container runtime keeps the results of its network plugins; not used where it is missing.",
    ),
    _seconds("--resync", 60.0, "How often everything in the kernel is read back, noticed or not."),
    _seconds("--handover", 30.0, "How long to wait for another agent of this node to end."),
    click.option("--taint/--no-taint", default=True, help="Take podfence.io/not-ready off the Node once it enforces."),
    _choice("--log-format", ["json", "text"], "How log lines look."),
    _choice("--log-level", ["info", "debug", "warning", "error"], "The least that is logged."),
)


@click.command(
    "agent",
    context_settings={"auto_envvar_prefix": PREFIX},
    epilog="Every option is also read from the environment (--pod-cidr: PODFENCE_POD_CIDR, several values apart by "
    "blanks) and from the file of --config. Ends with 5 where the host refuses.",
)
def agent(**told: Any) -> int:
    """Follow the cluster, and enforce its policies on this node until told to stop.

    Rules stay when the agent ends; `podfence node cleanup` removes them.
    """
    from enforcer.agent.log import set_up
    from enforcer.agent.wiring import run

    form: Literal["json", "text"] = told.pop("log_format")
    level = told.pop("log_level")
    settings = settings_of(told)
    set_up(form, level)
    run(settings, _reader(settings))
    return 0


for _option in OPTIONS:
    agent = _option(agent)


def _reader(settings: Settings) -> Any:
    """What reads the manifests; None where an API server is followed."""
    if not settings.files:
        return None
    from podfence.load import load

    def read() -> Any:
        loaded = load(settings.files, settings.recursive)
        return loaded.cluster, loaded.problems

    return read


def settings_of(told: dict[str, Any]) -> Settings:
    """The options as the agent takes them. UsageError, with the option's name, for what has no meaning."""
    from enforcer.agent.serve_http import parse_listen
    from enforcer.agent.settings import Settings

    told = {_PLURALS.get(key, key): value for key, value in told.items() if key != "config"}
    if told["listen"]:
        parse_listen(told["listen"])
    if told["files"] and (told["kubeconfig"] or told["context"]):
        raise UsageError("-f takes the place of an API server: give it, or --kubeconfig and --context")
    if not told["node"]:
        raise UsageError("--node: expected the name of a Node")
    told["pod_cidrs"] = pod_cidrs_of(told["pod_cidrs"])
    told["interfaces"] = _interfaces(told["interfaces"])
    return Settings(**told)


def _interfaces(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in given:
        pod, equals, interface = each.partition("=")
        namespace, slash, name = pod.partition("/")
        if not (equals and slash and namespace and name and is_interface(interface)):
            raise UsageError(f"--interface {each}: expected NAMESPACE/POD=NAME")
        found[pod] = interface
    return found
