"""Flows that were open when their address went to another pod: who has them then, and since when."""

from __future__ import annotations

from random import Random

from tests.soak.open_flows import OpenFlows
from tests.soak.packets import Asked

OLD, NEW, FAR = "shop/old", "shop/new", "shop/far"


def test_who_inherits_a_flow_is_told_since_when() -> None:
    flows = OpenFlows(Random(1))
    for src, dst in ((OLD, FAR), (FAR, OLD)):
        addresses = {OLD: "10.0.0.1", FAR: "10.0.0.2"}
        flows.open(Asked(src, dst, addresses[src], addresses[dst], "UDP", 80))
    own = Asked(FAR, FAR, "10.0.0.2", "10.0.0.2", "UDP", 80)
    flows.open(own)
    left = flows.leave(OLD)
    assert len(left) == 2 and {flow.asked for flow in flows.due(9)} == {own}
    flows.inherit(left, NEW, ["10.0.0.1"], 12.5)
    found = {(flow.asked.src, flow.asked.dst): (flow.port, flow.inherited) for flow in flows.due(9)}
    ports = [flow.port for flow in left]
    assert found == {(NEW, FAR): (ports[0], 12.5), (FAR, NEW): (ports[1], 12.5), (FAR, FAR): (ports[1] + 1, 0.0)}
