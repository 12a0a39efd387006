"""The agent's image: built from packages alone, loaded into a node, and run there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.image import build, oci
from tests.cluster import agent_image
from tests.cluster.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
MOST = 120_000_000
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


@pytest.fixture(scope="module")
def image() -> Path:
    return agent_image.tar()


@pytest.fixture(scope="module")
def cluster(image: Path) -> Iterator[Cluster]:
    with Cluster(nodes=1) as cluster:
        cluster.load_image(image)
        cluster.kubectl("create", "configmap", "policies", f"--from-literal=policy.yaml={POLICY}")
        yield cluster


def ran(cluster: Cluster, name: str, *argv: str) -> str:
    """What `podfence ARGV…` printed in a pod of the image, which ended well."""
    volume = {"name": "policies", "configMap": {"name": "policies"}}
    container = {
        "name": "podfence",
        "image": build.NAME,
        "imagePullPolicy": "Never",
        "args": list(argv),
        "volumeMounts": [{"name": "policies", "mountPath": "/policies"}],
        "securityContext": {"readOnlyRootFilesystem": True},
    }
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s", timeout=70)
    return cluster.kubectl("logs", name)


def test_it_is_small(image: Path) -> None:
    assert image.stat().st_size < MOST


def test_podfence_runs_in_a_pod_of_it(cluster: Cluster) -> None:
    assert "validate" in ran(cluster, "help", "--help")
    assert "1 " in ran(cluster, "validate", "validate", "-f", "/policies/policy.yaml")


def test_what_a_node_needs_is_in_it(cluster: Cluster) -> None:
    code = "import inotify_simple, pyroute2, kubernetes.client, prometheus_client, enforcer, lab"
    name = {"name": "imports", "image": build.NAME, "imagePullPolicy": "Never"}
    tools = f"iptables-nft -V && iptables-legacy -V && exec python3 -c '{code}; print(0)'"
    spec = {"restartPolicy": "Never", "containers": [name | {"command": ["sh", "-c", tools]}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "imports"}, "spec": spec})
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/imports", "--timeout=60s", timeout=70)
    log = cluster.kubectl("logs", "imports")
    assert "(nf_tables)" in log and "(legacy)" in log and log.endswith("0\n")


def test_the_same_files_give_the_same_image(tmp_path: Path) -> None:
    """Whatever their order on the disk, their owner and their times."""
    digests = set()
    for number, order in enumerate((("a", "b"), ("b", "a"))):
        root = tmp_path / str(number)
        root.mkdir()
        for name in order:
            (root / name).write_text(name)
        (root / "link").symlink_to("a")
        out = tmp_path / f"{number}.tar"
        digests.add((oci.write(out, "podfence.test/x:1", root, ["/a"], epoch=1), out.read_bytes()))
    assert len(digests) == 1
