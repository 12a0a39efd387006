"""What the soak takes for a right verdict, and what for a wrong one."""

from __future__ import annotations

from itertools import product
from typing import Any

from tests.soak.judge import ENDS_WITHIN, Judge, Kind, Sent, verdicts_of
from tests.soak.packets import Asked, build, number_in
from tests.soak.timeline import BOUND, Timeline

NODES = [
    {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "spec": {}, "status": {"addresses": []}}
    for name in ("n1", "n2")
]
ASKED = Asked("a/src", "a/dst", "10.0.0.1", "10.0.0.2", "UDP", 80)
DENY: dict[str, Any] = {
    "kind": "NetworkPolicy",
    "apiVersion": "networking.k8s.io/v1",
    "metadata": {"name": "deny", "namespace": "a"},
    "spec": {"podSelector": {}},
}


def pod(name: str, address: str, node: str = "n1") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def judge_of(*pods: dict[str, Any]) -> Judge:
    timeline = Timeline({("Pod", 0): list(pods), ("NetworkPolicy", 0): [], ("Namespace", 0): []})
    return Judge(timeline, NODES, {"a/src": "n1", "a/dst": "n1"})


def wrong(judge: Judge, moment: float, passed: bool) -> bool:
    before = len(judge.wrong)
    judge.judge(Sent(1, ASKED, moment, moment + 0.01, 1000), passed)
    return len(judge.wrong) > before


SRC, DST = pod("src", "10.0.0.1"), pod("dst", "10.0.0.2")


def test_where_nothing_changes_one_verdict_is_right() -> None:
    judge = judge_of(SRC, DST)
    assert not wrong(judge, 1.0, passed=True)
    assert wrong(judge, 1.0, passed=False)


def test_either_verdict_is_right_from_when_a_change_is_sent_until_it_is_reported_and_no_longer() -> None:
    judge = judge_of(SRC, DST)
    change = judge.timeline.begin("deny", 10.0, 0, {"NetworkPolicy": [DENY]})
    assert wrong(judge, 9.9, passed=False), "it was over before the change was sent"
    assert not wrong(judge, 9.995, passed=False), "it may still have been on its way"
    assert not wrong(judge, 11.0, passed=False) and not wrong(judge, 11.0, passed=True)
    judge.timeline.finish([change], 12.0)
    assert not wrong(judge, 11.9, passed=True)
    assert wrong(judge, 12.1, passed=True) and not wrong(judge, 12.1, passed=False)
    assert "deny" in str(judge.wrong[-1]) and "passed, and is denied" in str(judge.wrong[-1])
    assert judge.counts["with either verdict"] == 4


def test_a_flow_that_a_change_does_not_decide_otherwise_has_one_verdict_meanwhile() -> None:
    judge = judge_of(SRC, DST)
    elsewhere = {**DENY, "metadata": {"name": "deny", "namespace": "b"}}
    judge.timeline.begin("elsewhere", 10.0, 0, {"NetworkPolicy": [elsewhere]})
    assert wrong(judge, 11.0, passed=False)
    assert judge.counts["with either verdict"] == 0


def test_whoever_is_not_known_is_closed() -> None:
    judge = judge_of(SRC)
    assert wrong(judge, 1.0, passed=True)
    judge.timeline.begin("pod", 2.0, 0, {"Pod": [SRC, DST]})
    assert not wrong(judge, 3.0, passed=True)


def test_its_own_node_reaches_whoever_is_not_known_and_is_not_reached() -> None:
    judge = judge_of(SRC)
    way = Asked("n1", "a/dst", "172.18.0.2", "10.0.0.2", "UDP", 80)
    for asked, passes in ((way, True), (way._replace(src="n2"), False), (way._replace(src="a/dst", dst="n1"), False)):
        judge.judge(Sent(1, asked, 1.0, 1.01, 1000), passes)
        assert not judge.wrong, asked


def test_on_another_node_whoever_is_not_known_is_the_one_who_had_the_address() -> None:
    """Its own node has heard of it, and the other one, which lets in the former one only, has not yet."""
    former, latter = (
        {**pod(name, "10.0.0.1"), "metadata": {"name": name, "namespace": "a", "labels": {"app": name}}}
        for name in ("former", "src")
    )
    friend = {"from": [{"podSelector": {"matchLabels": {"app": "former"}}}]}
    policy = {**DENY, "spec": {"podSelector": {"matchLabels": {"app": "dst"}}, "ingress": [friend]}}
    far = {**pod("dst", "10.0.0.2", "n2"), "metadata": {"name": "dst", "namespace": "a", "labels": {"app": "dst"}}}
    judge = judge_of(former, far)
    judge.nodes["a/dst"] = "n2"
    judge.timeline.objects["NetworkPolicy", 0] = [policy]
    assert wrong(judge, 1.0, passed=True), "its own node has not heard of it"
    change = judge.timeline.begin("handed over", 2.0, 0, {"Pod": [latter, far]})
    assert not wrong(judge, 2.5, passed=True)
    judge.timeline.finish([change], 3.0)
    assert wrong(judge, 3.5, passed=True) and not wrong(judge, 3.5, passed=False)


def in_flow(judge: Judge, moment: float, passed: bool, kind: Kind = "open", back: Asked | None = None) -> bool:
    before = len(judge.wrong)
    judge.judge(Sent(1, ASKED, moment, moment + 0.01, 1000, kind, back), passed)
    return len(judge.wrong) > before


def test_a_flow_that_a_change_forbids_may_pass_for_a_while_and_no_longer() -> None:
    judge = judge_of(SRC, DST)
    change = judge.timeline.begin("deny", 10.0, 0, {"NetworkPolicy": [DENY]})
    judge.timeline.finish([change], 10.1)
    assert not in_flow(judge, 10.1 + ENDS_WITHIN, passed=True) and not in_flow(judge, 10.1, passed=False)
    assert in_flow(judge, 10.2 + ENDS_WITHIN, passed=True)
    assert wrong(judge, 10.2, passed=True), "a new flow may not"
    assert judge.counts["in open flows"] == 3


def test_beside_an_absent_agent_flows_may_have_either_verdict() -> None:
    judge = judge_of(SRC, DST)
    absence = judge.timeline.leaves("n1", 5.0)
    judge.timeline.returned(absence, 8.0)
    assert not in_flow(judge, 7.0, passed=False) and not in_flow(judge, 8.0 + ENDS_WITHIN, passed=False)
    assert in_flow(judge, 8.1 + ENDS_WITHIN, passed=False) and wrong(judge, 7.0, passed=False)


def test_a_flow_of_the_former_owner_may_pass_for_a_moment_and_is_counted() -> None:
    judge = judge_of(SRC, DST)
    judge.timeline.objects["NetworkPolicy", 0] = [DENY]
    for moment, is_wrong in ((10.1, False), (9.9 + ENDS_WITHIN, False), (10.1 + ENDS_WITHIN, True)):
        judge.judge(Sent(1, ASKED, moment, moment + 0.01, 1000, "open", inherited=10.0), True)
        assert bool(judge.wrong) == is_wrong
    assert len(judge.lags) == 2 and judge.counts["inherited"] == 3


def test_what_comes_back_may_pass_by_either_way_and_unasked_need_not() -> None:
    judge = judge_of(SRC, DST)
    lonely = {**DENY, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
    back = ASKED._replace(src="a/dst", dst="a/src", src_address="10.0.0.2", dst_address="10.0.0.1")
    assert in_flow(judge, 1.0, passed=False, kind="answer", back=back)
    assert not in_flow(judge, 1.0, passed=False, kind="unasked", back=back)
    judge.timeline.finish([judge.timeline.begin("lonely", 10.0, 0, {"NetworkPolicy": [lonely]})], 10.1)
    assert in_flow(judge, 20.0, passed=True, kind="unasked", back=back)


def test_a_node_takes_what_comes_back_for_an_answer_where_its_own_end_may_ask() -> None:
    """The far end lets nobody in, but may send; the near end may ask, and lets nobody in."""
    closed = {**DENY, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
    back = ASKED._replace(src="a/dst", dst="a/src", src_address="10.0.0.2", dst_address="10.0.0.1")
    for node, passes in (("n1", False), ("n2", True)):
        judge = judge_of(SRC, pod("dst", "10.0.0.2", node))
        judge.nodes["a/dst"] = node
        judge.timeline.objects["NetworkPolicy", 0] = [closed]
        assert in_flow(judge, 1.0, passed=True, kind="unasked", back=back) != passes
        assert in_flow(judge, 1.0, passed=True), "the flow itself may not"


def test_states_that_never_met_are_not_mixed_however_long_is_looked_back() -> None:
    timeline = judge_of(SRC, DST).timeline
    for moment, kind in ((1.0, "Pod"), (2.0, "NetworkPolicy"), (3.0, "Namespace")):
        timeline.finish([timeline.begin(kind, moment, 0, {kind: []})], moment + 0.5)
    assert timeline.in_force(0.5, 4.0) == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]
    assert timeline.in_force(1.7, 2.2) == [(1, 0, 0), (1, 1, 0)]


def test_kinds_are_told_of_by_streams_of_their_own_and_each_keeps_its_order() -> None:
    judge = judge_of(SRC, DST)
    timeline = judge.timeline
    timeline.begin("policy", 1.0, 0, {"NetworkPolicy": [DENY]})
    timeline.begin("pods", 2.0, 0, {"Pod": [SRC]})
    timeline.begin("no policy", 3.0, 0, {"NetworkPolicy": []})
    assert timeline.admissible(2.5, 2.5) == [*product((0, 1), (0, 1), (0,))]
    assert timeline.admissible(4.0, 4.0) == [*product((0, 1), (0, 1, 2), (0,))]


def test_a_transition_that_lasts_beyond_its_bound_is_told() -> None:
    timeline = judge_of().timeline
    timeline.finish([timeline.begin("quick", 1.0, 0, {})], 1.0 + BOUND)
    timeline.finish([timeline.begin("beside a fault", 1.0, 5, {})], 5.0 + BOUND)
    assert not timeline.overdue
    timeline.finish([timeline.begin("slow", 1.0, 0, {})], 1.1 + BOUND)
    assert [each.startswith("slow") for each in timeline.overdue] == [True]


def test_nothing_is_forgotten_that_a_probe_may_have_met_which_waits_to_be_judged() -> None:
    judge = judge_of(SRC, DST)
    timeline = judge.timeline
    assert not wrong(judge, 1.0, passed=True)
    for moment in (10.0, 50.0, 90.0):
        timeline.finish([timeline.begin("deny", moment, 0, {"NetworkPolicy": [DENY]})], moment + 1)
    assert not wrong(judge, 5.0, passed=True), "the rest is judged long after it was sent"
    assert wrong(judge, 30.0, passed=True)
    judge.judge(Sent(1, ASKED, 95.0, 95.1, 1000), False)
    timeline.finish([timeline.begin("again", 96.0, 0, {})], 96.0)
    assert [each.what for each in timeline.changes] == ["deny", "again"]


def test_damage_excuses_its_own_node_until_it_is_repaired() -> None:
    judge = judge_of(SRC, DST)
    elsewhere = judge.timeline.damage("n2", "flushed", 1.0, 3)
    assert wrong(judge, 2.0, passed=False)
    here = judge.timeline.damage("n1", "flushed", 1.0, 3)
    assert not wrong(judge, 2.0, passed=False)
    judge.timeline.repaired(here, 3.0)
    assert wrong(judge, 3.1, passed=False)
    judge.timeline.repaired(elsewhere, 30.0)
    assert len(judge.timeline.overdue) == 1


def test_two_nodes_never_change_at_once_and_one_does() -> None:
    """Denied by egress before and by ingress after: passes in between where the ends are on two nodes only."""
    halves = [(False, True), (True, False)]
    assert verdicts_of(halves, apart=False) == {False}
    assert verdicts_of(halves, apart=True) == {False, True}


def test_packets_carry_their_number() -> None:
    for protocol, (src, dst) in product(("UDP", "TCP", "ICMP"), (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"))):
        asked = Asked("a/src", "a/dst", src, dst, protocol, 80)
        head = b"" if asked.family == 6 else b"\x45" + bytes(19)
        assert number_in(protocol, asked.family, head + build(asked, 123456, 7)) == 123456
