"""Random clusters on a real kernel: what becomes of a packet is what the oracle says, on both backends."""

from __future__ import annotations

from random import Random
from typing import Literal

import pytest

from lab.cluster import Lab
from lab.probe import Probe
from lab.topology import OUTSIDE, OUTSIDE_ADDRESSES
from policy.cidr import parse_address
from policy.decode import decode_objects
from policy.model import Protocol
from tests.conformance.kernel import MODES, PASSED, enforce, lab_name
from tests.generate import cluster, flows
from tests.oracle import End, Flow, Oracle
from tests.oracle.fields import Object, finished, name_of, namespace, node_addresses, pod_addresses

SEEDS = range(5000, 5020)
FLOWS = 250
PROTOCOLS: dict[str, Protocol | Literal["ICMP"]] = {"TCP": "TCP", "UDP": "UDP", "SCTP": "SCTP", "ICMP": "ICMP"}


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_packets_of_a_random_cluster(seed: int) -> None:
    rng = Random(seed)
    objects = cluster(rng)
    places = _places(objects)
    asked = [each for flow in flows(rng, objects, FLOWS) for each in (flow, *_outside(flow))]
    asked = [flow for flow in asked if flow.src.address in places and flow.dst.address in places]
    assert len(asked) > FLOWS // 2
    oracle = Oracle(objects)
    expected = [all(oracle.verdict(flow)) for flow in asked]
    with Lab(lab_name(), decode_objects(objects).cluster) as lab:
        for mode in MODES:
            enforce(lab, mode, objects)
            results = lab.probe([_probe(flow, places) for flow in asked], timeout=0.5)
            wrong = [
                f"{flow} {'should pass' if passes else 'should be denied'}, but was {result.outcome}"
                for flow, passes, result in zip(asked, expected, results, strict=True)
                if passes != (result.outcome in PASSED)
            ]
            assert wrong == [], mode


def _places(objects: list[Object]) -> dict[str, str]:
    """Who has an address: a pod that is not done, a node, the outside."""
    places = {str(address): OUTSIDE for address in OUTSIDE_ADDRESSES}
    for each in objects:
        if each["kind"] == "Pod" and not finished(each) and not each["spec"].get("hostNetwork"):
            places |= {str(address): f"{namespace(each)}/{name_of(each)}" for address in pod_addresses(each)}
        elif each["kind"] == "Node":
            places |= {str(address): name_of(each) for address in node_addresses(each)}
    return places


def _outside(flow: Flow) -> list[Flow]:
    """The same from outside, or to it."""
    outside = next(End(str(a)) for a in OUTSIDE_ADDRESSES if (a.family == 6) is (":" in flow.src.address))
    if flow.port % 4 == 0:
        return [Flow(outside, flow.dst, flow.protocol, flow.port), Flow(flow.src, outside, flow.protocol, flow.port)]
    return []


def _probe(flow: Flow, places: dict[str, str]) -> Probe:
    source, dst = parse_address(flow.src.address), parse_address(flow.dst.address)
    return Probe(places[flow.src.address], dst, PROTOCOLS[flow.protocol], flow.port, dst.family, source)
