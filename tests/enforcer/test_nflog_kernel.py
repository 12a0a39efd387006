"""Packets that the rules of a node deny, read from the kernel and named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.agent.denials import Denial, StateNames, Teller
from enforcer.kernel.nflog import NflogReader
from enforcer.kernel.nflog_wire import Logged
from lab.probe import Probe
from podfence.node_denials import interface_name
from policy.cidr import Family
from policy.errors import HostRefused
from tests.enforcer.connections import ALLOWED, DENIED, apply, connection, silent
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import BACKENDS, FAMILIES, World, _world, backends, world

__all__ = ["world"]
pytestmark = pytest.mark.kernel
families = pytest.mark.parametrize("family", FAMILIES)


def denials(world: World, *probes: Probe) -> list[Denial]:
    """What node n1 tells of while these are sent."""
    with world.lab.inside("n1"), NflogReader(100) as reader:
        world.outcomes(*probes)
        packets: list[Logged] = []
        while some := reader.read(0.3):
            packets += some
        assert reader.counts.packets == len(packets) and not reader.counts.strange + reader.counts.lost
        return Teller(StateNames(world.compiled(API), interface_name), time.monotonic, time.time).take(packets)


@backends
@families
def test_a_denied_packet_names_pods_direction_and_policies(world: World, family: Family) -> None:
    world.enforce(API)
    found = denials(
        world,
        Probe("shop/other", "shop/api", "TCP", 80, family),
        Probe("shop/far", "shop/api", "UDP", 80, family),
        Probe("shop/api", "shop/web", "TCP", 80, family),
        Probe("shop/far", "shop/api", "ICMP", 0, family),
    )
    address = {place: str(world.lab.host(place).address(family)) for place in ("shop/other", "shop/api", "shop/web")}
    seen = {(d.src_pod, d.dst_pod, d.direction, d.protocol, d.port, d.flags) for d in found}
    icmp = "ICMP" if family == 4 else "ICMPv6"
    assert seen == {
        ("shop/other", "shop/api", "ingress", "TCP", 80, "SYN"),
        ("shop/far", "shop/api", "ingress", "UDP", 80, ""),
        ("shop/api", "shop/web", "egress", "TCP", 80, "SYN"),
        ("shop/far", "shop/api", "ingress", icmp, None, ""),
    }
    assert all(d.why == "denied" and d.policies == ("shop/api",) for d in found)
    assert all(abs(d.time - time.time()) < 60 for d in found)
    (first,) = (d for d in found if d.src_pod == "shop/other")
    assert (first.src, first.dst) == (address["shop/other"], address["shop/api"])
    with world.lab.inside("n1"):
        routes = world.lab.run("n1", ["ip", f"-{family}", "route", "get", address["shop/api"]]).stdout
    assert f"dev {first.out_interface} " in routes and first.in_interface


@backends
def test_answers_of_ended_flows_are_told(world: World) -> None:
    apply(world, ALLOWED)
    with connection(world, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        apply(world, DENIED)
        with world.lab.inside("n1"), NflogReader(100) as reader:
            flow.server.send(b"leak")
            assert silent(flow.client)
            (found,) = reader.read(1)
    assert (found.why, found.direction, found.packet.src_port) == ("revoked", None, 80)


@backends
def test_a_spoofed_source_is_told(world: World) -> None:
    world.enforce("")
    spoof = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.99.9.9', 7)); "
    spoof += f"s.sendto(b'x', ('{world.lab.host('shop/far').address(4)}', 80))"
    assert world.lab.run("shop/web", ["ip", "address", "add", "10.99.9.9/32", "dev", "lo"]).returncode == 0
    with world.lab.inside("n1"), NflogReader(100) as reader:
        assert world.lab.run("shop/web", [sys.executable, "-c", spoof]).returncode == 0
        (found,) = reader.read(1)
    assert (found.why, str(found.packet.src)) == ("spoofed", "10.99.9.9")


@pytest.fixture
def world_of_nft() -> Iterator[World]:
    with _world(BACKENDS[1]) as made:
        yield made


def test_a_second_reader_is_refused_in_one_line_and_the_group_is_free_again(world_of_nft: World) -> None:
    with world_of_nft.lab.inside("n1"):
        with NflogReader(100), pytest.raises(HostRefused, match="NFLOG group 100 can't be read: another program"):
            NflogReader(100)
        with NflogReader(100), NflogReader(101):
            pass


def test_what_the_kernel_had_no_room_for_is_counted(world_of_nft: World) -> None:
    """A second reader's rule: every packet on loopback, and a buffer that is never emptied meanwhile."""
    with world_of_nft.lab.inside("n1"):
        rule = "iptables-nft -A OUTPUT -o lo -p udp --dport 9 -j NFLOG --nflog-group 101 --nflog-prefix pf:unknown"
        assert world_of_nft.lab.run("n1", rule.split()).returncode == 0
        send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        send += "for _ in range(20000): s.sendto(b'x' * 100, ('127.0.0.1', 9))"
        with NflogReader(101) as reader:
            world_of_nft.lab.run("n1", [sys.executable, "-c", send])
            before = None
            while reader.counts != before:
                before = reader.counts
                reader.read(0.5)
        assert reader.counts.lost and 0 < reader.counts.packets < 20000


def test_a_thread_follows_until_the_reader_is_closed(world_of_nft: World) -> None:
    world_of_nft.enforce(API)
    found: list[Logged] = []
    came = threading.Event()
    complaints: list[str] = []

    def take(packets: list[Logged]) -> None:
        found.extend(packets)
        if found:
            came.set()

    with world_of_nft.lab.inside("n1"), NflogReader(100) as reader:
        reader.follow(take, complaints.append)
        world_of_nft.outcomes(Probe("shop/other", "shop/api", "TCP", 80, 4))
        assert came.wait(5)
    assert not complaints and {each.why for each in found} == {"denied"}


def test_the_command(world_of_nft: World, tmp_path: Path) -> None:
    world = world_of_nft
    world.enforce(API)
    (tmp_path / "api.yaml").write_text(API)
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
            "spec": {"nodeName": pod.node},
            "status": {"podIPs": [{"ip": str(address)} for address in pod.addresses]},
        }
        for pod in world.lab.cluster.pods
    ]
    (tmp_path / "pods.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    argv = [sys.executable, "-m", "podfence", "node", "denials", "-f", "--count", "1", "--names", str(tmp_path)]
    for form in ("json", "text"):
        with world.lab.inside("n1"):
            command = subprocess.Popen([*argv, "-o", form], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 15
            while command.poll() is None and time.monotonic() < deadline:
                world.outcomes(Probe("shop/other", "shop/api", "TCP", 80, 4))
            assert command.poll() == 0, command.stderr and command.stderr.read()
        finally:
            if command.poll() is None:
                os.kill(command.pid, signal.SIGKILL)
            out, _ = command.communicate()
        if form == "json":
            assert json.loads(out)["policies"] == ["shop/api"]
        else:
            assert "denied ingress: shop/other (10." in out and "isolated by shop/api" in out
