"""`podfence reach`: what can be reached from a pod or workload, directly and through others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from podfence.graphs import End, Graph, GraphForm, csv_lines, dot_lines, graph_form_option, mermaid_lines, write
from podfence.matrix import edge
from podfence.output import line, show
from podfence.sources import Sources, source_options
from policy.errors import UsageError

if TYPE_CHECKING:
    from compiler.compile import Compiled
    from compiler.reach import Reach, Step
    from podfence.graphs import Edge


@click.command("reach")
@click.option("--from", "start", required=True, metavar="NAME", help="A pod, a workload, an address, or outside.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="Through so many steps.")
@source_options
@graph_form_option
def command(start: str, depth: int, sources: Sources, form: GraphForm) -> int:
    """Show what can be reached from a pod or workload, in up to --depth steps.

    \b
    podfence reach --from shop/deploy/web --depth 3 -f cluster.yaml
    Each is shown once, by its shortest way. A way never leads through outside.
    """
    from compiler.reach import Reach

    compiled = sources.all()
    reach = Reach(compiled)
    starts = _starts(compiled, reach, start, sources.namespace)
    steps = list(reach.steps(starts, depth))
    if form == "text":
        for text in _lines(reach, starts, steps):
            line(text)
        return 0
    graph = _graph(reach, starts, steps)
    if form in ("json", "yaml"):
        show("json" if form == "json" else "yaml", graph, lambda: ())
    else:
        write({"csv": csv_lines, "dot": dot_lines, "mermaid": mermaid_lines}[form](graph))
    return 0


def _starts(compiled: Compiled, reach: Reach, name: str, namespace: str) -> list[int]:
    """The nodes that `name` stands for. UsageError for a node, which no policy keeps from its own pods."""
    from podfence.ends import Ends

    if name in ("outside", "internet"):
        return [reach.outside]
    named = Ends(compiled, namespace).find(name)
    at = {pod.key: number for number, place in enumerate(reach.places) for pod in place.pods}
    found = [at[end.pod.key] if end.pod and end.pod.key in at else None for end in named.ends]
    numbers = [number for number in dict.fromkeys(found) if number is not None]
    if None in found or not numbers:
        raise UsageError(
            f"{name}: no policy selects it (a node, a pod in its node's network, a finished pod, or nobody)"
        )
    return numbers


def _lines(reach: Reach, starts: Sequence[int], steps: Sequence[Step]) -> Iterator[str]:
    def name(number: int) -> str:
        node = reach.nodes[number]
        return str(End(node.name, node.pods))

    yield f"from {', '.join(map(name, starts))}: {len(steps)} of {len(reach.nodes) - len(starts)} can be reached"
    for step in steps:
        via = "" if step.src in starts else f", from {reach.nodes[step.src].name}"
        yield f"{step.depth:>3}  {name(step.dst)}: {step.cell}{via}"


def _graph(reach: Reach, starts: Sequence[int], steps: Sequence[Step]) -> Graph:
    nodes = [reach.nodes[number] for number in [*starts, *(step.dst for step in steps)]]
    found: list[Edge] = [edge(reach.nodes[step.src], reach.nodes[step.dst], step.cell, step.depth) for step in steps]
    return Graph([End(node.name, node.pods) for node in nodes], found)
