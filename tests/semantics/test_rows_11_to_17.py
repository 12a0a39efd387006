"""Semantics, rows 11 to 17: peers."""

from __future__ import annotations

import pytest

from tests.semantics.world import OUTSIDE, pod, policy, space, world


def from_peers(peers: str) -> str:
    return f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {peers}}}]}}"


def to_peers(peers: str) -> str:
    return f"{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{to: {peers}}}]}}"


def test_row_11_pod_selector_alone_means_the_policys_namespace() -> None:
    there = world(from_peers("[{podSelector: {matchLabels: {app: db}}}]"))
    assert there.who_reaches("shop/web") == {"shop/db"}
    everyone = world(from_peers("[{podSelector: {}}]"))
    assert everyone.who_reaches("shop/web") == {"shop/db"}
    out = world(to_peers("[{podSelector: {matchLabels: {app: db}}}]"))
    assert out.egress("shop/web", "shop/db") and not out.egress("shop/web", "bank/db")


def test_row_12_namespace_selector_alone_is_every_pod_of_those_namespaces() -> None:
    there = world(from_peers("[{namespaceSelector: {matchLabels: {team: bank}}}]"))
    assert there.who_reaches("shop/web") == {"bank/web", "bank/db"}
    every = world(from_peers("[{namespaceSelector: {}}]"))
    assert every.who_reaches("shop/web") == {"shop/db", "bank/web", "bank/db"}
    out = world(to_peers("[{namespaceSelector: {}}]"))
    assert out.egress("shop/web", "bank/db") and not out.egress("shop/web", OUTSIDE)


def test_row_13_both_selectors_are_and() -> None:
    both = "[{namespaceSelector: {matchLabels: {team: bank}}, podSelector: {matchLabels: {app: db}}}]"
    assert world(from_peers(both)).who_reaches("shop/web") == {"bank/db"}


def test_row_13_two_entries_are_or() -> None:
    either = "[{namespaceSelector: {matchLabels: {team: bank}}}, {podSelector: {matchLabels: {app: db}}}]"
    assert world(from_peers(either)).who_reaches("shop/web") == {"shop/db", "bank/web", "bank/db"}


def test_row_13_terms_within_a_selector_are_and() -> None:
    both = "[{namespaceSelector: {matchLabels: {team: bank, tier: x}}}]"
    assert world(from_peers(both)).who_reaches("shop/web") == set()
    mixed = (
        "[{podSelector: {matchLabels: {app: db}, matchExpressions: [{key: app, operator: NotIn, values: [db]}]}, "
        "namespaceSelector: {}}]"
    )
    assert world(from_peers(mixed)).who_reaches("shop/web") == set()


@pytest.mark.parametrize("peers", ["[{}]", "[{podSelector: null}]", "[{ipBlock: null, namespaceSelector: null}]"])
def test_row_14_a_peer_with_nothing_set_matches_nothing(peers: str) -> None:
    assert world(from_peers(peers)).who_reaches("shop/web") == set()
    assert not world(to_peers(peers)).egress("shop/web", OUTSIDE)


def test_row_14_such_a_peer_is_refused_and_so_its_whole_rule_grants_nothing() -> None:
    there = world(from_peers("[{}, {podSelector: {}}]"), from_peers("[{podSelector: {matchLabels: {app: db}}}]"))
    assert there.who_reaches("shop/web") == {"shop/db"}
    assert [problem.field for problem in there.engine.decoded.problems] == ["spec.ingress[0].from[0]"]


@pytest.mark.parametrize(
    ("expression", "matching"),
    [
        ("{key: team, operator: In, values: [bank, other]}", {"bank/web", "bank/db"}),
        ("{key: team, operator: NotIn, values: [bank]}", {"shop/db", "plain/pod"}),
        ("{key: team, operator: NotIn, values: [bank, shop]}", {"plain/pod"}),
        ("{key: team, operator: Exists}", {"shop/db", "bank/web", "bank/db"}),
        ("{key: team, operator: DoesNotExist}", {"plain/pod"}),
        ("{key: nowhere, operator: NotIn, values: [x]}", {"shop/db", "bank/web", "bank/db", "plain/pod"}),
    ],
)
def test_row_15_not_in_and_does_not_exist_are_true_for_a_missing_key(expression: str, matching: set[str]) -> None:
    there = world(
        from_peers(f"[{{namespaceSelector: {{matchExpressions: [{expression}]}}}}]"),
        space("plain"),
        pod("plain/pod", ["10.1.0.20"]),
    )
    assert there.who_reaches("shop/web") == matching


def test_row_15_not_in_selects_subjects_without_the_key() -> None:
    there = world("{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [x]}]}}")
    assert there.who_reaches("shop/web") == set()


def test_row_16_ip_block_matches_pod_and_node_addresses_literally() -> None:
    there = world(from_peers("[{ipBlock: {cidr: 10.1.1.10/32}}, {ipBlock: {cidr: 192.0.2.11/32}}]"))
    assert there.who_reaches("shop/web") == {"bank/web"}
    assert there.ingress("node-1", "shop/web")
    assert not there.ingress(OUTSIDE, "shop/web")
    out = world(to_peers("[{ipBlock: {cidr: 10.1.1.0/24}}, {ipBlock: {cidr: 192.0.2.0/24}}]"))
    assert out.egress("shop/web", "bank/web") and out.egress("shop/web", "node-1")
    assert not out.egress("shop/web", "shop/db")


def test_row_16_the_whole_family_says_nothing_of_the_other() -> None:
    there = world(from_peers("[{ipBlock: {cidr: 0.0.0.0/0}}]"))
    assert there.who_reaches("shop/web") == {"shop/db", "bank/web", "bank/db", OUTSIDE}
    assert not there.ingress("fd00:1:0:1::a", "fd00:1::a")


def test_row_17_except_takes_from_its_own_entry() -> None:
    there = world(from_peers("[{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.0/24]}}]"))
    assert there.who_reaches("shop/web") == {"shop/db"}
    nested = world(from_peers("[{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.10/32, 10.1.1.8/29, 10.1.0.0/24]}}]"))
    assert nested.who_reaches("shop/web") == set()
    assert nested.ingress("10.1.2.1", "shop/web")


def test_row_17_except_never_takes_from_another_entry() -> None:
    peers = "[{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.0/24]}}, {ipBlock: {cidr: 10.1.1.10/32}}]"
    assert world(from_peers(peers)).who_reaches("shop/web") == {"shop/db", "bank/web"}
    by_label = "[{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.0/24]}}, {namespaceSelector: {}}]"
    assert world(from_peers(by_label)).who_reaches("shop/web") == {"shop/db", "bank/web", "bank/db"}


def test_row_17_except_never_takes_from_another_policy() -> None:
    there = world(
        from_peers("[{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.1.0/24]}}]"),
        from_peers("[{ipBlock: {cidr: 10.1.1.10/31}}]"),
        policy(from_peers("[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]"), "bank/other"),
    )
    assert there.who_reaches("shop/web") == {"shop/db", "bank/web", "bank/db", OUTSIDE}
