"""Semantics, rows 1 to 10: which policies isolate whom, and what absent and empty mean."""

from __future__ import annotations

import pytest

from tests.semantics.world import OUTSIDE, OUTSIDE_6, policy, world

EVERYONE = {"shop/web", "shop/db", "bank/web", "bank/db", OUTSIDE}


def test_row_01_no_policy_of_a_direction_leaves_it_open() -> None:
    open_world = world()
    assert open_world.who_reaches("shop/web") == EVERYONE - {"shop/web"}
    one_direction = world("{podSelector: {}, policyTypes: [Ingress]}")
    assert not one_direction.ingress("bank/web", "shop/web")
    assert one_direction.egress("shop/web", "bank/web")
    assert one_direction.passes("shop/web", OUTSIDE)


def test_row_01_only_selected_pods_are_isolated() -> None:
    there = world("{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}")
    assert there.who_reaches("shop/web") == set()
    assert there.who_reaches("shop/db") == EVERYONE - {"shop/db"}
    assert there.who_reaches("bank/web") == EVERYONE - {"bank/web"}


def test_row_02_policies_add_up_and_none_can_deny() -> None:
    deny = "{podSelector: {}, policyTypes: [Ingress]}"
    from_db = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}]}"
    from_bank = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: bank}}}]}]}"
    for order in ((deny, from_db, from_bank), (from_bank, from_db, deny)):
        there = world(*order)
        assert there.who_reaches("shop/web", "80/TCP") == {"shop/db", "bank/web", "bank/db"}
        assert there.who_reaches("shop/web", "81/TCP") == {"bank/web", "bank/db"}


def test_row_03_source_egress_and_destination_ingress_must_both_allow() -> None:
    to_bank = policy("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}", "shop/out")
    from_shop = policy("{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 81}]}]}", "bank/in")
    there = world(to_bank, from_shop)
    assert there.passes("shop/web", "bank/web", "80/TCP")
    assert not there.passes("shop/web", "bank/web", "81/TCP")
    assert there.ingress("shop/web", "bank/web", "81/TCP") and not there.egress("shop/web", "bank/web", "81/TCP")
    other_half = world(policy("{podSelector: {}, egress: [{}]}", "shop/out"), policy("podSelector: {}", "bank/in"))
    assert other_half.egress("shop/web", "bank/web") and not other_half.passes("shop/web", "bank/web")


@pytest.mark.parametrize(
    "spec", ["podSelector: {}", "policyTypes: [Ingress]", "podSelector:", "podSelector: {matchLabels: {}}"]
)
def test_row_04_empty_or_absent_pod_selector_is_every_pod_of_the_namespace(spec: str) -> None:
    there = world(spec)
    assert there.who_reaches("shop/web") == there.who_reaches("shop/db") == set()
    assert there.who_reaches("bank/web") == EVERYONE - {"bank/web"}


@pytest.mark.parametrize("types", ["", "policyTypes:", "policyTypes: []"])
@pytest.mark.parametrize(
    ("egress", "isolated"),
    [("", False), ("egress:", False), ("egress: []", False), ("egress: [{ports: [{port: 1}]}]", True)],
)
def test_row_05_absent_policy_types_are_ingress_and_egress_if_it_has_rules(
    types: str, egress: str, isolated: bool
) -> None:
    there = world(f"podSelector: {{}}\n{types}\n{egress}")
    assert not there.ingress("bank/web", "shop/web")
    assert there.egress("shop/web", "bank/web") is not isolated


def test_row_06_a_section_of_an_undeclared_direction_has_no_effect() -> None:
    only_egress = world("{podSelector: {}, policyTypes: [Egress], ingress: []}")
    assert only_egress.ingress("bank/web", "shop/web")
    assert not only_egress.egress("shop/web", "bank/web")
    # Nor do its rules, where another policy isolates.
    rules = "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"
    assert not world(rules, "{podSelector: {}, policyTypes: [Ingress]}").ingress("bank/web", "shop/web")
    only_ingress = world("{podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]}")
    assert only_ingress.egress("shop/web", "bank/web")
    assert not only_ingress.ingress("bank/web", "shop/web")


@pytest.mark.parametrize("ingress", ["", "ingress:", "ingress: []"])
def test_row_07_empty_ingress_denies(ingress: str) -> None:
    there = world(f"podSelector: {{}}\npolicyTypes: [Ingress]\n{ingress}")
    assert there.who_reaches("shop/web") == set()
    assert there.verdict("bank/web", "shop/web").ingress.policies[0].policy == "shop/policy-0"


@pytest.mark.parametrize("egress", ["", "egress:", "egress: []"])
def test_row_07_empty_egress_denies(egress: str) -> None:
    there = world(f"podSelector: {{}}\npolicyTypes: [Egress]\n{egress}")
    assert not any(there.egress("shop/web", dst) for dst in ("shop/db", "bank/web", OUTSIDE))


def test_row_08_an_empty_rule_is_every_peer_and_port() -> None:
    there = world("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}")
    for port in ("1/TCP", "65535/UDP", "80/SCTP", "ICMP"):
        assert there.who_reaches("shop/web", port) == EVERYONE - {"shop/web"}
        assert there.passes("shop/web", OUTSIDE, port)
    assert there.passes(OUTSIDE_6, "fd00:1::a") and there.passes("fd00:1::a", OUTSIDE_6)


@pytest.mark.parametrize("peers", ["", "from: [], ", "from: null, "])
def test_row_09_absent_or_empty_from_is_every_peer_inside_and_outside(peers: str) -> None:
    there = world(f"{{podSelector: {{}}, ingress: [{{{peers}ports: [{{port: 80}}]}}]}}")
    assert there.who_reaches("shop/web") == EVERYONE - {"shop/web"}
    assert there.ingress(OUTSIDE_6, "fd00:1::a") and there.ingress("node-1", "shop/web")
    assert there.who_reaches("shop/web", "81/TCP") == set()


@pytest.mark.parametrize("peers", ["", "to: [], ", "to: null, "])
def test_row_09_absent_or_empty_to_is_every_peer_inside_and_outside(peers: str) -> None:
    there = world(f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{{{peers}ports: [{{port: 80}}]}}]}}")
    assert all(there.egress("shop/web", dst) for dst in ("shop/db", "bank/web", OUTSIDE, "node-1"))
    assert not there.egress("shop/web", OUTSIDE, "81/TCP")


@pytest.mark.parametrize("ports", ["", "ports: []", "ports: null"])
def test_row_10_absent_or_empty_ports_is_every_port_and_protocol_icmp_too(ports: str) -> None:
    there = world(f"""
podSelector: {{}}
ingress:
- from: [{{podSelector: {{matchLabels: {{app: db}}}}}}]
  {ports}
""")
    for port in ("1/TCP", "65535/UDP", "132/SCTP", "ICMP"):
        assert there.who_reaches("shop/web", port) == {"shop/db"}
