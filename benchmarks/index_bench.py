"""The live index: what an event costs, and what a start costs, from bytes to changes. CPU time, one thread.

A pod event is one line of a watch: JSON of 4.7 KB, decoded, applied, its changed subjects and members found. A start
is everything a node's agent reads first, in pages of 500 as lists come, up to the allow-sets of its 110 pods. Starts
run in a process of their own, whose memory is counted beyond what the imports take.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Raw

from benchmarks import api_objects
from benchmarks.api_objects import World
from benchmarks.record import Case, Figure, Size, figure, percentile
from compiler.changes import Deleted, Event
from compiler.index import Index
from policy.decode import decode_document
from policy.documents import Document
from policy.model import Namespace, NetworkPolicy, Pod

RUNS = 7
PAGE = 500


def measure(size: Size) -> Iterator[Figure]:
    full = size == "full"
    runs, events = (RUNS, 4000) if full else (2, 100)
    world = World(10_000, 1_000, 500) if full else World(200, 20, 10)
    for node, whose in (("node-0", "subjects of one node"), (None, "subjects of all nodes")):
        index = started(world, node, (api_objects.policy(world, n) for n in range(world.policies)))
        costs = [timed(index, pod_events(world, events, run)) for run in range(runs)]
        case: Case = {"pods": world.pods, "policies": world.policies, "subjects": whose}
        yield figure("pod event, p50", [percentile(cost, 50) for cost in costs], "µs", 20, **case)
        yield figure("pod event, p99", [percentile(cost, 99) for cost in costs], "µs", 50, **case)
    yield from selectors(world, world.pods, 100 if full else 10, runs, events)
    yield from hot_label(world, 1_000 if full else 20, runs, events // 10)
    yield from policy_event(world, runs)
    yield from starts(World(10_000, 1_000, 500) if full else World(300, 30, 10), runs, 0.25, 20)
    if full:
        yield from starts(World(100_000, 10_000, 5_000), runs, 1.5, 120)
        yield from starts(World(100_000, 10_000, 5_000, own_labels=True), runs, 2.5, 220)


def decoded(kind: str, body: bytes) -> Namespace | Pod | NetworkPolicy:
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1"
    found = decode_document(Document(kind, version, Raw(body))).object
    assert isinstance(found, Namespace | Pod | NetworkPolicy)
    return found


def started(world: World, node: str | None, policies: Iterable[bytes]) -> Index:
    index = Index(node)
    index.apply(decoded("Namespace", api_objects.namespace(world, number)) for number in range(world.spaces))
    index.apply(decoded("NetworkPolicy", body) for body in policies)
    index.apply(decoded("Pod", api_objects.pod(world, number)) for number in range(world.pods))
    settle()
    return index


def settle() -> None:
    """As the agent does after it has read everything: what is there now is no garbage."""
    gc.collect()
    gc.freeze()


def pod_events(world: World, count: int, run: int) -> Iterator[bytes]:
    """Other pods each time: by turns one gets another application's labels, its own again, a label that nobody
    selects, and a change that is none. Made when they are asked for, as bytes come from a socket: not long before."""
    for turn in range(count):
        number = (run * 104_729 + turn // 4 * 7919) % world.pods
        other = api_objects.app_labels((number * 3 + turn) % world.apps)
        del other["pod-template-hash"]
        labels: dict[str, str] = (other, {}, {"revision": str(turn % 16)}, {"revision": str((turn - 1) % 16)})[turn % 4]
        yield api_objects.pod(world, number, **labels)


def timed(index: Index, events: Iterable[bytes]) -> list[float]:
    """The µs of CPU that each pod event takes, from bytes to changes."""
    costs = []
    for body in events:
        began = time.thread_time_ns()
        index.apply([decoded("Pod", body)])
        costs.append((time.thread_time_ns() - began) / 1e3)
    return costs


def selectors(world: World, many: int, few: int, runs: int, events: int) -> Iterator[Figure]:
    """Pod events among so many distinct selectors in use, of which a pod matches one at most."""
    medians = {}
    for count in (many, few):
        index = started(world, None, (distinct_selector(world, number) for number in range(count)))
        medians[count] = [percentile(timed(index, pod_events(world, events, run)), 50) for run in range(runs)]
    ratios = [one / other for one, other in zip(medians[many], medians[few], strict=True)]
    yield figure("pod event, many selectors", ratios, "ratio", 1.5, selectors=many, against=f"against {few}")


def distinct_selector(world: World, number: int) -> bytes:
    app = number % world.apps
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": f"app-{number}"}}}
    subjects = {"matchLabels": api_objects.app_labels(app)}
    spec = {"podSelector": subjects, "ingress": [{"from": [peer], "ports": [{"port": 1 + number % 65535}]}]}
    return api_objects.policy_of(world.space_of(app), f"policy-{number}", spec)


def hot_label(world: World, count: int, runs: int, events: int) -> Iterator[Figure]:
    """A pod gets, and loses, the one label that so many selectors ask for; it joins, and leaves, all of them."""
    index = started(world, "node-0", (hot_selector(world, number) for number in range(count)))
    labels = [{"environment": "hot"}, {"environment": "cold"}]
    costs = [
        timed(index, (api_objects.pod(world, run * 7 + turn // 2, **labels[turn % 2]) for turn in range(events)))
        for run in range(runs)
    ]
    yield figure("pod event, hot label, p50", [percentile(cost, 50) for cost in costs], "µs", 250, selectors=count)


def hot_selector(world: World, number: int) -> bytes:
    expression = {"key": "wave", "operator": "NotIn", "values": [str(number)]}
    pods = {"matchLabels": {"environment": "hot"}, "matchExpressions": [expression]}
    rule = {"from": [{"namespaceSelector": {}, "podSelector": pods}], "ports": [{"port": 1 + number}]}
    return api_objects.policy_of(world.space_of(0), f"policy-{number}", {"podSelector": {}, "ingress": [rule]})


def policy_event(world: World, runs: int) -> Iterator[Figure]:
    """One policy added, and taken away, that selects pods of the node."""
    index = started(world, "node-0", (api_objects.policy(world, n) for n in range(world.policies)))
    spec = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": "web"}}}]}]}
    event = api_objects.policy_of(world.space_of(0), "another", spec)
    costs = []
    for _ in range(runs):
        began = time.thread_time_ns()
        index.apply([decoded("NetworkPolicy", event)])
        costs.append((time.thread_time_ns() - began) / 1e6)
        index.apply([Deleted("NetworkPolicy", world.space_of(0), "another")])
    yield figure("policy added", costs, "ms", pods=world.pods, policies=world.policies)


def starts(world: World, runs: int, seconds: float, megabytes: float) -> Iterator[Figure]:
    """In a process each, so that one's memory is not the other's."""
    told = []
    for _ in range(runs):
        command = [sys.executable, "-m", "benchmarks.index_bench", "start", json.dumps(msgspec.structs.asdict(world))]
        told.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    labels = "each pod's own labels" if world.own_labels else f"{world.apps} label sets"
    case: Case = {"pods": world.pods, "policies": world.policies, "labels": labels}
    yield figure("start, CPU", [each["seconds"] for each in told], "s", seconds, **case)
    yield figure("start, memory", [each["megabytes"] for each in told], "MB", megabytes, **case)


def start(world: World) -> dict[str, float]:
    """The seconds of CPU and the megabytes, beyond the imports and the pages themselves, of a node's start."""
    settle()
    gc.disable()
    before, spent = resident(), 0.0
    events: list[Event] = []
    for kind, count, make in (
        ("Namespace", world.spaces, api_objects.namespace),
        ("NetworkPolicy", world.policies, api_objects.policy),
        ("Pod", world.pods, api_objects.pod),
    ):
        for first in range(0, count, PAGE):
            page = [make(world, number) for number in range(first, min(first + PAGE, count))]
            began = time.process_time()
            events += [decoded(kind, body) for body in page]
            spent += time.process_time() - began
            del page
    began = time.process_time()
    index = Index("node-0")
    changes = index.apply(events)
    del events
    settle()
    spent += time.process_time() - began
    assert changes.subjects
    return {"seconds": spent, "megabytes": (resident() - before) / 1e6}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    if sys.argv[1:2] == ["start"]:
        print(json.dumps(start(World(**json.loads(sys.argv[2])))))
    else:
        for one in measure("quick" if "--quick" in sys.argv else "full"):
            print(msgspec.json.encode(one).decode(), flush=True)
