"""The enforcer on a real kernel, in the namespaces of a lab: both backends, both families, real packets."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from msgspec.structs import replace

from compiler.compile import Compiled, compile_cluster
from compiler.verdict import NodeEgress
from enforcer.keeping.host import attached, cleanup, execute, plans, read
from enforcer.kernel.backend import Backend, Mode
from enforcer.readback.status import status
from enforcer.rules.layout import NodeView
from enforcer.rules.ruleset import Drop, IpSet, OutInterface, Reject, Rule
from enforcer.rules.steps import MakeSet, Transaction
from lab.cluster import Lab
from lab.probe import Outcome, Probe
from lab.topology import OUTSIDE
from policy.cidr import Family, parse_cidr
from policy.decode import read_documents
from policy.errors import KernelRejected
from tests.enforcer.shop import API, shop

pytestmark = pytest.mark.kernel

FAMILIES: tuple[Family, Family] = (4, 6)
OPEN, REJECTED, DROPPED = Outcome.OPEN, Outcome.REJECTED, Outcome.DROPPED
BACKENDS = [Backend(mode, FAMILIES) for mode in ("legacy", "nft")]
backends = pytest.mark.parametrize("backend", BACKENDS, ids=["legacy", "nft"])
_numbers = count()

SHOP = shop(("web", "web", "n1"), ("api", "api", "n1"), ("far", "web", "n2"), ("other", "other", "n2"))


class World:
    """A lab, and the enforcer at work on its nodes."""

    def __init__(self, lab: Lab, backend: Backend) -> None:
        self.lab = lab
        self.backend = backend

    def compiled(self, policies: str) -> Compiled:
        found = read_documents(policies.encode(), "test.yaml")
        assert not found.problems
        cluster = replace(self.lab.cluster, policies=found.cluster.policies)
        return compile_cluster(cluster)

    def enforce(self, policies: str, node_egress: NodeEgress = "enforce") -> int:
        """How many steps it took on all nodes."""
        return sum(self.enforce_on(node, policies, node_egress) for node in self.lab.nodes)

    def enforce_on(self, node: str, policies: str, node_egress: NodeEgress = "enforce") -> int:
        compiled = self.compiled(policies)
        blocks = next(each.pod_cidrs for each in self.lab.cluster.nodes if each.name == node)
        with self.lab.inside(node):
            found = attached(compiled, node, {}).veths
            nodes = frozenset(address for each in self.lab.cluster.nodes for address in each.addresses)
            view = NodeView(node, found, blocks, node_egress=node_egress, hosts=nodes)
            steps = plans(self.backend, compiled, view)
            for family_plan in steps:
                execute(self.backend, family_plan.steps)
        return sum(len(each.steps) for each in steps)

    def outcomes(self, *probes: Probe) -> list[Outcome]:
        return [result.outcome for result in self.lab.probe(probes, 0.4)]

    def saved(self, node: str) -> str:
        """All that the kernel holds, as the programs print it, counters left out."""
        programs = [self.backend.program(family, "save") for family in FAMILIES]
        outputs = [self.lab.run(node, [program]).stdout for program in programs]
        lines = "".join([*outputs, self.lab.run(node, ["ipset", "save"]).stdout]).splitlines()
        return "\n".join(re.sub(r" \[.*| packets .*", "", line) for line in lines if not line.startswith("#"))


WorldOf = Callable[[Backend], World]


@pytest.fixture
def world(backend: Backend) -> Iterator[World]:
    with _world(backend) as made:
        yield made


@contextmanager
def _world(backend: Backend) -> Iterator[World]:
    cluster = read_documents(SHOP.encode(), "shop.yaml").cluster
    with Lab(f"kernel-{os.getpid()}-{next(_numbers)}", cluster, [("TCP", 80), ("UDP", 80), ("SCTP", 80)]) as lab:
        yield World(lab, backend)


@backends
def test_exactly_what_is_allowed_passes(world: World) -> None:
    asked = [
        (Probe(src, dst, protocol, 80, family), expected)
        for family in FAMILIES
        for src, dst, protocol, expected in [
            ("shop/web", "shop/api", "TCP", OPEN),
            ("shop/far", "shop/api", "TCP", OPEN),
            ("shop/far", "shop/api", "UDP", REJECTED),
            ("shop/far", "shop/api", "SCTP", REJECTED),
            ("shop/far", "shop/api", "ICMP", REJECTED),
            ("shop/other", "shop/api", "TCP", REJECTED),
            (OUTSIDE, "shop/api", "TCP", DROPPED),
            ("n1", "shop/api", "UDP", OPEN),
            ("n2", "shop/api", "TCP", REJECTED),
            ("shop/api", "shop/other", "UDP", OPEN),
            ("shop/api", "shop/other", "ICMP", OPEN),
            ("shop/api", "shop/web", "TCP", REJECTED),
            ("shop/api", OUTSIDE, "TCP", REJECTED),
            ("shop/api", "n1", "TCP", REJECTED),
            ("shop/api", "n2", "TCP", REJECTED),
            ("shop/api", "shop/api", "TCP", OPEN),
            ("shop/web", "n1", "TCP", OPEN),
            ("shop/web", "shop/other", "SCTP", OPEN),
            (OUTSIDE, "shop/web", "TCP", OPEN),
        ]
    ]
    assert world.enforce(API) > 0
    assert list(zip(world.outcomes(*(p for p, _ in asked)), (p for p, _ in asked), strict=True)) == [
        (expected, probe) for probe, expected in asked
    ]


@backends
def test_what_was_applied_is_read_back_as_wanted(world: World) -> None:
    assert world.enforce(API) > 0
    assert world.enforce(API) == 0
    assert world.enforce("") > 0
    assert world.enforce("") == 0


@backends
def test_node_egress(world: World) -> None:
    """The API text's reading, and the concept page's (semantics, row 28)."""
    probes = [Probe("shop/api", "n1", "TCP", 80, family) for family in FAMILIES]
    world.enforce(API, "enforce")
    assert world.outcomes(*probes) == [REJECTED, REJECTED]
    world.enforce(API, "allow")
    assert world.outcomes(*probes) == [OPEN, OPEN]


@backends
def test_others_rules_and_sets_stay_to_the_byte(world: World) -> None:
    others = [
        "iptables-{} -A FORWARD -s 192.0.2.1 -j ACCEPT -m comment --comment PODFENCE-FORWARD",
        "iptables-{} -N PODFENCER",
        "iptables-{} -A PODFENCER -p tcp -m tcp --dport 1 -j DROP",
        "iptables-{} -I INPUT -j PODFENCER",
        "iptables-{} -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE",
        "ip6tables-{} -I FORWARD -d 2001:db8::5 -j DROP",
        "ipset create others hash:ip",
        "ipset add others 192.0.2.7",
    ]
    for command in others:
        done = world.lab.run("n1", command.format(world.backend.mode).split())
        assert done.returncode == 0, done.stderr
    before = world.saved("n1")
    world.enforce_on("n1", API)
    assert world.saved("n1") != before
    world.enforce_on("n1", "")
    ours = ("PODFENCE-", ":PF-", "-A PF-", "create pf-", "add pf-")
    kept = [line for line in world.saved("n1").splitlines() if not any(mark in line for mark in ours)]
    assert kept == [line for line in before.splitlines() if "comment" not in line or "PODFENCE-FORWARD" not in line]
    with world.lab.inside("n1"):
        cleanup(world.backend)
    assert world.saved("n1") == before


@backends
def test_a_refused_transaction_shows_its_line_and_changes_nothing(world: World) -> None:
    world.enforce_on("n1", API)
    before = world.saved("n1")
    bad = Rule((), Reject("no-such-reply"))
    with world.lab.inside("n1"):
        with pytest.raises(KernelRejected, match=r"-A PODFENCE-FORWARD -j REJECT --reject-with no-such-reply"):
            execute(world.backend, (Transaction(4, {"PODFENCE-FORWARD": (Rule((), Drop()), bad)}),))
        with pytest.raises(KernelRejected, match="add pf-4-broken 2001:db8::/32"):
            broken = IpSet("pf-4-broken", "hash:net", frozenset([_element("2001:db8::/32")]))
            execute(world.backend, (MakeSet(4, broken),))
    assert "create pf-4-broken" in world.saved("n1"), "ipset keeps what it did before the line at fault"
    assert world.outcomes(Probe("shop/other", "shop/api", "TCP", 80)) == [REJECTED]
    assert world.enforce_on("n1", API) == 1, "the set that was left half made goes"
    assert world.saved("n1") == before


def _element(prefix: str):  # type: ignore[no-untyped-def]
    from enforcer.rules.ruleset import Element

    return Element(parse_cidr(prefix))


def spoof(lab: Lab, place: str, src: str, dst: str, port: int) -> None:
    """One UDP packet with a source address of our choice."""
    with lab.inside(place), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        payload = b"x"
        udp = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(src), socket.inet_aton(dst)
        )
        raw.sendto(head + udp, (dst, 0))


@backends
@pytest.mark.parametrize("dst", ["shop/other", "n1"])
def test_a_pod_that_lies_about_its_address_is_dropped(world: World, dst: str) -> None:
    world.enforce(API)
    api = str(world.lab.host("shop/api").address(4))
    target = str(world.lab.host(dst).address(4))
    for number, lie in enumerate([api, "10.244.1.200", "192.0.2.66", "10.244.2.200"], 1):
        spoof(world.lab, "shop/web", lie, target, 80)
        with world.lab.inside("n1"):
            found = status(read(world.backend, 4))
        assert found.spoofed + found.unknown == number, lie


@backends
def test_an_address_that_nobody_is_known_to_have_is_closed(world: World) -> None:
    """Closed until known: dropped, not rejected, so that the sender tries again."""
    known = world.lab.cluster
    stranger = replace(known.pods[0], name="new", labels={})
    added = world.lab.add(replace(stranger, addresses=()))
    world.enforce("")
    assert world.outcomes(Probe("shop/far", "shop/new", "TCP", 80)) == [OPEN]
    world.lab.cluster = replace(world.lab.cluster, pods=[pod for pod in world.lab.cluster.pods if pod != added])
    world.enforce("")
    both_ways = [Probe("shop/far", "shop/new", "TCP", 80), Probe("shop/new", "shop/far", "TCP", 80)]
    assert world.outcomes(*both_ways) == [DROPPED, DROPPED]
    world.lab.cluster = replace(world.lab.cluster, pods=[*world.lab.cluster.pods, added])


@backends
def test_denials_are_counted_by_pod(world: World) -> None:
    world.enforce(API)
    world.outcomes(*[Probe("shop/other", "shop/api", "UDP", 80)] * 3)
    with world.lab.inside("n1"):
        found = status(read(world.backend, 4))
    assert found.in_force
    (denied,) = found.denied
    assert (denied.pod, denied.direction, denied.packets) == ("shop/api", "ingress", 3)


@backends
def test_an_open_connection_outlives_a_rewrite_of_the_rules(world: World) -> None:
    """What is established goes on, and the node always reaches its pods."""
    world.enforce(API)
    address = str(world.lab.host("shop/api").address(4))
    with world.lab.inside("shop/api"), socket.create_server((address, 81)) as server:
        with world.lab.inside("n1"):
            client = socket.create_connection((address, 81), timeout=2)
        peer, _ = server.accept()
        with client, peer:
            world.enforce("")
            world.enforce(API)
            client.sendall(b"still here")
            assert peer.recv(20) == b"still here"


@backends
def test_cleanup_leaves_nothing(world: World, backend: Backend) -> None:
    for tool in ("iptables", "ip6tables"):
        # The table and its built-in chains are there from the first use on.
        world.lab.run("n1", [f"{tool}-{backend.mode}", "-A", "FORWARD", "-s", "::1" if tool[2] == "6" else "127.0.0.1"])
    empty = world.saved("n1")
    world.enforce_on("n1", API)
    with world.lab.inside("n1"):
        cleanup(backend)
        assert all(not steps for steps in cleanup(backend))
    assert world.saved("n1") == empty


def test_a_pod_interface_that_is_not_known_stays_closed() -> None:
    with _world(BACKENDS[1]) as world:
        compiled = world.compiled("")
        with world.lab.inside("n1"):
            found = {pod: veth for pod, veth in attached(compiled, "n1", {}).veths.items() if pod != "shop/web"}
            for family_plan in plans(world.backend, compiled, NodeView("n1", found)):
                execute(world.backend, family_plan.steps)
        probes = [Probe("shop/far", "shop/web", "TCP", 80), Probe("shop/web", "shop/far", "TCP", 80)]
        assert world.outcomes(*probes) == [DROPPED, DROPPED]
        assert world.outcomes(Probe("shop/far", "shop/api", "TCP", 80)) == [OPEN]


def test_matching_on_an_interface_survives_the_round_trip() -> None:
    mode: Mode = "nft"
    with _world(Backend(mode, FAMILIES)) as world, world.lab.inside("n1"):
        rule = Rule((OutInterface("veth-of-some-15"),), Drop(), comment='shop/"x\\y\n-j ACCEPT')
        execute(world.backend, (Transaction(4, {"PF-test": (rule,)}),))
        (counted,) = read(world.backend, 4).tables.chains["PF-test"]
        assert isinstance(counted.rule, Rule)
        assert (counted.rule.matches, counted.rule.target) == (rule.matches, rule.target)
        assert counted.rule.comment == "shop/?x?y?-j ACCEPT"
