"""Transitions on a real kernel, with new flows all the time: what both states deny never arrives, what both allow is
never lost."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from msgspec.structs import replace

from enforcer.keeping.host import HostKernel
from enforcer.keeping.keep import Keeper
from enforcer.kernel.backend import Backend
from enforcer.kernel.ipset import Sets
from enforcer.rules.layout import NodeView
from enforcer.rules.steps import ChangeSet, Transaction
from lab.cluster import Lab
from policy.cidr import Family
from policy.decode import read_documents

pytestmark = [pytest.mark.kernel, pytest.mark.alone]

FAMILIES: tuple[Family, Family] = (4, 6)
PORT, PER_SECOND, TURNS = 5000, 2_000, 40
_numbers = count()

# `a` on the server's node is a client by turns: then its egress denies, else the server's ingress does. On the other
# node it is a client or a friend, whom two sets of the server admit. `c` reaches the server always.
WORLD = """
{kind: Node, apiVersion: v1, metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}}
---
{kind: Node, apiVersion: v1, metadata: {name: n2}, spec: {podCIDRs: [10.244.2.0/24, "fd00:10:244:2::/64"]}}
---
{kind: Pod, apiVersion: v1, metadata: {name: a, labels: {role: client}}, spec: {nodeName: NODE}}
---
{kind: Pod, apiVersion: v1, metadata: {name: b, labels: {app: server}}, spec: {nodeName: n1}}
---
{kind: Pod, apiVersion: v1, metadata: {name: c, labels: {role: friend}}, spec: {nodeName: n1}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients-send-nothing}
spec: {podSelector: {matchLabels: {role: client}}, policyTypes: [Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from: [{podSelector: {matchLabels: {role: client}}}]
      ports: [{protocol: UDP, port: 5000}]
    - from: [{podSelector: {matchLabels: {role: friend}}}]
"""


class Sender:
    """A new flow for every datagram, at a steady rate, from a thread of its own."""

    def __init__(self, lab: Lab, src: str, target: str) -> None:
        self.sent = 0
        self._lab, self._src, self._target = lab, src, target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        began = time.monotonic()
        with self._lab.inside(self._src):
            while not self._stop.is_set() and self.sent < 200_000:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
                    each.sendto(self._src.encode(), (self._target, PORT))
                self.sent += 1
                time.sleep(max(0.0, began + self.sent / PER_SECOND - time.monotonic()))

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def _kept(mode: str, node_of_a: str) -> Iterator[tuple[Lab, Keeper]]:
    found = read_documents(WORLD.replace("NODE", node_of_a).encode(), "test").cluster
    with Lab(f"turns-{os.getpid()}-{next(_numbers)}", found) as lab:
        cluster = replace(lab.cluster, policies=found.policies, namespaces=found.namespaces)
        blocks = next(node.pod_cidrs for node in cluster.nodes if node.name == "n1")
        backend = Backend("nft" if mode == "nft" else "legacy", FAMILIES)
        with lab.inside("n1"), Sets() as sets, HostKernel(backend, sets) as kernel:
            attached = {p.key: host.link for p in cluster.pods if p.node == "n1" for host in [lab.host(p.key)]}
            keeper = Keeper(NodeView("n1", attached, blocks), FAMILIES, kernel)
            keeper.start([*cluster.namespaces, *cluster.pods, *cluster.policies])
            yield lab, keeper


class Receiver:
    """Counts datagrams by what they say, as they come."""

    def __init__(self, server: socket.socket) -> None:
        self.found: dict[bytes, int] = {}
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self._server.settimeout(0.3)
        while True:
            try:
                data = self._server.recv(64)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            self.found[data] = self.found.get(data, 0) + 1

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("mode", ["legacy", "nft"])
@pytest.mark.parametrize(("node_of_a", "roles"), [("n1", ("other", "client")), ("n2", ("friend", "client"))])
def test_two_thousand_new_flows_a_second_through_many_changes(
    mode: str, node_of_a: str, roles: tuple[str, str]
) -> None:
    with _kept(mode, node_of_a) as (lab, keeper):
        target = str(lab.host("default/b").address(4))
        pod = next(pod for pod in lab.cluster.pods if pod.name == "a")
        with lab.inside("default/b"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((target, PORT))
            kinds: set[type] = set()
            sending = Sender(lab, "default/a", target), Sender(lab, "default/c", target)
            with Receiver(server) as received, sending[0] as a, sending[1] as c:
                for turn in range(TURNS):
                    with lab.inside("n1"):
                        for steps in keeper.handle([replace(pod, labels={"role": roles[turn % 2]})]):
                            kinds |= {type(step) for step in steps}
                        if turn % 3 == 2:
                            keeper.tidy()
                    time.sleep(0.02)
        found = received.found
        assert a.sent > TURNS and found[b"default/c"] == c.sent > TURNS, "no allowed packet is lost"
        if node_of_a == "n1":
            assert Transaction in kinds
            assert found.get(b"default/a", 0) == 0, "denied before and after, and never between"
        else:
            assert kinds == {ChangeSet}
            assert found[b"default/a"] == a.sent, "allowed before and after, and all the time between"
