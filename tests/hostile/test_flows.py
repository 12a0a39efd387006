"""Packets sent into flows that others have open, and answers to questions that others asked: what connection tracking
and neighbour tables take for theirs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enforcer.kernel.backend import Backend
from lab import netns
from policy.cidr import Family
from tests.enforcer.bridged import FAMILIES, frame, listening
from tests.hostile.attack import (
    ALLOWED,
    ATTACKER,
    DENIED,
    FREE,
    FRIEND,
    GATEWAY,
    POLICIES,
    VICTIM,
    Attacked,
    attacked,
    marker,
)
from tests.hostile.wire import (
    ACK,
    ETHERTYPE,
    ICMP,
    ICMP6,
    PSH,
    TCP,
    UDP,
    advertisement,
    arp,
    ip,
    packed,
    tcp,
    udp,
    unreachable,
)

pytestmark = pytest.mark.kernel
families = pytest.mark.parametrize("family", FAMILIES)
_ARP = 0x0806
_KIND = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(params=["legacy-routed", "nft-routed", "legacy-bridge", "nft-bridge"])
def world(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    mode, _, attach = str(request.param).partition("-")
    with attacked(Backend(mode, FAMILIES), attach) as made:  # type: ignore[arg-type]
        made.enforce(POLICIES)
        yield made


@contextmanager
def open_flow(world: Attacked, family: Family) -> Iterator[int]:
    """A TCP connection from the friend to the victim; its source port."""
    address = world.address(VICTIM, family), ALLOWED
    with world.lab.inside(VICTIM):
        server = socket.create_server(address, family=_KIND[family])
    with server:
        server.settimeout(5)
        with world.lab.inside(FRIEND):
            client = socket.create_connection(address, 5)
        accepted, _ = server.accept()
        with client, accepted:
            yield client.getsockname()[1]


@contextmanager
def datagrams(world: Attacked, family: Family) -> Iterator[int]:
    """A UDP flow from the friend to the victim, answered; its source port."""
    address = world.address(VICTIM, family)
    with (
        listening(world.lab, VICTIM, address, ALLOWED) as server,
        listening(world.lab, FRIEND, world.address(FRIEND, family), 0) as client,
    ):
        client.sendto(b"open", (address, ALLOWED))
        _, back = server.recvfrom(99)
        server.sendto(b"answer", back)
        assert client.recv(99) == b"answer"
        yield client.getsockname()[1]


def into(world: Attacked, src: str, from_port: int, port: int = ALLOWED, name: str = "known") -> list[bytes]:
    """A datagram as from `src`."""
    dst = world.address(VICTIM, 6 if ":" in src else 4)
    return [world.framed(ATTACKER, world.packet(src, UDP, udp(src, dst, port, marker(name), from_port)))]


@families
def test_into_an_open_flow_with_its_address(world: Attacked, family: Family) -> None:
    """Known, and documented: rule 1 asks nothing but the connection table. Whoever knows the address and both ports of
    an open flow gets a packet into it; nobody opens one so, and no other port is reached."""
    friend, own = world.address(FRIEND, family), world.address(ATTACKER, family)
    with datagrams(world, family) as port:
        attempts = {
            "known": into(world, friend, port),
            "other source port": into(world, friend, port ^ 1, name="other source port"),
            "other port": into(world, friend, port, DENIED, "other port"),
            "own address": into(world, own, port, name="own address"),
        }
        assert world.arrives(attempts) == {"known"}


@families
def test_into_an_open_tcp_connection_with_its_address(world: Attacked, family: Family) -> None:
    """Known too: the kernel's window tells half of all sequence and half of all acknowledgement numbers apart. The
    pod's own TCP drops those that are not in its own."""
    friend, victim = world.address(FRIEND, family), world.address(VICTIM, family)
    with open_flow(world, family) as port:
        attempts = {}
        for number in range(16):
            seq, ack = number % 4 << 30, number // 4 << 30
            data = tcp(friend, victim, ALLOWED, PSH | ACK, marker(f"{number}"), from_port=port, seq=seq, ack=ack)
            attempts[f"{number}"] = [world.framed(ATTACKER, world.packet(friend, TCP, data))]
        assert 0 < len(world.arrives(attempts)) < 16


@families
@pytest.mark.parametrize("mode", ["legacy", "nft"])
def test_the_way_into_open_flows_can_be_closed_where_the_node_routes(mode: str, family: Family) -> None:
    """As docs/enforcement.md shows: a sysctl for IPv4, one rule of the operator's for IPv6. Both ask the routes whether
    an address is behind the interface that it came by."""
    with attacked(Backend(mode, FAMILIES), "routed") as world:  # type: ignore[arg-type]
        world.enforce(POLICIES)
        if family == 4:
            with world.lab.inside("n1"):
                for pod in (ATTACKER, FRIEND, VICTIM):
                    netns.set_sysctl(f"net.ipv4.conf.{world.lab.host(pod).link}.rp_filter", "1")
        else:
            veth = world.lab.host(ATTACKER).link
            rule = f"ip6tables-{mode} -t raw -A PREROUTING -i {veth} -m rpfilter --invert -j DROP"
            done = world.lab.run("n1", rule.split())
            assert done.returncode == 0, done.stderr
        with datagrams(world, family) as port:
            assert world.arrives({"known": into(world, world.address(FRIEND, family), port)}) == set()


@families
def test_an_icmp_error_passes_only_about_an_open_flow(world: Attacked, family: Family) -> None:
    """Whoever sends it, as a router on the way does; it reaches an end of that flow, and nobody else."""
    friend, victim, own = (world.address(place, family) for place in (FRIEND, VICTIM, ATTACKER))
    with open_flow(world, family) as port:
        about = {
            "open": ip(victim, friend, TCP, tcp(victim, friend, port, ACK, from_port=ALLOWED)),
            "none": ip(victim, friend, TCP, tcp(victim, friend, port ^ 1, ACK, from_port=ALLOWED)),
            "of others": ip(friend, own, TCP, tcp(friend, own, port, ACK, from_port=ALLOWED)),
        }
        attempts = {}
        for name, inner in about.items():
            message = unreachable(own, victim, inner + marker(name))
            packet = ip(own, victim, ICMP if family == 4 else ICMP6, message)
            attempts[name] = [world.framed(ATTACKER, packet)]
        assert world.arrives(attempts) == {"open"}


def forged(whose: str, mac: str, target: str, target_mac: str) -> bytes:
    """A frame that says to `target` that the address `whose` is at `mac`."""
    if ":" in whose:
        return frame(target_mac, mac, advertisement(mac, whose, target), ethertype=ETHERTYPE[6])
    return frame(target_mac, mac, arp(2, mac, whose, target_mac, target), ethertype=_ARP)


def believes(world: Attacked, place: str, device: str, whose: str, lie: bytes) -> bool:
    """Tells `place` the lie, once it has forgotten nothing better than what it knew before."""
    known = ["lladdr", world.mac(VICTIM), "dev", device, "nud", "stale"]
    world.ip(place, "neigh", "replace", whose, *known)
    time.sleep(1.1)  # the kernel takes no other answer for a second
    world.arrives({"lie": [lie] * 3}, victim=FREE)
    return world.mac(ATTACKER) in world.lab.run(place, ["ip", "neigh", "show", whose]).stdout


@families
def test_who_says_that_anothers_address_is_his_reads_nothing(world: Attacked, family: Family) -> None:
    """What the friend then sends to the victim's address comes to the attacker's port of the bridge, and is dropped
    there. Where the node routes, a pod has nobody to tell but its node."""
    liar, friend, victim = world.mac(ATTACKER), world.address(FRIEND, family), world.address(VICTIM, family)
    if world.attach == "bridge":
        assert believes(world, FRIEND, "eth0", victim, forged(victim, liar, friend, world.mac(FRIEND)))
    else:
        world.arrives({"lie": [forged(victim, liar, friend, GATEWAY)] * 3}, victim=FREE)
    with (
        world.ear(ATTACKER) as ear,
        world.lab.inside(FRIEND),
        socket.socket(_KIND[family], socket.SOCK_STREAM) as sender,
    ):
        sender.setblocking(False)
        sender.connect_ex((victim, ALLOWED))
        assert not any(packed(friend) + packed(victim) in data for data in world.heard(ear))


@families
def test_what_the_node_itself_sends_can_be_drawn_away_on_a_bridge(world: Attacked, family: Family) -> None:
    """Known, and documented: the node's neighbour table decides by which port, after the rules. Where the node routes
    each pod has a veth and a route of its own."""
    victim, node = world.address(VICTIM, family), world.address("n1", family)
    device = world.lab.host(VICTIM).bridge or world.lab.host(VICTIM).link
    believed = believes(world, "n1", device, victim, forged(victim, world.mac(ATTACKER), node, GATEWAY))
    with (
        world.ear(ATTACKER) as ear,
        world.lab.inside("n1"),
        socket.socket(_KIND[family], socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(marker("drawn"), (victim, DENIED))
        drawn = any(marker("drawn") in data for data in world.heard(ear))
    assert drawn is believed is (world.attach == "bridge")
