"""`podfence verdicts`: many flows in, a verdict each out, one JSON object a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec
from msgspec import Struct

from podfence.options import (
    FLOW_PROTOCOLS,
    files_option,
    namespace_option,
    node_egress_option,
    protocol_named,
    recursive_option,
)
from podfence.output import Form, line, progress
from policy.errors import UsageError

if TYPE_CHECKING:
    from compiler.compile import Compiled
    from compiler.verdict import NodeEgress
    from podfence.ends import Ends


class Question(Struct):
    """One line of the input."""

    src: str
    dst: str
    protocol: str = "TCP"
    port: int = 0


class Pair(Struct):
    """The answer for one pair of addresses, "" where one is not known."""

    src: str
    dst: str
    ingress: bool
    egress: bool


class Answer(Struct, omit_defaults=True):
    """One line of the output, in the order of the input. Where an end has several addresses and they differ, `pairs`
    shows each, and the others hold what is true of all. `unknown`: it hangs on an address that is not known yet.
    `finished` are the ends that are finished pods: what is said of them is said of a mere address."""

    src: str
    dst: str
    protocol: str
    port: int
    ingress: bool | None = None
    egress: bool | None = None
    allowed: bool | None = None
    unknown: bool = False
    pairs: list[Pair] | None = None
    finished: list[str] | None = None
    error: str = ""


@click.command("verdicts")
@files_option
@recursive_option
@click.option("--flows", required=True, metavar="FILE", help="Flows as JSON lines, or - for stdin.")
@namespace_option
@node_egress_option
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml", "text"]), default="json", show_default=True)
def command(
    paths: tuple[str, ...],
    recursive: bool,
    flows: str,
    namespace: str,
    node_egress: NodeEgress,
    form: Form,
) -> int:
    """Answer many flows at once.

    \b
    Each line of the input is {"src": "shop/web", "dst": "shop/api", "protocol": "TCP", "port": 8080};
    each line of the output repeats it with "ingress", "egress" and "allowed" (both). The names are those of explain,
    the protocols TCP, UDP, SCTP and ICMP. "finished" names ends that are finished pods: mere addresses by now.
    With -o yaml each answer is a document.
    A line that can't be answered has "error" instead, and the command ends with 4 (not a flow) or 2 (no such end).
    """
    from compiler.compile import compile_cluster
    from podfence.ends import Ends
    from podfence.inputs import read_cluster, standard_input
    from podfence.load import read_file

    if flows == "-" and "-" in paths:
        raise UsageError("manifests and flows can't both come from stdin")
    compiled = compile_cluster(read_cluster(paths, recursive).cluster)
    ends = Ends(compiled, namespace)
    data = read_file(flows, standard_input() if flows == "-" else None)
    lines = [text for text in data.splitlines() if text.strip()]
    code = 0
    with progress("verdicts", len(lines)) as done:
        for text in lines:
            answer, worst = answer_line(compiled, ends, text, node_egress)
            code = max(code, worst)
            _print(answer, form)
            done(1)
    return code


def answer_line(compiled: Compiled, ends: Ends, text: bytes, node_egress: NodeEgress) -> tuple[Answer, int]:
    """One answer, and the exit code that it asks for."""
    try:
        question = msgspec.json.decode(text, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Answer("", "", "", 0, error=f"not a flow: {error}"), 4
    protocol = protocol_named(question.protocol, FLOW_PROTOCOLS)
    answer = Answer(question.src, question.dst, protocol or question.protocol, question.port)
    if protocol is None:
        answer.error = f"not a protocol: {question.protocol!r}, expected TCP, UDP, SCTP or ICMP"
        return answer, 4
    if not 0 <= question.port <= 65535:
        answer.error = f"not a port: {question.port}, expected 0 to 65535"
        return answer, 4
    try:
        _fill(answer, compiled, ends, node_egress)
    except UsageError as error:
        answer.error = str(error)
        return answer, error.exit_code
    return answer, 0


def _fill(answer: Answer, compiled: Compiled, ends: Ends, node_egress: NodeEgress) -> None:
    from compiler.verdict import Flow, verdict
    from podfence.ends import pairs

    src, dst = ends.find(answer.src), ends.find(answer.dst)
    for end in (src, dst):
        if end.service is not None or end.sort == "block":
            raise UsageError(f"{end.name} is a {end.sort}: only podfence explain answers for those")
    found = []
    for one, other in pairs(src, dst):
        answered = verdict(compiled, Flow(one, other, answer.protocol, answer.port), node_egress)
        answer.unknown |= answered.uncertain
        halves = answered.ingress.allowed, answered.egress.allowed
        found.append(Pair(str(one.address or ""), str(other.address or ""), *halves))
    if not found:
        raise UsageError(f"{src.name} and {dst.name} have no address family in common")
    answer.ingress = all(pair.ingress for pair in found)
    answer.egress = all(pair.egress for pair in found)
    answer.allowed = answer.ingress and answer.egress
    done = {end.pod.key for end in (*src.ends, *dst.ends) if end.pod and end.pod.finished}
    answer.finished = sorted(done) or None
    if len({(pair.ingress, pair.egress) for pair in found}) > 1:
        answer.pairs = found


def _print(answer: Answer, form: Form) -> None:
    if form == "json":
        click.echo(msgspec.json.encode(answer))
    elif form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(msgspec.to_builtins(answer), explicit_start=True, sort_keys=False), nl=False)
    elif answer.error:
        line(f"error    {answer.error}")
    else:
        word = "unknown" if answer.unknown else _word(answer.allowed)
        halves = f"egress {_word(answer.egress)}, ingress {_word(answer.ingress)}"
        finished = "".join(f"; {name} is finished" for name in answer.finished or ())
        line(f"{word:<8} {answer.src} -> {answer.dst} {answer.protocol}/{answer.port} ({halves}{finished})")


def _word(allowed: bool | None) -> str:
    return "allowed" if allowed else "denied"
