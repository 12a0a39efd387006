"""The overlay `own-node`: an agent's token is good for its own node's objects only, and the agent misses nothing."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import pods
from tests.cluster.cluster import Cluster
from tests.cluster.control import until
from tests.cluster.installed import NAMESPACE, TAINT, Installed
from tests.cluster.packets import within

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ACCOUNT = "podfence"
STATUS = {"status": {"conditions": [{"type": "podfence.io/policy-ready", "status": "True"}]}}
LABEL = {"metadata": {"labels": {"seen": "yes"}}}


class World:
    """Two nodes with agents of the overlay, and a server on each."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.podfence = Installed(cluster, "overlays/own-node")
        cluster.apply(pods.server("web-1", "node-1", app="web"), pods.server("web-2", "node-2", app="web"))
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "web-1", "web-2", "--timeout=60s", timeout=70)

    def token(self, *bound: str) -> str:
        return self.cluster.kubectl("create", "token", ACCOUNT, f"--namespace={NAMESPACE}", *bound).strip()

    def patch(self, token: str, path: str, body: object) -> str:
        """Empty where the API server takes it, else what it says. As the agent does: kubectl would ask for more."""
        (found,) = yaml.safe_load(Path(self.cluster.kubeconfig).read_text())["clusters"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/strategic-merge-patch+json"}
        request = urllib.request.Request(
            f"{found['cluster']['server']}/api/v1/{path}", json.dumps(body).encode(), headers, method="PATCH"
        )
        trust = ssl.create_default_context(cafile=found["cluster"]["certificate-authority"])

        def send() -> str:
            try:
                with urllib.request.urlopen(request, timeout=10, context=trust):
                    return ""
            except urllib.error.HTTPError as error:
                return str(error.code) + error.read().decode()

        return within(self.cluster.node("node-1").netns, send)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Cluster(f"pytest-{os.getpid()}-own", taints=[f"{TAINT}:NoSchedule"]) as cluster:
        yield World(cluster)


def test_the_agent_misses_nothing(world: World) -> None:
    """Its taint is off (else no server would run), and readiness gates turn true."""
    gated = pods.server("gated", "node-2", app="gated")
    gated["spec"]["readinessGates"] = [{"conditionType": "podfence.io/policy-ready"}]  # type: ignore[index]
    world.cluster.apply(gated)
    world.cluster.kubectl("wait", "--for=condition=Ready", "pod/gated", "--timeout=60s", timeout=70)
    for node in world.cluster.nodes:
        assert TAINT not in world.cluster.kubectl("get", "node", node, "-o", "yaml")


def test_a_token_is_good_for_its_own_node_only(world: World) -> None:
    token = world.token("--bound-object-kind=Pod", f"--bound-object-name={world.podfence.name('node-1')}")
    until("the policy is in force", lambda: bool(world.patch(token, "nodes/node-2", LABEL)), 30)
    assert world.patch(token, "nodes/node-1", LABEL) == ""
    assert world.patch(token, "namespaces/default/pods/web-1/status", STATUS) == ""
    for path in ("nodes/node-2", "namespaces/default/pods/web-2/status"):
        said = world.patch(token, path, LABEL if path.startswith("nodes") else STATUS)
        assert said.startswith("403") and "its own node only, which is node-1" in said


def test_a_token_that_was_made_for_no_pod_is_good_for_nothing(world: World) -> None:
    token = world.token()
    for node in world.cluster.nodes:
        assert "which is not known" in world.patch(token, f"nodes/{node}", LABEL)


def test_others_are_not_concerned(world: World) -> None:
    world.cluster.kubectl("patch", "node", "node-2", "--type=merge", f"--patch={json.dumps(LABEL)}")
