"""Every shape that is measured gives the verdicts that the policies mean, so that like is compared with like."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from benchmarks.frames import Flow
from benchmarks.lane import Setup, lanes
from benchmarks.realistic import SMALL, realistic
from benchmarks.scenario import FIRST_SRC_PORT, Scenario, Sender, allowed, both_ends, local_pods, policies
from benchmarks.shapes import NOTHING, SHAPES
from enforcer.kernel.backend import Mode
from policy.cidr import Address
from policy.errors import HostRefused

pytestmark = pytest.mark.kernel


def asked(scenario: Scenario) -> tuple[list[Flow], list[Flow]]:
    """Flows that are allowed, and flows that are denied, each new: those of the scenario, and variations of them."""
    draw = random.Random(7)
    senders = {pod.addresses[0] for pod in scenario.compiled.cluster.pods} - {scenario.dst.addresses[0]}
    senders = {scenario.src.addresses[0]} if scenario.sender == "src" else senders - local_senders(scenario)
    sources = sorted(senders | {flow.src for flow in scenario.flows})
    ports = sorted({flow.dst_port for flow in scenario.flows} | {1, 53, 8080, 8443, 65535})
    tried = [
        Flow(draw.choice(sources), scenario.dst.addresses[0], FIRST_SRC_PORT + 20000 + number, draw.choice(ports))
        for number in range(600)
    ] + list(scenario.flows[:200])
    answers = allowed(scenario.compiled, tried)
    passing = [flow for flow, passes in zip(tried, answers, strict=True) if passes]
    return passing, [flow for flow, passes in zip(tried, answers, strict=True) if not passes]


def local_senders(scenario: Scenario) -> set[Address]:
    return {pod.addresses[0] for pod in scenario.compiled.cluster.pods if pod.node == scenario.dst.node}


def some_scenarios() -> list[Scenario]:
    ways: Sequence[Sender] = ("outside", "src")
    return [
        *(policies(20, distinct) for distinct in (False, True)),
        *(local_pods(40, way) for way in ways),
        both_ends(True),
        *realistic(SMALL, ways),
        *realistic(replace(SMALL, seed=5), ways),
    ]


@pytest.mark.parametrize("mode", ["legacy", "nft"])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_lets_pass_what_is_allowed_and_nothing_else(shape: str, mode: Mode) -> None:
    scenarios = some_scenarios()
    found = []
    with lanes({str(n): Setup(mode, SHAPES[shape], each) for n, each in enumerate(scenarios)}) as made:
        for lane, scenario in zip(made.values(), scenarios, strict=True):
            passing, denied = asked(scenario)
            assert len(passing) >= 200
            assert denied
            found.append((lane.passed(passing) - len(passing), lane.passed(denied)))
    assert found == [(0, 0)] * len(scenarios)


@pytest.mark.parametrize("mode", ["legacy", "nft"])
def test_without_a_policy_engine_everything_passes(mode: Mode) -> None:
    scenario = policies(20, True)
    with lanes({"": Setup(mode, NOTHING, scenario)}) as made:
        flows = [*asked(scenario)[0], *asked(scenario)[1]]
        assert made[""].passed(flows) == len(flows)


def test_a_sample_is_of_new_flows_that_all_arrive() -> None:
    """A frame that is lost fails the run, so that no figure is ever of packets that were denied."""
    scenario = both_ends(True)
    refused = replace(scenario, flows=tuple(replace(flow, dst_port=9) for flow in scenario.flows))
    setups = {name: Setup("nft", SHAPES["podfence"], each) for name, each in (("ok", scenario), ("no", refused))}
    with lanes(setups) as made:
        assert made["ok"].sample() > 0
        with pytest.raises(HostRefused, match=r"^0 of \d+ flows passed"):
            made["no"].sample()
