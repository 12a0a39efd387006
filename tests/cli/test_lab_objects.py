"""`podfence lab objects`: what a lab is made of, as objects that every command takes again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import yaml
from msgspec.structs import replace

from lab.topology import complete
from podfence.lab_objects import api_objects
from policy.decode import Decoded, decode_objects, read_documents
from policy.errors import UsageError
from tests.generate import cluster

WORKLOADS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{name: http, containerPort: 8080}]}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: storefront}}}
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
"""


def again(decoded: Decoded) -> Decoded:
    return read_documents(json.dumps(api_objects(complete(decoded.cluster))).encode(), "objects.json")


def test_objects_mean_what_the_lab_has() -> None:
    labs = 0
    for seed in range(300):
        decoded = decode_objects(cluster(Random(seed)))
        try:
            wanted = complete(decoded.cluster)
        except UsageError:
            continue  # its addresses clash: no lab can be made of it
        labs += 1
        read = again(decoded)
        assert read.problems == ()
        for kind in ("pods", "nodes", "namespaces"):
            assert [replace(each, source=None) for each in getattr(read.cluster, kind)] == getattr(wanted, kind)
        assert not read.cluster.policies
    assert labs


def test_a_workloads_pod_has_a_name_that_a_pod_can_have_and_its_owner() -> None:
    read = again(read_documents(WORKLOADS.encode(), "workloads.yaml"))
    assert read.problems == ()
    pods = {pod.key: pod for pod in read.cluster.pods}
    assert set(pods) == {"shop/deploy.web", "shop/api"}
    assert pods["shop/deploy.web"].workload == "deploy/web"
    assert pods["shop/deploy.web"].labels == {"app": "web"}
    assert all(len(pod.addresses) == 2 and pod.node for pod in pods.values())


@pytest.fixture
def name(podfence, tmp_path: Path) -> Iterator[str]:
    name = f"objects-{os.getpid()}"
    (tmp_path / "workloads.yaml").write_text(WORKLOADS)
    (tmp_path / "policy.yaml").write_text(POLICY)
    ran = podfence("lab", "up", "-f", tmp_path, "--name", name, "--listen", "8080")
    assert ran.returncode == 0, ran.stderr
    yield name
    assert podfence("lab", "down", name).returncode == 0


@pytest.mark.kernel
def test_nodes_enforce_what_a_lab_without_addresses_says_of_itself(podfence, tmp_path, name) -> None:
    printed = podfence("lab", "objects", "--name", name)
    assert printed.returncode == 0, printed.stderr
    as_json = podfence("lab", "objects", "--name", name, "-o", "json").stdout
    assert yaml.safe_load(printed.stdout) == json.loads(as_json)
    objects, policies = tmp_path / "objects", tmp_path / "policy.yaml"
    objects.write_text(printed.stdout)
    checked = podfence("validate", "-f", objects, "-f", policies)
    assert checked.returncode == 0, checked.stdout
    for node in ("node-1", "node-2"):
        argv = ["nsenter", f"--net=/run/netns/pf-{name}.node.{node}", sys.executable, "-m", "podfence"]
        argv += ["node", "apply", "-f", str(objects), "-f", str(policies), "--node", node]
        applied = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert applied.returncode == 0, applied.stderr

    def outcome(src: str) -> str:
        ran = podfence("lab", "probe", src, "shop/api", "--port", "8080", "--name", name, "-o", "json")
        return json.loads(ran.stdout)[0]["outcome"]

    assert outcome("shop/deploy/web") == "open"
    assert outcome("outside") == "dropped", "nobody that anybody has heard of"


def test_objects_of_no_lab(podfence) -> None:
    ran = podfence("lab", "objects", "--name", "gone")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "gone" in ran.stderr
