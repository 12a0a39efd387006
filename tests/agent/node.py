"""A real agent on a node of a lab, as a process of its own, and the API server that it follows, which fails as told."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import yaml

from enforcer.kernel.backend import Backend
from podfence.lab_objects import api_objects
from tests.api.follow import kubeconfig
from tests.api.history import NAMESPACES, NODES, PODS, POLICIES, History
from tests.api.server import Server
from tests.enforcer.test_kernel import World

PATIENCE = 15.0
START = 60.0  # a process that begins while the machine is busy
_PATHS = {"Node": NODES, "Namespace": NAMESPACES, "Pod": PODS, "NetworkPolicy": POLICIES}
_ROOT = Path(__file__).parents[2]


def until(holds: Callable[[], bool], what: str | Callable[[], str], patience: float = PATIENCE) -> float:
    """The seconds that it took; `what` is asked for in the end, if ever."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began >= patience:
            raise AssertionError(f"not within {patience:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.005)
    return time.monotonic() - began


class AgentProcess:
    """Runs in the node's network namespace. `stop` is SIGTERM, `kill` is SIGKILL; both by its own process id."""

    def __init__(
        self,
        world: World,
        node: str,
        folder: Path,
        config: str,
        *more: str,
        wait: bool = True,
        under: tuple[str, ...] = (),
    ) -> None:
        """`under` is a program that runs the agent's, with its arguments."""
        self.log = folder / f"agent-{time.monotonic_ns()}.log"
        self.folder = folder
        argv = [*under, sys.executable, "-m", "podfence", "node", "agent", "--node", node, "--kubeconfig", config]
        argv += ["--backend", world.backend.mode, "--state-dir", str(folder / "state"), "--cni-results", "", *more]
        lock = {"XTABLES_LOCKFILE": str(folder / "xtables.lock"), "PYTHONPATH": str(_ROOT)}
        self._place = world.lab.inside(node)
        with self.log.open("wb") as log, world.lab.inside(node):
            self.process = subprocess.Popen(argv, stderr=log, stdout=log, env={**os.environ, **lock}, cwd=_ROOT)
        self._inside = lambda: world.lab.inside(node)
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.said()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def wait_ready(self) -> float:
        return until(
            lambda: self.get("/readyz")[0] == 200, lambda: f"ready: {self.get('/readyz')} {self.said()}", START
        )

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 where nothing answers."""
        with self._inside(), suppress(OSError):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:9470{path}", timeout=2) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
        return 0, ""

    def metric(self, name: str) -> float:
        """Of all labels together."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def said(self) -> list[dict[str, Any]]:
        """Its log so far."""
        lines = self.log.read_bytes().splitlines()
        return [msgspec.json.decode(line) if line.startswith(b"{") else {"message": line.decode()} for line in lines]

    def applied(self) -> list[dict[str, Any]]:
        return [each for each in self.said() if each["message"] == "rules follow"]


class Cluster:
    """What the API server of a lab's node says, and its node `n1` with an agent."""

    def __init__(self, world: World, server: Server, folder: Path) -> None:
        self.world = world
        self.server = server
        self.folder = folder
        self.config = kubeconfig(folder, server)
        for tree in api_objects(world.lab.cluster)["items"]:
            self.put(tree)

    @property
    def history(self) -> History:
        return self.server.history

    def put(self, tree: dict[str, Any]) -> None:
        meta = tree["metadata"]
        if tree["kind"] == "Pod":
            meta.setdefault("uid", f"uid-{meta['name']}")
        self.history.put(_PATHS[tree["kind"]], {key: tree[key] for key in tree if key not in ("kind", "apiVersion")})

    def apply(self, text: str) -> None:
        for tree in yaml.safe_load_all(text):
            self.put(tree)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.history.delete(_PATHS[kind], (namespace, name))

    def tree(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """As it is stored."""
        found: dict[str, Any] = msgspec.json.decode(self.history.objects[_PATHS[kind]][namespace, name])
        return found

    def relabel(self, name: str, **labels: str) -> None:
        tree = self.tree("Pod", "shop", name)
        tree["metadata"]["labels"] = labels
        self.put(tree)

    def agent(self, *more: str, wait: bool = True, under: tuple[str, ...] = ()) -> AgentProcess:
        return AgentProcess(self.world, "n1", self.folder, self.config, *more, wait=wait, under=under)


@contextmanager
def cluster_in(world: World, folder: Path, context: ssl.SSLContext | None = None) -> Iterator[Cluster]:
    """The server listens on loopback of the node's own namespace; with TLS where there is a `context`."""
    with world.lab.inside("n1"):
        server = Server(History(), context)
        with server:
            yield Cluster(world, server, folder)


def saved(world: World) -> str:
    """All that node n1's kernel holds, counters left out, once an agent has tidied up."""
    before = ""
    while before != (now := world.saved("n1")):
        before = now
        time.sleep(0.4)
    return now


__all__ = ["AgentProcess", "Backend", "Cluster", "cluster_in", "saved", "until"]
