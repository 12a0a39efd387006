"""Rules and policies that nobody can understand, one way at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.oracle.fields import Object


def _with_peer(peer: Any) -> Callable[[Object, str], Object]:
    return lambda rule, field: {**rule, field: [*rule.get(field, ()), peer]}


def _with_port(port: Any) -> Callable[[Object, str], Object]:
    return lambda rule, field: {**rule, "ports": [*rule.get("ports", ()), port]}


def _with_expression(**expression: Any) -> Callable[[Object, str], Object]:
    return _with_peer({"podSelector": {"matchExpressions": [expression]}})


BROKEN_RULES: tuple[Callable[[Object, str], Any], ...] = (
    lambda rule, field: None,
    lambda rule, field: "everyone",
    lambda rule, field: {**rule, "form": []},
    lambda rule, field: {**rule, field: {}},
    lambda rule, field: {**rule, "ports": "80"},
    *map(
        _with_peer,
        (
            None,
            {},
            "10.0.0.0/8",
            {"podselector": {}},
            {"podSelector": {"matchlabels": {}}},
            {"podSelector": {"matchLabels": {"app": 1}}},
            {"podSelector": {"matchLabels": {"app": "not a value"}}},
            {"ipBlock": {}},
            {"ipBlock": {"cidr": "10.0.0.0"}},
            {"ipBlock": {"cidr": "10.0.0.0/33"}},
            {"ipBlock": {"cidr": "10.256.0.0/8"}},
            {"ipBlock": {"cidr": "::/129"}},
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["all"]}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}},
            {"ipBlock": {"cidr": "0.0.0.0/0", "excepts": ["10.0.0.0/8"]}},
            {"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}},
        ),
    ),
    *map(
        _with_port,
        (
            None,
            80,
            {"protocol": "tcp"},
            {"protocol": "ICMP"},
            {"port": 0},
            {"port": 65536},
            {"port": True},
            {"port": "80"},
            {"port": "Http"},
            {"port": "a-name-that-is-too-long"},
            {"port": 80, "endPort": 79},
            {"port": "http", "endPort": 81},
            {"endPort": 80},
            {"port": 80, "endport": 90},
        ),
    ),
    _with_expression(key="app", operator="in", values=["x"]),
    _with_expression(key="app", operator="Gt", values=["1"]),
    _with_expression(key="app", operator="In"),
    _with_expression(key="app", operator="NotIn", values=[]),
    _with_expression(key="app", operator="Exists", values=["x"]),
    _with_expression(key="", operator="Exists"),
    _with_expression(operator="Exists"),
)


def _set_spec(**fields: Any) -> Callable[[Object], None]:
    return lambda policy: policy["spec"].update(fields)


BROKEN_POLICIES: tuple[Callable[[Object], None], ...] = (
    lambda policy: policy.update(rules=[]),
    lambda policy: policy.update(apiVersion="extensions/v1beta1"),
    lambda policy: policy.update(spec=[]),
    lambda policy: policy.update(spec=None),
    _set_spec(inress=[{}]),
    _set_spec(policyTypes=["ingress"]),
    _set_spec(policyTypes=["Ingress", None]),
    _set_spec(policyTypes="Egress"),
    _set_spec(ingress={}),
    _set_spec(egress={}),
    _set_spec(egress="all"),
    _set_spec(podSelector=[]),
    _set_spec(podSelector={"matchLabel": {}}),
    _set_spec(podSelector={"matchExpressions": [{"key": "app", "operator": "Is", "values": ["x"]}]}),
)
