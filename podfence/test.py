"""`podfence test`: expectations about flows, held to manifests or to packets."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import click
from msgspec import Struct

from podfence.options import node_egress_option
from podfence.output import line, show
from podfence.sources import Sources, source_options
from policy.errors import UsageError

if TYPE_CHECKING:
    from compiler.verdict import NodeEgress
    from podfence.judge import Judged

TestForm = Literal["text", "json", "yaml", "junit"]
_SHOWN = 5


class Flow(Struct, frozen=True):
    """One flow that is not as expected; `found` is what is allowed, or what became of the packet."""

    src: str
    dst: str
    port: str
    found: str


class Answer(Struct, frozen=True, omit_defaults=True):
    """One case. `explanation` is what `podfence explain` says of the first flow that is wrong."""

    name: str
    place: str
    outcome: Literal["passed", "failed", "unknown"]
    flows: int
    wrong: list[Flow] = []
    explanation: str = ""


@click.command("test")
@click.argument("cases")
@source_options
@node_egress_option
@click.option(
    "--packets", is_flag=True, help="Enforce the policies in a lab and send a packet for each flow. Needs root."
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json", "yaml", "junit"]),
    default="text",
    show_default=True,
    help="How to print the answer.",
)
def command(
    cases: str,
    sources: Sources,
    node_egress: NodeEgress,
    packets: bool,
    form: TestForm,
) -> int:
    """Hold the expectations in the file CASES to manifests, or without -f to the cluster of the current context.

    \b
    cases:
      - {name: web calls api, from: shop/deploy/web, to: shop/deploy/api, port: 8080, expect: allow}
      - {from: "shop/*", to: internet, port: 443, expect: deny}
      - {name: nobody else, to: data/sts/db, port: 5432, only: [shop/deploy/api]}
    Ends with 1 where a case fails, with 3 where none does but one can't be known, and with 4 where the file is wrong.
    docs/cases.md has every field.
    """
    from podfence.cases import read_cases
    from podfence.inputs import standard_input
    from podfence.load import read_file

    if cases == "-" and sources.reads_once:
        raise UsageError("manifests and cases can't both come from stdin")
    known = read_cases(read_file(cases, standard_input() if cases == "-" else None), cases)
    compiled = sources.all()
    if packets:
        from podfence.case_packets import send_cases

        found = send_cases(known, compiled.cluster, sources.namespace, node_egress)
    else:
        from podfence.judge import Judge

        judge = Judge(compiled, sources.namespace, node_egress)
        options = [] if sources.reads_once else [*sources.words, "--node-egress", node_egress]
        found = [_answer(judge.judge(case), options) for case in known]
    if form == "junit":
        _junit(found)
    else:
        show(form, found, lambda: ())
        if form == "text":
            _print(found)
    outcomes = {each.outcome for each in found}
    return 1 if "failed" in outcomes else 3 if "unknown" in outcomes else 0


def _answer(judged: Judged, options: Sequence[str]) -> Answer:
    wrong = [Flow(each.src, each.dst, each.port, each.allowed) for each in judged.wrong]
    explanation = ""
    if judged.outcome == "failed" and options:
        first = next(each for each in judged.wrong if each.outcome == "failed")
        explanation = _explained(first.src, first.dst, first.port, options)
    case = judged.case
    return Answer(case.name, str(case.place), judged.outcome, judged.flows, wrong, explanation)


def _explained(src: str, dst: str, port: str, options: Sequence[str]) -> str:
    """In the words of `podfence explain`, which a reader may run again; "" where it can't be asked of one port."""
    from podfence.explain import command as explain

    if src.startswith("outside (") or port == "any port" or "-" in port.partition("/")[0]:
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        try:
            with explain.make_context("explain", [src, dst, "--port", port, *options]) as context:
                explain.invoke(context)
        except Exception:
            # The case has failed all the same, and its flow is named.
            return ""
    return click.unstyle(said.getvalue()).rstrip("\n")


def _print(found: Sequence[Answer]) -> None:
    for each in found:
        colour = {"passed": "green", "failed": "red", "unknown": "yellow"}[each.outcome]
        line(f"{each.outcome}: {each.name} ({each.place}), {each.flows} flows", fg=colour)
        for text in details(each):
            line(f"  {text}")
    counts = [f"{sum(each.outcome == one for each in found)} {one}" for one in ("passed", "failed", "unknown")]
    line(", ".join(counts), bold=True)


def details(answer: Answer) -> Iterator[str]:
    for wrong in answer.wrong[:_SHOWN]:
        yield f"{wrong.src} -> {wrong.dst}, {wrong.port}: {wrong.found}"
    if len(answer.wrong) > _SHOWN:
        yield f"and {len(answer.wrong) - _SHOWN} more"
    yield from answer.explanation.splitlines()


def _junit(found: Sequence[Answer]) -> None:
    from podfence.junit import Tested, document

    outcomes: dict[str, Literal["passed", "failure", "error"]] = {"failed": "failure", "unknown": "error"}
    tests = [
        Tested(
            each.name,
            each.place,
            outcomes.get(each.outcome, "passed"),
            f"{len(each.wrong)} of {each.flows} flows are not as expected"
            if each.outcome == "failed"
            else "cannot be known: it hangs on an address that is not known yet",
            "\n".join(details(each)),
        )
        for each in found
    ]
    click.echo(document("podfence test", tests))
