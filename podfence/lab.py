"""`podfence lab`: a cluster of network namespaces from manifests, and real packets through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from podfence.options import files_option, format_option, recursive_option
from podfence.options import port as port_type
from podfence.output import Form, progress, show
from policy.errors import UsageError

if TYPE_CHECKING:
    from lab.cluster import Lab
    from lab.probe import Probe, Result
    from lab.topology import Attach, Listen
    from policy.cidr import Family
    from policy.model import Pod

DEFAULT = "lab"
name_option = click.option("--name", default=DEFAULT, show_default=True, help="Which lab; there may be several.")


class Place(Struct, frozen=True):
    """A pod's key, a node's name or `outside`; its network namespace, as `ip netns` has it, and its addresses."""

    place: str
    netns: str
    addresses: list[str]

    def __str__(self) -> str:
        return f"{self.place:30} {self.netns:40} {' '.join(self.addresses)}"


class Answer(Struct, frozen=True):
    """What came of one probe; the outcomes are those of `lab.probe.Outcome`."""

    src: str
    dst: str
    protocol: str
    port: int
    family: int
    outcome: str
    milliseconds: float

    def __str__(self) -> str:
        flow = f"{self.src} -> {self.dst} {self.port}/{self.protocol.lower()} IPv{self.family}"
        return f"{flow}: {self.outcome} ({self.milliseconds} ms)"


@click.group("lab")
def command() -> None:
    """Build a cluster of network namespaces and probe it with real packets.

    \b
    podfence lab up -f manifests/examples/shop
    podfence lab probe shop/web-0 shop/api-0 --port 8080/tcp
    podfence lab down

    Needs root, or a user namespace. Changes nothing on the host but for its network namespaces:

    \b
    pf-NAME.outside
    pf-NAME.node.NODE
    pf-NAME.pod.NAMESPACE.POD
    """


@command.command("up")
@files_option
@recursive_option
@name_option
@click.option("--listen", type=port_type, multiple=True, help="All places listen there too; may be given again.")
@click.option(
    "--attach",
    type=click.Choice(["routed", "bridge"]),
    default="routed",
    show_default=True,
    help="How pods hang on their nodes: by a routed veth, or by a port of a bridge.",
)
@format_option
def up(
    paths: tuple[str, ...], recursive: bool, name: str, listen: tuple[Listen, ...], attach: Attach, form: Form
) -> None:
    """Make the nodes and pods of the manifests. Applies no policies.

    A pod without node or address gets one, and listens on the ports that it declares.
    """
    from lab.cluster import Lab
    from lab.topology import OUTSIDE
    from podfence.inputs import read_cluster

    lab = Lab(name, read_cluster(paths, recursive).cluster, listen, attach)
    lab.up()
    hosts = [(place, lab.host(place)) for place in [OUTSIDE, *lab.nodes, *(pod.key for pod in living(lab))]]
    places = [Place(place, host.netns, [str(address) for address in host.addresses]) for place, host in hosts]
    show(form, places, lambda: map(str, places))


@command.command("probe")
@click.argument("src", required=False)
@click.argument("dst", required=False)
@click.option("--port", type=port_type, default="80", show_default=True, help="The destination port.")
@click.option("-6", "ipv6", is_flag=True, help="IPv6 instead of IPv4; without ends, both are probed anyway.")
@click.option("--timeout", default=1.0, show_default=True, help="Silence of so many seconds is a drop.")
@name_option
@format_option
def probe(src: str | None, dst: str | None, port: Listen, ipv6: bool, timeout: float, name: str, form: Form) -> None:
    """Send real packets from SRC to DST: a pod as namespace/name, a node, or `outside`; DST may be an address.

    Without ends: from everywhere to every port that a pod declares, in both address families.
    """
    from lab.cluster import attach

    if src and not dst:
        raise UsageError(f"a probe from {src} to where?")
    lab = attach(name)
    probes = [one_probe(src, dst, port, 6 if ipv6 else 4)] if src and dst else every_probe(lab)
    answers = [answer(result) for result in sent(lab, probes, timeout)]
    show(form, answers, lambda: map(str, answers))


@command.command("objects")
@name_option
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def objects(name: str, form: Form) -> None:
    """Print the lab's nodes, namespaces and pods, with their addresses, as objects that -f accepts.

    \b
    podfence lab objects > /tmp/objects.yaml
    nsenter --net=/run/netns/pf-lab.node.NODE \\
        podfence node apply -f /tmp/objects.yaml -f POLICIES --node NODE

    POLICIES must not hold the pods again. The pod that stands for shop/deploy/web is called shop/deploy.web there.
    """
    from lab.cluster import attach
    from podfence.lab_objects import api_objects

    show(form, api_objects(attach(name).cluster), lambda: ())


@command.command("down")
@click.argument("name", default=DEFAULT)
@format_option
def down(name: str, form: Form) -> None:
    """Take the lab NAME away, also what a killed run left of it."""
    from lab.cluster import down as take_away

    take_away(name)
    show(form, {"lab": name, "down": True}, lambda: ())


def living(lab: Lab) -> list[Pod]:
    return [pod for pod in lab.cluster.pods if not pod.finished]


def one_probe(src: str, dst: str, port: Listen, family: Family) -> Probe:
    """To a place in `family`, or to an address, in its own."""
    from lab.probe import Probe
    from policy.cidr import parse_address

    try:
        address = parse_address(dst)
    except ValueError:
        return Probe(src, dst, *port, family)
    return Probe(src, address, *port, address.family)


def every_probe(lab: Lab, everywhere: Sequence[Listen] = ()) -> list[Probe]:
    """From all places to the ports that the pods declare, and to those on which all places listen `everywhere`; in the
    families that both ends have."""
    from lab.probe import Probe
    from lab.topology import OUTSIDE

    listens: dict[str, list[Listen]] = {place: [] for place in [*lab.nodes, OUTSIDE]}
    listens.update((pod.key, [(port.protocol, port.port) for port in pod.ports]) for pod in living(lab))
    families = {place: {address.family for address in lab.host(place).addresses} for place in listens}
    return [
        Probe(src, dst, *listen, family)
        for src in listens
        for dst in listens
        if src != dst
        for listen in dict.fromkeys([*listens[dst], *everywhere])
        for family in sorted(families[src] & families[dst])
    ]


def sent(lab: Lab, probes: list[Probe], timeout: float = 1.0) -> list[Result]:
    """The results, in order; a bar shows how far it is."""
    batch = 1000
    results: list[Result] = []
    with progress("probing", len(probes)) as advance:
        for start in range(0, len(probes), batch):
            results += lab.probe(probes[start : start + batch], timeout)
            advance(len(results) - start)
    return results


def answer(result: Result) -> Answer:
    asked = result.probe
    milliseconds = round(result.seconds * 1000, 1)
    return Answer(
        asked.src, str(asked.dst), asked.protocol, asked.port, asked.family, result.outcome.value, milliseconds
    )
