"""podfence on a cluster of the tests, installed as its users do: `kubectl apply -k`, with the image on the nodes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

from manifests.image import build
from tests.cluster import agent_image
from tests.cluster.cluster import Cluster
from tests.cluster.control import until
from tests.cluster.errors import ClusterFailed
from tests.cluster.packets import within

NAMESPACE = "podfence-system"
MANIFESTS = build.TOP / "manifests"
TAINT = "podfence.io/not-ready"


class Installed:
    """The agents of a cluster, by node."""

    def __init__(self, cluster: Cluster, kustomization: str = "base") -> None:
        self.cluster = cluster
        cluster.load_image(agent_image.tar())
        self.apply(kustomization)

    def apply(self, kustomization: str) -> None:
        """Returns when every agent of it is Ready."""
        self.cluster.kubectl("apply", "-k", str(MANIFESTS / kustomization))
        self.rolled_out()

    def rolled_out(self) -> None:
        self.kubectl("rollout", "status", "daemonset/podfence", "--timeout=120s", timeout=130)

    def kubectl(self, *argv: str, timeout: float = 60) -> str:
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *argv, timeout=timeout)

    def pod(self, node: str) -> dict[str, Any]:
        """The agent's pod of a node, without one that is on its way out."""
        found = json.loads(self.kubectl("get", "pods", f"--field-selector=spec.nodeName={node}", "-o", "json"))
        (pod,) = (each for each in found["items"] if "deletionTimestamp" not in each["metadata"])
        return dict(pod)

    def name(self, node: str) -> str:
        return str(self.pod(node)["metadata"]["name"])

    def restarts(self, node: str) -> int:
        return int(self.pod(node)["status"]["containerStatuses"][0]["restartCount"])

    def pid(self, node: str) -> int:
        """The agent's process, in the PID namespace of the cluster."""
        container = self.pod(node)["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        return self.cluster.node(node).container_pid(container)

    def has_another(self, node: str, before: int) -> bool:
        """Whether an agent runs that is not process `before`."""
        with suppress(ClusterFailed, ValueError, KeyError):
            return self.pid(node) != before
        return False

    def kill(self, node: str) -> None:
        """SIGKILL, as the OOM killer does; kubelet starts it anew."""
        self.cluster.node(node).run(["kill", "-9", str(self.pid(node))])

    def log(self, node: str) -> list[dict[str, Any]]:
        """What the agent of the node has said since it began."""
        said = self.kubectl("logs", self.name(node))
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def writes(self, node: str) -> list[dict[str, Any]]:
        """Every change that the agent of the node has made to the kernel since it began."""
        return [line for line in self.log(node) if line["message"] == "rules follow"]

    def status(self, node: str) -> dict[str, Any]:
        """What `podfence node status` says in the agent's container: `families` from the kernel, `agent` of itself."""
        argv = ["podfence", "node", "status", "-o", "json"]
        done = self.cluster.exec(self.name(node), argv, namespace=NAMESPACE, check=False)
        return dict(json.loads(done.stdout))

    def sizes(self, node: str) -> list[tuple[int, ...]]:
        """Chains, rules, sets and entries in the kernel, of each family."""
        families = self.status(node)["families"]
        return [tuple(each[what] for what in ("chains", "rules", "sets", "elements")) for each in families]

    def page(self, node: str, path: str) -> tuple[int, str]:
        """What the agent answers on the node itself; 0 where nobody does."""

        def get() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:9470{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return within(self.cluster.node(node).netns, get)

    def metric(self, node: str, name: str) -> float:
        """The sum over its labels."""
        _, text = self.page(node, "/metrics")
        rows = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(row.rpartition(" ")[2]) for row in rows)

    def wait_ready(self, node: str, seconds: float = 60) -> None:
        until(f"the agent of {node} ready", lambda: self.page(node, "/readyz")[0] == 200, seconds, self._why(node))

    def _why(self, node: str) -> Any:
        return lambda: f"{self.page(node, '/readyz')}\n{self.kubectl('get', 'pods', '-o', 'wide')}"
