"""What a new flow costs on its way through a node: our rules beside others' and beside none, from one run.

Every cost is the whole way of a flow's first packet: the sender's call (see the figure "sender"), two veths, routing,
connection tracking and rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.lane import Setup, lanes, node_view, on_one_core, ratios, turns
from benchmarks.realistic import SMALL, Counts, realistic
from benchmarks.record import Case, Figure, Size, figure
from benchmarks.scenario import Scenario, Sender, both_ends, local_pods, policies
from benchmarks.shapes import NOTHING, SHAPES, Rules, Shape
from benchmarks.walk import met
from compiler.compile import Compiled
from enforcer.kernel.backend import Mode
from enforcer.readback.simulate import Packet
from enforcer.rules.layout import NodeView, layout

MODES: tuple[Mode, Mode] = ("legacy", "nft")
NONE, OURS = "no policy engine", "podfence"
_WALKED = 50
WAYS: dict[Sender, str] = {"outside": "from another node", "src": "both ends on the node"}
PORTS = {"one port": False, "a port each": True}
REALISTIC = "realistic cluster"
MANY_TARGET, ENDS_TARGET = 1.05, {"legacy": 1.40, "nft": 1.50}


class Sizes(Struct, frozen=True):
    """`seeds`: how many random clusters."""

    policies: tuple[int, ...]
    local: int
    counts: Counts
    random: Counts
    seeds: int
    rounds: int


SIZES: dict[Size, Sizes] = {
    "quick": Sizes((1, 10), 20, SMALL, SMALL, 1, 2),
    "full": Sizes((1, 10, 100, 1000, 5000), 250, Counts(), Counts(600, 20, 1000, 300, 110, 12), 7, 15),
}
Key = tuple[Mode, str, str]  # backend, shape, scenario


def measure(size: Size) -> Iterator[Figure]:
    sizes = SIZES[size]
    with on_one_core():
        yield from _sender(sizes)
        yield from _realistic(sizes)
        yield from _policies(sizes)
        yield from _local_pods(sizes)
        yield from _both_ends(sizes)
        yield from _random(sizes)


def _sender(sizes: Sizes) -> Iterator[Figure]:
    """What the sender itself costs of every figure."""
    with lanes({NONE: Setup("nft", NOTHING, both_ends(False))}) as made:
        yield figure("sender alone", [made[NONE].lost() for _ in range(sizes.rounds)], "ns")


def _realistic(sizes: Sizes) -> Iterator[Figure]:
    made = realistic(sizes.counts, (*WAYS,))
    by_way = {WAYS[each.sender]: each for each in made}
    found = _measured(by_way, [NONE, *SHAPES], sizes.rounds)
    for (mode, shape, way), samples in found.items():
        case: Case = {"cluster": REALISTIC, "way": way, "shape": shape, "backend": mode}
        yield figure("new flow", samples, "ns", None, **case)
        if shape != NONE:
            yield figure("new flow against no policy", ratios(samples, found[mode, NONE, way]), "ratio", None, **case)
    for way, scenario in by_way.items():
        yield from _met(scenario, {"cluster": REALISTIC, "way": way})


def _policies(sizes: Sizes) -> Iterator[Figure]:
    """A pod that many policies select. What more senders cost by themselves shows where there is no policy engine."""
    for ports, distinct in PORTS.items():
        scenarios = {str(count): policies(count, distinct) for count in sizes.policies}
        found = _measured(scenarios, [NONE, *SHAPES], sizes.rounds)
        for (mode, shape, count), samples in found.items():
            case: Case = {"ports": ports, "policies": int(count), "shape": shape, "backend": mode}
            yield figure("new flow", samples, "ns", None, **case)
            if count != "1":
                target = MANY_TARGET if shape == OURS and count == "1000" else None
                to_one = ratios(samples, found[mode, shape, "1"])
                yield figure("new flow, many policies against 1", to_one, "ratio", target, **case)
        for policies_on_pod in (sizes.policies[0], sizes.policies[-1]):
            yield from _met(scenarios[str(policies_on_pod)], {"ports": ports, "policies": policies_on_pod})


def _local_pods(sizes: Sizes) -> Iterator[Figure]:
    """A node with many isolated pods."""
    fewest = {"outside": 1, "src": 2}
    for sender, way in WAYS.items():
        few, many = fewest[sender], sizes.local
        scenarios = {str(count): local_pods(count, sender) for count in (few, many)}
        found = _measured(scenarios, [*SHAPES], sizes.rounds)
        for mode, shape in product(MODES, SHAPES):
            case: Case = {"way": way, "local pods": many, "shape": shape, "backend": mode}
            target = MANY_TARGET if shape == OURS else None
            yield figure("new flow", found[mode, shape, str(many)], "ns", None, **case)
            to_few = ratios(found[mode, shape, str(many)], found[mode, shape, str(few)])
            yield figure(f"new flow, many local pods against {few}", to_few, "ratio", target, **case)
        yield from _met(scenarios[str(many)], {"way": way, "local pods": many})


def _both_ends(sizes: Sizes) -> Iterator[Figure]:
    scenarios = {"isolated": both_ends(True), "open": both_ends(False)}
    found = _measured(scenarios, [NONE, *SHAPES], sizes.rounds)
    for mode, shape in product(MODES, [NONE, *SHAPES]):
        case: Case = {"shape": shape, "backend": mode}
        yield figure("new flow, both ends isolated", found[mode, shape, "isolated"], "ns", None, **case)
        if shape == NONE:
            continue
        target = ENDS_TARGET[mode] if shape == OURS else None
        for scenario, what, limit in (("isolated", "both ends isolated", target), ("open", "no pod isolated", None)):
            to_none = ratios(found[mode, shape, scenario], found[mode, NONE, "open"])
            yield figure(f"new flow, {what}, against no policy", to_none, "ratio", limit, **case)
    yield from _met(scenarios["isolated"], {"way": WAYS["src"], "local pods": 2})


def _random(sizes: Sizes) -> Iterator[Figure]:
    """Random clusters: a sample is one cluster, with the median of its turns."""
    per_seed: dict[tuple[Mode, str], list[float]] = {}
    for seed in range(1, sizes.seeds + 1):
        (scenario,) = realistic(replace(sizes.random, seed=seed), ("outside",))
        found = _measured({"": scenario}, [NONE, *SHAPES], sizes.rounds)
        for mode, shape in product(MODES, SHAPES):
            to_none = ratios(found[mode, shape, ""], found[mode, NONE, ""])
            per_seed.setdefault((mode, shape), []).append(median(to_none))
    for (mode, shape), samples in per_seed.items():
        case: Case = {"cluster": "random clusters", "shape": shape, "backend": mode}
        yield figure("new flow against no policy", samples, "ratio", None, **case)


def _measured(scenarios: dict[str, Scenario], shapes: Sequence[str], rounds: int) -> dict[Key, list[float]]:
    """Nanoseconds a flow for each backend, shape and scenario, in turns."""
    known = {NONE: NOTHING, **SHAPES}
    made_once = {key: _once(known[key[0]]) for key in product(shapes, scenarios)}
    keys = {"|".join(key): key for key in product(MODES, shapes, scenarios)}
    setups = {
        name: Setup(mode, made_once[shape, which], scenarios[which]) for name, (mode, shape, which) in keys.items()
    }
    with lanes(setups) as made:
        return {keys[name]: samples for name, samples in turns(made, rounds).items()}


def _once(shape: Shape) -> Shape:
    """The rules of a scenario serve both backends: labs of the same pods name their veths alike."""
    made: list[Rules] = []

    def make(compiled: Compiled, view: NodeView) -> Rules:
        if not made:
            made.append(shape(compiled, view))
        return made[0]

    return make


def _met(scenario: Scenario, case: Case) -> Iterator[Figure]:
    """The rules and lookups that flows meet in our rules, of how many."""
    view = node_view(scenario)
    ruleset = layout(scenario.compiled, view, 4)
    enters = view.veths[scenario.src.key] if scenario.sender == "src" else "eth0"
    packets = [
        Packet(flow.src, flow.dst, "udp", flow.dst_port, enters, view.veths[scenario.dst.key])
        for flow in scenario.flows[:_WALKED]
    ]
    walks = [met(ruleset, packet) for packet in packets]
    yield figure("rules that a new flow meets", [walk.rules for walk in walks], "count", None, **case)
    yield figure("set lookups of a new flow", [walk.lookups for walk in walks], "count", None, **case)
    yield figure("rules on the node", [sum(map(len, ruleset.chains.values()))], "count", None, **case)
