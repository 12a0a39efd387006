"""How long it takes on a real cluster until a new policy denies, and what a restart costs.

`python -m benchmarks.real_cluster` makes the clusters (docs/cluster-tests.md) as root, in some minutes; `make bench`
does not run it. A pod sends a new UDP flow every 0.5 ms to a pod of the other node. A policy that forbids them is
created at the API server; when the first flow is sent that does not arrive, nor any after it, the policy denies. The
clock starts before the request is sent: what the API server and etcd take counts.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.by_itself import keep
from benchmarks.record import RESULTS, Case, Figure, Size, figure, percentile
from tests.cluster import addresses, pods
from tests.cluster.cluster import Cluster
from tests.cluster.control import Control, until
from tests.cluster.installed import Installed
from tests.cluster.packets import Receiver, Stream, within

NAME = "cluster"
INTERVAL = 0.0005
PORT = 9000
OTHERS = 500
SUBJECTS = 10  # pods on the receiver's node that the other policies select, so many policies each
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
# A sender's ports come around after 25 s; flows that nobody answered have to be forgotten by then.
FORGOTTEN = "net.netfilter.nf_conntrack_udp_timeout=5"


class Api:
    """A connection that stays open to the API server, as admin."""

    def __init__(self, control: Control) -> None:
        pki = control.authority
        context = ssl.create_default_context(cafile=str(pki.certificate))
        context.load_cert_chain(pki.crt("admin"), pki.key("admin"))
        place = (addresses.CONTROL[0], addresses.API_PORT)
        sock = within(control.place.netns, lambda: socket.create_connection(place))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = http.client.HTTPSConnection(*place, context=context)
        self._connection.sock = context.wrap_socket(sock, server_hostname=place[0])

    def request(self, method: str, path: str, body: object = None) -> None:
        data = json.dumps(body).encode() if body is not None else None
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said.decode()}")


class Round(Struct, frozen=True):
    """Milliseconds until the policy denied, from before the request, and from the API server's answer; and those
    that the receiver's agent took from hearing of it until both families were done, after IPv4 denied."""

    since_request: float
    since_answer: float
    agent: float


class World:
    """`src` on node-1 sends to `dst` on node-2."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.podfence = Installed(cluster)
        others = [pods.sleeper(f"other-{number}", "node-2") for number in range(SUBJECTS)]
        cluster.apply(pods.sleeper("src", "node-1"), pods.sleeper("dst", "node-2"), *others)
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s", timeout=130)
        self.src, self.dst = cluster.pod_netns("src"), cluster.pod_netns("dst")
        self.address = pods.addresses(cluster, "dst")[0]
        self.api = Api(cluster.control)
        for node in cluster.nodes.values():
            node.run(["sysctl", "-qw", FORGOTTEN])

    def rounds(self, count: int) -> list[Round]:
        policy = pods.policy("measured", {"app": "dst"}, ingress=[])
        found: list[Round] = []
        said = len(self.podfence.writes("node-2"))
        times = []
        with Receiver(self.dst, PORT) as receiver, Stream(self.src, self.address, PORT, INTERVAL) as stream:
            for _ in range(count):
                before = len(receiver.arrived)
                until("flows arrive", lambda: len(receiver.arrived) > before + 100, 10)  # noqa: B023
                time.sleep(random.uniform(0.2, 0.4))
                began = time.monotonic()
                self.api.request("POST", POLICIES, policy)
                answered = time.monotonic()
                time.sleep(0.8)
                times.append((began, answered, time.monotonic()))
                self.api.request("DELETE", f"{POLICIES}/measured")
        agent = [
            line["waited_ms"] + line["ms"]
            for line in self.podfence.writes("node-2")[said:]
            if line["why"] == "NetworkPolicy default/measured"
        ]
        arrived = sorted({number for _, number in receiver.arrived})
        for (began, answered, ended), spent in zip(times, agent, strict=True):
            within_round = [number for number in arrived if stream.sent[number] < ended]
            denied = stream.sent[within_round[-1] + 1]
            if ended - denied < 0.3:
                raise RuntimeError("a policy did not deny within half a second")
            found.append(Round((denied - began) * 1e3, (denied - answered) * 1e3, spent))
        return found

    def others(self) -> list[str]:
        """As many policies on other pods of the receiver's node, each with a peer and a block; their names."""
        names = []
        for number in range(OTHERS):
            block = {"ipBlock": {"cidr": f"192.0.{number % 200}.0/24"}}
            peer = {"podSelector": {"matchLabels": {"app": f"other-{(number + 1) % SUBJECTS}", "n": str(number)}}}
            rule = {"from": [peer, block], "ports": [{"port": 1000 + number}]}
            name = f"present-{number}"
            policy = pods.policy(name, {"app": f"other-{number % SUBJECTS}"}, ingress=[rule])
            self.api.request("POST", POLICIES, policy)
            names.append(name)
        self.knows(OTHERS)
        return names

    def knows(self, policies: int) -> None:
        """Waits until the receiver's agent knows so many policies, and has nothing left to do."""
        until("the policies known", lambda: self.podfence.metric("node-2", "podfence_policies") == policies, 30)
        time.sleep(3)

    def addresses(self, count: int) -> list[float]:
        """Milliseconds from when the runtime wrote down a new pod's addresses until its agent had its rules in force,
        by the node's one clock, with two policies that select the pod; pods come one after the other."""
        policies = ["closed", "to-dst"]
        self.api.request("POST", POLICIES, pods.policy(policies[0], {"app": "new"}, ingress=[]))
        self.api.request("POST", POLICIES, pods.policy(policies[1], {"app": "dst"}, ingress=[pods.from_app("new")]))
        names = [f"new-{number}" for number in range(count)]
        for name in names:
            self.cluster.apply(pods.sleeper(name, "node-2", app="new"))
            self.cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout=70)
        writes = self.podfence.writes("node-2")
        found = [self._programmed(name, writes) - self._known(name) for name in names]
        self.cluster.kubectl("delete", "pod", *names, "--grace-period=1")
        for name in policies:
            self.api.request("DELETE", f"{POLICIES}/{name}")
        return [seconds * 1e3 for seconds in found]

    def _known(self, pod: str) -> float:
        """When the CNI library wrote its result down."""
        named = f"grep -l '\"{pod}\"' /var/lib/cni/results/*-eth0 | xargs stat -c %.6Y"
        return float(self.cluster.node("node-2").run(["sh", "-c", named]).stdout)

    def _programmed(self, pod: str, writes: list[dict[str, Any]]) -> float:
        """When the first chains that this pod was the reason for were in the kernel: before its addresses are known it
        has none."""
        line = next(
            each
            for each in writes
            if f"Pod default/{pod}" in each["why"] and any("chains written" in step for step in each["steps"])
        )
        return datetime.fromisoformat(line["time"]).replace(tzinfo=UTC).timestamp()

    def restart(self) -> tuple[int, int, int]:
        """Writes of an agent that takes over with nothing changed, and flows lost of how many, at this rate."""
        self.api.request("POST", POLICIES, pods.policy("measured", {"app": "dst"}, ingress=[pods.from_app("src")]))
        time.sleep(1)
        with Receiver(self.dst, PORT) as receiver:
            with Stream(self.src, self.address, PORT, INTERVAL) as stream:
                before = self.podfence.pid("node-2")
                self.podfence.kill("node-2")
                until("another agent", lambda: self.podfence.has_another("node-2", before), 60)
                self.podfence.wait_ready("node-2")
                time.sleep(1)
            time.sleep(0.5)
            lost = len(stream.sent) - len({number for _, number in receiver.arrived})
        writes = len(self.podfence.writes("node-2"))
        self.api.request("DELETE", f"{POLICIES}/measured")
        return writes, lost, len(stream.sent)


def measure(size: Size, cni: Any, iptables: Any) -> Iterator[Figure]:
    half = 25 if size == "full" else 3
    with Cluster(f"bench-{os.getpid()}", cni=cni, iptables=iptables) as cluster:
        world = World(cluster)
        world.rounds(3)
        none = world.rounds(half)
        names = world.others()
        many = world.rounds(2 * half)
        for name in names:
            world.api.request("DELETE", f"{POLICIES}/{name}")
        world.knows(0)
        none += world.rounds(half)
        addresses_known = world.addresses(half)
        writes, lost, flows = world.restart()
    case: Case = {"backend": iptables, "network": cni}
    yield from told(none, "none other", case, limited=True)
    yield from told(many, f"{OTHERS} others", case, limited=False)
    middle = percentile([each.since_request for each in many], 50) / percentile([e.since_request for e in none], 50)
    yield figure("policy created → denied, with 500 policies against none", [middle], "ratio", 1.2, **case)
    what = "a new pod's addresses written down → its rules in force"
    yield figure(what, addresses_known, "ms", None, **case)
    yield figure(f"{what}, 99th percentile", [percentile(addresses_known, 99)], "ms", 20, **case)
    yield figure("restart with nothing changed: writes", [writes], "count", 0, **case)
    yield figure("restart with nothing changed: flows lost", [lost], "count", 0, **case, flows=flows)


_TOLD = {
    "since_request": "policy created → denied",
    "since_answer": "policy created → denied, from the API server's answer",
    "agent": "the agent, from hearing of the policy to both families done",
}


def told(rounds: list[Round], present: str, case: Case, limited: bool) -> Iterator[Figure]:
    for name, what in _TOLD.items():
        times = [getattr(each, name) for each in rounds]
        limits = (20, 60) if limited and name == "since_request" else (None, None)
        yield figure(what, times, "ms", limits[0], **case, present=present)
        yield figure(f"{what}, 99th percentile", [percentile(times, 99)], "ms", limits[1], **case, present=present)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_cluster", description=__doc__)
    parser.add_argument("--size", choices=("quick", "full"), default="full")
    parser.add_argument("--into", type=Path, default=RESULTS)
    parser.add_argument("--backend", action="append", choices=("nft", "legacy"), help="default: both")
    options = parser.parse_args(arguments)
    backends = options.backend or ("nft", "legacy")
    found = (each for backend in backends for each in measure(options.size, "ptp", backend))
    return keep(NAME, options.size, options.into, lambda: found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
