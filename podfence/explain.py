"""`podfence explain`: the verdict on one flow, and the rule or the policies that decide it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Literal

import click
from msgspec import Struct

from podfence.options import agents_options, node_egress_option
from podfence.sources import Sources, source_options
from policy.errors import UnknownVerdict, UsageError

if TYPE_CHECKING:
    from compiler.verdict import NodeEgress
    from podfence.answers import Explanation, LiveOut
    from podfence.asking import Asking, Port
    from podfence.ends import Ends, Named
    from podfence.sources import Found
    from policy.model import Labels

Form = Literal["text", "wide", "json", "yaml"]
Expect = Literal["allow", "deny"]


@click.command("explain")
@click.argument("src")
@click.argument("dst")
@click.option(
    "--port", "port_text", default="", metavar="PORT[/PROTOCOL]", help="8080, 53/udp, http or icmp; else all."
)
@source_options
@node_egress_option
@click.option("--src-labels", metavar="KEY=VALUE,…", help="SRC is a pod, there or not, with these labels.")
@click.option("--dst-labels", metavar="KEY=VALUE,…", help="DST is a pod, there or not, with these labels.")
@click.option("--fix", "wants_fix", is_flag=True, help="The smallest change that turns the verdict.")
@click.option("--live", is_flag=True, help="Also walk the flow through the rules that are installed.")
@click.option("--lab", "lab_name", metavar="NAME", help="With --live: the nodes of this lab, not this host.")
@click.option("--node", "node_name", metavar="NODE", help="With --live: which node this host is, if not by its name.")
@agents_options("With --live: through the nodes' agents; so it is anyway where this host is no node.")
@click.option("--expect", type=click.Choice(["allow", "deny"]), help="End with 1 where the verdict is another.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit code answers.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "wide", "json", "yaml"]),
    default="text",
    show_default=True,
    help="How to print the answer; wide leaves nothing out.",
)
def command(
    src: str,
    dst: str,
    port_text: str,
    sources: Sources,
    node_egress: NodeEgress,
    src_labels: str | None,
    dst_labels: str | None,
    wants_fix: bool,
    live: bool,
    lab_name: str | None,
    node_name: str | None,
    through_agents: bool,
    agents_namespace: str,
    expect: Expect | None,
    quiet: bool,
    form: Form,
) -> int:
    """Say why a flow from SRC to DST is allowed or denied.

    \b
    SRC and DST are a pod (web, shop/web), a workload (deploy/web, shop/deploy/web), a Service
    (svc/api, shop/svc/api), a node (node/n1), an address, a CIDR, or internet.
    Without --port: what is allowed, as ports. Without -f: from the cluster of the current context.

    \b
    podfence explain shop/web shop/svc/api --port 80 -f manifests/
    podfence explain shop/web shop/db --port 5432 -f manifests/ --fix
    podfence explain shop/deploy/web kube-system/svc/kube-dns --port 53/udp --expect allow -q

    A workload to itself is one of its pods to another. A finished pod (Succeeded, Failed) counts as an address that is
    no pod's, and the answer says so.
    """
    # A process that answers once and ends has nothing to collect.
    if not wants_fix:
        gc.disable()
    from podfence.asking import read_port

    port = read_port(port_text)
    if (wants_fix or live) and port.number is None:
        raise UsageError(f"{'--fix' if wants_fix else '--live'} needs --port")
    labels = {"--src-labels": src_labels, "--dst-labels": dst_labels}
    try:
        # What a fix changes elsewhere can't be told from the namespaces of the two ends.
        found, asking, ends_asked = _ends(sources, () if wants_fix else (src, dst), (src, dst), labels, node_egress)
    except UsageError:
        # Of an end that is not there the nearest names may be anywhere.
        if wants_fix or sources.reads_once:
            raise
        found, asking, ends_asked = _ends(sources, (), (src, dst), labels, node_egress)
    explained = explanation(asking, *ends_asked, port_text, list(found.unseen))
    if wants_fix:
        from podfence.fixes import fix

        explained.fix, said = fix(asking, *ends_asked, port)
        explained.notes += said
    if live:
        place = Place(sources, lab_name, node_name, through_agents, agents_namespace)
        explained.live = _live(asking, ends_asked, port, place)
    if not quiet:
        _print(explained, form)
    return _ending(explained, expect)


class Place(Struct, frozen=True):
    """Where `--live` is to look."""

    sources: Sources
    lab: str | None
    node: str | None
    through_agents: bool
    namespace: str


def _live(asking: Asking, ends: tuple[Named, Named], port: Port, place: Place) -> LiveOut:
    """On this host, where it is a node, or in a lab; else through the agents."""
    if place.through_agents and (place.lab or place.node):
        raise UsageError("--agents asks each node by its own name: leave out --lab and --node")
    import socket

    here = place.lab or place.node or socket.gethostname() in asking.known_nodes
    if here and not place.through_agents:
        from podfence.live import live_walks

        return live_walks(asking, *ends, port, place.lab, place.node)
    from podfence.agents import reached
    from podfence.live_agents import agent_walks

    sources = place.sources
    ours = "the files" if sources.paths else "the objects that were read from here"
    if sources.more or sources.gone:
        ours = "the objects with the change"
    return agent_walks(asking, *ends, port, reached(sources.kubeconfig, sources.context, place.namespace), ours)


def _ends(
    sources: Sources,
    about: tuple[str, ...],
    names: tuple[str, str],
    labels: dict[str, str | None],
    node_egress: NodeEgress,
) -> tuple[Found, Asking, tuple[Named, Named]]:
    from podfence.asking import Asking
    from podfence.ends import Ends

    found = sources.compiled(about)
    ends = Ends(found.compiled, sources.namespace)
    src, dst = (_end(ends, name, text, option) for name, (option, text) in zip(names, labels.items(), strict=True))
    return found, Asking(found.compiled, ends, node_egress), (src, dst)


def explanation(asking: Asking, src: Named, dst: Named, port_text: str, unseen: list[str]) -> Explanation:
    """The whole document. UsageError where the ends or the port have no meaning together."""
    from podfence.answers import API_VERSION, Explanation, overall
    from podfence.asking import read_port

    port = read_port(port_text)
    nowhere = asking.nothing_behind(dst, port)
    notes = [f"{way.asked}: {note}" for way in nowhere for note in way.notes]
    only_nowhere = bool(nowhere) and not asking.leads_somewhere(dst, port)
    answers = [] if only_nowhere else asking.answers(src, dst, port)
    verdict = overall(answers, unseen)
    return Explanation(API_VERSION, src.name, dst.name, port_text, verdict, answers, unseen, notes)


def _end(ends: Ends, name: str, labels: str | None, option: str) -> Named:
    return ends.find(name) if labels is None else ends.to_be(name, _labels(labels, option))


def _labels(text: str, option: str) -> Labels:
    from policy.labels import label_key_problem, label_value_problem

    found: Labels = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        reason = "expected KEY=VALUE" if not equals else label_key_problem(key) or label_value_problem(value)
        if reason or key in found:
            raise UsageError(f"{option} {text}: {reason or f'{key} stands twice'}")
        found[key] = value
    return found


def _print(explained: Explanation, form: Form) -> None:
    from podfence.output import line, show

    if form in ("json", "yaml"):
        show("json" if form == "json" else "yaml", explained, lambda: ())
        return
    from podfence.explain_text import lines

    for each in lines(explained, form == "wide"):
        line(each.text, **({"fg": each.colour, "bold": not each.text.startswith(" ")} if each.colour else {}))


def _ending(explained: Explanation, expect: Expect | None) -> int:
    if explained.live:
        if any(walk.drift for walk in explained.live.walks):
            return 1
        if not explained.live.walks:
            raise UnknownVerdict("; ".join(explained.live.unseen))
    if explained.verdict == "unknown":
        if explained.unseen:
            raise UnknownVerdict(f"can't be known: {'; '.join(explained.unseen)}")
        if not explained.answers:
            raise UnknownVerdict("nothing is behind it, or what is can't be known: there is no flow to judge")
        raise UnknownVerdict("the verdict hangs on an address that is not known: give one as SRC or DST")
    return 1 if expect and explained.verdict != {"allow": "allowed", "deny": "denied"}[expect] else 0
