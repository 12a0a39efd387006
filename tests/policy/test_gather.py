"""What cannot be read whole, or stands twice, is closed: it isolates, and grants nothing."""

from __future__ import annotations

from typing import Any

import pytest

from policy.decode import Decoded, decode_objects, read_documents
from policy.model import DIRECTIONS, Cluster, NetworkPolicy
from policy.selector import NAMESPACE_NAME_LABEL
from tests.policy.given import understood


def tree(kind: str, name: str, namespace: str = "shop", **fields: Any) -> dict[str, Any]:
    version = {"NetworkPolicy": "networking.k8s.io/v1", "Deployment": "apps/v1"}.get(kind, "v1")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **fields}


def policies_on(cluster: Cluster, pod_name: str) -> list[NetworkPolicy]:
    (pod,) = [pod for pod in cluster.pods if pod.name == pod_name]
    return [
        policy
        for policy in cluster.policies
        if policy.namespace == pod.namespace and policy.subjects.matches(pod.labels) and pod.selectable
    ]


def assert_closed(decoded: Decoded, *pod_names: str) -> None:
    for name in pod_names:
        (policy,) = policies_on(decoded.cluster, name)
        assert policy.isolates == DIRECTIONS
        assert not any(understood(policy))


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"app": 1}},
        {"labels": {"app": None}},
        {"labels": ["app"]},
        {"labels": "app=web"},
        {"lables": {"app": "web"}},
        {"annotations": "x"},
    ],
)
def test_a_pod_with_unreadable_metadata_is_closed_and_no_other(metadata: dict[str, Any]) -> None:
    wrong = tree("Pod", "web")
    wrong["metadata"].update(metadata)
    decoded = decode_objects([wrong, tree("Pod", "other"), tree("Pod", "web2", "bank")])
    assert_closed(decoded, "web")
    assert policies_on(decoded.cluster, "other") == policies_on(decoded.cluster, "web2") == []
    assert [policy.key for policy in decoded.cluster.policies] == ["shop/(unreadable Pod shop/web)"]
    assert len(decoded.problems) == 1


def test_a_template_with_unreadable_metadata_is_closed() -> None:
    spec = {"template": {"metadata": {"labels": {"version": 1.5}}, "spec": {}}}
    decoded = decode_objects([tree("Deployment", "web", spec=spec)])
    assert_closed(decoded, "deploy/web")


def test_a_pod_with_metadata_that_is_no_mapping_is_closed() -> None:
    decoded = decode_objects([{"apiVersion": "v1", "kind": "Pod", "metadata": "web"}])
    assert_closed(decoded, "(unnamed)")


def test_the_pods_of_an_unreadable_namespace_are_closed() -> None:
    wrong = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": 7}}}
    decoded = decode_objects([wrong, tree("Pod", "web"), tree("Pod", "other", "bank")])
    assert_closed(decoded, "web")
    assert policies_on(decoded.cluster, "other") == []


def test_pods_that_differ_under_one_name_are_closed_and_the_first_stays() -> None:
    first, second = tree("Pod", "web", spec={"nodeName": "n1"}), tree("Pod", "web")
    second["metadata"]["labels"] = {"app": "web"}
    decoded = decode_objects([first, second])
    assert [pod.node for pod in decoded.cluster.pods] == ["n1"]
    assert_closed(decoded, "web")


def test_namespaces_that_differ_under_one_name_close_their_pods() -> None:
    first = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    second = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"a": "b"}}}
    decoded = decode_objects([first, second, tree("Pod", "web")])
    assert [namespace.labels for namespace in decoded.cluster.namespaces] == [{NAMESPACE_NAME_LABEL: "shop"}]
    assert_closed(decoded, "web")


def test_policies_that_differ_under_one_name_isolate_both_and_grant_nothing() -> None:
    def policy(app: str, rules: int) -> dict[str, Any]:
        spec = {"podSelector": {"matchLabels": {"app": app}}, "ingress": [{}] * rules, "egress": [{}]}
        return tree("NetworkPolicy", "api", spec=spec)

    decoded = decode_objects([policy("a", 1), policy("b", 2), policy("c", 1), policy("a", 1)])
    assert [found.key for found in decoded.cluster.policies] == ["shop/api", "shop/api (2)", "shop/api (3)"]
    assert [str(found.subjects) for found in decoded.cluster.policies] == ["app=a", "app=b", "app=c"]
    assert [understood(found) for found in decoded.cluster.policies] == [[False] * 2, [False] * 3, [False] * 2]


def test_policies_kept_apart_never_take_the_name_of_another() -> None:
    def policy(name: str, app: str) -> dict[str, Any]:
        return tree("NetworkPolicy", name, spec={"podSelector": {"matchLabels": {"app": app}}})

    cluster = decode_objects([policy("api", "a"), policy("api (2)", "b"), policy("api", "c")]).cluster
    assert {found.key: str(found.subjects) for found in cluster.policies} == {
        "shop/api": "app=a",
        "shop/api (2)": "app=b",
        "shop/api (3)": "app=c",
    }


def test_policies_whose_names_the_api_server_makes_up_are_distinct() -> None:
    def policy(app: str) -> dict[str, Any]:
        spec = {"podSelector": {"matchLabels": {"app": app}}, "ingress": [{}]}
        return {**tree("NetworkPolicy", ""), "metadata": {"generateName": "api-", "namespace": "shop"}, "spec": spec}

    decoded = decode_objects([policy("a"), policy("b"), policy("a")])
    assert decoded.problems == ()
    assert [(found.key, str(found.subjects), understood(found)) for found in decoded.cluster.policies] == [
        ("shop/api-*", "app=a", [True]),
        ("shop/api-* (2)", "app=b", [True]),
        ("shop/api-* (3)", "app=a", [True]),
    ]


def test_what_stands_twice_is_said_with_both_places() -> None:
    text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\n"
    decoded = read_documents(text, "f.yaml")
    assert [str(problem) for problem in decoded.problems] == [
        "f.yaml:5: Pod default/web: stands twice, first at f.yaml:1, expected once"
    ]


@pytest.mark.parametrize("kind", ["Pod", "Namespace", "NetworkPolicy", "Service"])
def test_what_stands_twice_and_is_equal_means_what_it_means_once(kind: str) -> None:
    once, twice = decode_objects([tree(kind, "a")]), decode_objects([tree(kind, "a")] * 2)
    assert once.cluster == twice.cluster
    assert [problem.reason for problem in twice.problems] == ["stands twice, expected once"]


def test_one_name_in_two_kinds_or_namespaces_is_no_duplicate() -> None:
    objects = [tree("Pod", "a"), tree("Service", "a"), tree("NetworkPolicy", "a"), tree("Pod", "a", "bank")]
    assert decode_objects(objects).problems == ()


def test_row_37_namespaces_that_nobody_declares_have_only_their_name_label() -> None:
    declared = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"a": "b"}}}
    decoded = decode_objects(
        [tree("NetworkPolicy", "p", "bank"), tree("Pod", "web"), declared, tree("Pod", "x", "bank")]
    )
    assert {namespace.name: namespace.labels for namespace in decoded.cluster.namespaces} == {
        "shop": {"a": "b", NAMESPACE_NAME_LABEL: "shop"},
        "bank": {NAMESPACE_NAME_LABEL: "bank"},
    }


def test_problems_are_sorted_by_place_and_kept_once() -> None:
    text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: A}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: B}\n"
    decoded = read_documents(text, "f")
    assert [problem.line for problem in decoded.problems] == [3, 7]
    assert list(decoded.problems) == sorted(set(decoded.problems))
