"""A cluster that podfence enforces, with servers on its nodes, and a laptop from which it is asked."""

from __future__ import annotations

import subprocess
import sys

from tests.cluster import pods
from tests.cluster.cluster import Cluster
from tests.cluster.control import until
from tests.cluster.errors import ClusterFailed
from tests.cluster.installed import Installed
from tests.cluster.packets import Outcome, all_outcomes

PORT = 8080
SERVERS = {"web-1": "node-1", "web-2": "node-2", "other-1": "node-1", "other-2": "node-2"}


class World:
    """Two nodes that enforce, and on each a server `web` and a server `other`."""

    def __init__(self, cluster: Cluster, bridged: bool, iptables: str) -> None:
        self.cluster = cluster
        self.bridged = bridged
        cluster.apply(pods.sleeper("early"))
        self.early = cluster.kubectl("get", "pod", "early", "-o", "jsonpath={.spec.nodeName}")
        self.podfence = Installed(cluster, f"overlays/iptables-{iptables}")
        cluster.apply(*(pods.server(name, node, app=name.split("-")[0]) for name, node in SERVERS.items()))
        cluster.kubectl("wait", "--for=condition=Ready", "pod", *SERVERS, "--timeout=60s", timeout=70)
        self.netns = {name: cluster.pod_netns(name) for name in SERVERS}
        self.addresses = {name: pods.addresses(cluster, name) for name in SERVERS}

    def outcomes(self, *flows: tuple[str, str], port: int = PORT) -> set[Outcome]:
        """What becomes of flows from pod to pod, in both families."""
        asked = [(self.netns[src], address, port) for src, dst in flows for address in self.addresses[dst]]
        return set(all_outcomes(asked))

    def becomes(self, wanted: Outcome, *flows: tuple[str, str]) -> None:
        try:
            until(f"{flows} {wanted}", lambda: self.outcomes(*flows) == {wanted}, 15)
        except ClusterFailed as error:
            raise ClusterFailed(f"{error}{self.log()}") from None

    def log(self) -> list[object]:
        return [self.podfence.log(node)[-5:] for node in self.cluster.nodes]

    def laptop(self, *argv: str, code: int = 0) -> str:
        """What `podfence ARGV…` prints where the API server can be reached, and which is no node."""
        command = [sys.executable, "-m", "podfence", *argv, "--kubeconfig", str(self.cluster.kubeconfig)]
        place = ["nsenter", f"--net={self.cluster.control.place.netns}", "--"]
        done = subprocess.run([*place, *command], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout
