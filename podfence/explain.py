"""`podfence explain`: the verdict on one flow, and the rule or the policies that decide it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import click
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from podfence.options import (
    FLOW_PROTOCOLS,
    files_option,
    format_option,
    namespace_option,
    node_egress_option,
    protocol_named,
    recursive_option,
)
from podfence.output import Form, line, show
from policy.errors import UnknownVerdict, UsageError

if TYPE_CHECKING:
    from compiler.compile import Compiled
    from compiler.verdict import End, Half, NodeEgress, Verdict
    from podfence.ends import Ends


class Place(Struct, omit_defaults=True):
    """A policy, or a field of one; `file` and `line` where it came from a file."""

    policy: str
    field: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f" ({self.file}:{self.line})" if self.file else ""
        return f"{self.policy} {self.field}".rstrip() + where


class Side(Struct, omit_defaults=True):
    """One direction's answer; `because` is `open` (no policy isolates the pod), `rule`, `no rule`, `self`, `own node`,
    `no pod` or `finished`."""

    pod: str
    allowed: bool
    because: str
    rules: list[Place] = []
    isolated_by: list[Place] = []


class Explained(Struct, omit_defaults=True):
    """The verdict on one pair of addresses."""

    src: str
    src_address: str
    dst: str
    dst_address: str
    protocol: str
    port: int
    verdict: Literal["allowed", "denied", "unknown"]
    egress: Side
    ingress: Side


@click.command("explain")
@click.argument("src")
@click.argument("dst")
@click.option("--port", "port_text", required=True, metavar="PORT[/PROTOCOL]", help="8080, 53/udp, http or icmp.")
@files_option
@recursive_option
@namespace_option
@node_egress_option
@click.option("--expect", type=click.Choice(["allow", "deny"]), help="End with 1 where the verdict is another.")
@format_option
def command(
    src: str,
    dst: str,
    port_text: str,
    paths: tuple[str, ...],
    recursive: bool,
    namespace: str,
    node_egress: NodeEgress,
    expect: Literal["allow", "deny"] | None,
    form: Form,
) -> int:
    """Say why a flow from SRC to DST is allowed or denied.

    \b
    SRC and DST are a pod (web, shop/web), a workload (deploy/web, shop/deploy/web),
    a node (node/n1), an address, or internet. A workload to itself is one of its pods
    to another. A pod that is finished (Succeeded,
    Failed) counts as an address that is no pod's, and the answer says so.
    """
    from compiler.compile import compile_cluster
    from podfence.ends import Ends
    from podfence.inputs import read_cluster

    compiled = compile_cluster(read_cluster(paths, recursive).cluster)
    explained = explain(compiled, Ends(compiled, namespace), src, dst, port_text, node_egress)
    show(form, explained, lambda: ())
    if form == "text":
        for same in _alike(explained):
            _print(same)
    verdicts = {one.verdict for one in explained}
    if "unknown" in verdicts:
        raise UnknownVerdict("the verdict hangs on an address that is not known yet: give one as SRC or DST")
    return 1 if expect and verdicts != {"allowed" if expect == "allow" else "denied"} else 0


def explain(
    compiled: Compiled, ends: Ends, src: str, dst: str, port_text: str, node_egress: NodeEgress
) -> list[Explained]:
    """An answer for each pair of addresses that can speak. UsageError where an end or the port has no meaning."""
    from compiler.verdict import Flow, verdict
    from podfence.ends import pairs

    source, destination = ends.find(src), ends.find(dst)
    found = []
    for one, other in pairs(source, destination):
        protocol, port = read_port(port_text, other)
        answer = verdict(compiled, Flow(one, other, protocol, port), node_egress)
        found.append(
            Explained(
                _name(one, source.name),
                str(one.address or ""),
                _name(other, destination.name),
                str(other.address or ""),
                protocol,
                port,
                _word(answer),
                _side(compiled, answer.egress, _name(one, source.name)),
                _side(compiled, answer.ingress, _name(other, destination.name)),
            )
        )
    if not found:
        raise UsageError(f"{source.name} and {destination.name} have no address family in common")
    return found


def read_port(text: str, dst: End) -> tuple[str, int]:
    """Protocol and port number; a name is looked up at the destination pod."""
    head, _, tail = text.partition("/")
    if text.lower() == "icmp":
        return "ICMP", 0
    protocol = protocol_named(tail or "tcp", FLOW_PROTOCOLS)
    if protocol is None:
        raise UsageError(f"--port {text}: not a protocol: {tail}, expected tcp, udp or sctp")
    if head.isascii() and head.isdigit():
        if not 1 <= int(head) <= 65535:
            raise UsageError(f"--port {text}: not a port, expected 1 to 65535")
        return protocol, int(head)
    ports = dst.pod.ports if dst.pod else ()
    for port in ports:
        if port.name == head and (not tail or port.protocol == protocol):
            return port.protocol, port.port
    declared = ", ".join(f"{port.name} ({port.port}/{port.protocol})" for port in ports if port.name) or "none"
    raise UsageError(f"--port {text}: the destination has no port of that name; it declares {declared}")


def _name(end: End, given: str) -> str:
    return end.pod.key if end.pod else given


def _word(answer: Verdict) -> Literal["allowed", "denied", "unknown"]:
    if answer.uncertain:
        return "unknown"
    return "allowed" if answer.allowed else "denied"


def _side(compiled: Compiled, half: Half, pod: str) -> Side:
    from policy.source import path_text

    sources = {policy.policy: policy.source for policy in half.policies}
    rules = []
    for ref in half.rules:
        source = sources[ref.policy]
        place = (source.file, source.line_of(ref.path)) if source else ("", 0)
        rules.append(Place(ref.policy, path_text(ref.path), *place))
    isolating = [
        Place(policy.policy, "", *((policy.source.file, policy.source.line) if policy.source else ("", 0)))
        for policy in half.policies
    ]
    return Side(pod, half.allowed, half.because, rules, isolating)


def _alike(explained: list[Explained]) -> Iterable[list[Explained]]:
    """Those that differ in nothing but their addresses, together: both families of a pod, mostly."""
    groups: dict[bytes, list[Explained]] = {}
    for one in explained:
        groups.setdefault(msgspec.json.encode(replace(one, src_address="", dst_address="")), []).append(one)
    return groups.values()


def _print(same: list[Explained]) -> None:
    one = same[0]
    colour = {"allowed": "green", "denied": "red", "unknown": "yellow"}[one.verdict]
    src = _end_text(one.src, [each.src_address for each in same])
    dst = _end_text(one.dst, [each.dst_address for each in same])
    port = one.protocol if one.protocol == "ICMP" else f"{one.protocol}/{one.port}"
    line(f"{one.verdict.upper()}: {src} -> {dst}, {port}", fg=colour, bold=True)
    for direction, side in (("egress of", one.egress), ("ingress of", one.ingress)):
        for text in _side_lines(direction, side):
            line(text)


def _end_text(name: str, addresses: list[str]) -> str:
    shown = ", ".join(dict.fromkeys(address or "no address yet" for address in addresses))
    return name if shown == name else f"{name} ({shown})"


def _side_lines(direction: str, side: Side) -> Iterable[str]:
    word = "allowed" if side.allowed else "denied"
    reasons = {
        "no pod": "no policy applies here: not a pod, or one in its node's network",
        "finished": "no policy applies to a pod that is finished; its address may be someone else's by now",
        "open": "no policy isolates this pod in this direction",
        "self": "a pod always reaches itself",
        "own node": "traffic between a pod and its own node",
        "rule": f"by {len(side.rules)} rule{'s' if len(side.rules) > 1 else ''}:",
        "no rule": "these policies isolate the pod, and no rule of theirs admits the flow:",
    }
    yield f"  {direction} {side.pod}: {word}, {reasons[side.because]}"
    shown = side.rules if side.because == "rule" else side.isolated_by if side.because == "no rule" else []
    yield from (f"    {place}" for place in shown)
