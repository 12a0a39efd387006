"""A whole agent: from the start of its process to rules in force, and from what it hears to the kernel's answer.

The agent is a process of its own in a network namespace of its own; its API server is that of the tests, in a third
process. The pods of its node are rules and entries alone. What is said of batches is the agent's own log: from hearing
of a change to the kernel's last answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from benchmarks import api_objects
from benchmarks.api_objects import World
from benchmarks.record import Case, Figure, Size, figure, percentile
from benchmarks.watch_bench import server
from enforcer.kernel.backend import MODES, Mode
from lab import netns

NODE = 0
_PATIENCE = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PORT = 9470
_QUIET = 2.0


def measure(size: Size) -> Iterator[Figure]:
    full = size == "full"
    small = World(10_000, 1_000, 500) if full else World(400, 40, 20)
    for mode in MODES:
        yield from _costs(small, mode, 3 if full else 1, 400 if full else 40, 1.0, 110, idle=20 if full else 1)
    if full:
        yield from _costs(World(100_000, 10_000, 5_000), "nft", 3, 0, 3.5, 250, idle=0)


def _costs(
    world: World, mode: Mode, starts: int, moves: int, seconds: float, megabytes: float, idle: float
) -> Iterator[Figure]:
    case: Case = {"backend": mode, "pods": world.pods, "policies": world.policies}
    cold: list[tuple[float, float, float]] = []
    with _place() as place, server(world) as (port, asked, answers):
        for _ in range(starts):
            subprocess.run([sys.executable, "-m", "podfence", "node", "cleanup"], check=True, capture_output=True)
            with _Agent(world, mode, port, place) as agent:
                cold.append(agent.cost())
        yield figure("agent's start to rules in force, CPU", [each[0] for each in cold], "s", seconds, **case)
        yield figure("agent's start to rules in force", [each[1] for each in cold], "s", None, **case)
        yield figure("agent's memory then", [each[2] for each in cold], "MB", megabytes, **case)
        with _Agent(world, mode, port, place) as agent:
            writes = len(agent.applied())
            yield figure("writes of a restart with nothing changed", [writes], "count", 0, **case)
            if moves:
                _ask(asked, answers, f"moves {moves} 0.02")
                of_sets, of_chains = _told(agent.settled()[writes:])
                for percent, target in ((50, 2.0), (99, 10.0)) if of_sets else ():
                    what = f"label of a far pod heard to the kernel, set changes only, p{percent}"
                    yield figure(what, [percentile(of_sets, percent)], "ms", target, **case, changes=len(of_sets))
                if of_chains:
                    what = "label of a far pod heard to the kernel, chains switched, p50"
                    yield figure(what, [percentile(of_chains, 50)], "ms", None, **case, changes=len(of_chains))
                burst = len(agent.applied())
                _ask(asked, answers, f"moves {moves * 5} 0.001")
                late = [each["ms"] + each["waited_ms"] for each in agent.settled()[burst:]]
                what = "heard to the kernel while 1,000 pods a second change, the latest"
                yield figure(what, [max(late)], "ms", None, **case, batches=len(late), changes=moves * 5)
            if idle:
                before = agent.cpu()
                _ask(asked, answers, f"{int(idle * 10)} 0.1")
                share = (agent.cpu() - before) / idle
                yield figure("agent at 10 updates a second elsewhere, share of a core", [share], "ratio", 0.02, **case)


def _told(batches: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """How long each batch took, in ms, where only sets changed, and where one flow opens as another closes, so that
    chains are switched."""
    times: tuple[list[float], list[float]] = ([], [])
    for each in batches:
        times[any("chains written" in step for step in each["steps"])].append(each["ms"] + each["waited_ms"])
    return times


def _ask(asked: IO[str], answers: IO[str], line: str) -> None:
    asked.write(f"{line}\n")
    asked.flush()
    answers.readline()


@contextmanager
def _place() -> Iterator[Path]:
    """A namespace whose loopback is up, shared by agent and server, and a folder."""
    name = f"agent-bench-{os.getpid()}"
    netns.create([name])
    try:
        with netns.inside(name), tempfile.TemporaryDirectory() as folder:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield Path(folder)
    finally:
        netns.delete([name])


class _Agent:
    """In force from `__enter__` on."""

    def __init__(self, world: World, mode: Mode, port: str, folder: Path) -> None:
        kubeconfig = folder / "kubeconfig"
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        tree = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
        kubeconfig.write_text(json.dumps({**tree, "current-context": "c"}))
        config = folder / "agent.yaml"
        told = {"node": f"node-{NODE}", "backend": mode, "kubeconfig": str(kubeconfig), "interface": _interfaces(world)}
        told |= {"state-dir": str(folder / "state"), "cni-results": "", "resync": "3600"}
        config.write_text(json.dumps(told))  # JSON is YAML
        self._log = folder / f"log-{time.monotonic_ns()}"
        argv = [sys.executable, "-m", "podfence", "node", "agent", "--config", str(config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv, stderr=log)
        self._began = time.monotonic()

    def __enter__(self) -> _Agent:
        while not self._ready():
            assert time.monotonic() < self._began + _PATIENCE and self._process.poll() is None, self._log.read_text()
            time.sleep(0.01)
        self._ended = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def cost(self) -> tuple[float, float, float]:
        """CPU with that of its restore programs, seconds until it was ready, and megabytes."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return self.cpu(), self._ended - self._began, pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu(self) -> float:
        """Seconds so far, of the agent and of the programs that it started, those that live too."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return _seconds(pid, 4) + sum(_seconds(int(child), 2) for child in children)

    def applied(self) -> list[dict[str, Any]]:
        lines = map(msgspec.json.decode, self._log.read_bytes().splitlines())
        return [each for each in lines if each["message"] == "rules follow"]

    def settled(self) -> list[dict[str, Any]]:
        """What it applied, once it applies no more: what was sent is heard later where the machine has other work."""
        count, grew = -1, time.monotonic()
        while time.monotonic() < grew + _QUIET:
            if (now := len(self.applied())) != count:
                count, grew = now, time.monotonic()
            time.sleep(0.1)
        return self.applied()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _seconds(pid: int, fields: int) -> float:
    """Its own user and system time; with four fields also that of children that have ended."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, told[11 : 11 + fields])) / _TICKS


def _interfaces(world: World) -> list[str]:
    """One for each pod of the node, which need not be there."""
    found = []
    for number in range(NODE, world.pods, world.nodes):
        meta = json.loads(api_objects.pod(world, number))["metadata"]
        found.append(f"{meta['namespace']}/{meta['name']}=veth{number}")
    return found
