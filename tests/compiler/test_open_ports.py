"""All ports at once: as the verdict says of each."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from compiler.open_ports import open_ports
from compiler.verdict import verdict
from tests.compiler.test_compare import ports_worth_asking
from tests.engine import Engine
from tests.generate import cluster, flows


@pytest.mark.parametrize("seed", range(20))
def test_as_the_verdict_says(seed: int) -> None:
    rng = Random(seed)
    objects = cluster(rng)
    ports = ports_worth_asking(objects)
    for node_egress in ("enforce", "allow"):
        engine = Engine(objects, node_egress)
        for flow in flows(rng, objects, 60):
            asked = engine.flow(flow)
            for src in (asked.src, replace(asked.src, address=None)):
                found = open_ports(engine.compiled, src, asked.dst, node_egress)
                for protocol, port in rng.sample(ports, 12):
                    said = verdict(engine.compiled, replace(asked, src=src, protocol=protocol, port=port), node_egress)
                    assert found.ports.contains(protocol, port) is said.allowed
                    assert found.possible.contains(protocol, port) is (said.allowed or said.uncertain)
