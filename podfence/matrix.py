"""`podfence matrix`: who reaches whom, for all workloads at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import click

from podfence.graphs import End, Graph, GraphForm, csv_lines, dot_lines, graph_form_option, mermaid_lines, write
from podfence.output import line, show
from podfence.sources import Sources, object_options
from policy.errors import UnknownVerdict

if TYPE_CHECKING:
    from compiler.reach import Cell, Node
    from podfence.graphs import Edge

# Wider grids than this are no help: a line for each pair, then.
_WIDEST = 40
_NO_PORTS = ("", "")
_CORNER = "from \\ to"


@click.command("matrix")
@object_options
@click.option(
    "--by", type=click.Choice(["workload", "namespace"]), default="workload", show_default=True, help="What is a row."
)
@graph_form_option
def command(sources: Sources, by: Literal["workload", "namespace"], form: GraphForm) -> int:
    """Show who reaches whom, for every pair of workloads or namespaces.

    \b
    Equal pods are one row with their count; pods without a workload are called by the first.
    outside is every address that is no pod's. What a pod's own node sends always passes, and is not shown.
    The grid is for 40 rows at most; beyond, each pair that has a port is a line.
    """
    from compiler.reach import Reach, by_namespace, workloads

    reach = Reach(sources.all())
    if not reach.places:
        raise UnknownVerdict("there is no pod, so no flow can be known")
    nodes, cells = workloads(reach) if by == "workload" else by_namespace(reach)
    if form == "text":
        if len(nodes) <= _WIDEST:
            _grid(nodes, cells)
        else:
            for text in _pairs(nodes, cells):
                line(text)
        return 0
    ends = [End(node.name, node.pods) for node in nodes]
    graph = Graph(ends, edges(nodes, cells))
    if form in ("json", "yaml"):
        show("json" if form == "json" else "yaml", Graph(ends, list(graph.edges)), lambda: ())
    else:
        write({"csv": csv_lines, "dot": dot_lines, "mermaid": mermaid_lines}[form](graph))
    return 0


def edges(nodes: Sequence[Node], cells: Iterable[Sequence[Cell]]) -> Iterator[Edge]:
    """The pairs that have a port."""
    from podfence.graphs import Edge

    # A matrix has millions of cells, and few kinds of them; one that is kept here keeps its identity.
    known: dict[int, tuple[Cell, tuple[str, str]]] = {}
    for src, row in zip(nodes, cells, strict=True):
        for dst, cell in zip(nodes, row, strict=True):
            found = known.get(id(cell))
            if found is None:
                found = known[id(cell)] = cell, port_texts(cell)
            if found[1] != _NO_PORTS:
                yield Edge(src.name, dst.name, *found[1])


def edge(src: Node, dst: Node, cell: Cell, depth: int = 0) -> Edge:
    from podfence.graphs import Edge

    return Edge(src.name, dst.name, *port_texts(cell), depth)


def port_texts(cell: Cell) -> tuple[str, str]:
    """Those of every pair, and those of some only."""
    more = cell.some.difference(cell.every)
    return str(cell.every) if cell.every else "", str(more) if more else ""


def _pairs(nodes: Sequence[Node], cells: Sequence[Sequence[Cell]]) -> Iterator[str]:
    for each in edges(nodes, cells):
        yield f"{each.src} -> {each.dst}: {each.label}"


def _grid(nodes: Sequence[Node], cells: Sequence[Sequence[Cell]]) -> None:
    from compiler.ports import ALL_PORTS

    names = [str(End(node.name, node.pods)) for node in nodes]
    width = max(len(_CORNER), *map(len, names))
    line(f"{'':>3} {_CORNER:<{width}} " + " ".join(f"{at:>2}" for at in range(1, len(nodes) + 1)))
    for at, (name, row) in enumerate(zip(names, cells, strict=True), 1):
        marks = ("●" if cell.every == ALL_PORTS else "◐" if cell else "·" for cell in row)
        line(f"{at:>3} {name:<{width}} " + " ".join(f"{mark:>2}" for mark in marks))
    line("● every port   ◐ some   · none")
