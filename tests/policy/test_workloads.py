"""Workloads stand for the pods that they would make (semantics, row 38), unless those pods are there."""

from __future__ import annotations

from typing import Any

import pytest

from policy.decode import decode_objects
from policy.model import ContainerPort, Pod

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"hostNetwork": True, "nodeName": "n1", "containers": [{"ports": [{"containerPort": 80, "name": "http"}]}]},
}


def workload(kind: str, name: str = "web", owner: tuple[str, str] | None = None, **labels: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"spec": {"template": TEMPLATE}}
    version = {"Job": "batch/v1", "CronJob": "batch/v1", "PodTemplate": "v1"}.get(kind, "apps/v1")
    if kind == "CronJob":
        spec = {"spec": {"jobTemplate": spec}}
    elif kind == "PodTemplate":
        spec = {"template": TEMPLATE}
    return {"apiVersion": version, "kind": kind, "metadata": meta(name, owner, labels), **spec}


def meta(name: str, owner: tuple[str, str] | None, labels: dict[str, str]) -> dict[str, Any]:
    owners = (
        [{"kind": "Node", "name": "other"}, {"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    )
    return {"name": name, "namespace": "shop", "labels": labels, "ownerReferences": owners}


def pod(name: str, owner: tuple[str, str] | None, phase: str = "Running", **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name, owner, labels), "status": {"phase": phase}}


def pods(*trees: dict[str, Any]) -> list[Pod]:
    decoded = decode_objects(trees)
    assert decoded.problems == ()
    return decoded.cluster.pods


def names(*trees: dict[str, Any]) -> list[tuple[str, str]]:
    return [(found.name, found.workload) for found in pods(*trees)]


KINDS = {
    "Deployment": "deploy",
    "StatefulSet": "sts",
    "DaemonSet": "ds",
    "ReplicaSet": "rs",
    "Job": "job",
    "CronJob": "cronjob",
    "PodTemplate": "podtemplate",
}


@pytest.mark.parametrize("kind", KINDS)
def test_row_38_a_workload_stands_for_one_pod(kind: str) -> None:
    (found,) = pods(workload(kind))
    job = {"batch.kubernetes.io/job-name": "web", "job-name": "web"} if kind == "Job" else {}
    assert found == Pod(
        namespace="shop",
        name=f"{KINDS[kind]}/web",
        labels={"app": "web", **job},
        node="n1",
        ports=(ContainerPort("http", "TCP", 80),),
        host_network=True,
        workload=f"{KINDS[kind]}/web",
    )


def test_workloads_of_one_name_and_a_pod_of_that_name_are_apart() -> None:
    found = names(workload("Deployment"), workload("StatefulSet"), pod("web", None))
    assert found == [("deploy/web", "deploy/web"), ("sts/web", "sts/web"), ("web", "")]


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "ReplicaSet", "Job"])
def test_the_pods_of_a_workload_take_the_place_of_what_stands_for_them(kind: str) -> None:
    own = f"{KINDS[kind]}/web"
    assert names(workload(kind), pod("web-0", (kind, "web")), pod("web-1", (kind, "web"))) == [
        ("web-0", own),
        ("web-1", own),
    ]


def test_a_finished_pod_takes_no_place() -> None:
    found = names(workload("Job"), pod("web-x", ("Job", "web"), phase="Succeeded"))
    assert found == [("job/web", "job/web"), ("web-x", "job/web")]


def test_the_chain_from_deployment_to_pod() -> None:
    deployment, replicas = workload("Deployment"), workload("ReplicaSet", "web-5f", ("Deployment", "web"))
    found = pod("web-5f-x", ("ReplicaSet", "web-5f"))
    assert names(deployment, replicas, found) == [("web-5f-x", "deploy/web")]
    assert names(found, replicas, deployment) == [("web-5f-x", "deploy/web")]
    assert names(deployment, replicas) == [("deploy/web", "deploy/web")]
    assert names(replicas) == [("rs/web-5f", "rs/web-5f")]
    assert names(replicas, found) == [("web-5f-x", "deploy/web")]
    assert names(found) == [("web-5f-x", "rs/web-5f")]


def test_the_template_hash_leads_to_the_deployment_without_its_replica_set() -> None:
    found = pod("web-a-5f-x", ("ReplicaSet", "web-a-5f"), **{"pod-template-hash": "5f"})
    assert names(found) == [("web-a-5f-x", "deploy/web-a")]
    assert names(workload("Deployment", "web-a"), found) == [("web-a-5f-x", "deploy/web-a")]
    old = workload("ReplicaSet", "web-a-4e", ("Deployment", "web-a"))
    assert names(old, found) == [("web-a-5f-x", "deploy/web-a")]


def test_the_chain_from_cron_job_to_pod() -> None:
    cron, job = workload("CronJob"), workload("Job", "web-1", ("CronJob", "web"))
    assert names(cron, job, pod("web-1-x", ("Job", "web-1"))) == [("web-1-x", "cronjob/web")]
    assert names(cron, job) == [("cronjob/web", "cronjob/web")]


def test_owners_in_a_circle_end() -> None:
    one, two = workload("ReplicaSet", "a", ("ReplicaSet", "b")), workload("ReplicaSet", "b", ("ReplicaSet", "a"))
    assert names(one, two, pod("x", ("ReplicaSet", "a")))[-1][0] == "x"


def test_the_same_name_in_another_namespace_is_another_workload() -> None:
    there = pod("web-0", ("StatefulSet", "web"))
    there["metadata"]["namespace"] = "bank"
    assert names(workload("StatefulSet"), there) == [("sts/web", "sts/web"), ("web-0", "sts/web")]


@pytest.mark.parametrize(
    ("kind", "fields", "path"),
    [
        ("Deployment", {}, "spec.template"),
        ("Deployment", {"spec": {"replicas": 3}}, "spec.template"),
        ("CronJob", {"spec": {"jobTemplate": {}}}, "spec.jobTemplate.spec.template"),
        ("PodTemplate", {}, "template"),
    ],
)
def test_a_workload_without_a_template_makes_no_pod(kind: str, fields: dict[str, Any], path: str) -> None:
    tree = {**workload(kind), **fields}
    if "spec" not in fields:
        tree.pop("spec", None)
        tree.pop("template", None)
    decoded = decode_objects([tree])
    assert decoded.cluster.pods == []
    assert [str(problem) for problem in decoded.problems] == [
        f"{kind} shop/web: {path}: missing, expected the template of its pods"
    ]


def test_problems_of_a_template_have_their_whole_path() -> None:
    tree = workload("Deployment")
    tree["spec"] = {"template": {"metadata": {"labels": {"a": "-"}}, "spec": {"containers": [{"ports": [{}]}]}}}
    assert [(problem.kind, problem.name, problem.field) for problem in decode_objects([tree]).problems] == [
        ("Deployment", "shop/web", "spec.template.metadata.labels.a"),
        ("Deployment", "shop/web", "spec.template.spec.containers[0].ports[0].containerPort"),
    ]
