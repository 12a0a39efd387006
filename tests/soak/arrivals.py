"""Forty pods at once: how long each waits for its rules once its link is there, and whether anything slips through.

`python -m tests.soak.arrivals` measures both backends. Each pod's veth is there and its object is known; what a network
plugin does last, the host's route to the pod, is done for all at once. From before that until long after, an allowed
client sends to each pod every few milliseconds, a forbidden one does, and each pod sends to whom it may not.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pyroute2 import IPRoute

from enforcer.kernel.backend import Backend
from lab.cluster import Lab
from podfence.lab_objects import api_objects
from policy.decode import read_documents
from policy.model import Cluster as Objects
from policy.model import Pod
from tests.agent.node import Cluster, cluster_in
from tests.enforcer.shop import shop
from tests.enforcer.test_kernel import FAMILIES, World
from tests.soak.packets import Asked, build, number_in
from tests.soak.station import Station

PODS, ROUNDS = 40, 10
TARGET = 0.050
_EVERY = 0.005
_PATIENCE = 5.0
_PORT = 80
_WORLD = shop(("friend", "friend", "n2"), ("stranger", "stranger", "n2"))
_POLICY = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: crowd, namespace: shop},
 spec: {podSelector: {matchLabels: {app: crowd}}, policyTypes: [Ingress, Egress],
        ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}}
"""
_numbers = count()


class Arrived(Struct, frozen=True):
    """`waits` are sorted, from just before a pod's route is asked for until its first allowed packet is there."""

    backend: str
    waits: tuple[float, ...]
    forbidden_sent: int
    forbidden_arrived: int

    @property
    def p99(self) -> float:
        return self.waits[min(len(self.waits) - 1, int(len(self.waits) * 0.99))]

    def __str__(self) -> str:
        p50, p99, longest = (
            f"{each * 1e3:.0f} ms" for each in (self.waits[len(self.waits) // 2], self.p99, self.waits[-1])
        )
        return (
            f"{self.backend}: {len(self.waits)} pods, {PODS} at once: p50 {p50}, p99 {p99}, longest {longest}; "
            f"{self.forbidden_arrived} of {self.forbidden_sent:,} forbidden packets arrived"
        )


class Crowd:
    """What is sent and what arrives, while the block lasts. `first` is when a pod had its first allowed packet."""

    def __init__(self, lab: Lab, pods: Sequence[Pod]) -> None:
        self.first: dict[str, float] = {}
        self.forbidden_sent = self.forbidden_arrived = 0
        self._stations = {pod.key: Station(lab, pod.key, [str(pod.addresses[0])]) for pod in pods}
        address = {place: str(lab.host(place).address(4)) for place in ("shop/friend", "shop/stranger")}
        for place, text in address.items():
            self._stations[place] = Station(lab, place, [text])
        own = {pod.key: str(pod.addresses[0]) for pod in pods}
        self._allowed = [Asked("shop/friend", key, address["shop/friend"], own[key], "UDP", _PORT) for key in own]
        self._forbidden = [Asked("shop/stranger", key, address["shop/stranger"], own[key], "UDP", _PORT) for key in own]
        self._forbidden += [
            Asked(key, "shop/stranger", own[key], address["shop/stranger"], "UDP", _PORT) for key in own
        ]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._see)]

    def __enter__(self) -> Crowd:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()
        for station in self._stations.values():
            station.close()

    def _send(self) -> None:
        """Numbers of allowed packets are even."""
        for turn in count(1):
            began = time.monotonic()
            for each in self._allowed:
                if each.dst not in self.first:
                    self._one(each, 2 * turn, turn)
            if turn % 4 == 0:
                for each in self._forbidden:
                    self.forbidden_sent += 1
                    self._one(each, 2 * turn + 1, turn)
            if self._stop.wait(max(0.0, began + _EVERY - time.monotonic())):
                return

    def _one(self, asked: Asked, number: int, turn: int) -> None:
        with suppress(OSError):  # no route yet
            sock = self._stations[asked.src].sockets[4, "UDP"]
            sock.sendto(build(asked, number, turn), (asked.dst_address, 0))

    def _see(self) -> None:
        places = {each.sockets[4, "UDP"]: place for place, each in self._stations.items()}
        while not self._stop.is_set():
            for sock in _readable(places):
                with suppress(BlockingIOError):
                    while data := sock.recv(64):
                        number = number_in("UDP", 4, data)
                        if number is None:
                            continue
                        if number % 2:
                            self.forbidden_arrived += 1
                        else:
                            self.first.setdefault(places[sock], time.monotonic())


def _readable(places: dict[socket.socket, str]) -> Sequence[socket.socket]:
    return select.select([*places], [], [], 0.05)[0]


def arrivals(mode: str, rounds: int) -> Arrived:
    waits: list[float] = []
    sent = arrived = 0
    with _node(Backend(mode, FAMILIES)) as (cluster, pods), cluster.agent() as agent:
        agent.wait_ready()
        for number in range(rounds):
            crowd = _round(cluster, pods, number, waits)
            sent, arrived = sent + crowd.forbidden_sent, arrived + crowd.forbidden_arrived
    return Arrived(mode, tuple(sorted(waits)), sent, arrived)


def _round(cluster: Cluster, pods: Sequence[Pod], number: int, waits: list[float]) -> Crowd:
    """Other pods each time, with the veths and addresses of those before."""
    lab = cluster.world.lab
    for tree in _trees(pods, number):
        cluster.put(tree)
    time.sleep(1)
    asked: dict[str, float] = {}
    with lab.inside("n1"), IPRoute() as kernel:
        indices = {pod.key: kernel.link_lookup(ifname=lab.host(pod.key).link)[0] for pod in pods}
        with Crowd(lab, pods) as crowd:
            time.sleep(0.3)
            assert not crowd.first, "closed until it has a route"
            for pod in pods:
                asked[pod.key] = time.monotonic()
                kernel.route("add", dst=f"{pod.addresses[0]}/32", oif=indices[pod.key], scope=253)
            deadline = time.monotonic() + _PATIENCE
            while len(crowd.first) < len(pods) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.5)
        waits += [crowd.first[key] - asked[key] for key in asked]
        for pod in pods:
            kernel.route("del", dst=f"{pod.addresses[0]}/32", oif=indices[pod.key], scope=253)
    for tree in _trees(pods, number):
        cluster.delete("Pod", "shop", tree["metadata"]["name"])
    time.sleep(0.5)
    return crowd


def _trees(pods: Sequence[Pod], number: int) -> Iterator[dict[str, object]]:
    for pod in pods:
        name = f"{pod.name}-{number}"
        renamed = replace(pod, name=name, uid=f"uid-{name}", labels={"app": "crowd"}, addresses=pod.addresses[:1])
        yield from api_objects(Objects([], [renamed], [], [], [], []))["items"]


@contextmanager
def _node(backend: Backend) -> Iterator[tuple[Cluster, list[Pod]]]:
    """Its pods have veths, and no routes."""
    cluster = read_documents(_WORLD.encode(), "world").cluster
    crowd = [Pod("shop", f"p{number}", {}, node="n1") for number in range(PODS)]
    name = f"arrivals-{os.getpid()}-{next(_numbers)}"
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        Lab(name, replace(cluster, pods=[*cluster.pods, *crowd])) as lab,
    ):
        pods = [pod for pod in lab.cluster.pods if pod.node == "n1"]
        for pod in pods:
            for address in pod.addresses:
                family = "-6" if address.family == 6 else "-4"
                assert lab.run("n1", ["ip", family, "route", "del", str(address)]).returncode == 0
        lab.cluster = replace(lab.cluster, pods=[pod for pod in lab.cluster.pods if pod.node != "n1"])
        with cluster_in(World(lab, backend), Path(folder)) as found:
            found.apply(_POLICY)
            yield found, pods


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.arrivals", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--record", type=Path, help="a JSON file for what was found")
    asked = parser.parse_args()
    found = []
    for mode in ("nft", "legacy"):
        found.append(arrivals(mode, asked.rounds))
        print(found[-1], flush=True)
    if asked.record:
        asked.record.write_bytes(msgspec.json.encode(found) + b"\n")
    return int(any(each.forbidden_arrived for each in found))


if __name__ == "__main__":
    sys.exit(main())
