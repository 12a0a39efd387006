"""The realistic cluster has the published numbers."""

from __future__ import annotations

from statistics import median

import pytest

from benchmarks.realistic import Counts, realistic
from benchmarks.scenario import NODE, Scenario, allowed
from policy.model import DIRECTIONS, NetworkPolicy, Rule


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return realistic(Counts(), ("outside", "src"))


def rules(policy: NetworkPolicy) -> list[Rule]:
    """Those of one direction; where both have rules they are the same."""
    return list(next(policy.rules(direction) for direction in DIRECTIONS if direction in policy.isolates))


def test_counts_and_medians(scenarios: list[Scenario]) -> None:
    compiled = scenarios[0].compiled
    cluster = compiled.cluster
    assert (len(cluster.pods), len(cluster.namespaces), len(cluster.policies)) == (5413, 604, 13678)
    by_namespace: dict[str, list] = {}  # type: ignore[type-arg]
    for pod in cluster.pods:
        by_namespace.setdefault(pod.namespace, []).append(pod)
    subjects, peer_pods, blocks, ports = [], [], [], []
    for policy in cluster.policies:
        near = by_namespace[policy.namespace]
        subjects.append(sum(policy.subjects.matches(pod.labels) for pod in near))
        peers = [peer for rule in rules(policy) for peer in rule.peers]
        blocks.append(sum(peer.block is not None for peer in peers))
        chosen = set()
        for peer in peers:
            if peer.pods is not None:
                among = near if peer.namespaces is None else cluster.pods
                chosen.update(pod.key for pod in among if peer.pods.matches(pod.labels))
        peer_pods.append(len(chosen))
        ports.append(median(len(rule.ports) for rule in rules(policy)))
    assert (median(subjects), median(peer_pods), max(peer_pods), median(blocks), median(ports)) == (6, 2, 3578, 1, 1)


def test_all_flows_are_allowed_and_new(scenarios: list[Scenario]) -> None:
    for scenario in scenarios:
        assert all(allowed(scenario.compiled, scenario.flows))
        assert len(set(scenario.flows)) == len(scenario.flows)
        assert scenario.dst.node == NODE
        here = [pod for pod in scenario.compiled.cluster.pods if pod.node == NODE]
        assert len(here) == 110


def test_both_ends_are_isolated_where_both_are_on_the_node(scenarios: list[Scenario]) -> None:
    scenario = scenarios[1]
    assert scenario.compiled.allow(scenario.src, "egress").isolated
    assert scenario.compiled.allow(scenario.dst, "ingress").isolated
