"""How a node hears of the cluster: what an event and a start cost the agent, and what a node costs the API server.

Starts are whole: an agent in a process of its own, from the interpreter's first instruction through lists over a socket
to the allow-sets of its node, everything but the kernel. The API server, in another process, is that of the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec

from benchmarks import api_objects
from benchmarks.api_objects import World
from benchmarks.index_bench import pod_events, settle
from benchmarks.record import Case, Figure, Size, figure, percentile
from compiler.changes import Event
from compiler.index import Index
from enforcer.cluster.heard import Heard
from enforcer.cluster.news import Listed, Object
from enforcer.cluster.resources import NAMESPACES, PODS, POLICIES, Resource, read_object
from enforcer.cluster.watch_wire import read_event

RUNS = 5


def measure(size: Size) -> Iterator[Figure]:
    full = size == "full"
    runs, events = (RUNS, 4000) if full else (2, 100)
    world = World(10_000, 1_000, 500) if full else World(200, 20, 10)
    yield from lines(world, runs, events)
    yield from starts(world, runs, events // 2, 1, 110, ("gzip", "plain"))
    if full:
        yield from starts(World(100_000, 10_000, 5_000), 3, events // 2, 3.5, 250, ("gzip", "plain"))
        yield from starts(World(100_000, 10_000, 5_000, own_labels=True), 3, events // 2, None, None, ("gzip",))


def lines(world: World, runs: int, events: int) -> Iterator[Figure]:
    """A watch's lines, to objects, to what differs, to what that changes for the pods of a node."""
    heard, index = followed(world)
    found: dict[str, list[float]] = {}
    for run in range(runs):
        told: dict[str, list[float]] = {}
        for body in pod_events(world, events, run):
            line = b'{"type":"MODIFIED","object":%s}' % body
            began = time.thread_time_ns()
            news = read_event(PODS, line).news
            read = time.thread_time_ns()
            changed = heard.take(news) if news else []
            taken = time.thread_time_ns()
            index.apply(changed)
            ended = time.thread_time_ns()
            for what, spent in (("read", read - began), ("kept", taken - read), ("in all", ended - began)):
                told.setdefault(what, []).append(spent / 1e3)
        for what, costs in told.items():
            found.setdefault(f"{what}, p50", []).append(percentile(costs, 50))
            found.setdefault(f"{what}, p99", []).append(percentile(costs, 99))
    targets = {"in all, p50": 20.0, "in all, p99": 50.0}
    for what, samples in found.items():
        yield figure(f"line of a watch {what}", samples, "µs", targets.get(what), pods=world.pods)


def followed(world: World) -> tuple[Heard, Index]:
    heard, index = Heard(), Index("node-0")
    events: list[Event] = heard.take(Listed("Node", ()))
    for resource, count, make in (
        (NAMESPACES, world.spaces, api_objects.namespace),
        (POLICIES, world.policies, api_objects.policy),
        (PODS, world.pods, api_objects.pod),
    ):
        objects = tuple(_read(resource, make(world, number)) for number in range(count))
        events += heard.take(Listed(resource.kind, objects))
    index.apply(events)
    settle()
    return heard, index


def _read(resource: Resource, body: bytes) -> Object:
    found = read_object(resource, body).event
    assert isinstance(found, Object)
    return found


def starts(
    world: World, runs: int, events: int, seconds: float | None, megabytes: float | None, codings: tuple[str, ...]
) -> Iterator[Figure]:
    labels = "each pod's own labels" if world.own_labels else f"{world.apps} label sets"
    for coding in codings:
        told = list(agents(world, runs, events, coding))
        case: Case = {"pods": world.pods, "policies": world.policies, "labels": labels, "answers": coding}
        yield figure("start, CPU", [each["seconds"] for each in told], "s", seconds, **case)
        yield figure("start, memory of the process", [each["megabytes"] for each in told], "MB", megabytes, **case)
        yield figure("start, on the wire", [each["sent"] / 1e6 for each in told], "MB", None, **case)
        yield figure("start, requests", [each["requests"] for each in told], "count", None, **case)
        if coding == codings[0]:
            yield figure("event from the socket, CPU", [each["event µs"] for each in told], "µs", None, **case)
            yield figure("event, bytes on the wire", [each["event bytes"] for each in told], "count", None, **case)
        if coding == codings[0] and world.pods <= 10_000:
            yield figure("watches held", [each["watches"] for each in told], "count", None, **case)
            yield figure("import of the client, CPU", [each["client seconds"] * 1e3 for each in told], "ms")
            yield figure("import of the client, memory", [each["client"] for each in told], "MB")
            yield figure("all other imports, CPU", [each["ours seconds"] * 1e3 for each in told], "ms")
            yield figure("all other imports, memory", [each["ours"] for each in told], "MB")
            yield figure("the bare interpreter, memory", [each["bare"] for each in told], "MB")


def agents(world: World, runs: int, events: int, coding: str) -> Iterator[dict[str, float]]:
    """What each of so many agents says of itself, one after another, and the server of it."""
    with server(world) as (port, asked, answers):
        before: dict[str, Any] = {"sent": 0, "requests": {}}
        for _ in range(runs):
            command = [sys.executable, "-m", "benchmarks.watch_agent", port, coding, str(events)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
                assert agent.stdout
                assert agent.stdout.readline()
                asked.write("0\n")
                asked.flush()
                synced = json.loads(answers.readline())
                asked.write(f"{events}\n")
                asked.flush()
                answers.readline()
                told: dict[str, float] = json.loads(agent.stdout.readline())
            asked.write("0\n")
            asked.flush()
            after = json.loads(answers.readline())
            requests = {title: n - before["requests"].get(title, 0) for title, n in synced["requests"].items()}
            told["sent"] = synced["sent"] - before["sent"]
            told["requests"] = sum(requests.values())
            told["watches"] = sum(n for title, n in requests.items() if title.startswith("watch"))
            told["event bytes"] = (after["sent"] - synced["sent"]) / events
            before = after
            yield told


@contextmanager
def server(world: World) -> Iterator[tuple[str, IO[str], IO[str]]]:
    """Its port, what asks it for events, and its answers."""
    command = [sys.executable, "-m", "benchmarks.watch_server", json.dumps(msgspec.structs.asdict(world))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        yield process.stdout.readline().strip(), process.stdin, process.stdout
        process.stdin.close()


if __name__ == "__main__":
    for one in measure("quick" if "--quick" in sys.argv else "full"):
        print(msgspec.json.encode(one).decode(), flush=True)
