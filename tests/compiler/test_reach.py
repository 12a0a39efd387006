"""Reachability: each cell against the verdict of every pod, and ways against a search of their own."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from compiler.ports import ALL_PORTS, NO_PORTS
from compiler.reach import NOTHING, Cell, Reach, by_namespace
from tests.compiler.test_compare import allows, compiled, every_pair, ports_worth_asking
from tests.generate import _elsewhere, cluster
from tests.oracle.fields import Object
from tests.semantics.world import pod, policy, space, standing

SEEDS = 25


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_cell_is_what_the_verdicts_say(seed: int) -> None:
    rng = Random(seed)
    objects = cluster(rng)
    state = compiled(objects)
    reach = Reach(state)
    at = {pod.key: number for number, place in enumerate(reach.places) for pod in place.pods}
    nodes = {each["address"] for one in objects if one["kind"] == "Node" for each in one["status"]["addresses"]}
    held = {str(address) for each in state.pods.values() for address in each.addresses}
    outside = [text for text in _elsewhere(objects) if text not in nodes | held]
    ports = rng.sample(ports_worth_asking(objects), 12)
    answers: dict[tuple[int, int, str, int], list[bool]] = {}
    for src, dst, family in every_pair(state, outside):
        for protocol, port in ports:
            key = (at.get(src, reach.outside), at.get(dst, reach.outside), protocol, port)
            answers.setdefault(key, []).append(allows(state, src, dst, family, protocol, port))
    for (one, other, protocol, port), found in answers.items():
        cell = reach.cell(one, other)
        if reach.outside in (one, other):
            # Of the outside some addresses were asked only.
            assert not cell.every.contains(protocol, port) or all(found)
            assert cell.some.contains(protocol, port) or not any(found)
        else:
            assert (cell.every.contains(protocol, port), cell.some.contains(protocol, port)) == (all(found), any(found))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_rows_are_their_cells(seed: int) -> None:
    reach = Reach(compiled(cluster(Random(seed))))
    numbers = range(len(reach.nodes))
    assert [*reach.rows()] == [[reach.cell(src, dst) for dst in numbers] for src in numbers]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_steps_are_the_shortest_ways(seed: int) -> None:
    reach = Reach(compiled(cluster(Random(seed))))
    for start in range(len(reach.nodes)):
        for depth in (1, 2, 5):
            level, distance = {start}, {start: 0}
            for number in range(1, depth + 1):
                level = {
                    dst
                    for src in level
                    if src != reach.outside or src == start
                    for dst in range(len(reach.nodes))
                    if dst not in distance and reach.cell(src, dst)
                }
                distance |= dict.fromkeys(level, number)
            steps = list(reach.steps([start], depth))
            assert {step.dst: step.depth for step in steps} == {k: v for k, v in distance.items() if k != start}
            assert [step.depth for step in steps] == sorted(step.depth for step in steps)
            assert all(distance[step.src] == step.depth - 1 and step.cell for step in steps)


def equal(name: str, address: str) -> Object:
    return pod(f"shop/{name}", [address], "node-0", "", app="same")


def test_equal_pods_are_one_row_and_their_own_column() -> None:
    reach = Reach(compiled([*standing(), equal("one", "10.1.0.30"), equal("two", "10.1.0.31")]))
    names = [node.name for node in reach.nodes]
    same = names.index("shop/one")
    assert (reach.nodes[same].pods, "shop/two" in names) == (2, False)
    assert reach.cell(same, same).every.contains("TCP", 80), "one of them to the other"
    alone = names.index("shop/web")
    assert reach.cell(alone, alone) == NOTHING


def test_pods_that_a_block_tells_apart_are_two() -> None:
    block = policy("{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.1.0.30/32}}]}]}")
    reach = Reach(compiled([*standing(), block, equal("one", "10.1.0.30"), equal("two", "10.1.0.31")]))
    names = [node.name for node in reach.nodes]
    db = names.index("shop/db")
    assert reach.cell(names.index("shop/one"), db) and not reach.cell(names.index("shop/two"), db)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_namespace_is_all_pairs_of_its_places(seed: int) -> None:
    reach = Reach(compiled(cluster(Random(seed))))
    nodes, cells = by_namespace(reach)
    spaces = [place.namespace for place in reach.places]
    names = [*dict.fromkeys(spaces), None]
    assert len(nodes) == len(names)
    of = {name: [at for at, space in enumerate([*spaces, None]) if space == name] for name in names}
    for (row, src), (column, dst) in product(enumerate(names), enumerate(names)):
        pairs = [(one, other) for one in of[src] for other in of[dst]]
        alone = {at for at in of[src] if at == reach.outside or reach.places[at].is_one_pod}
        found = [reach.cell(one, other) for one, other in pairs if one != other or one not in alone]
        every, some = ALL_PORTS, NO_PORTS
        for cell in found:
            every, some = every.intersection(cell.every), some.union(cell.some)
        assert cells[row][column] == (Cell(every, some) if found else NOTHING)


def test_by_namespace_every_and_some() -> None:
    closed = policy("{podSelector: {matchLabels: {app: db}}}")
    nodes, cells = by_namespace(Reach(compiled([*standing(), closed])))
    assert [(node.name, node.pods) for node in nodes] == [("shop", 2), ("bank", 2), ("outside", 0)]
    assert (cells[0][1].every, cells[1][1].every) == (cells[0][1].some, cells[1][1].some)
    assert cells[1][0].some and not cells[1][0].every
    assert cells[2][2] == NOTHING


def test_a_namespace_called_outside_is_not_the_outside() -> None:
    nodes, _ = by_namespace(Reach(compiled([*standing(), space("outside"), pod("outside/p", ["10.1.0.50"])])))
    assert [node.name for node in nodes].count("outside") == 1


def test_a_cell_says_which_are_some() -> None:
    from compiler.ports import port_range

    web, dns = port_range("TCP", 80, 80), port_range("UDP", 53, 53)
    assert str(Cell(web, web.union(dns))) == "80/TCP, 53/UDP (some)"
    assert str(Cell(NO_PORTS, dns)) == "53/UDP (some)"
