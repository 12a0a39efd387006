"""A laptop, the API server that it knows, and nodes whose agents run what `pods/exec` brings: for real, in the network
namespaces of a lab's nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lab.cluster import Lab
from podfence.lab_objects import api_objects
from tests.cli.api_server import Server, serving
from tests.cli.exec_server import Ran
from tests.semantics.world import pod


def agent_pod(node: str) -> dict[str, Any]:
    return pod(f"podfence-system/agent-{node}", [], node, **{"app.kubernetes.io/name": "podfence"})


class Laptop:
    """`objects` are what the API server tells everyone, and may be changed at any time."""

    def __init__(self, lab: Lab, policies: list[dict[str, Any]], folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        cluster = [{"apiVersion": "v1", **each} for each in api_objects(lab.cluster)["items"]]
        self.objects = [*cluster, *policies, *map(agent_pod, lab.nodes)]
        self.servers: list[Server] = []

    @contextmanager
    def online(self) -> Iterator[Laptop]:
        """Everyone has a server on loopback of its own namespace; all serve the same objects."""
        with ExitStack() as exits:
            configs: dict[str, Path] = {}
            for node in self._lab.nodes:
                with self._lab.inside(node):
                    # What the agents' service account may read, and no more.
                    server = exits.enter_context(serving(Server(self.objects, ("services", "endpointslices"))))
                (self._folder / node).mkdir()
                configs[node] = server.kubeconfig(self._folder / node)
            agents = {f"agent-{node}": self._agent(node, config) for node, config in configs.items()}
            self.server = exits.enter_context(serving(Server(self.objects, agents=agents)))
            self.config = self.server.kubeconfig(self._folder)
            yield self

    def _agent(self, node: str, config: Path) -> Any:
        def run(argv: Sequence[str]) -> Ran:
            assert argv[0] == "podfence"
            with_config = ["env", f"KUBECONFIG={config}", sys.executable, "-m", *argv]
            ran = self._lab.run(node, with_config)
            return ran.stdout, ran.stderr, ran.returncode

        return run

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "podfence", *map(str, arguments)]
        environment = {**os.environ, "KUBECONFIG": str(self.config)}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == code, ran.stderr + ran.stdout
        return ran

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "-o", "json", code=code).stdout)
