"""Objects that do not say rightly what they are: never ignored without a word, and policies among them isolate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.decode import Decoded, read_documents
from policy.model import DIRECTIONS
from tests.policy.given import understood

V1 = "networking.k8s.io/v1"
RIGHT: dict[str, Any] = {
    "apiVersion": V1,
    "kind": "NetworkPolicy",
    "metadata": {"name": "api", "namespace": "shop"},
    "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]},
}
ABSENT = object()


def spelt(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in {**RIGHT, **fields}.items() if value is not ABSENT}


def read_both(tree: dict[str, Any]) -> Decoded:
    """What `tree` means as JSON, which must be what it means as YAML."""
    as_json, as_yaml = (read_documents(text.encode(), "f") for text in (json.dumps(tree), f"---\n{json.dumps(tree)}"))
    assert [(each.field, each.reason) for each in as_json.problems] == [
        (each.field, each.reason) for each in as_yaml.problems
    ]
    assert len(as_json.cluster.policies) == len(as_yaml.cluster.policies)
    return as_json


MISSPELT = [
    spelt(kind="Networkpolicy"),
    spelt(kind="networkpolicy"),
    spelt(kind="NetworkPolicies"),
    spelt(kind="NetworkPolicy "),
    spelt(kind="NetworkPolicys", apiVersion="net.k8s.io/v1"),
    spelt(kind="Networkpolicy", apiVersion=ABSENT),
    spelt(kind="Policy"),
    spelt(kind=ABSENT),
    spelt(kind=ABSENT, Kind="NetworkPolicy"),
    spelt(kind=""),
    spelt(kind=None),
    spelt(kind=["NetworkPolicy"]),
    spelt(kind=ABSENT, apiVersion=ABSENT),
    spelt(apiVersion=ABSENT),
    spelt(apiVersion="v1"),
    spelt(apiVersion="k8s.io/v1"),
    spelt(apiVersion="net.k8s.io/v1"),
    spelt(apiVersion="NETWORKING.K8S.IO/v1"),
    spelt(apiVersion="networking.k8s.io/v1 "),
    spelt(apiVersion="networking.k8s.io"),
    spelt(apiVersion="example.org/v1"),
    spelt(apiVersion="extensions/v1beta1"),
]


@pytest.mark.parametrize("tree", MISSPELT, ids=lambda tree: f"{tree.get('apiVersion')} {tree.get('kind')}")
@pytest.mark.parametrize("in_list", [False, True])
def test_a_policy_with_a_misspelt_kind_or_group_isolates_and_grants_nothing(
    tree: dict[str, Any], in_list: bool
) -> None:
    decoded = read_both({"apiVersion": "v1", "kind": "List", "items": [tree]} if in_list else tree)
    (policy,) = decoded.cluster.policies
    assert (policy.key, str(policy.subjects), policy.isolates) == ("shop/api", "app=web", DIRECTIONS)
    assert understood(policy) == [False]
    assert {problem.field for problem in decoded.problems} & {"kind", "apiVersion"}
    assert {problem.kind for problem in decoded.problems} == {"NetworkPolicy"}


def test_an_item_of_another_version_than_its_list_is_not_of_its_kind() -> None:
    decoded = read_both({"apiVersion": "v1", "kind": "PodList", "items": [spelt(kind=ABSENT)]})
    (policy,) = decoded.cluster.policies
    assert (decoded.cluster.pods, policy.isolates, understood(policy)) == ([], DIRECTIONS, [False])
    assert [problem.field for problem in decoded.problems] == ["kind"]


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        (
            {"apiVersion": "v1", "kind": "List", "item": [RIGHT]},
            "List (unnamed): items: missing, expected a list of API objects",
        ),
        ({"kind": "List"}, "List (unnamed): items: missing, expected a list of API objects"),
        (
            {"apiVersion": V1, "kind": "NetworkPolicyList", "Items": [RIGHT]},
            "NetworkPolicyList (unnamed): items: missing, expected a list of API objects",
        ),
        (
            {"apiVersion": "v1", "kind": "list", "items": [RIGHT]},
            "list (unnamed): kind: 'list' is not read, expected List",
        ),
        (
            {"apiVersion": "v1", "kind": "pod", "metadata": {"name": "a"}},
            "pod a: kind: 'pod' is no kind of 'v1', expected one such as Pod",
        ),
        (
            {"apiVersion": "apps/v1", "kind": "Deploymnt", "metadata": {"name": "a"}},
            "Deploymnt a: kind: 'Deploymnt' is no kind of 'apps/v1', expected one such as Deployment",
        ),
        ({"kind": "Namespaces"}, "Namespaces (unnamed): kind: 'Namespaces' is not read, expected Namespace"),
        (
            {"apiVersion": "NETWORKING.k8s.io/v1", "kind": "NetPol"},
            "NetPol (unnamed): kind: 'NetPol' is no kind of 'NETWORKING.k8s.io/v1', expected one such as NetworkPolicy",
        ),
        (
            {"apiVersion": V1, "kind": "Pod", "metadata": {"name": "a"}},
            f"Pod default/a: apiVersion: '{V1}' is not read, expected v1",
        ),
    ],
)
def test_what_is_meant_to_be_ours_is_a_problem(tree: dict[str, Any], problem: str) -> None:
    decoded = read_both(tree)
    assert [str(each).replace("f:1: ", "") for each in decoded.problems] == [problem]
    assert decoded.cluster.policies == []


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("crd.projectcalico.org/v1", "NetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
        ("example.org/v1", "TenantNetworkPolicy"),
        ("example.org/v1", "AllowList"),
        ("v1", "ConfigMap"),
        ("v1", "ServiceAccount"),
        (V1, "Ingress"),
        ("policy/v1", "PodDisruptionBudget"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("serving.knative.dev/v1", "Service"),
    ],
)
def test_kinds_that_mean_nothing_here_are_ignored(version: str, kind: str) -> None:
    decoded = read_both({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": {"podSelector": {}}})
    assert decoded.problems == ()
    assert not any((decoded.cluster.policies, decoded.cluster.services))
