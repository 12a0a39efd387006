"""Each lint by pairs: a manifest that has it, and one that is nearly the same and has it not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.compile import compile_cluster
from compiler.lint import Finding
from compiler.lints import RULES, lint
from policy.decode import decode_objects
from tests.oracle.fields import Object
from tests.semantics.world import pod, policy, standing

PAGE = Path(__file__).parents[2] / "docs/lint.md"
TO_DB = "{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}"
BANK = "namespaceSelector: {matchLabels: {team: bank}}"
ONLY_SHOP = pod("shop/x", ["10.1.0.60"], only="shop")
DNS = "{ports: [{port: 53, protocol: UDP}]}"


def service(port: int, target: int | str, **selector: str) -> Object:
    ports = [{"port": port, "targetPort": target, "protocol": "TCP"}]
    spec: dict[str, Any] = {"selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": "shop"}, "spec": spec}


def ingress(rest: str, subject: str = "{matchLabels: {app: web}}") -> str:
    return f"{{podSelector: {subject}, ingress: [{rest}]}}".replace("$BANK", BANK)


def egress(*rules: str) -> str:
    return f"{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{', '.join(rules)}]}}"


# Id: what has it, what has it not, and the path that it is found at.
PAIRS: dict[str, list[tuple[list[Any], list[Any], str]]] = {
    "PF001": [
        (
            ["{podSelector: {matchLabels: {app: wbe}}}"],
            ["{podSelector: {matchLabels: {app: web}}}"],
            "spec.podSelector",
        ),
        (
            ["{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: DoesNotExist}]}}"],
            ["{podSelector: {}}"],
            "spec.podSelector",
        ),
    ],
    "PF002": [
        (
            [ingress("{from: [{podSelector: {matchLabels: {app: dbb}}}]}")],
            [ingress("{from: [{podSelector: {matchLabels: {app: db}}}]}")],
            "spec.ingress.0.from.0",
        ),
        (
            [ingress("{from: [{namespaceSelector: {matchLabels: {team: bnak}}}]}")],
            [ingress("{from: [{namespaceSelector: {matchLabels: {team: bank}}}]}")],
            "spec.ingress.0.from.0",
        ),
    ],
    "PF003": [
        (
            [ingress("{from: [{$BANK}, {podSelector: {matchLabels: {app: db}}}]}")],
            [ingress("{from: [{$BANK, podSelector: {matchLabels: {app: db}}}]}")],
            "spec.ingress.0.from.1",
        ),
    ],
    "PF004": [
        (
            [ingress("{from: [{$BANK, podSelector: {matchLabels: {only: shop}}}]}"), ONLY_SHOP],
            [ingress("{from: [{$BANK}, {podSelector: {matchLabels: {only: shop}}}]}"), ONLY_SHOP],
            "spec.ingress.0.from.0",
        ),
    ],
    "PF005": [
        (
            ["{podSelector: {}, policyTypes: [Ingress], egress: [{}]}"],
            ["{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}]}"],
            "spec.egress",
        ),
        (
            ["{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"],
            ["{podSelector: {}, policyTypes: [Egress]}"],
            "spec.ingress",
        ),
    ],
    "PF006": [
        (
            [ingress("{from: [{podSelector: {}}]}, {from: [{podSelector: {}}], ports: [{port: 80}]}")],
            [
                ingress(
                    "{from: [{podSelector: {}}], ports: [{port: 81}]}, {from: [{podSelector: {}}], ports: [{port: 80}]}"
                )
            ],
            "spec.ingress.1",
        ),
        (
            [ingress("{ports: [{port: http}]}, {ports: [{protocol: TCP}]}")],
            [ingress("{ports: [{port: http}]}, {ports: [{protocol: UDP}]}")],
            "spec.ingress.0",
        ),
        (
            [ingress("{from: [{ipBlock: {cidr: 10.0.0.0/9}}]}, {from: [{ipBlock: {cidr: 10.0.0.0/8}}]}")],
            [ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}, {from: [{ipBlock: {cidr: 11.0.0.0/9}}]}")],
            "spec.ingress.0",
        ),
    ],
    "PF007": [
        (
            [ingress("{ports: [{port: 80}]}"), ingress("{ports: [{port: 80}, {port: 81}]}")],
            [ingress("{ports: [{port: 80}, {port: 82}]}"), ingress("{ports: [{port: 80}, {port: 81}]}")],
            "",
        ),
        (
            [ingress("", "{matchLabels: {app: web}}"), ingress("", "{}")],
            [egress().replace("{matchLabels: {app: web}}", "{}"), ingress("", "{}")],
            "",
        ),
    ],
    "PF008": [
        ([ingress("{ports: [{port: htpt}]}")], [ingress("{ports: [{port: http}]}")], "spec.ingress.0.ports.0.port"),
        (
            [ingress("{ports: [{port: http, protocol: UDP}]}")],
            [ingress("{ports: [{port: dns, protocol: UDP}]}")],
            "spec.ingress.0.ports.0.port",
        ),
        (
            [egress(DNS, "{to: [{podSelector: {}}], ports: [{port: nope}]}")],
            [egress(DNS, "{to: [{podSelector: {}}], ports: [{port: http}]}")],
            "spec.egress.1.ports.0.port",
        ),
    ],
    "PF009": [
        (
            [ingress("{ports: [{port: 8088}]}"), service(8088, "http", app="web")],
            [ingress("{ports: [{port: 80}]}"), service(8088, "http", app="web")],
            "spec.ingress.0.ports.0.port",
        ),
        (
            [egress(DNS, TO_DB), service(80, 8080, app="db")],
            [egress(DNS, TO_DB), service(80, 80, app="db")],
            "spec.egress.1.ports.0.port",
        ),
    ],
    "PF010": [
        (
            [egress("{to: [{podSelector: {}}], ports: [{port: 80}]}")],
            [egress("{to: [{podSelector: {}}], ports: [{port: 80}]}", DNS)],
            "spec.egress",
        ),
        ([egress("{ports: [{port: 53, protocol: TCP}]}")], [egress()], "spec.egress"),
    ],
    "PF011": [
        (
            [egress("{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}", DNS)],
            [egress("{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}}]}", DNS)],
            "spec.egress.0.to.0",
        ),
        ([egress("{}")], [egress("{ports: [{port: 443}, {port: 53, protocol: UDP}]}")], "spec.egress.0"),
        (
            [egress("{to: [{ipBlock: {cidr: 'fd00::/8'}}]}", DNS)],
            [egress("{to: [{ipBlock: {cidr: 'fd00::/8', except: ['fd00:ec2::/32']}}]}", DNS)],
            "spec.egress.0.to.0",
        ),
    ],
    "PF012": [
        (
            [egress("{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}", DNS)],
            [egress("{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.8/29]}}]}", DNS)],
            "spec.egress.0.to.0",
        ),
    ],
}
CASES = [(id_, *pair) for id_, pairs in PAIRS.items() for pair in pairs]


def found(more: list[Any]) -> list[Finding]:
    objects = [policy(each, f"shop/p-{at}") if isinstance(each, str) else each for at, each in enumerate(more)]
    decoded = decode_objects([*standing(), *objects])
    assert not decoded.problems
    return lint(compile_cluster(decoded.cluster))


@pytest.mark.parametrize(("id_", "has", "has_not", "path"), CASES)
def test_a_pair(id_: str, has: list[Any], has_not: list[Any], path: str) -> None:
    (one,) = (each for each in found(has) if each.rule.id == id_)
    assert ".".join(map(str, one.path)) == path
    assert one.reason
    assert [each.rule.id for each in found(has_not) if each.rule.id == id_] == []


def test_every_lint_has_a_pair_and_a_place_on_its_page() -> None:
    assert set(PAIRS) == set(RULES)
    page = PAGE.read_text()
    for rule in RULES.values():
        assert f"\n### {rule.id}\n" in page
        assert rule.title in page


def test_the_standing_cluster_has_none() -> None:
    assert found([]) == []


@pytest.mark.parametrize(("port", "severity"), [(443, "note"), (10250, "warning")])
def test_the_kubelet_makes_it_a_warning(port: int, severity: str) -> None:
    opening = egress(f"{{to: [{{ipBlock: {{cidr: 192.0.2.0/24}}}}], ports: [{{port: {port}}}]}}", DNS)
    assert [each.severity for each in found([opening]) if each.rule.id == "PF012"] == [severity]


def test_without_pods_nothing_is_compared_with_them() -> None:
    alone = decode_objects([policy("{podSelector: {matchLabels: {app: x}}, policyTypes: [Ingress], egress: [{}]}")])
    assert [each.rule.id for each in lint(compile_cluster(alone.cluster))] == ["PF005"]


def test_a_rule_that_was_not_understood_is_not_linted() -> None:
    wrong = decode_objects([*standing(), policy(ingress("{form: []}"))])
    assert [each.rule.id for each in lint(compile_cluster(wrong.cluster))] == []
