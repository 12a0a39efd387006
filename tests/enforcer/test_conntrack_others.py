"""Existing flows on a real kernel: those that do not end, and whose bits are whose."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from enforcer.connections.flows import Flows
from enforcer.connections.revocation import Judge
from enforcer.keeping.host import attached, cleanup, mark_writers
from enforcer.kernel import conntrack
from enforcer.rules.base import DEFAULT_MARK
from enforcer.rules.layout import NodeView, local_pods
from tests.enforcer.connections import (
    ALLOWED,
    DENIED,
    apply,
    connection,
    marks,
    policy,
)
from tests.enforcer.test_kernel import BACKENDS, World, _world, backends, world

__all__ = ["world"]
pytestmark = pytest.mark.kernel


@backends
@pytest.mark.alone
def test_allowed_flows_notice_nothing(world: World) -> None:
    """One flow sends all the time while a hundred others end and start again: it loses no packet, either way."""
    both, one = policy("80/UDP", "81/UDP"), policy("81/UDP")
    apply(world, both)
    with ExitStack() as exits:
        kept = exits.enter_context(connection(world, "shop/far", "shop/api", "UDP", 81))
        for sock in (kept.client, kept.server):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        stop = threading.Event()
        sent = [0]

        def send() -> None:
            while not stop.is_set():
                for sock in (kept.client, kept.server):
                    sock.send(struct.pack("!I", sent[0]))
                sent[0] += 1
                time.sleep(0.0005)

        with world.lab.inside("shop/api"):
            server = exits.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            server.bind((str(world.lab.host("shop/api").address(4)), 80))
        with world.lab.inside("shop/far"):
            others = [exits.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(100)]
        for other in others:
            other.sendto(b"hello", server.getsockname())
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(3):
            assert apply(world, one).ended == 100
            assert apply(world, both).restored == 100
        stop.set()
        sender.join()
        assert sent[0] > 100
        for sock in (kept.client, kept.server):
            assert [struct.unpack("!I", sock.recv(99))[0] for _ in range(sent[0])] == list(range(sent[0]))


@backends
def test_the_nodes_own_connections_live(world: World) -> None:
    """Semantics, row 27."""
    apply(world, ALLOWED)
    with connection(world, "n1", "shop/api") as own, connection(world, "shop/far", "shop/api", port=81) as others:
        own.alive()
        assert apply(world, DENIED).ended == 1
        own.alive()
        others.nothing_arrives(others.server, others.client)


@backends
def test_a_first_sync_ends_nothing(world: World) -> None:
    # As kube-proxy's rules do, this one makes the kernel track connections.
    rule = f"iptables-{world.backend.mode} -t nat -A POSTROUTING -s 192.0.2.1 -j MASQUERADE"
    assert world.lab.run("n1", rule.split()).returncode == 0
    with connection(world, "shop/far", "shop/api") as flow:
        assert apply(world, DENIED) == Flows(ended=0, restored=0, spared=1, first_sync=True)
        flow.alive()
        assert apply(world, DENIED, end=False) == Flows(0, 0, 1, False)
        flow.alive()
        assert apply(world, DENIED).ended == 1
        flow.nothing_arrives(flow.client, flow.server)


@backends
def test_a_lost_bit_is_set_again_and_others_bits_stay(world: World) -> None:
    rule = f"iptables-{world.backend.mode} -t mangle -A PREROUTING -j CONNMARK --set-xmark 0x55/0xff"
    assert world.lab.run("n1", rule.split()).returncode == 0
    apply(world, ALLOWED)
    with connection(world, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        apply(world, DENIED)
        assert marks(world) == [0x55 | DEFAULT_MARK]
        with world.lab.inside("n1"):
            assert conntrack.forget(DEFAULT_MARK) == 1
        assert marks(world) == [0x55]
        flow.alive()
        assert apply(world, DENIED).ended == 1
        flow.nothing_arrives(flow.client, flow.server)


@backends
def test_a_bit_that_was_set_before_podfence_came_is_told_and_cleared(world: World) -> None:
    """Left by a podfence that was killed, or another program's: `apply` warns of it."""
    rule = f"iptables-{world.backend.mode} -t mangle -A PREROUTING -j CONNMARK --set-xmark 0x1000/0x1000"
    assert world.lab.run("n1", rule.split()).returncode == 0
    with connection(world, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        assert world.lab.run("n1", rule.replace("-A", "-D").split()).returncode == 0
        with world.lab.inside("n1"):
            assert mark_writers(world.backend, DEFAULT_MARK) == ()
        assert apply(world, ALLOWED) == Flows(ended=0, restored=1, spared=0, first_sync=True)
        flow.alive()


@backends
def test_another_bit_takes_over_and_cleanup_leaves_none(world: World) -> None:
    apply(world, ALLOWED)
    with connection(world, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        apply(world, DENIED, mark=0x10)
        assert marks(world) == [0x10]
        apply(world, DENIED, mark=0x80000000)
        assert marks(world) == [0x80000000]
        flow.nothing_arrives(flow.server, flow.client)
        with world.lab.inside("n1"):
            cleanup(world.backend)
        assert marks(world) == [0]
        flow.alive()


def test_only_flows_with_the_given_addresses_are_touched(world_of_nft: World) -> None:
    world = world_of_nft
    apply(world, ALLOWED)
    compiled = world.compiled(DENIED)
    far, web = (world.lab.host(place).address(4) for place in ("shop/far", "shop/web"))
    with (
        connection(world, "shop/far", "shop/api", "UDP"),
        connection(world, "shop/web", "shop/api", "UDP", 81),
        world.lab.inside("n1"),
    ):
        view = NodeView("n1", attached(compiled, "n1", {}).veths)
        judge = Judge(compiled, view, local_pods(compiled, "n1"), ())
        revoked = [
            conntrack.revoke(judge, view.mark, addresses)
            for addresses in ({web}, {web}, {world.lab.host("shop/far").address(6)}, {far, web}, None)
        ]
    assert [each.ended for each in revoked] == [1, 0, 0, 1, 0]


@pytest.fixture
def world_of_nft() -> Iterator[World]:
    with _world(BACKENDS[1]) as made:
        yield made


def test_the_command(world_of_nft: World, tmp_path: Path) -> None:
    world = world_of_nft
    shop = tmp_path / "shop.yaml"

    def run(verb: str, policies: str, *options: str, warning: str = "") -> dict[str, object]:
        pods = "\n---\n".join(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
                    "spec": {"nodeName": pod.node},
                    "status": {"podIPs": [{"ip": str(address)} for address in pod.addresses]},
                }
            )
            for pod in world.lab.cluster.pods
        )
        shop.write_text(f"{pods}\n---\n{policies}")
        argv = [sys.executable, "-m", "podfence", "node", verb, "-f", str(shop), "--node", "n1", "-o", "json", *options]
        done = world.lab.run("n1", [*argv, "--backend", "nft"])
        assert done.returncode == 0, done.stderr
        assert warning in done.stderr and bool(warning) == bool(done.stderr)
        flows: dict[str, object] = json.loads(done.stdout)["flows"]
        return flows

    run("apply", ALLOWED, "--mark", "0x20")
    with connection(world, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        assert run("plan", DENIED, "--mark", "0x20")["ended"] == 1
        flow.alive()
        kept = run("apply", DENIED, "--mark", "0x20", "--existing-flows", "keep")
        assert (kept["ended"], kept["spared"]) == (0, 1)
        flow.alive()
        assert run("apply", DENIED, "--mark", "0x20")["ended"] == 1
        assert marks(world) == [0x20]
        flow.nothing_arrives(flow.client, flow.server)
    rule = "-A PREROUTING -j CONNMARK --set-xmark 0x21/0xffffffff"
    assert world.lab.run("n1", ["iptables-nft", "-t", "mangle", *rule.split()]).returncode == 0
    run("plan", DENIED, "--mark", "0x20", warning=rule)
