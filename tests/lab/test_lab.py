"""Real packets between namespaces: what passes, and how what doesn't pass looks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from lab.cluster import Lab
from lab.probe import Outcome, Probe
from lab.topology import OUTSIDE, OUTSIDE_ADDRESSES
from policy.cidr import Address, Family, parse_address
from policy.errors import HostRefused, UsageError
from policy.model import ContainerPort, Pod, Protocol

from .conftest import pods

pytestmark = pytest.mark.kernel

LabOf = Callable[..., Lab]
L4 = Protocol | Literal["ICMP"]
FAMILIES: tuple[Family, Family] = (4, 6)
PROTOCOLS: tuple[L4, ...] = ("TCP", "UDP", "SCTP", "ICMP")
PROHIBITED = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}
PORT_UNREACHABLE = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}


def four(src: str, dst: str | Address, family: Family = 4, source: Address | None = None) -> list[Probe]:
    """A probe of each protocol."""
    return [Probe(src, dst, protocol, 80, family, source) for protocol in PROTOCOLS]


def matrix(lab: Lab, family: Family = 4, port: int = 80, protocols: tuple[L4, ...] = PROTOCOLS) -> list[Probe]:
    keys = [pod.key for pod in lab.cluster.pods]
    return [Probe(a, b, protocol, port, family) for protocol in protocols for a in keys for b in keys]


def outcomes(lab: Lab, *probes: Probe, timeout: float = 0.3) -> list[Outcome]:
    return [result.outcome for result in lab.probe(probes, timeout)]


def iptables(lab: Lab, backend: str, family: Family, *rule: str) -> None:
    tool = f"ip{'6' if family == 6 else ''}tables-{backend}"
    done = lab.run("node-1", [tool, "-w", *rule])
    assert done.returncode == 0, done.stderr


def test_everything_reaches_everything(lab_of: LabOf) -> None:
    with lab_of(*pods(4)) as lab:
        probes = [probe for family in FAMILIES for probe in matrix(lab, family)]
        results = lab.probe(probes)
    assert [result.probe for result in results] == probes
    assert {result.outcome for result in results} == {Outcome.OPEN}
    assert all(result.answered_by in (result.probe.dst, "") for result in results)
    assert all((result.answered_by == "") is (result.probe.protocol == "ICMP") for result in results)
    assert all(0 < result.seconds < 1 for result in results)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_without_a_listener_is_refused(lab_of: LabOf, family: Family) -> None:
    with lab_of(*pods(2)) as lab:
        got = outcomes(lab, *matrix(lab, family, 81, ("TCP", "UDP", "SCTP")))
    assert set(got) == {Outcome.REFUSED}


@pytest.mark.parametrize("backend", ["legacy", "nft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rejects_and_drops_are_told_apart(lab_of: LabOf, backend: str, family: Family) -> None:
    probes = four("x/p0", "x/p1", family)
    other = [replace(probe, family=4 if family == 6 else 6) for probe in probes]
    with lab_of(*pods(2)) as lab:
        for target, outcome in [
            (["REJECT", "--reject-with", PROHIBITED[family]], Outcome.REJECTED),
            (["REJECT", "--reject-with", PORT_UNREACHABLE[family]], Outcome.REFUSED),
            (["DROP"], Outcome.DROPPED),
        ]:
            iptables(lab, backend, family, "-I", "FORWARD", "-j", *target)
            assert outcomes(lab, *probes) == [outcome] * 4
            assert outcomes(lab, *other) == [Outcome.OPEN] * 4
            iptables(lab, backend, family, "-F", "FORWARD")
        iptables(lab, backend, family, "-I", "FORWARD", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
        assert outcomes(lab, *probes) == [Outcome.REFUSED] + [Outcome.OPEN] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_connection_tracking_finds_every_exchange_valid(lab_of: LabOf, family: Family) -> None:
    """Only what conntrack calls new or established passes: SCTP's checksums and tags too."""
    with lab_of(*pods(2)) as lab:
        iptables(lab, "nft", family, "-A", "FORWARD", "-d", str(lab.host("x/p1").address(family)), "-j", "ACCEPT")
        iptables(lab, "nft", family, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
        iptables(lab, "nft", family, "-I", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        iptables(lab, "nft", family, "-P", "FORWARD", "DROP")
        there = outcomes(lab, *four("x/p0", "x/p1", family))
        back = outcomes(lab, *four("x/p1", "x/p0", family))
    assert there == [Outcome.OPEN] * 4
    assert back == [Outcome.DROPPED] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_filter_in_the_senders_own_namespace(lab_of: LabOf, family: Family) -> None:
    probes = four("x/p0", "x/p1", family)
    tool = "ip6tables-nft" if family == 6 else "iptables-nft"
    with lab_of(*pods(2)) as lab:
        for target, outcome in [
            (["REJECT", "--reject-with", PROHIBITED[family]], Outcome.REJECTED),
            (["DROP"], Outcome.DROPPED),
        ]:
            assert lab.run("x/p0", [tool, "-I", "OUTPUT", "-o", "eth0", "-j", *target]).returncode == 0
            assert outcomes(lab, *probes) == [outcome] * 4


def test_nodes_and_the_rest_of_the_world_are_places_too(lab_of: LabOf) -> None:
    agent = Pod("x", "agent", {}, node="node-1", host_network=True, ports=(ContainerPort("", "TCP", 9000),))
    with lab_of(*pods(1), agent, listen=[("UDP", 53)]) as lab:
        results = lab.probe(
            [
                Probe("node-1", "x/p0", "TCP", 80),
                Probe(OUTSIDE, "x/p0", "SCTP", 80, 6),
                Probe("x/p0", OUTSIDE, "UDP", 53),
                Probe("x/p0", OUTSIDE_ADDRESSES[1], "UDP", 53),
                Probe("x/p0", "x/agent", "TCP", 9000),
                Probe("x/agent", "x/p0", "UDP", 80),
            ]
        )
    assert {result.outcome for result in results} == {Outcome.OPEN}
    assert [result.answered_by for result in results] == ["x/p0", "x/p0", OUTSIDE, OUTSIDE, "node-1", "x/p0"]


def test_where_there_is_nobody(lab_of: LabOf) -> None:
    """No pod has the address: its node says that there is no route, which is no policy's doing."""
    with lab_of(*pods(1)) as lab:
        assert outcomes(lab, *four("x/p0", parse_address("198.51.100.1"))) == [Outcome.UNREACHABLE] * 4
        with pytest.raises(UsageError, match="no pod or node x/nobody"):
            lab.probe([Probe("x/p0", "x/nobody")])


def test_every_address_of_a_pod_sends_and_answers(lab_of: LabOf) -> None:
    addresses = tuple(parse_address(text) for text in ("10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"))
    first, second = pods(2)
    with lab_of(replace(first, addresses=addresses), second) as lab:
        to_each = [probe for address in addresses for probe in four("x/p1", address)]
        from_each = [probe for address in addresses for probe in four("x/p0", "x/p1", address.family, address)]
        assert set(outcomes(lab, *to_each, *from_each)) == {Outcome.OPEN}
        iptables(lab, "nft", 4, "-A", "FORWARD", "-s", "10.1.0.2", "-j", "DROP")
        expected = [Outcome.DROPPED if str(probe.source) == "10.1.0.2" else Outcome.OPEN for probe in from_each]
        assert outcomes(lab, *from_each) == expected
        with pytest.raises(UsageError, match=r"10\.9\.9\.9"):
            lab.probe([Probe("x/p0", "x/p1", source=parse_address("10.9.9.9"))])


def test_pods_come_and_go(lab_of: LabOf) -> None:
    with lab_of(*pods(2)) as lab:
        assert outcomes(lab, *matrix(lab)) == [Outcome.OPEN] * 16
        new = lab.add(Pod("y", "new", {}, ports=(ContainerPort("", "TCP", 8080),)))
        agent = lab.add(Pod("y", "agent", {}, node="node-3", host_network=True, ports=new.ports))
        assert agent.addresses == lab.host("node-3").addresses
        probes = [Probe("x/p1", dst, "TCP", 8080, family) for dst in ("y/new", "y/agent") for family in FAMILIES]
        assert outcomes(lab, *probes) == [Outcome.OPEN] * 4
        lab.remove("y/new")
        lab.remove("y/agent")
        assert (
            outcomes(lab, *(Probe("x/p1", address, port=8080) for address in new.addresses))
            == [Outcome.UNREACHABLE] * 2
        )
        assert outcomes(lab, *matrix(lab)) == [Outcome.OPEN] * 16
        again = lab.add(Pod("y", "new", {}, ports=new.ports))
        assert outcomes(lab, Probe("x/p0", again.key, port=8080)) == [Outcome.OPEN]


def test_a_pod_succeeds_another_at_its_addresses_also_on_another_node(lab_of: LabOf) -> None:
    with lab_of(*pods(3)) as lab:
        place, addresses = "x/p0", lab.host("x/p0").addresses
        for name, node in (("next", "node-1"), ("after", "node-2")):
            lab.succeed(place, Pod("x", name, {}, node=node, addresses=addresses, ports=lab.cluster.pods[0].ports))
            with pytest.raises(UsageError, match=place):
                lab.host(place)
            place = f"x/{name}"
            assert outcomes(lab, *matrix(lab), *matrix(lab, 6)) == [Outcome.OPEN] * 72
        with pytest.raises(UsageError, match="x/p1"):
            lab.succeed(place, Pod("x", "p1", {}, node="node-2", addresses=addresses))


def test_a_port_that_somebody_else_has(lab_of: LabOf) -> None:
    with lab_of(*pods(1)) as lab:
        with lab.inside("x/p0"):
            other = socket.create_server(("", 80))
        with other, pytest.raises(HostRefused, match="port 80: Address already in use"):
            lab.probe([Probe("x/p0", "node-1", "ICMP")])
        assert outcomes(lab, Probe("x/p0", "node-1", "ICMP")) == [Outcome.OPEN], "once it is gone"


@pytest.mark.alone
def test_fifty_pods_and_their_matrix(lab_of: LabOf) -> None:
    """The promise: up within seconds, 2,500 probes in well under 30 s, although most of them are met by silence."""
    started = time.monotonic()
    with lab_of(*pods(50)) as lab:
        assert time.monotonic() - started < 10
        iptables(lab, "nft", 4, "-A", "FORWARD", "-j", "DROP")
        probes = matrix(lab, 4, 80, ("TCP",))
        started = time.monotonic()
        results = lab.probe(probes)
        assert time.monotonic() - started < 15
        nodes = {pod.key: pod.node for pod in lab.cluster.pods}
    for result in results:
        src, dst = result.probe.src, str(result.probe.dst)
        passes = src == dst or nodes[src] == nodes[dst] == "node-2"
        assert result.outcome == (Outcome.OPEN if passes else Outcome.DROPPED), result


def test_more_probes_than_may_be_in_flight(lab_of: LabOf) -> None:
    with lab_of(*pods(3)) as lab:
        iptables(lab, "nft", 4, "-A", "FORWARD", "-p", "udp", "-j", "DROP")
        probes = matrix(lab, 4, 80, ("TCP", "UDP")) * 3
        results = lab.probe(probes, timeout=0.2, in_flight=4)
    for result in results:
        passes = result.probe.protocol == "TCP" or result.probe.src == result.probe.dst
        assert result.outcome == (Outcome.OPEN if passes else Outcome.DROPPED), result


CHURN = """
import os, sys
from lab.cluster import Lab
from policy.model import Cluster, Pod
while os.getppid() == int(sys.argv[1]):
    with Lab(f"churn-{os.getpid()}", Cluster([], [Pod("x", f"p{n}", {}) for n in range(25)], [], [], [], [])):
        print("up", flush=True)
"""


@pytest.mark.alone
def test_a_lab_that_is_up_is_ready_on_a_busy_machine(lab_of: LabOf) -> None:
    """Others' labs come and go meanwhile, and hold the kernel's lock on links: what it leaves to workers is late."""
    argv = [sys.executable, "-c", CHURN, str(os.getpid())]
    others = [subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        assert [other.stdout.readline() for other in others if other.stdout] == [b"up\n"] * 3
        for _ in range(15):
            with lab_of(*pods(3)) as lab:
                wrong = [result for family in FAMILIES for result in lab.probe(matrix(lab, family), 0.3)]
                assert [result for result in wrong if result.outcome != Outcome.OPEN] == []
    finally:
        for other in others:
            other.terminate()
            other.wait()
