"""`podfence explain`: who the ends are, what is said of them, and that every ending is one that scripts can rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DENY_ALL = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""
DEPLOYMENT = """\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: web}]}}}
"""


def pod(name: str, number: int, phase: str = "Running", owner: str = "") -> str:
    owners = f", ownerReferences: [{{kind: {owner}, name: web, controller: true}}]" if owner else ""
    return f"""\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}{owners}}}
status: {{phase: {phase}, podIP: 10.0.0.{number}}}
"""


@pytest.fixture
def explained(podfence, tmp_path: Path):
    """Runs `explain SRC DST` on `objects`: the exit code and the answers."""

    def run(objects: str, *arguments: str) -> tuple[int, list[dict[str, object]]]:
        file = tmp_path / "objects.yaml"
        file.write_text(objects)
        ran = podfence("explain", *arguments, "--port", "80", "-f", file, "-o", "json")
        assert ran.stderr == ""
        return ran.returncode, json.loads(ran.stdout)["answers"]

    return run


def test_replicas_of_a_workload_are_not_one_pod(explained) -> None:
    code, (only,) = explained(DENY_ALL + DEPLOYMENT, "deploy/web", "default/deploy/web", "--expect", "deny")
    assert (code, only["verdict"]) == (0, "denied")
    assert only["egress"]["because"] == only["ingress"]["because"] == "no rule"


def test_a_workload_to_itself_is_one_of_its_pods_to_another(explained) -> None:
    both = DENY_ALL + pod("web-0", 1, owner="StatefulSet") + pod("web-1", 2, owner="StatefulSet")
    for src, dst in (("sts/web", "sts/web"), ("web-0", "sts/web")):
        code, answers = explained(both, src, dst, "--expect", "deny")
        assert code == 0
        assert all(set(answer["src"]["names"]).isdisjoint(answer["dst"]["names"]) for answer in answers) or src == dst
    code, (itself,) = explained(both, "web-0", "web-0", "--expect", "allow")
    assert (code, itself["ingress"]["because"]) == (0, "self")


def test_a_workload_whose_pods_have_finished_is_those_that_it_would_make_again(explained) -> None:
    job = DEPLOYMENT.replace("apps/v1", "batch/v1").replace("Deployment", "Job")
    _, answers = explained(DENY_ALL + job + pod("web-x1", 1, "Failed", owner="Job"), "job/web", "10.9.9.9")
    assert [answer["src"]["names"] for answer in answers] == [["default/job/web"]]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_of_a_finished_pod_it_is_said(podfence, explained, tmp_path, phase) -> None:
    objects = DENY_ALL + pod("done", 1, phase) + pod("web", 2)
    _, (answer,) = explained(objects, "done", "web")
    assert (answer["egress"]["because"], answer["ingress"]["because"]) == ("finished", "no rule")
    text = podfence("explain", "done", "web", "--port", "80", "-f", tmp_path / "objects.yaml").stdout
    (line,) = [line for line in text.splitlines() if "egress of default/done" in line]
    assert "finished" in line and "address may be someone else's" in line


@pytest.mark.parametrize("protocol", ["ſctp", "tpc", "6"])
def test_what_is_no_protocol(podfence, protocol) -> None:
    ran = podfence("explain", "10.0.0.1", "10.0.0.2", "--port", f"80/{protocol}", "-f", "-", stdin=DENY_ALL)
    assert ran.returncode == 2
    assert "not a protocol" in ran.stderr
