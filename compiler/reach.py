"""Who reaches whom: a cell for each pair of places, and what can be reached from one of them, step by step.

`OUTSIDE` stands for every address that is no pod's. It has no policies, so a way never leads through it: what left the
cluster may come back as anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from msgspec import Struct

from compiler.allowed import Allowed
from compiler.compile import Compiled
from compiler.places import FAMILIES, FlowFamily, Place, families_between, places
from compiler.ports import ALL_PORTS, NO_PORTS, PortSet
from compiler.regions import ports_everywhere, ports_somewhere, region_of
from policy.cidr import Family
from policy.model import Direction

OUTSIDE = "outside"


class Node(Struct, frozen=True):
    """A row or column: a place, a namespace, or OUTSIDE, which has no pods."""

    name: str
    pods: int


class Cell(Struct, frozen=True):
    """The ports that `every` pair has, and those that `some` pair has: of pods, of address families, of addresses."""

    every: PortSet
    some: PortSet

    def __str__(self) -> str:
        if self.every == self.some:
            return str(self.every)
        some = f"{self.some.difference(self.every)} (some)"
        return f"{self.every}, {some}" if self.every else some

    def __bool__(self) -> bool:
        return bool(self.some)


NOTHING = Cell(NO_PORTS, NO_PORTS)


class Step(Struct, frozen=True):
    """`dst` is reached `depth` steps from the start, the last of them from `src`."""

    depth: int
    src: int
    dst: int
    cell: Cell


class Reach:
    """The answers for one cluster, which nobody may change meanwhile. Nodes are called by their number; the last one is
    OUTSIDE."""

    def __init__(self, compiled: Compiled) -> None:
        self.places: tuple[Place, ...] = places(compiled)
        self.nodes = (*(Node(place.name, len(place.pods)) for place in self.places), Node(OUTSIDE, 0))
        self.outside = len(self.places)
        self._allowed = Allowed(compiled, self.places)
        self._cells: dict[tuple[PortSet, PortSet], Cell] = {}

    def cell(self, src: int, dst: int) -> Cell:
        """What a pod of `src` may use at another one of `dst`."""
        if self.outside in (src, dst):
            return self._with_outside(src, dst)
        return self._joined([*self._allowed.by_family(src, dst).values()])

    def _joined(self, found: Sequence[PortSet]) -> Cell:
        """The cell of a pair with these ports, a set for each family in which it can speak."""
        if not found or found == [NO_PORTS]:
            return NOTHING
        every, some = found[0], found[0]
        for ports in found[1:]:
            every, some = every.intersection(ports), some.union(ports)
        return self._cell(every, some)

    def rows(self) -> Iterator[list[Cell]]:
        """Each source's cells, in the order of the destinations."""
        for src in range(self.outside):
            yield [*self._row(src), self.cell(src, self.outside)]
        yield [self.cell(self.outside, dst) for dst in range(len(self.nodes))]

    def _row(self, src: int) -> Iterator[Cell]:
        """The cells of one place as a source, but for the outside. Most pairs speak in one family alone, and have the
        same few port-sets."""
        place = self.places[src]
        ports: dict[FlowFamily, list[PortSet]] = {}
        known: dict[int, tuple[PortSet, Cell]] = {}
        between: dict[frozenset[Family], list[list[PortSet]]] = {}
        for dst, other in enumerate(self.places):
            if src == dst and place.is_one_pod:
                yield NOTHING
                continue
            columns = between.get(other.families)
            if columns is None:
                for family in families_between(place, other):
                    if family not in ports:
                        ports[family] = [*self._allowed.ports_from(src, family)]
                columns = between[other.families] = [ports[family] for family in families_between(place, other)]
            if len(columns) != 1:
                yield self._joined([column[dst] for column in columns])
                continue
            only = columns[0][dst]
            found = known.get(id(only))  # which stays alive beside the cell
            if found is None:
                found = known[id(only)] = only, self._joined([only])
            yield found[1]

    def steps(self, start: Iterable[int], depth: int) -> Iterator[Step]:
        """All that can be reached from the nodes of `start` in at most `depth` steps, nearest first, each once."""
        import networkx  # a fifth of a second, which a matrix need not wait for

        source = -1
        starts = list(dict.fromkeys(start))
        seen = {source: 0, **dict.fromkeys(starts, 0)}

        def neighbours(of: int) -> Iterator[int]:
            if of == source:
                yield from starts
            elif of != self.outside or of in starts:
                yield from (dst for dst in range(len(self.nodes)) if dst not in starts and self.cell(of, dst))

        # Edges are found when they are asked for: of few nodes, mostly.
        graph = networkx.empty_graph(range(source, len(self.nodes)), create_using=networkx.DiGraph)
        for src, dst in networkx.generic_bfs_edges(graph, source, neighbours, depth + 1):
            if src != source:
                seen[dst] = seen[src] + 1
                yield Step(seen[dst], src, dst, self.cell(src, dst))

    def _with_outside(self, src: int, dst: int) -> Cell:
        if src == dst:
            return NOTHING
        subject, direction = (dst, "ingress") if src == self.outside else (src, "egress")
        return self._outside_cell(subject, "ingress" if direction == "ingress" else "egress")

    def _outside_cell(self, subject: int, direction: Direction) -> Cell:
        region = region_of(self._allowed.allow(subject, direction))
        families = self.places[subject].families or FAMILIES
        return self._cell(ports_everywhere(region, families), ports_somewhere(region, families))

    def _cell(self, every: PortSet, some: PortSet) -> Cell:
        """The same for the same: a matrix has millions of cells, and few kinds of them."""
        key = (every, some)
        return self._cells.get(key) or self._cells.setdefault(key, Cell(every, some))


def by_namespace(reach: Reach) -> tuple[tuple[Node, ...], list[list[Cell]]]:
    """The matrix with all places of a namespace as one."""
    names = [place.namespace for place in reach.places]
    numbers = {name: at for at, name in enumerate(dict.fromkeys(names))}
    outside = len(numbers)
    owner = [*(numbers[name] for name in names), outside]
    counts = [0] * (outside + 1)
    for at, node in zip(owner, reach.nodes, strict=True):
        counts[at] += node.pods
    # There are millions of cells, and few kinds of them, each one object: those between two namespaces, once each.
    kinds: dict[int, Cell] = {}
    met: list[set[tuple[int, int]]] = [set() for _ in range(outside + 1)]
    for src, row in enumerate(reach.rows()):
        asked: Iterable[tuple[int, int]] = zip(owner, map(id, row), strict=True)
        if src == reach.outside or reach.places[src].is_one_pod:
            asked = ((to, kind) for dst, (to, kind) in enumerate(asked) if dst != src)
        met[owner[src]].update(asked)
        kinds.update(zip(map(id, row), row, strict=True))
    cells = [[NOTHING] * (outside + 1) for _ in met]
    for src, found in enumerate(met):
        for dst, each in groupby(sorted(found), itemgetter(0)):
            cells[src][dst] = _over([kinds[kind] for _, kind in each])
    # A namespace may be called so too.
    called = [f"namespace {name}" if name == OUTSIDE else name for name in numbers]
    return tuple(Node(name, counts[at]) for at, name in enumerate([*called, OUTSIDE])), cells


def _over(cells: Iterable[Cell]) -> Cell:
    every, some = ALL_PORTS, NO_PORTS
    for cell in cells:
        every, some = every.intersection(cell.every), some.union(cell.some)
    return Cell(every, some)


def workloads(reach: Reach) -> tuple[Sequence[Node], list[list[Cell]]]:
    return reach.nodes, list(reach.rows())
