"""Existing flows on a real kernel: what a change forbids ends, both ways."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from enforcer.connections.flows import Flows
from enforcer.keeping.host import read
from enforcer.readback.status import status
from enforcer.rules.base import DEFAULT_MARK
from lab.probe import Probe
from policy.cidr import Family
from tests.enforcer.connections import (
    ALLOWED,
    DENIED,
    NO_WAY,
    apply,
    connection,
    policy,
    silent,
    was_reset,
)
from tests.enforcer.test_kernel import FAMILIES, OPEN, World, backends, world

__all__ = ["world"]
pytestmark = pytest.mark.kernel
families = pytest.mark.parametrize("family", FAMILIES)


@backends
@families
def test_a_tcp_connection_ends_and_both_ends_learn_it(world: World, family: Family) -> None:
    apply(world, ALLOWED)
    with (
        connection(world, "shop/far", "shop/api", family=family) as asks,
        connection(world, "shop/far", "shop/api", port=81, family=family) as pushes,
    ):
        asks.alive()
        pushes.alive()
        assert apply(world, DENIED) == Flows(ended=2, restored=0, spared=0, first_sync=False)
        asks.client.send(b"leak")
        assert was_reset(asks.client)
        assert silent(asks.server)
        pushes.server.send(b"leak")
        assert was_reset(pushes.server), "the server speaks first: its packet is an answer, and no new flow"
        assert silent(pushes.client)
        with world.lab.inside("n1"):
            found = status(read(world.backend, family))
        assert [(d.pod, d.direction) for d in found.denied] == [("shop/api", "ingress")]
        assert found.revoked >= 1


@backends
@families
@pytest.mark.parametrize("src", ["shop/far", "shop/web"])
def test_a_udp_flow_ends_both_ways_and_goes_on_when_it_may(world: World, family: Family, src: str) -> None:
    apply(world, ALLOWED)
    with connection(world, src, "shop/api", "UDP", family=family) as flow:
        flow.alive()
        assert apply(world, DENIED).ended == 1
        assert apply(world, DENIED) == Flows(0, 0, 0, False), "its bit is right already"
        flow.nothing_arrives(flow.server, flow.client)
        flow.nothing_arrives(flow.client, flow.server)
        assert apply(world, ALLOWED) == Flows(0, 1, 0, False)
    with connection(world, src, "shop/api", "UDP", 81, family) as flow:
        assert apply(world, DENIED).ended >= 1
        assert apply(world, ALLOWED).restored >= 1
        flow.alive()


@backends
def test_a_tcp_connection_that_may_go_on_goes_on(world: World) -> None:
    apply(world, ALLOWED)
    with connection(world, "shop/far", "shop/api") as flow:
        assert apply(world, DENIED).ended == 1
        assert apply(world, ALLOWED).restored == 1
        flow.alive()


@backends
@families
def test_echoes_end(world: World, family: Family) -> None:
    number = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)[family == 6]
    request = struct.pack("!BBHHH", 8 if family == 4 else 128, 0, 0, 0, 1)
    apply(world, ALLOWED)
    with world.lab.inside("shop/far"):
        ping = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM, number)
    with ping:
        ping.connect((str(world.lab.host("shop/api").address(family)), 0))
        ping.settimeout(2)
        ping.send(request)
        assert ping.recv(99)
        assert apply(world, DENIED).ended == 1
        ping.send(request)
        assert silent(ping)
        assert apply(world, ALLOWED).restored == 1
        ping.send(request)
        ping.settimeout(2)
        assert ping.recv(99)


@backends
@pytest.mark.parametrize("kind", ["TCP", "UDP"])
def test_a_flow_through_a_service_is_judged_by_the_pod_behind_it(world: World, kind: str) -> None:
    """Semantics, row 30: the policy sees the backend pod and its target port."""
    target = f"{world.lab.host('shop/api').address(4)}:80"
    nat = f"iptables-{world.backend.mode} -t nat -A PREROUTING -d 10.96.0.1 -p {kind.lower()} --dport 8080"
    assert world.lab.run("n1", [*nat.split(), "-j", "DNAT", "--to-destination", target]).returncode == 0
    apply(world, policy(f"80/{kind}"))
    with connection(world, "shop/web", "shop/api", kind, via=("10.96.0.1", 8080)) as flow:
        flow.alive()
        assert apply(world, policy("80/TCP", "80/UDP", "81/TCP")).ended == 0
        assert apply(world, policy(f"8080/{kind}")).ended == 1
        flow.nothing_arrives(flow.server, flow.client)
        assert apply(world, policy(f"80/{kind}")).restored == 1


@backends
def test_a_pods_own_flows_end_with_its_egress(world: World) -> None:
    egress = DENIED.replace("[Ingress]", "[Egress]").replace("ingress:", "egress:")
    apply(world, "")
    with (
        connection(world, "shop/api", "shop/far", "UDP") as flow,
        connection(world, "shop/api", "n1", "UDP", 81) as near,
    ):
        flow.alive()
        assert apply(world, egress).ended == 2
        flow.nothing_arrives(flow.server, flow.client)
        flow.nothing_arrives(flow.client, flow.server)
        near.nothing_arrives(near.client, near.server)


@backends
def test_flows_in_a_zone_of_their_own_end_too(world: World) -> None:
    rule = f"iptables-{world.backend.mode} -t raw -A PREROUTING -j CT --zone 7"
    assert world.lab.run("n1", rule.split()).returncode == 0
    apply(world, ALLOWED)
    with connection(world, "shop/far", "shop/api", "UDP") as flow:
        flow.alive()
        assert apply(world, DENIED).ended == 1
        flow.nothing_arrives(flow.client, flow.server)
        flow.nothing_arrives(flow.server, flow.client)


@backends
def test_the_flows_of_an_address_that_was_released_end(world: World) -> None:
    apply(world, "")
    cluster = world.lab.cluster
    with connection(world, "shop/far", "shop/web", "UDP") as flow:
        flow.alive()
        world.lab.cluster = replace(cluster, pods=[pod for pod in cluster.pods if pod.key != "shop/web"])
        try:
            assert apply(world, "").ended == 1
            flow.nothing_arrives(flow.server, flow.client)
            flow.nothing_arrives(flow.client, flow.server)
        finally:
            world.lab.cluster = cluster


@backends
def test_an_icmp_error_is_no_way_around(world: World) -> None:
    """Errors about a flow that has ended carry data of the sender's choice, so they end with it, both ways."""
    apply(world, ALLOWED)
    far, api = (world.lab.host(place).address(4) for place in ("shop/far", "shop/api"))
    with connection(world, "shop/far", "shop/api", "UDP", 80) as flow, ExitStack() as exits:
        listening = {}
        for place in ("shop/far", "shop/api"):
            with world.lab.inside(place):
                listening[place] = exits.enter_context(
                    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
                )
        client, server = flow.client.getsockname(), flow.server.getsockname()
        errors = {
            ("shop/far", "shop/api"): quoted(str(api), str(far), server[1], client[1]),
            ("shop/api", "shop/far"): quoted(str(far), str(api), client[1], server[1]),
        }
        for policies, arrives in ((ALLOWED, True), (DENIED, False)):
            apply(world, policies)
            for (src, dst), error in errors.items():
                listening[src].sendto(error, (str(world.lab.host(dst).address(4)), 0))
                assert arrived(listening[dst], error) is arrives, (src, policies)


def quoted(src: str, dst: str, src_port: int, dst_port: int) -> bytes:
    """An ICMP error, time exceeded, about a UDP packet, with a secret in it."""
    udp = struct.pack("!HHHH", src_port, dst_port, 14, 0) + b"secret"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += socket.inet_aton(src) + socket.inet_aton(dst)
    head = head[:10] + checksum(head) + head[12:]
    body = struct.pack("!BBHI", 11, 0, 0, 0) + head + udp
    return body[:2] + checksum(body) + body[4:]


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def arrived(sock: socket.socket, message: bytes) -> bool:
    sock.settimeout(NO_WAY)
    try:
        while not sock.recv(999).endswith(message):
            pass
    except TimeoutError:
        return False
    return True


@backends
def test_sctp_is_marked_too(world: World) -> None:
    apply(world, ALLOWED)
    assert world.outcomes(Probe("shop/far", "shop/api", "SCTP", 80)) == [OPEN]
    apply(world, DENIED)
    listed = world.lab.run("n1", ["conntrack", "-L", "-p", "sctp"]).stdout
    assert f"mark={DEFAULT_MARK} " in listed, listed
