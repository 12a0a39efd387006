"""Right policies: what absent, null and empty mean, as the API server reads them (semantics, rows 4 to 22, 35)."""

from __future__ import annotations

import pytest

from policy.cidr import parse_cidr
from policy.model import DIRECTIONS, IPBlock, NetworkPolicy, Peer, Port, Rule
from policy.selector import EVERYTHING, does_not_exist, exists, in_, not_in, selector
from tests.policy.given import policy_of


def right(spec: str) -> NetworkPolicy:
    policy, problems = policy_of(spec)
    assert problems == []
    return policy


def rule(text: str) -> Rule:
    (read,) = right(f"podSelector: {{}}\ningress:\n- {text}").ingress
    assert read.understood
    return read


def block(cidr: str, *excepts: str) -> Peer:
    return Peer(block=IPBlock(parse_cidr(cidr), tuple(map(parse_cidr, excepts))))


@pytest.mark.parametrize("chosen", ["podSelector: {}", "podSelector: null", "podSelector:", "policyTypes: []"])
def test_an_absent_or_empty_subject_is_every_pod(chosen: str) -> None:
    assert right(chosen).subjects is EVERYTHING


@pytest.mark.parametrize(
    ("spec", "isolates"),
    [
        ("podSelector: {}", ("ingress",)),
        ("policyTypes: []", ("ingress",)),
        ("policyTypes: null", ("ingress",)),
        ("egress: []", ("ingress",)),
        ("egress: null", ("ingress",)),
        ("egress: [{}]", DIRECTIONS),
        ("policyTypes: []\negress: [{}]", DIRECTIONS),
        ("policyTypes: [Ingress]\negress: [{}]", ("ingress",)),
        ("policyTypes: [Egress]\ningress: [{}]", ("egress",)),
        ("policyTypes: [Egress, Ingress]", DIRECTIONS),
        ("policyTypes: [Egress, Egress]", ("egress",)),
    ],
)
def test_directions_that_a_policy_isolates(spec: str, isolates: tuple[str, ...]) -> None:
    assert right(spec).isolates == isolates


@pytest.mark.parametrize("ingress", ["ingress: []", "ingress: null", "podSelector: {}"])
def test_no_rules_are_no_rules(ingress: str) -> None:
    assert right(ingress).ingress == ()


@pytest.mark.parametrize("text", ["{}", "{from: []}", "{from: null, ports: null}", "{ports: []}"])
def test_an_empty_rule_is_every_peer_and_port(text: str) -> None:
    assert rule(text) == Rule((), (), True)


WEB = selector([in_("app", "web")])


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("podSelector: {}", Peer(pods=EVERYTHING)),
        ("podSelector: {matchLabels: {app: web}}", Peer(pods=WEB)),
        ("podSelector: {matchLabels: null, matchExpressions: null}", Peer(pods=EVERYTHING)),
        ("namespaceSelector: {}", Peer(namespaces=EVERYTHING)),
        ("{podSelector: null, namespaceSelector: {}}", Peer(namespaces=EVERYTHING)),
        ("{podSelector: {}, namespaceSelector: {matchLabels: {app: web}}}", Peer(pods=EVERYTHING, namespaces=WEB)),
        ("{ipBlock: {cidr: 10.0.0.0/8}}", block("10.0.0.0/8")),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: []}, podSelector: null}", block("10.0.0.0/8")),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}", block("10.0.0.0/8", "10.1.0.0/16")),
        ("{ipBlock: {cidr: 10.1.2.3/8}}", block("10.0.0.0/8")),
        ("{ipBlock: {cidr: 010.001.0.0/16}}", block("10.1.0.0/16")),
        ("{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}", block("10.0.0.0/8")),
        ("{ipBlock: {cidr: 'fd00::1/64', except: ['fd00::/65']}}", block("fd00::/64", "fd00::/65")),
    ],
)
def test_peers(text: str, peer: Peer) -> None:
    assert rule(f"from: [{text if text.startswith('{') else f'{{{text}}}'}]").peers == (peer,)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("{}", Port("TCP")),
        ("{protocol: null, port: null, endPort: null}", Port("TCP")),
        ("{protocol: UDP}", Port("UDP")),
        ("{protocol: SCTP, port: 1}", Port("SCTP", 1, 1)),
        ("{port: 65535}", Port("TCP", 65535, 65535)),
        ("{port: 80, endPort: 80}", Port("TCP", 80, 80)),
        ("{port: 80, endPort: 90, protocol: UDP}", Port("UDP", 80, 90)),
        ("{port: http}", Port("TCP", "http")),
        ("{port: fifteen-letters}", Port("TCP", "fifteen-letters")),
        ("{port: 0x50}", Port("TCP", 80, 80)),
        ("{port: 80.0}", Port("TCP", 80, 80)),
    ],
)
def test_ports(text: str, port: Port) -> None:
    assert rule(f"ports: [{text}]").ports == (port,)


def test_operators_and_match_labels_are_all_required() -> None:
    read = right(
        """\
        podSelector:
          matchLabels: {app: web, kubernetes.io/x_Y.z: ""}
          matchExpressions:
          - {key: tier, operator: In, values: [b, a]}
          - {key: env, operator: NotIn, values: [test]}
          - {key: team, operator: Exists}
          - {key: old, operator: DoesNotExist, values: []}
        """
    )
    assert read.subjects is selector(
        [
            in_("app", "web"),
            in_("kubernetes.io/x_Y.z", ""),
            in_("tier", "a", "b"),
            not_in("env", "test"),
            exists("team"),
            does_not_exist("old"),
        ]
    )


def test_rules_keep_their_order_and_the_directions_apart() -> None:
    read = right("ingress: [{ports: [{port: 1}]}, {ports: [{port: 2}]}]\negress: [{ports: [{port: 3}]}]")
    assert [rule.ports[0].port for rule in read.ingress] == [1, 2]
    assert [rule.ports[0].port for rule in read.egress] == [3]
