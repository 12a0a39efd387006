"""Semantics, rows 18 to 22: ports and protocols."""

from __future__ import annotations

import pytest

from tests.semantics.world import OUTSIDE, node, pod, policy, world

PORTS = ("79/TCP", "80/TCP", "81/TCP", "80/UDP", "80/SCTP", "ICMP")


def with_ports(ports: str) -> str:
    return f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: {ports}}}]}}"


def out_ports(ports: str, peers: str = "") -> str:
    return f"{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{{peers}ports: {ports}}}]}}"


def open_ports(spec: str, candidates: tuple[str, ...] = PORTS) -> set[str]:
    there = world(spec)
    return {port for port in candidates if there.ingress(OUTSIDE, "shop/web", port)}


@pytest.mark.parametrize("entry", ["{port: 80}", "{port: 80, protocol: null}"])
def test_row_18_port_without_protocol_is_tcp(entry: str) -> None:
    assert open_ports(with_ports(f"[{entry}]")) == {"80/TCP"}


def test_row_19_protocol_alone_is_every_port_of_it() -> None:
    assert open_ports(with_ports("[{protocol: UDP}]"), ("1/UDP", "65535/UDP", *PORTS)) == {
        "1/UDP",
        "65535/UDP",
        "80/UDP",
    }
    assert open_ports(with_ports("[{}]")) == {"79/TCP", "80/TCP", "81/TCP"}


def test_row_20_named_port_takes_name_and_protocol() -> None:
    candidates = ("80/TCP", "8080/TCP", "80/UDP", "53/UDP", "53/TCP")
    assert open_ports(with_ports("[{port: http}]"), candidates) == {"80/TCP"}
    assert open_ports(with_ports("[{port: dns, protocol: UDP}]"), candidates) == {"53/UDP"}
    assert open_ports(with_ports("[{port: dns}]"), candidates) == set()
    assert open_ports(with_ports("[{port: nowhere}]"), candidates) == set()


def test_row_20_ingress_named_port_resolves_at_the_subject_for_any_source() -> None:
    every = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: http}]}]}"
    there = world(every)
    assert there.passes(OUTSIDE, "shop/web", "80/TCP") and not there.passes(OUTSIDE, "shop/web", "8080/TCP")
    assert there.passes(OUTSIDE, "shop/db", "8080/TCP") and not there.passes(OUTSIDE, "shop/db", "80/TCP")


def test_row_20_egress_named_port_resolves_at_each_destination_pod() -> None:
    there = world(out_ports("[{port: http}]", "to: [{namespaceSelector: {}}], "))
    assert there.passes("shop/web", "shop/db", "8080/TCP") and not there.passes("shop/web", "shop/db", "8000/TCP")
    assert there.passes("shop/web", "bank/web", "8000/TCP") and not there.passes("shop/web", "bank/web", "8080/TCP")
    # Not the subject's own number, and nothing where the destination has no such port.
    assert not there.passes("shop/web", "shop/db", "80/TCP") and not there.passes("shop/web", "bank/db", "80/TCP")
    assert not there.passes("shop/web", "shop/db", "8080/UDP")


@pytest.mark.parametrize("peers", ["", "to: [{ipBlock: {cidr: 0.0.0.0/0}}], "])
def test_row_20_egress_named_port_to_a_block_or_to_everyone_resolves_only_at_pods(peers: str) -> None:
    there = world(out_ports("[{port: http}]", peers))
    assert there.passes("shop/web", "shop/db", "8080/TCP") and there.passes("shop/web", "bank/web", "8000/TCP")
    assert not any(there.passes("shop/web", OUTSIDE, port) for port in ("80/TCP", "8080/TCP", "8000/TCP"))
    assert not there.passes("shop/web", "node-1", "80/TCP")


def test_row_20_egress_named_port_to_a_block_resolves_only_inside_it() -> None:
    there = world(out_ports("[{port: http}]", "to: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.0/24]}}], "))
    assert there.passes("shop/web", "shop/db", "8080/TCP") and not there.passes("shop/web", "bank/web", "8000/TCP")


def test_row_20_init_containers_count_where_they_go_on_running() -> None:
    container = {"name": "proxy", "image": "none", "ports": [{"name": "http", "containerPort": 15001}]}
    for restart, expected in (({}, False), ({"restartPolicy": "Always"}, True)):
        subject = pod("shop/side", ["10.1.0.30"], app="web")
        subject["spec"]["initContainers"] = [container | restart]
        there = world(with_ports("[{port: http}]"), subject)
        assert there.passes(OUTSIDE, "shop/side", "15001/TCP") is expected


def test_row_21_end_port_is_inclusive() -> None:
    numbers = (79, 80, 81, 89, 90, 91)
    candidates = (*(f"{number}/TCP" for number in numbers), "85/UDP")
    assert open_ports(with_ports("[{port: 80, endPort: 90}]"), candidates) == {"80/TCP", "81/TCP", "89/TCP", "90/TCP"}
    assert open_ports(with_ports("[{port: 80, endPort: 80}]"), candidates) == {"80/TCP"}
    whole = with_ports("[{port: 1, endPort: 65535, protocol: UDP}]")
    assert open_ports(whole, ("1/UDP", "65535/UDP", "1/TCP")) == {"1/UDP", "65535/UDP"}


@pytest.mark.parametrize("entry", ["{port: 80, endPort: 79}", "{endPort: 80}", "{port: http, endPort: 90}"])
def test_row_21_end_port_needs_a_number_that_is_not_larger(entry: str) -> None:
    assert open_ports(with_ports(f"[{entry}]")) == set()
    assert open_ports(with_ports(f"[{entry}, {{port: 81}}]")) == set()


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_row_22_each_protocol_by_itself(protocol: str) -> None:
    assert open_ports(with_ports(f"[{{port: 80, protocol: {protocol}}}]")) == {f"80/{protocol}"}


def test_row_22_a_rule_with_ports_allows_no_icmp() -> None:
    every = "[{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]"
    assert open_ports(with_ports(every)) == set(PORTS) - {"ICMP"}
    there = world(out_ports(every))
    assert there.passes("shop/web", OUTSIDE, "80/SCTP") and not there.passes("shop/web", OUTSIDE, "ICMP")


def test_row_22_ports_of_one_rule_are_or_and_belong_to_its_peers() -> None:
    there = world(
        """
podSelector: {matchLabels: {app: web}}
ingress:
- from: [{podSelector: {matchLabels: {app: db}}}]
  ports: [{port: 80}, {port: 53, protocol: UDP}]
- from: [{namespaceSelector: {matchLabels: {team: bank}}}]
  ports: [{port: 81}]
""",
        node("node-1"),
        policy("{podSelector: {}, policyTypes: [Ingress]}", "bank/deny"),
    )
    assert there.who_reaches("shop/web", "80/TCP") == there.who_reaches("shop/web", "53/UDP") == {"shop/db"}
    assert there.who_reaches("shop/web", "81/TCP") == {"bank/web", "bank/db"}
