"""Oracle = verdict = simulated rules, over at least 100,000 random flows, and over clusters that shrink."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.generate import cluster, flows
from tests.oracle import End, Flow, Oracle
from tests.oracle.fields import Object
from tests.proof.compare import FLOWS_A_CLUSTER, case, mismatches
from tests.proof.fuzz import batches, run_seeds
from tests.proof.shrink import shrink
from tests.semantics.world import policy, standing

PARTS = 4
FIRST_SEED = 1_000_000


@pytest.mark.parametrize("part", range(PARTS))
def test_a_hundred_thousand_random_flows(part: int) -> None:
    counts: Counter[bool] = Counter()
    for seeds in batches(FIRST_SEED * (part + 1), 100_000 // PARTS):
        outcome = run_seeds(seeds)
        assert isinstance(outcome, Counter), f"seed {outcome}: python -m tests.proof.fuzz --flows 1 --seed {outcome}"
        counts += outcome
    assert counts.total() >= 100_000 // PARTS
    # Neither answer may be a rare one, or the agreement would say little.
    assert min(counts[True], counts[False]) > counts.total() // 10


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_clusters_that_hypothesis_makes(rng: Random) -> None:
    objects = cluster(rng)
    assert list(mismatches(objects, flows(rng, objects, 30))) == []


def test_the_generator_reaches_every_sort_of_flow() -> None:
    """Each sort is there with both answers; a flow of a pod to itself is always allowed."""
    seen: Counter[tuple[str, bool]] = Counter()
    for seed in range(60):
        objects, asked, _ = case(seed)
        oracle = Oracle(objects)
        for flow in asked:
            answer = all(oracle.verdict(flow))
            seen.update((sort, answer) for sort in _sorts(objects, flow))
    sorts = {sort for sort, _ in seen}
    assert sorts == {"pod to pod", "outside to pod", "pod to outside", "self", "IPv4", "IPv6", "ICMP"}
    assert {(sort, answer) for sort in sorts for answer in (True, False)} - set(seen) == {("self", False)}


def _sorts(objects: list[Object], flow: Flow) -> list[str]:
    sorts = ["IPv6" if ":" in flow.src.address else "IPv4"]
    if flow.src.pod and flow.dst.pod:
        sorts.append("self" if flow.src.pod == flow.dst.pod else "pod to pod")
    elif flow.src.pod or flow.dst.pod:
        sorts.append("pod to outside" if flow.src.pod else "outside to pod")
    return sorts + (["ICMP"] if flow.protocol == "ICMP" else [])


def test_one_seed_is_one_case() -> None:
    assert case(7) == case(7)
    assert len(case(7)[1]) == FLOWS_A_CLUSTER


def test_a_failing_case_shrinks_to_what_matters() -> None:
    """What shows it here: the flow is denied, which takes one isolating policy and the pod that it selects."""
    objects = [
        *standing(),
        policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}"),
        policy("{}", "bank/other"),
    ]
    flow = Flow(End("203.0.113.7"), End("10.1.0.10", "shop/web"), "TCP", 80)
    before = deepcopy(objects)
    small = shrink(objects, lambda candidate: not all(Oracle(candidate).verdict(flow)))
    assert objects == before
    assert sorted(each["kind"] for each in small) == ["NetworkPolicy", "Pod"]
    assert "containers" not in str(small) and "policyTypes" not in str(small)
