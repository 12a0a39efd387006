"""What the commands of `podfence node` are told about the node, and the node as that, objects and routes show it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import reduce, wraps
from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec import Struct

from podfence.node_flows import mark_option
from podfence.options import node_egress_option
from podfence.output import printable
from policy.errors import UsageError

if TYPE_CHECKING:
    from compiler.compile import Compiled
    from compiler.verdict import NodeEgress
    from enforcer.kernel.backend import Mode as Backends
    from enforcer.rules.layout import NodeView
    from enforcer.rules.modes import Mode
    from policy.cidr import Prefix

# What the kernel takes for a name, without what iptables would take for more than one.
_INTERFACE = re.compile(r"[!-.0-9;-~]{0,14}[!-*,-.0-9;-~]")


class NodeOptions(Struct, frozen=True):
    """What the options of render, plan and apply say about the node."""

    node: str
    backend: Backends | Literal["auto"]
    mode: Mode
    node_egress: NodeEgress
    deny: Literal["reject", "drop"]
    log_group: int
    mark: int
    pod_cidrs: tuple[str, ...]
    interfaces: tuple[str, ...]
    host_interfaces: tuple[str, ...]


backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "legacy", "nft"]),
    default="auto",
    show_default=True,
    help="Which iptables; auto looks where the host's other rules are.",
)
_NODE_OPTIONS = (
    click.option("--node", default=socket.gethostname, show_default="this host's name", help="The node to act for."),
    backend_option,
    click.option(
        "--mode",
        type=click.Choice(["enforce", "audit", "off"]),
        default="enforce",
        show_default=True,
        help="audit: what would be denied passes, and is counted and logged; off: no rules at all.",
    ),
    node_egress_option,
    click.option(
        "--deny",
        type=click.Choice(["reject", "drop"]),
        default="reject",
        show_default=True,
        help="What becomes of a denied packet.",
    ),
    click.option(
        "--log-group",
        type=click.IntRange(1, 65535),
        default=100,
        show_default=True,
        help="The NFLOG group that is told of denied packets.",
    ),
    mark_option,
    click.option(
        "--pod-cidr",
        "pod_cidrs",
        multiple=True,
        metavar="CIDR",
        help="Where only pods of this node have addresses; the Node object's podCIDRs where not given.",
    ),
    click.option(
        "--interface",
        "interfaces",
        multiple=True,
        metavar="NAMESPACE/POD=NAME",
        help="The interface that leads to a pod; found from routes, bridges and names where not given.",
    ),
    click.option(
        "--host-interface",
        "host_interfaces",
        multiple=True,
        metavar="NAME",
        help="An interface that is the node's own and no pod's, or a pattern such as 'lxc*'.",
    ),
)


def node_options(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Gathers the options of the node into one `options` argument."""

    @wraps(callback)  # also takes over the options that the callback has already
    def gathered(**arguments: Any) -> Any:
        fields = {name: arguments.pop(name) for name in NodeOptions.__struct_fields__}
        return callback(options=NodeOptions(**fields), **arguments)

    return reduce(lambda decorated, option: option(decorated), reversed(_NODE_OPTIONS), gathered)


def compile_files(paths: tuple[str, ...], recursive: bool) -> Compiled:
    from compiler.compile import compile_cluster
    from podfence.inputs import read_cluster

    return compile_cluster(read_cluster(paths, recursive).cluster)


def view_of(compiled: Compiled, options: NodeOptions) -> NodeView:
    """The node as options, objects and this host show it; says on stderr which pods have no interface, and why, and
    which labels say no mode."""
    from enforcer.keeping.host import attached
    from enforcer.kernel.weaknesses import weaknesses
    from enforcer.rules.layout import NodeView
    from enforcer.rules.modes import mode_problems
    from enforcer.rules.view import abroad, host_addresses

    known = {node.name for node in compiled.cluster.nodes} | {pod.node for pod in compiled.cluster.pods}
    if options.node not in known:
        names = ", ".join(sorted(known - {""})) or "none"
        raise UsageError(f"no node is called {options.node!r} in the files, which know {names}: use --node")
    for problem in mode_problems(compiled.namespaces):
        warn(problem)
    cidrs = _pod_cidrs(compiled, options)
    given = _interfaces(options.interfaces, compiled)
    found = attached(compiled, options.node, given, cidrs, options.host_interfaces)
    for pod, reason in found.unattached.items():
        warn(f"{pod}: {reason}, so it stays closed")
    for weakness in weaknesses(bool(found.bridges)):
        warn(weakness)
    return NodeView(
        options.node,
        found.veths,
        cidrs,
        found.uplinks,
        node_egress=options.node_egress,
        deny=options.deny,
        log_group=options.log_group,
        mark=options.mark,
        bridges=found.bridges,
        strangers=found.strangers,
        mode=options.mode,
        abroad=frozenset().union(*abroad(compiled.pods.values(), options.node, cidrs).values()),
        hosts=host_addresses(compiled.cluster.pods, options.node),
    )


def warn(text: str) -> None:
    click.secho(printable(f"warning: {text}"), err=True, fg="yellow")


def _interfaces(given: tuple[str, ...], compiled: Compiled) -> dict[str, str]:
    found = {}
    for each in given:
        pod, equals, interface = each.partition("=")
        if not equals or pod not in compiled.pods or not is_interface(interface):
            raise UsageError(f"--interface {each}: expected NAMESPACE/POD=NAME with a pod of the files")
        found[pod] = interface
    return found


def is_interface(text: str) -> bool:
    return _INTERFACE.fullmatch(text) is not None


def pod_cidrs_of(texts: tuple[str, ...]) -> tuple[Prefix, ...]:
    """The values of --pod-cidr; UsageError for one that is none."""
    from policy.cidr import parse_cidr

    try:
        found = tuple(parse_cidr(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"--pod-cidr: {error}") from None
    if not all(block.length for block in found):
        raise UsageError("--pod-cidr: a whole family is no block of one node's pods")
    return found


def _pod_cidrs(compiled: Compiled, options: NodeOptions) -> tuple[Prefix, ...]:
    given = pod_cidrs_of(options.pod_cidrs)
    return given or next((node.pod_cidrs for node in compiled.cluster.nodes if node.name == options.node), ())
