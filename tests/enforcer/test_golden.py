"""The rules of the example's node n1, kept as text that a reviewer can read.

After a change that is meant: `UPDATE_GOLDEN=1 python -m pytest tests/enforcer/test_golden.py`, then read the diff.
"""

import os
from pathlib import Path

import pytest

from compiler.compile import compile_cluster
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.parse import Installed
from enforcer.rules.plan import Actual, plan
from podfence.load import load
from policy.cidr import Family

EXAMPLE = Path(__file__).parents[2] / "manifests/examples/shop"
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("family", [4, 6])
def test_the_rules_of_the_example(family: Family) -> None:
    compiled = compile_cluster(load([str(EXAMPLE)]).cluster)
    (node,) = (node for node in compiled.cluster.nodes if node.name == "n1")
    veths = {pod.key: f"veth-{pod.name}" for pod in local_pods(compiled, "n1")}
    wanted = layout(compiled, NodeView("n1", veths, node.pod_cidrs), family)
    text = "\n".join(step.text for step in plan(Actual(family, Installed({}, {}), {}), wanted))
    golden = GOLDEN / f"shop-n1-ipv{family}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
