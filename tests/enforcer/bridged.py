"""Nodes whose pods are ports of a bridge, in a lab, with the enforcer at work on them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from msgspec.structs import replace

from compiler.compile import Compiled, compile_cluster
from enforcer.keeping.host import execute, plans, read
from enforcer.kernel.backend import Backend
from enforcer.readback.status import FamilyStatus, status
from enforcer.readback.verify import verify
from enforcer.rules.layout import NodeView
from lab import netns
from lab.cluster import Lab
from lab.probe import Outcome, Probe
from lab.topology import BRIDGE, Attach
from policy.cidr import Family
from policy.decode import read_documents

FAMILIES: tuple[Family, Family] = (4, 6)
_numbers = count()
NO_WAY = 0.3  # seconds of silence


class Bridged:
    """`options` are fields of the node's view, for all calls."""

    def __init__(self, lab: Lab, backend: Backend) -> None:
        self.lab = lab
        self.backend = backend
        self.options: dict[str, Any] = {}

    def compiled(self, policies: str) -> Compiled:
        found = read_documents(policies.encode(), "test.yaml")
        assert not found.problems
        named = {namespace.name for namespace in found.cluster.namespaces}
        kept = [namespace for namespace in self.lab.cluster.namespaces if namespace.name not in named]
        namespaces = [*kept, *found.cluster.namespaces]
        return compile_cluster(replace(self.lab.cluster, policies=found.cluster.policies, namespaces=namespaces))

    def view(self, node: str) -> NodeView:
        pods = [pod for pod in self.lab.cluster.pods if pod.node == node and not pod.host_network]
        hosts = {pod.key: self.lab.host(pod.key) for pod in pods}
        blocks = next(each.pod_cidrs for each in self.lab.cluster.nodes if each.name == node)
        veths = {key: host.link for key, host in hosts.items()}
        bridges = {host.link: host.bridge for host in hosts.values() if host.bridge}
        # Where routes lead further, as `links.uplinks` finds them: the bridge is one of these.
        uplinks = ("eth0", BRIDGE) if bridges else ("eth0",)
        nodes = frozenset(address for each in self.lab.cluster.nodes for address in each.addresses)
        return replace(NodeView(node, veths, blocks, uplinks, bridges=bridges, hosts=nodes), **self.options)

    def enforce(self, policies: str) -> None:
        for node in self.lab.nodes:
            self.enforce_on(node, policies)

    def enforce_on(self, node: str, policies: str) -> None:
        """What is then installed is proven to be what is meant."""
        compiled, view = self.compiled(policies), self.view(node)
        with self.lab.inside(node):
            for each in plans(self.backend, compiled, view):
                execute(self.backend, each.steps)
            for family in FAMILIES:
                assert verify(read(self.backend, family), compiled, view) is None
            for again in plans(self.backend, compiled, view):
                assert again.steps == (), "what was applied is read back as wanted"

    def outcomes(self, *probes: Probe) -> list[Outcome]:
        return [result.outcome for result in self.lab.probe(probes, 0.4)]

    def status(self, node: str, family: Family = 4) -> FamilyStatus:
        with self.lab.inside(node):
            return status(read(self.backend, family))

    def ip(self, place: str, *words: str) -> None:
        done = self.lab.run(place, ["ip", *words])
        assert done.returncode == 0, done.stderr


@contextmanager
def bridged(objects: str, backend: Backend, attach: Attach = "bridge") -> Iterator[Bridged]:
    cluster = read_documents(objects.encode(), "objects.yaml").cluster
    listen = [("TCP", 80), ("UDP", 80), ("SCTP", 80)]
    with Lab(f"bridged-{os.getpid()}-{next(_numbers)}", cluster, listen, attach) as lab:  # type: ignore[arg-type]
        yield Bridged(lab, backend)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(src: str, dst: str, port: int, payload: bytes = b"x" * 8) -> bytes:
    """An IPv4 packet; no checksum of its UDP, which is allowed."""
    data = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0, ends)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


MARKER = b"podfence"


def icmp6(src: str, dst: str, kind: int) -> bytes:
    """An IPv6 packet with hop limit 255, as neighbour discovery has it, and MARKER at its end."""
    ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    body = bytes(20) + MARKER
    sum_of = checksum(ends + struct.pack("!IIBBH", len(body) + 4, 58, kind, 0, 0) + body)
    message = struct.pack("!BBH", kind, 0, sum_of) + body
    return struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + ends + message


def frame(dst_mac: str, src_mac: str, packet: bytes, tags: tuple[int, ...] = (), ethertype: int = 0x0800) -> bytes:
    """An Ethernet frame, with a tag of VLAN 0 of each of the kinds of `tags`."""
    ends = bytes.fromhex(dst_mac.replace(":", "") + src_mac.replace(":", ""))
    return ends + b"".join(struct.pack("!HH", kind, 0) for kind in tags) + struct.pack("!H", ethertype) + packet


def send_frame(lab: Lab, place: str, data: bytes) -> None:
    with lab.inside(place), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(data)


@contextmanager
def listening(lab: Lab, place: str, address: str, port: int, space: str = "") -> Iterator[socket.socket]:
    """A UDP socket in a place of the lab or in another namespace."""
    with netns.inside(space or lab.host(place).netns):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        yield sock


def heard(sock: socket.socket, expected: bool = True, marker: bytes = b"") -> bool:
    """Whether something comes that ends with `marker`. What is expected may take long, on a busy machine."""
    sock.settimeout(10 if expected else NO_WAY)
    try:
        while not sock.recv(2048).endswith(marker):
            pass
    except TimeoutError:
        return False
    return True
