"""The budget of an allow-set: what a tenant may write costs a bounded time, and what is beyond it isolates."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from compiler.allowset import AllowSet
from compiler.budget import BUDGET, BeyondBudget, Meter, most_within
from compiler.compile import compile_cluster
from compiler.explain import explain
from compiler.verdict import End, Flow
from enforcer.cluster.resources import POLICIES, read_object
from enforcer.rules.allow import allow_rules
from policy.cidr import Family, parse_address
from policy.model import Cluster, Namespace, NetworkPolicy, Pod

POD = Pod("shop", "web", {}, node="n1", addresses=(parse_address("10.1.0.1"),), phase="Running")
PEER = Pod("shop", "api", {"app": "v1"}, node="n1", addresses=(parse_address("10.1.0.2"),), phase="Running")
FAMILIES: tuple[Family, Family] = (4, 6)
Rules = list[dict[str, Any]]


def policy(name: str, rules: Rules) -> NetworkPolicy:
    spec = {"podSelector": {}, "ingress": rules}
    meta = {"name": name, "namespace": "shop"}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    found = read_object(POLICIES, msgspec.json.encode(body)).event
    assert isinstance(found, NetworkPolicy)
    return found


def ingress(*policies: NetworkPolicy) -> AllowSet:
    return compile_cluster(Cluster([], [POD, PEER], list(policies), [], [], [])).allow(POD, "ingress")


def block(at: int) -> str:
    return f"10.{at // 250}.{at % 250}.0/24"


def excepting(count: int) -> Rules:
    blocks = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [block(at)]}} for at in range(count)]
    return [{"from": [each], "ports": [{"port": 1000 + 2 * at}]} for at, each in enumerate(blocks)]


def overlapping(count: int) -> Rules:
    peers = [{"podSelector": {"matchLabels": {"app": f"v{at}"}}} for at in range(count)]
    return [{"from": [each], "ports": [{"port": at + 1, "endPort": at + count}]} for at, each in enumerate(peers)]


def nested(count: int) -> Rules:
    peers = [{"ipBlock": {"cidr": f"10.{at % 200}.0.0/{16 + at // 200}"}} for at in range(count)]
    return [{"from": peers[: at + 1], "ports": [{"port": 1000 + 2 * at}]} for at in range(count)]


def named(count: int) -> Rules:
    peers = [{"podSelector": {"matchLabels": {"app": f"v{at}"}}} for at in range(count)]
    return [{"from": peers, "ports": [{"port": f"p{at}"} for at in range(count)]}]


def folding(count: int) -> Rules:
    """Narrow ports, and blocks: each pair would be an element of one set."""
    groups = [[{"ipBlock": {"cidr": block(at)}} for at in range(group, count, 6)] for group in range(6)]
    return [
        {"from": each, "ports": [{"port": 1 + 50 * at, "endPort": 100 + 50 * at}]} for at, each in enumerate(groups)
    ]


@pytest.mark.parametrize("rules", [excepting(1000), overlapping(1000), nested(300), folding(12_000)])
def test_no_policy_stalls_a_node(rules: Rules) -> None:
    """1,000 rules with a block, an exception and a port each took 16 s before, overlapping ports 30 s."""
    large = policy("large", rules)
    began = time.process_time()
    found = ingress(large)
    elements = [len(each.fixed) for family in FAMILIES for each in allow_rules(found, "ingress", family).sets]
    assert time.process_time() - began < 4
    assert found.isolated and sum(elements) < 200_000


def test_what_is_beyond_the_budget_isolates_and_grants_nothing() -> None:
    found = ingress(policy("large", excepting(1000)))
    assert found.isolated and found.too_large == ("shop/large",)
    assert found.grants == () and found.bound == () and [ref.policy for ref in found.policies] == ["shop/large"]


def test_what_other_policies_grant_stays() -> None:
    small = policy("small", [{"ports": [{"port": 80}]}])
    found = ingress(policy("another", excepting(20)), policy("large", overlapping(1000)), small)
    alone = ingress(policy("another", excepting(20)), small)
    assert found.too_large == ("shop/large",)
    assert found.grants == alone.grants and found.bound == alone.bound


def test_of_many_that_are_too_many_together_the_largest_grant_nothing() -> None:
    def slice_of(at: int) -> Rules:
        return excepting(400)[at : at + 10 + at // 10]

    policies = [policy(f"p{at}", slice_of(at)) for at in range(0, 400, 10)]
    found = ingress(*policies)
    assert found.too_large and set(found.too_large) < {each.key for each in policies}
    size = {each.key: len(each.rules("ingress")) for each in policies}
    kept = size.keys() - set(found.too_large)
    assert max(size[key] for key in kept) <= min(size[key] for key in found.too_large)
    assert ingress(*reversed(policies)) == found, "the order in which they come decides nothing"
    assert ingress(*(each for each in policies if each.key in kept)).grants == found.grants


def block_peers(count: int) -> Rules:
    return [{"ipBlock": {"cidr": block(at)}} for at in range(count)]


def with_label(at: int) -> Rules:
    return [{"podSelector": {"matchLabels": {"app": f"v{at}"}}}]


@pytest.mark.parametrize(
    "rules",
    [
        [{"from": block_peers(8_000), "ports": [{"port": 1}, {"port": 80}]}],
        [{"from": block_peers(4_000), "ports": [{"port": 2 * at} for at in range(1, 90)]}],
        [{"from": block_peers(200), "ports": [{"port": at}]} for at in range(1, 200)],
        [{"from": with_label(at), "ports": [{"port": at}]} for at in range(1, 9_000)],
        [{"from": block_peers(at + 1)[at:], "ports": [{"port": at}]} for at in range(1, 2_000)],
        [{"ports": [{"port": 3 * at}]} for at in range(1, 9_000)],
    ],
)
def test_what_is_large_and_does_not_multiply_is_no_matter(rules: Rules) -> None:
    large = policy("large", rules)
    began = time.process_time()
    assert ingress(large).too_large == ()
    assert time.process_time() - began < 4


def test_names_times_peers_are_counted_too() -> None:
    spec = {"podSelector": {}, "egress": [{"to": named(1000)[0]["from"], "ports": named(1000)[0]["ports"]}]}
    meta = {"name": "large", "namespace": "shop"}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    large = read_object(POLICIES, msgspec.json.encode(body)).event
    assert isinstance(large, NetworkPolicy)
    compiled = compile_cluster(Cluster([], [POD, PEER], [large], [], [], []))
    assert compiled.allow(POD, "egress").too_large == ("shop/large",)


def test_an_explanation_says_why_a_rule_that_would_admit_does_not() -> None:
    compiled = compile_cluster(
        Cluster([Namespace("shop", {})], [POD, PEER], [policy("large", overlapping(1000))], [], [], [])
    )
    said = explain(compiled, Flow(End(PEER, PEER.addresses[0]), End(POD, POD.addresses[0]), "TCP", 500))
    assert not said.verdict.allowed
    (miss,) = said.ingress.misses
    assert [each.kind for each in miss.obstacles] == ["too large"] and "too many" in miss.obstacles[0].text


def test_the_most_that_are_within() -> None:
    def work(items: object, meter: Meter) -> int:
        assert isinstance(items, list | tuple)
        for each in items:
            meter.spend(each)
        return len(items)

    for sizes in ([BUDGET + 1], [BUDGET, 1], [1, BUDGET, 1], [1, 2, BUDGET - 3, 1], [BUDGET // 3] * 7):
        count, found = most_within(sizes, work)
        assert count == found and sum(sizes[:count]) <= BUDGET < sum(sizes[: count + 1])


def test_a_meter_without_a_budget_only_counts() -> None:
    meter = Meter()
    meter.spend(10 * BUDGET)
    assert meter.spent == 10 * BUDGET
    with pytest.raises(BeyondBudget):
        Meter(1).spend(2)
