"""Mistakes that other engines are known to have made, each a test that they would fail."""

from __future__ import annotations

import pytest

from tests.semantics.world import OUTSIDE, pod, policy, space, world


@pytest.mark.parametrize("near", [True, False])
def test_an_egress_rule_does_not_satisfy_the_peers_ingress(near: bool) -> None:
    """One packet mark for both directions lets the source's egress rule accept for the destination too."""
    dst = "shop/db" if near else "bank/db"
    sends = policy("{podSelector: {matchLabels: {app: web}}, egress: [{}], policyTypes: [Egress]}", "shop/sends")
    closed = policy("{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}", f"{dst.split('/')[0]}/closed")
    there = world(sends, closed)
    assert there.egress("shop/web", dst) and not there.ingress("shop/web", dst)
    assert not there.passes("shop/web", dst)


@pytest.mark.parametrize("near", [True, False])
def test_an_ingress_rule_does_not_satisfy_the_peers_egress(near: bool) -> None:
    dst = "shop/db" if near else "bank/db"
    mute = policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}", "shop/mute")
    opened = policy("{podSelector: {matchLabels: {app: db}}, ingress: [{}]}", f"{dst.split('/')[0]}/opened")
    there = world(mute, opened)
    assert there.ingress("shop/web", dst) and not there.passes("shop/web", dst)


def test_except_of_one_block_does_not_hide_what_another_allows() -> None:
    """All blocks of a rule in one set, with the exceptions as its `nomatch` entries."""
    without_bank = "{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.0/24]}}"
    for blocks in (
        f"[{without_bank}, {{ipBlock: {{cidr: 10.1.1.0/28}}}}]",
        f"[{{ipBlock: {{cidr: 10.1.1.0/28}}}}, {without_bank}]",
        f"[{without_bank}, {{ipBlock: {{cidr: 10.1.1.0/24, except: [10.1.1.128/25]}}}}]",
    ):
        there = world(f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {blocks}}}]}}")
        assert there.who_reaches("shop/web") == {"shop/db", "bank/web", "bank/db"}
        assert not there.passes("10.1.1.200", "shop/web")


@pytest.mark.parametrize(("first", "second"), [("ab/c", "a/bc"), ("a-b/c", "a/b-c"), ("a/b-c-d", "a-b-c/d")])
def test_names_that_run_together_are_kept_apart(first: str, second: str) -> None:
    """Chains and sets named by a hash of namespace + name without a separator: two pods, or policies, share one."""
    spaces = {key.split("/")[0] for key in (first, second)}
    peers = "[{namespaceSelector: {}, podSelector: {matchLabels: {app: %s}}}]"
    from_web, from_db = (f"{{podSelector: {{}}, ingress: [{{from: {peers % app}}}]}}" for app in ("web", "db"))
    there = world(
        *map(space, sorted(spaces)),
        pod(first, ["10.1.0.70"]),
        pod(second, ["10.1.0.71"]),
        policy(from_web, first),
        policy(from_db, second),
    )
    assert there.who_reaches(first) == {"shop/web", "bank/web"}
    assert there.who_reaches(second) == {"shop/db", "bank/db"}


def test_a_named_port_of_one_pod_does_not_leak_to_anothers_number() -> None:
    """One set of addresses beside one list of numbers: every pod would be open at every number."""
    to_http = (
        "{podSelector: {matchLabels: {app: web}}, egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}"
    )
    there = world(to_http)
    numbers = {"shop/db": "8080/TCP", "bank/web": "8000/TCP"}
    for dst, own in numbers.items():
        for number in numbers.values():
            assert there.passes("shop/web", dst, number) is (number == own)
    from_all = world("{podSelector: {}, ingress: [{ports: [{port: http}]}]}")
    assert from_all.who_reaches("shop/db", "80/TCP") == from_all.who_reaches("shop/web", "8080/TCP") == set()


def test_values_of_not_in_are_not_alternatives() -> None:
    """ "Not web, or not db" is true for everyone."""
    neither = "{key: app, operator: NotIn, values: [web, db]}"
    there = world(
        f"{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchExpressions: [{neither}]}}}}]}}]}}",
        pod("shop/other", ["10.1.0.80"], app="other"),
        pod("shop/plain", ["10.1.0.81"]),
    )
    assert there.who_reaches("shop/web") == {"shop/other", "shop/plain"}


@pytest.mark.parametrize(
    "unsupported",
    [
        "{ports: [{port: 80, protocol: QUIC}]}",
        "{from: [{serviceAccountSelector: {}}]}",
        "{from: [{podSelector: {matchExpressions: [{key: app, operator: Like, values: [d]}]}}]}",
    ],
)
def test_a_policy_is_not_dropped_for_one_field_that_is_not_supported(unsupported: str) -> None:
    good = "{from: [{podSelector: {matchLabels: {app: db}}}]}"
    there = world(f"{{podSelector: {{}}, ingress: [{unsupported}, {good}]}}")
    assert there.who_reaches("shop/web") == {"shop/db"}


@pytest.mark.parametrize("section", ["ingress: []", "policyTypes: [Ingress], ingress: []", "ingress: null"])
def test_an_empty_ingress_is_not_read_as_allow(section: str) -> None:
    assert world(f"{{podSelector: {{}}, {section}}}").who_reaches("shop/web") == set()


@pytest.mark.parametrize("misspelt", ["form", "From", "froms", "to"])
def test_a_misspelt_from_is_not_a_rule_that_opens_to_everyone(misspelt: str) -> None:
    rule = f"{{{misspelt}: [{{podSelector: {{matchLabels: {{app: db}}}}}}]}}"
    there = world(f"{{podSelector: {{}}, ingress: [{rule}]}}")
    assert there.who_reaches("shop/web") == set()
    assert not there.passes(OUTSIDE, "shop/web")
