"""Over random clusters: the verdict is the oracle's, the rules that are named decide, and each near miss is one: the
changes that it names, applied, make that very rule admit."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from compiler.compile import Compiled, compile_cluster
from compiler.explain import Explanation, Side, explain
from compiler.open_ports import granting_rules, open_ports
from compiler.verdict import Half, verdict
from policy.model import NetworkPolicy, Rule
from tests.engine import Engine
from tests.explain.changed import Changed
from tests.oracle import Oracle
from tests.proof.compare import case

NO_CHANGE = {"icmp", "no pod", "not understood", "selects nothing", "no rule", "named port"}
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_each_near_miss_is_one(part: int) -> None:
    kinds: Counter[str] = Counter()
    applied = 0
    for seed in range(7000 + 40 * part, 7040 + 40 * part):
        objects, flows, node_egress = case(seed, 60)
        engine, oracle = Engine(objects, node_egress), Oracle(objects)
        for flow in flows:
            asked = engine.flow(flow)
            explained = explain(engine.compiled, asked, node_egress)
            ingress, egress = oracle.verdict(flow, node_egress)
            assert (explained.ingress.half.allowed, explained.egress.half.allowed) == (ingress, egress), flow
            for side in explained.sides:
                assert bool(side.misses) is not side.half.allowed
                assert {miss.policy.policy for miss in side.misses} == _denying(side.half)
                for miss in side.misses:
                    kinds.update(obstacle.kind for obstacle in miss.obstacles)
                    applied += _check(engine.compiled, explained, side, miss)
    assert applied > 250
    assert len(kinds) >= 11, kinds


def _denying(half: Half) -> set[str]:
    return set() if half.allowed else {policy.policy for policy in half.policies}


def _check(compiled: Compiled, explained: Explanation, side: Side, miss) -> bool:
    assert miss.obstacles, "a rule with nothing in its way admits"
    if any(obstacle.change is None for obstacle in miss.obstacles):
        assert {obstacle.kind for obstacle in miss.obstacles if obstacle.change is None} <= NO_CHANGE
        return False
    try:
        changed, flow = Changed(compiled, explained.flow, side.half.direction).apply(miss)
    except LookupError:  # a block that excepts all of itself
        return False
    answer = verdict(changed, flow)
    half = answer.ingress if side.half.direction == "ingress" else answer.egress
    assert half.allowed
    if half.because == "rule":
        assert miss.rule in half.rules, f"{miss} did not admit {flow}"
    return True


@pytest.mark.parametrize("seed", range(7300, 7325))
def test_the_rules_that_are_named_decide(seed: int) -> None:
    """Without them all the flow is denied; with any one of them left it is allowed, by that one."""
    objects, flows, node_egress = case(seed, 40)
    engine = Engine(objects, node_egress)
    for flow in flows:
        asked = engine.flow(flow)
        for side in explain(engine.compiled, asked, node_egress).sides:
            if side.half.because != "rule":
                continue
            rules = sorted({(ref.policy, ref.rule) for ref in side.half.rules})
            for kept in (None, *rules):
                without = _without(engine.compiled, side.half, set(rules) - {kept})
                answer = verdict(without, asked, node_egress)
                half = answer.ingress if side.half.direction == "ingress" else answer.egress
                assert half.allowed is (kept is not None)
                assert {(ref.policy, ref.rule) for ref in half.rules} == ({kept} if kept else set())


def _without(compiled: Compiled, half: Half, rules: set[tuple[str, int]]) -> Compiled:
    """The same with those rules of the half's direction granting nothing."""

    def kept(policy: NetworkPolicy) -> NetworkPolicy:
        old = policy.ingress if half.direction == "ingress" else policy.egress
        new = tuple(Rule(understood=False) if (policy.key, at) in rules else rule for at, rule in enumerate(old))
        return replace(policy, **{half.direction: new})

    return compile_cluster(replace(compiled.cluster, policies=[kept(policy) for policy in compiled.cluster.policies]))


@pytest.mark.parametrize("seed", range(7400, 7430))
def test_the_open_ports_are_those_of_single_verdicts(seed: int) -> None:
    objects, flows, node_egress = case(seed, 40)
    engine = Engine(objects, node_egress)
    for flow in flows:
        asked = engine.flow(flow)
        found = open_ports(engine.compiled, asked.src, asked.dst, node_egress)
        answer = verdict(engine.compiled, asked, node_egress)
        for half, single in ((found.egress, answer.egress), (found.ingress, answer.ingress)):
            assert half.ports.contains(flow.protocol, flow.port) is single.allowed, flow
            if half.because == "rule":
                rules = granting_rules(engine.compiled, asked.src, asked.dst, half.direction)
                named = {ref.rule for ref, ports in rules if ports.contains(flow.protocol, flow.port)}
                assert named == {ref.rule for ref in single.rules}
