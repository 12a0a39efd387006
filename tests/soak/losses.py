"""Packets of allowed flows that are lost while policies change and agents are killed, ended and started again.

`python -m tests.soak.losses` measures both backends: 1,000 policy changes, then 100 restarts. One stream is of new
flows alone, one is a flow that stays open; a policy that stays allows both, and no other can take that back.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from enforcer.agent.serve_local import ask
from enforcer.kernel.backend import Backend
from lab.cluster import Lab
from policy.decode import read_documents
from policy.errors import HostRefused
from tests.agent.node import AgentProcess, Cluster, cluster_in
from tests.enforcer.test_kernel import FAMILIES, SHOP, World
from tests.generate.policies import policy
from tests.soak.packets import Asked, build, number_in
from tests.soak.station import Station

RATE = 1000
CHANGES, RESTARTS = 1000, 100
_PORT, _OPEN_PORT = 80, 5353
_STAYS = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: stays, namespace: shop},
 spec: {podSelector: {}, policyTypes: [Ingress, Egress],
        ingress: [{from: [{podSelector: {}}]}],
        egress: [{to: [{podSelector: {}}]}]}}
"""
_numbers = count()


class Lost(Struct, frozen=True):
    """Of one backend and one kind of trouble."""

    backend: str
    what: str
    times: int
    sent: int
    lost: int
    sent_open: int
    lost_open: int

    def __str__(self) -> str:
        return (
            f"{self.backend}: {self.times:,} {self.what}: {self.lost} of {self.sent:,} new flows lost, "
            f"{self.lost_open} of {self.sent_open:,} packets of an open flow"
        )


class Streams:
    """From shop/web to shop/api on the same node, as long as the block lasts. Then `sent` and `lost` are known."""

    def __init__(self, lab: Lab) -> None:
        ends = {place: str(lab.host(place).address(4)) for place in ("shop/web", "shop/api")}
        self._asked = Asked("shop/web", "shop/api", *ends.values(), "UDP", _PORT)
        self._src, self._dst = (Station(lab, place, [address]) for place, address in ends.items())
        with lab.inside("shop/api"):
            self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._server.bind((ends["shop/api"], _OPEN_PORT))
        with lab.inside("shop/web"):
            self._client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._client.connect((ends["shop/api"], _OPEN_PORT))
        self._client.setblocking(False)
        self._server.settimeout(0.2)
        self.sent = self.arrived = self.sent_open = self.answered = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._see, self._echo)]

    def __enter__(self) -> Streams:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()
        for end in (self._src, self._dst, self._server, self._client):
            end.close()

    @property
    def lost(self) -> tuple[int, int]:
        return self.sent - self.arrived, self.sent_open - self.answered

    def _send(self) -> None:
        began, sock = time.monotonic(), self._src.sockets[4, "UDP"]
        while not self._stop.is_set():
            self.sent += 1
            sock.sendto(build(self._asked, self.sent, self.sent), (self._asked.dst_address, 0))
            if self.sent % 4 == 0:
                self._client.send(b"an open flow")
                self.sent_open += 1
            self._hear()
            time.sleep(max(0.0, began + self.sent / RATE - time.monotonic()))
        time.sleep(0.3)
        self._hear()

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while self._client.recv(16):
                self.answered += 1

    def _see(self) -> None:
        sock = self._dst.sockets[4, "UDP"]
        sock.settimeout(0.2)
        while True:
            try:
                data = sock.recv(64)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            self.arrived += number_in("UDP", 4, data) is not None

    def _echo(self) -> None:
        while True:
            try:
                data, back = self._server.recvfrom(16)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            self._server.sendto(data, back)


@contextmanager
def _node(backend: Backend) -> Iterator[Cluster]:
    cluster = read_documents(SHOP.encode(), "shop.yaml").cluster
    name = f"losses-{os.getpid()}-{next(_numbers)}"
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Lab(name, cluster) as lab:
        with lab.inside("n1"):
            Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout").write_text("5")
        with cluster_in(World(lab, backend), Path(folder)) as found:
            found.apply(_STAYS)
            yield found


def changes(mode: str, times: int, seed: int = 1) -> Lost:
    """Policies put and deleted by chance, each in force before the next."""
    rng = Random(seed)
    with _node(Backend(mode, FAMILIES)) as cluster, cluster.agent(), Streams(cluster.world.lab) as streams:
        anchors = [str(address) for pod in cluster.world.lab.cluster.pods for address in pod.addresses]
        present: set[str] = set()
        for number in range(times):
            name = f"policy-{rng.randrange(12)}"
            if name in present:
                cluster.delete("NetworkPolicy", "shop", name)
                present.remove(name)
            else:
                tree = policy(rng, "shop", name, anchors)
                cluster.put({**tree, "spec": tree.get("spec")})
                present.add(name)
            _in_force(cluster, number)
    return Lost(mode, "policy changes", times, streams.sent, streams.lost[0], streams.sent_open, streams.lost[1])


def restarts(mode: str, times: int) -> Lost:
    """By turns killed and ended."""
    with _node(Backend(mode, FAMILIES)) as cluster:
        agent: AgentProcess = cluster.agent()
        with Streams(cluster.world.lab) as streams:
            for number in range(times):
                if number % 2:
                    agent.stop()
                else:
                    agent.kill()
                agent = cluster.agent()
        agent.stop()
    return Lost(mode, "restarts of an agent", times, streams.sent, streams.lost[0], streams.sent_open, streams.lost[1])


def _in_force(cluster: Cluster, number: int) -> None:
    """A policy of another namespace is put after what is waited for."""
    cluster.put({"kind": "NetworkPolicy", "metadata": {"namespace": "barriers", "name": f"b{number}"}, "spec": {}})
    if number:
        cluster.delete("NetworkPolicy", "barriers", f"b{number - 1}")
    question = {"ask": "programmed", "kind": "NetworkPolicy", "namespace": "barriers", "name": f"b{number}"}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(HostRefused):
            if next(ask(str(cluster.folder / "state"), question))["programmed"]:
                return
        time.sleep(0.003)
    raise AssertionError(f"change {number} is not in force after 20 s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.losses", description=__doc__)
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--restarts", type=int, default=RESTARTS)
    parser.add_argument("--record", type=Path, help="a JSON file for what was found")
    asked = parser.parse_args()
    found = []
    for mode in ("nft", "legacy"):
        for each in (changes(mode, asked.changes), restarts(mode, asked.restarts)):
            print(each, flush=True)
            found.append(each)
    if asked.record:
        asked.record.write_bytes(msgspec.json.encode(found) + b"\n")
    return int(any(each.lost or each.lost_open for each in found))


if __name__ == "__main__":
    sys.exit(main())
