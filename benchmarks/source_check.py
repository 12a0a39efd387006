"""What it would cost to look at the source of every packet, also of flows that are open:

    python -m benchmarks.source_check          (in namespaces of its own: tools/packets)

Packets of one open UDP flow between two pods of a node with 110 pods, timed with nothing in front of rule 1 and
with each way to ask whether the packet came by the interface that its source address is behind. Ways take turns, and a
ratio is the median over the turns.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from msgspec.structs import replace

from benchmarks.frames import Batch, Flow, Sender
from compiler.compile import compile_cluster
from enforcer.keeping.host import execute, plans
from enforcer.kernel.backend import Backend, Mode
from enforcer.rules.layout import NodeView
from lab import netns
from lab.cluster import Lab
from policy.cidr import parse_cidr
from policy.decode import read_documents
from policy.model import Cluster, Node, Pod

NODE, SRC, DST = "n1", "pods/p0", "pods/p1"
PODS, FRAMES, TURNS = 110, 4000, 25
_GATEWAY, _NOBODY = "ee:ee:ee:ee:ee:ee", "02:00:00:00:00:99"
_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: pods}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{}]}
"""


class Node1:
    def __init__(self, lab: Lab, mode: Mode) -> None:
        self._lab, self._mode = lab, mode
        with lab.inside(SRC):
            self._sender = Sender("eth0")
        src, dst = (lab.host(pod).address(4) for pod in (SRC, DST))
        self._batch = Batch(_GATEWAY, [Flow(src, dst, 40000, 4000)] * FRAMES)

    def sample(self) -> float:
        """Nanoseconds a packet."""
        return self._batch.send(self._sender) / FRAMES

    def run(self, *argv: str) -> None:
        done = self._lab.run(NODE, argv)
        assert done.returncode == 0, f"{argv}: {done.stderr}"

    def rule(self, way: str, *words: str) -> None:
        self.run(f"iptables-{self._mode}", "-w", *words[:2], way, *words[2:])

    def sysctl(self, value: str) -> None:
        with self._lab.inside(NODE):
            netns.set_sysctl(f"net.ipv4.conf.{self._lab.host(SRC).link}.rp_filter", value)


@contextmanager
def node(mode: Mode) -> Iterator[Node1]:
    block = parse_cidr("10.244.1.0/24")
    pods = [Pod("pods", f"p{number}", {}, node=NODE) for number in range(PODS)]
    policies = read_documents(_POLICY.encode(), "p.yaml").cluster.policies
    bare = Cluster([], pods, [], [], [], [Node(NODE, {}, pod_cidrs=(block,))])
    with Lab(f"source-{os.getpid()}-{mode}", bare) as lab:
        compiled = compile_cluster(replace(lab.cluster, policies=policies))
        veths = {pod.key: lab.host(pod.key).link for pod in lab.cluster.pods}
        backend = Backend(mode, (4,))
        with lab.inside(NODE):
            for each in plans(backend, compiled, NodeView(NODE, veths, (block,), ("eth0",))):
                execute(backend, each.steps)
        made = Node1(lab, mode)
        _open_flow(lab)
        host = lab.host(DST)
        made.run(
            "ip", "neigh", "replace", str(host.address(4)), "lladdr", _NOBODY, "dev", host.link, "nud", "permanent"
        )
        made.run("ipset", "create", "homes", "hash:net,iface")
        for pod, veth in veths.items():
            made.run("ipset", "add", "homes", f"{lab.host(pod).address(4)},{veth}")
        yield made


def _open_flow(lab: Lab) -> None:
    """Answered, so that it is ESTABLISHED."""
    ends = []
    for pod, port in ((SRC, 40000), (DST, 4000)):
        with lab.inside(pod):
            ends.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            ends[-1].bind((str(lab.host(pod).address(4)), port))
            ends[-1].settimeout(5)
    ends[0].sendto(b"x", ends[1].getsockname())
    _, back = ends[1].recvfrom(9)
    ends[1].sendto(b"y", back)
    ends[0].recv(9)
    for end in ends:
        end.close()


_SET = ("-m", "set", "!", "--match-set", "homes", "src,src", "-j", "DROP")
_UPLINK = ("!", "-i", "eth0")


def ways(at: Node1) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """How each is put there and taken away."""

    def rule(*words: str) -> tuple[Callable[[], None], Callable[[], None]]:
        return lambda: at.rule("-I", *words), lambda: at.rule("-D", *words)

    return {
        "nothing": (lambda: None, lambda: None),
        "nothing, again": (lambda: None, lambda: None),
        "a set, before rule 1": rule("-t", "filter", "PODFENCE-FORWARD", *_UPLINK, *_SET),
        "a set, in raw": rule("-t", "raw", "PREROUTING", *_UPLINK, *_SET),
        "-m rpfilter, in raw": rule("-t", "raw", "PREROUTING", *_UPLINK, "-m", "rpfilter", "--invert", "-j", "DROP"),
        "the sysctl rp_filter": (lambda: at.sysctl("1"), lambda: at.sysctl("0")),
    }


def main() -> None:
    modes: tuple[Mode, Mode] = ("legacy", "nft")
    for mode in modes:
        with node(mode) as at:
            found: dict[str, list[float]] = {name: [] for name in ways(at)}
            at.sample()
            for turn in range(TURNS):
                for name, (put, take) in list(ways(at).items())[:: 1 if turn % 2 else -1]:
                    put()
                    at.sample()
                    found[name].append(min(at.sample(), at.sample()))
                    take()
            bare = found["nothing"]
            for name, samples in found.items():
                ratio = median(a / b for a, b in zip(samples, bare, strict=True))
                print(f"{mode:6} {name:24} {median(samples):6.0f} ns a packet, {ratio:.3f} x")


if __name__ == "__main__":
    main()
