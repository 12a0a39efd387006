"""Who reaches whom, written for others: CSV, DOT and Mermaid. Names come from the cluster and mean nothing in any of
these: each syntax has its own way to say so."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Literal

import click
from msgspec import Struct

from podfence.output import printable

GraphForm = Literal["text", "json", "yaml", "csv", "dot", "mermaid"]
FORMS = ("text", "json", "yaml", "csv", "dot", "mermaid")
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_AT_ONCE = 1000

graph_form_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(FORMS),
    default="text",
    show_default=True,
    help="How to print the answer; dot is Graphviz's, mermaid for Markdown.",
)


class End(Struct, frozen=True):
    """A workload, a namespace or `outside`, and how many equal pods it stands for."""

    name: str
    pods: int

    def __str__(self) -> str:
        return f"{self.name} ({self.pods} pods)" if self.pods > 1 else self.name


class Edge(Struct, frozen=True, omit_defaults=True):
    """`src` may use `ports` at `dst`; `some_ports` only some of the pods, address families or addresses may. `depth`
    where it is a step from somewhere."""

    src: str
    dst: str
    ports: str = ""
    some_ports: str = ""
    depth: int = 0

    @property
    def label(self) -> str:
        some = f"{self.some_ports} (some)" if self.some_ports else ""
        return ", ".join(part for part in (self.ports, some) if part)


class Graph(Struct, frozen=True):
    """Where it is written line by line, edges may be found while it is."""

    ends: list[End]
    edges: Iterable[Edge]


def csv_lines(graph: Graph) -> Iterator[str]:
    """A row an edge. What begins as a formula does gets an apostrophe. Texts are few, and rows may be millions, so each
    text is written out once."""
    pods = {end.name: end.pods for end in graph.ends}
    ends = {name: f"{_field(name)},{count}" for name, count in pods.items()}
    ports = cache(_field)
    yield "from,from_pods,to,to_pods,ports,some_ports"
    for e in graph.edges:
        yield f"{ends[e.src]},{ends[e.dst]},{ports(e.ports)},{ports(e.some_ports)}"


def _field(text: str) -> str:
    """A field of a row."""
    text = printable(text)
    buffer = io.StringIO()
    # Beside another one: alone, an empty field is written otherwise.
    csv.writer(buffer, lineterminator="").writerow((f"'{text}" if text.startswith(_FORMULA) else text, ""))
    return buffer.getvalue()[:-1]


def dot_lines(graph: Graph) -> Iterator[str]:
    numbers = _numbers(graph)
    yield "digraph podfence {"
    yield "  rankdir=LR; node [shape=box];"
    yield from (f"  {numbers[end.name]} [label={_dot(str(end))}];" for end in graph.ends)
    yield from (f"  {numbers[e.src]} -> {numbers[e.dst]} [label={_dot(e.label)}];" for e in graph.edges)
    yield "}"


def _dot(text: str) -> str:
    r"""A quoted string: a backslash would be an escape of the label's, such as \N or \l."""
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def mermaid_lines(graph: Graph) -> Iterator[str]:
    numbers = _numbers(graph)
    yield "flowchart LR"
    yield from (f"  {numbers[end.name]}[{_mermaid(str(end))}]" for end in graph.ends)
    yield from (f"  {numbers[e.src]} -->|{_mermaid(e.label)}| {numbers[e.dst]}" for e in graph.edges)


def _mermaid(text: str) -> str:
    """A quoted string in which everything that is not plain is a character's number: Mermaid reads HTML and Markdown
    in labels."""
    plain = "".join(char if char.isalnum() or char in " -./_,:()" else f"#{ord(char)};" for char in printable(text))
    return f'"{plain}"'


def _numbers(graph: Graph) -> dict[str, str]:
    return {end.name: f"n{number}" for number, end in enumerate(graph.ends)}


def write(lines: Iterable[str]) -> None:
    """Many at a time: `click.echo` looks at the terminal anew at each call."""
    rest = iter(lines)
    while some := list(islice(rest, _AT_ONCE)):
        click.echo("\n".join(some))
