"""Existing flows of a running node on a real kernel, told batch by batch."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted, Event
from compiler.compile import compile_cluster
from compiler.index import Index
from enforcer.attachment.attach import attach
from enforcer.attachment.links import dump, own_addresses
from enforcer.connections.concern import concern, owners_of
from enforcer.connections.ender import Ender, Moment
from enforcer.connections.gate import Gate
from enforcer.connections.remembered import Memory
from enforcer.keeping.host import execute, plans
from enforcer.kernel import conntrack
from enforcer.rules.base import DEFAULT_MARK
from enforcer.rules.layout import NodeView, is_local
from policy.cidr import Family
from policy.decode import read_documents
from policy.model import Pod
from tests.compiler.slow_twin import Objects, happen
from tests.enforcer.connections import ALLOWED, DENIED, connection, policy, silent
from tests.enforcer.test_keep import cluster_of
from tests.enforcer.test_kernel import BACKENDS, FAMILIES, World, _world, backends, world

__all__ = ["world"]
pytestmark = pytest.mark.kernel
families = pytest.mark.parametrize("family", FAMILIES)


class Agent:
    """What an agent's loop does, on node n1; its rules are compiled from nothing for each batch. `run` is the ender's
    thread: here the test's own."""

    def __init__(self, world: World, folder: Path | None) -> None:
        self.world = world
        self.host = dump()
        self.own = own_addresses(FAMILIES)
        self.blocks = next(each.pod_cidrs for each in world.lab.cluster.nodes if each.name == "n1")
        self.present: Objects = {}
        self.index = Index("n1")
        self.gate = Gate()
        self.complaints: list[str] = []
        self.now = 0.0
        self.purged = threading.Event()
        self.ender = Ender(
            self.index,
            self.gate,
            Memory(folder),
            purged=self.purged.set,
            complain=self.complaints.append,
            clock=lambda: self.now,
        )

    def start(self, *policies: str) -> Agent:
        pods = [replace(pod, uid=f"uid of {pod.key}") for pod in self.world.lab.cluster.pods]
        self._bring([*pods, *(each for text in policies for each in parsed(text))])
        self.ender.begin(self._moment())
        return self.settle()

    def tell(self, *events: Event) -> Agent:
        with self.gate.changing():
            changes = self.index.apply(events)
        self._bring(events)
        self.ender.tell(concern(changes, {pod.key: pod for pod in self._local()}), self._moment())
        return self

    def settle(self) -> Agent:
        while self.ender.work():
            pass
        assert not self.complaints
        return self

    def _bring(self, events: Sequence[Event]) -> None:
        """The rules of all that is known, but what must be kept closed."""
        with self.gate.changing():
            self.index.apply(events)
        for event in events:
            happen(self.present, event)
        self.closed = self.ender.hand_over(owners_of(self._local(), self.index))
        for found in plans(self.world.backend, compile_cluster(cluster_of(self.present)), self._view()):
            execute(self.world.backend, found.steps)

    def _local(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.index.pods.values() if is_local(pod, "n1"))

    def _view(self) -> NodeView:
        open_pods = (pod for pod in self._local() if not self.closed.intersection(pod.addresses))
        return NodeView("n1", attach(self.host, open_pods).veths, self.blocks)

    def _moment(self) -> Moment:
        return Moment(self._view(), self._local(), self.own)


@contextmanager
def agent(world: World, folder: Path | None = None) -> Iterator[Agent]:
    with world.lab.inside("n1"):
        yield Agent(world, folder)


def parsed(text: str) -> list[Event]:
    found = read_documents(text.encode(), "test.yaml")
    assert not found.problems
    return list(found.cluster.policies)


def uid_of(agent: Agent, key: str, uid: str, **other: object) -> Pod:
    return replace(agent.index.pods[key], uid=uid, **other)


@backends
@families
@pytest.mark.parametrize("kind", ["TCP", "UDP"])
def test_a_policy_ends_flows_both_ways_and_its_end_lets_them_go_on(world: World, family: Family, kind: str) -> None:
    with agent(world) as node:
        node.start(ALLOWED)
        with (
            connection(world, "shop/far", "shop/api", kind, family=family) as flow,
            connection(world, "shop/far", "shop/web", kind, family=family) as other,
        ):
            flow.alive()
            node.tell(*parsed(DENIED)).settle()
            assert node.ender.counts.ended == 1
            other.alive()
            node.tell(*parsed(ALLOWED)).settle()
            assert node.ender.counts.restored == 1
            flow.alive()
            node.tell(*parsed(DENIED)).settle()
            flow.nothing_arrives(flow.server, flow.client)
            flow.nothing_arrives(flow.client, flow.server)
            other.alive()


@backends
@families
def test_echoes_end(world: World, family: Family) -> None:
    number = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)[family == 6]
    request = struct.pack("!BBHHH", 8 if family == 4 else 128, 0, 0, 0, 1)
    with agent(world) as node:
        node.start(ALLOWED)
        with world.lab.inside("shop/far"):
            ping = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM, number)
        with ping:
            ping.connect((str(world.lab.host("shop/api").address(family)), 0))
            ping.settimeout(2)
            ping.send(request)
            assert ping.recv(99)
            node.tell(*parsed(DENIED)).settle()
            assert node.ender.counts.ended == 1
            ping.send(request)
            assert silent(ping)


@backends
def test_the_label_of_a_peer_ends_its_flow_alone(world: World) -> None:
    with agent(world) as node:
        node.start(ALLOWED)
        with (
            connection(world, "shop/far", "shop/api", "UDP") as left,
            connection(world, "shop/web", "shop/api", "UDP", 81) as stays,
        ):
            node.tell(uid_of(node, "shop/far", "", labels={"app": "other"})).settle()
            assert node.ender.counts.ended == 1
            left.nothing_arrives(left.server, left.client)
            stays.alive()


@backends
@pytest.mark.parametrize("kind", ["TCP", "UDP"])
def test_a_flow_through_a_service_is_judged_by_the_pod_behind_it(world: World, kind: str) -> None:
    target = f"{world.lab.host('shop/api').address(4)}:80"
    nat = f"iptables-{world.backend.mode} -t nat -A PREROUTING -d 10.96.0.1 -p {kind.lower()} --dport 8080"
    assert world.lab.run("n1", [*nat.split(), "-j", "DNAT", "--to-destination", target]).returncode == 0
    with agent(world) as node:
        node.start(ALLOWED)
        with connection(world, "shop/web", "shop/api", kind, via=("10.96.0.1", 8080)) as flow:
            node.tell(*parsed(policy(f"80/{kind}"))).settle()
            flow.alive()
            node.tell(*parsed(policy(f"8080/{kind}"))).settle()
            assert node.ender.counts.ended == 1
            flow.nothing_arrives(flow.server, flow.client)


@backends
@families
def test_an_address_with_another_owner_is_closed_until_the_former_flows_are_gone(world: World, family: Family) -> None:
    """An open flow of the former owner would let its peer in, whatever the new owner's policies say: here the server
    that the former owner had talked to."""
    closed_in = policy().replace("{app: api}", "{app: next}")
    with agent(world) as node:
        node.start("", closed_in)
        with (
            connection(world, "shop/api", "shop/far", "UDP", family=family) as flow,
            connection(world, "n1", "shop/api", "UDP", 81, family=family) as own,
            connection(world, "shop/web", "shop/far", "UDP", 82, family=family) as other,
        ):
            flow.alive()
            node.tell(uid_of(node, "shop/api", "another", labels={"app": "next"}))
            assert world.lab.host("shop/api").address(family) in node.closed
            with connection_attempt(world, "shop/api", family) as (new, server):
                new.send(b"too early")
                assert silent(server), "its rules are closed"
                assert not node.purged.is_set()
                node.settle()
                assert node.purged.is_set() and node.ender.counts.forgotten == 1
                flow.nothing_arrives(flow.server, flow.client)
                node.tell().settle()
                assert not node.closed
                flow.nothing_arrives(flow.server, flow.client)
                new.send(b"now")
                server.settimeout(2)
                assert server.recv(99) == b"now"
            flow.client.send(b"a new flow, which its egress allows")
            flow.server.settimeout(2)
            assert flow.server.recv(99)
            own.alive()
            other.alive()


@contextmanager
def connection_attempt(world: World, src: str, family: Family) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket at `src` that is to send to one at shop/far, which has heard nothing yet."""
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    with world.lab.inside("shop/far"):
        server = socket.socket(af, socket.SOCK_DGRAM)
    server.bind((str(world.lab.host("shop/far").address(family)), 99))
    with world.lab.inside(src):
        client = socket.socket(af, socket.SOCK_DGRAM)
    client.connect(server.getsockname()[:2])
    with client, server:
        yield client, server


@backends
def test_the_flows_of_a_released_address_are_gone_at_once(world: World) -> None:
    with agent(world) as node:
        node.start()
        with connection(world, "shop/far", "shop/web", "UDP") as flow:
            flow.alive()
            node.tell(Deleted("Pod", "shop", "web")).settle()
            assert node.ender.counts.forgotten == 1
            flow.nothing_arrives(flow.server, flow.client)
            flow.nothing_arrives(flow.client, flow.server)


def test_a_restart_knows_who_had_the_address(world_of_nft: World, tmp_path: Path) -> None:
    with agent(world_of_nft, tmp_path) as node:
        node.start()
    with connection(world_of_nft, "shop/far", "shop/web", "UDP") as flow:
        flow.alive()
        with agent(world_of_nft, tmp_path) as again:
            again.start()
            assert again.ender.counts.forgotten == 0
            flow.alive()
        with agent(world_of_nft, tmp_path) as third:
            pods = world_of_nft.lab.cluster.pods
            third._bring([replace(pod, uid=f"uid of {pod.key}" if pod.name != "web" else "new") for pod in pods])
            third.ender.begin(third._moment())
            third.settle()
            assert third.ender.counts.forgotten == 1


def test_a_first_sync_spares_and_a_look_at_everything_does_too(world_of_nft: World, tmp_path: Path) -> None:
    rule = "iptables-nft -t nat -A POSTROUTING -s 192.0.2.1 -j MASQUERADE"
    assert world_of_nft.lab.run("n1", rule.split()).returncode == 0
    with connection(world_of_nft, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        for _ in range(2):
            with agent(world_of_nft, tmp_path) as node:
                node.start(DENIED)
                assert (node.ender.counts.spared, node.ender.counts.ended) == (1, 0)
                flow.alive()
                node.tell(*parsed(ALLOWED)).settle()
                node.tell(*parsed(ALLOWED)).settle()
                flow.alive()
        with agent(world_of_nft, tmp_path) as node:
            node.start(DENIED)
            flow.alive()
            node.tell(Deleted("NetworkPolicy", "shop", "api"))
            node.tell(*parsed(DENIED)).settle()
            assert (node.ender.counts.spared, node.ender.counts.ended) == (0, 1)
            flow.nothing_arrives(flow.client, flow.server)


def test_a_lost_bit_is_found(world_of_nft: World) -> None:
    with agent(world_of_nft) as node:
        node.start(ALLOWED)
        with connection(world_of_nft, "shop/far", "shop/api", "UDP") as flow:
            flow.alive()
            node.tell(*parsed(DENIED))
            node.settle()
            assert conntrack.forget(DEFAULT_MARK) == 1
            node.now += 60
            node.settle()
            assert node.ender.counts.lost == 1
            flow.nothing_arrives(flow.client, flow.server)


@pytest.fixture
def world_of_nft() -> Iterator[World]:
    with _world(BACKENDS[1]) as made:
        yield made
