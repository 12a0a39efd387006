"""Pods that are ports of a bridge: both backends, both families, real packets; and each time what is installed is
proven to be what is meant."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from enforcer.keeping.host import plans
from enforcer.kernel.backend import Backend
from enforcer.kernel.bridges import bridge_filtering, tags_pass_by
from lab import netns
from lab.probe import Outcome, Probe
from lab.topology import OUTSIDE
from policy.cidr import parse_address
from policy.errors import HostRefused
from tests.enforcer.bridged import (
    FAMILIES,
    MARKER,
    Bridged,
    bridged,
    frame,
    heard,
    icmp6,
    listening,
    send_frame,
    udp,
)
from tests.enforcer.shop import API, shop

pytestmark = pytest.mark.kernel

OPEN, REJECTED, DROPPED = Outcome.OPEN, Outcome.REJECTED, Outcome.DROPPED
backends = pytest.mark.parametrize("backend", [Backend(mode, FAMILIES) for mode in ("legacy", "nft")], ids=str)

GATEWAY, ALL = "ee:ee:ee:ee:ee:ee", "ff:ff:ff:ff:ff:ff"

SHOP = shop(
    ("web", "web", "n1"),
    ("api", "api", "n1"),
    ("near", "other", "n1"),
    ("free", "free", "n1"),
    ("far", "web", "n2"),
    ("other", "other", "n2"),
)


@pytest.fixture
def world(backend: Backend) -> Iterator[Bridged]:
    with bridged(SHOP, backend) as made:
        yield made


@backends
def test_exactly_what_is_allowed_passes(world: Bridged) -> None:
    """Between ports, to and from the rest through the bridge, to the node: one pod's neighbours are found by ARP and
    neighbour discovery, which isolated pods need too."""
    asked = [
        (Probe(src, dst, protocol, 80, family), expected)
        for family in FAMILIES
        for src, dst, protocol, expected in [
            ("shop/web", "shop/api", "TCP", OPEN),
            ("shop/web", "shop/api", "UDP", REJECTED),
            ("shop/web", "shop/api", "SCTP", REJECTED),
            ("shop/near", "shop/api", "TCP", REJECTED),
            ("shop/near", "shop/api", "ICMP", REJECTED),
            ("shop/free", "shop/near", "TCP", OPEN),
            ("shop/free", "shop/near", "UDP", OPEN),
            ("shop/far", "shop/api", "TCP", OPEN),
            ("shop/far", "shop/api", "UDP", REJECTED),
            ("shop/other", "shop/api", "TCP", REJECTED),
            (OUTSIDE, "shop/api", "TCP", DROPPED),
            (OUTSIDE, "shop/free", "TCP", OPEN),
            ("n1", "shop/api", "UDP", OPEN),
            ("n2", "shop/api", "TCP", REJECTED),
            ("shop/api", "shop/near", "UDP", OPEN),
            ("shop/api", "shop/other", "ICMP", OPEN),
            ("shop/api", "shop/web", "TCP", REJECTED),
            ("shop/api", "shop/free", "TCP", REJECTED),
            ("shop/api", OUTSIDE, "TCP", REJECTED),
            ("shop/api", "n1", "TCP", REJECTED),
            ("shop/api", "n2", "TCP", REJECTED),
            ("shop/api", "shop/api", "TCP", OPEN),
            ("shop/web", "n1", "TCP", OPEN),
            ("shop/web", "shop/other", "SCTP", OPEN),
        ]
    ]
    world.enforce(API)
    found = world.outcomes(*(probe for probe, _ in asked))
    assert list(zip(found, (p for p, _ in asked), strict=True)) == [(e, p) for p, e in asked]


@backends
def test_with_node_egress_allow_only_the_source_is_asked_for(world: Bridged) -> None:
    world.options = {"node_egress": "allow"}
    world.enforce(API)
    probes = [Probe(src, "n1", "TCP", 80, family) for family in FAMILIES for src in ("shop/api", "shop/free")]
    assert world.outcomes(*probes) == [OPEN] * 4
    api, node = (str(world.lab.host(place).address(4)) for place in ("shop/api", "n1"))
    send_frame(world.lab, "shop/web", frame(GATEWAY, world.lab.host("shop/web").mac, udp(api, node, 80)))
    assert world.status("n1").spoofed == 1


@backends
def test_another_address_than_the_ports_own_is_dropped(world: Bridged) -> None:
    """To a pod on the bridge, to a pod elsewhere, and to the node."""
    world.enforce(API)
    web, near = world.lab.host("shop/web"), world.lab.host("shop/near")
    api, free = (str(world.lab.host(place).address(4)) for place in ("shop/api", "shop/free"))
    number = 0
    for lie in (api, free, "10.244.1.200", "192.0.2.66"):
        for place, mac in (("shop/near", near.mac), ("shop/other", GATEWAY), ("n1", GATEWAY)):
            target = str(world.lab.host(place).address(4))
            with listening(world.lab, place, target, 4444) as sock:
                send_frame(world.lab, "shop/web", frame(mac, web.mac, udp(lie, target, 4444)))
                assert not heard(sock, False), (lie, place)
            number += 1
            found = world.status("n1")
            assert found.spoofed + found.unknown == number, (lie, place)


@backends
def test_a_frame_to_another_port_than_the_addresss_is_dropped(world: Bridged) -> None:
    """As after a pod has said that another's address is at its own port: packets to that get lost, and are not read."""
    world.enforce("")
    web, near = world.lab.host("shop/web"), world.lab.host("shop/near")
    src, dst = str(web.address(4)), str(world.lab.host("shop/free").address(4))
    send_frame(world.lab, "shop/web", frame(near.mac, web.mac, udp(src, dst, 80)))
    assert world.status("n1").unknown == 1
    # The same frame, sent where it belongs.
    with listening(world.lab, "shop/free", dst, 4444) as sock:
        mac = world.lab.host("shop/free").mac
        send_frame(world.lab, "shop/web", frame(mac, web.mac, udp(src, dst, 4444)))
        assert heard(sock)


@backends
@pytest.mark.parametrize("group", ["255.255.255.255", "224.0.0.251"])
def test_groups_of_addresses_reach_pods_that_nothing_isolates(world: Bridged, group: str) -> None:
    """Address alone would let them through to everybody, or to nobody."""
    world.enforce(API)
    web = world.lab.host("shop/web")
    packet = udp(str(web.address(4)), group, 4444)
    to_all = frame(ALL, web.mac, packet)
    for place, expected in (("shop/free", True), ("shop/api", False)):
        with listening(world.lab, place, "0.0.0.0", 4444) as sock:
            if group.startswith("224"):
                member = socket.inet_aton(group) + socket.inet_aton(str(world.lab.host(place).address(4)))
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            send_frame(world.lab, "shop/web", to_all)
            assert heard(sock, expected) is expected, place
    # Its own policies decide what an isolated pod sends to a group.
    api = world.lab.host("shop/api")
    with listening(world.lab, "shop/free", "0.0.0.0", 4444) as sock:
        send_frame(world.lab, "shop/api", frame(ALL, api.mac, udp(str(api.address(4)), group, 4444)))
        assert not heard(sock, False)


@backends
@pytest.mark.parametrize("tags", [(0x8100,), (0x8100, 0x8100), (0x88A8, 0x8100)], ids=["tag", "two", "QinQ"])
def test_tagged_frames(world: Bridged, tags: tuple[int, ...]) -> None:
    """Whoever gets a frame with tags of VLAN 0 takes it as if it had none. A second tag hides its packet from
    iptables, whatever the sysctls say (ADR 0008): the commands that docs/enforcement.md shows drop it."""
    near, api = world.lab.host("shop/near"), world.lab.host("shop/api")
    target = str(api.address(4))
    tagged = frame(api.mac, near.mac, udp(str(near.address(4)), target, 4444), tags)
    with listening(world.lab, "shop/api", target, 4444) as sock:
        send_frame(world.lab, "shop/near", tagged)
        assert heard(sock), "without rules it arrives"
        world.enforce(API)
        send_frame(world.lab, "shop/near", tagged)
        hidden = len(tags) > 1
        assert heard(sock, hidden) is hidden
        for kind in ("0x8100", "0x88a8"):
            done = world.lab.run("n1", ["ebtables", "-A", "FORWARD", "-p", kind, "-j", "DROP"])
            assert done.returncode == 0, done.stderr
        send_frame(world.lab, "shop/near", tagged)
        assert not heard(sock, False)


@backends
def test_a_hairpin_through_a_service(world: Bridged) -> None:
    """A pod reaches itself through a Service: bridged back to the port that it came by, its source rewritten as
    kube-proxy does it after we have seen it."""
    world.enforce(API)
    services = {4: "10.96.0.1", 6: "fd00:10:96::1"}
    for family in FAMILIES:
        own = str(world.lab.host("shop/api").address(family))
        node = str(world.lab.host("n1").address(family))
        tool = f"{'iptables' if family == 4 else 'ip6tables'}-{world.backend.mode}"
        for rule in (
            ["PREROUTING", "-d", services[family], "-j", "DNAT", "--to-destination", own],
            ["POSTROUTING", "-s", own, "-d", own, "-j", "SNAT", "--to-source", node],
        ):
            done = world.lab.run("n1", [tool, "-t", "nat", "-A", *rule])
            assert done.returncode == 0, done.stderr
        probes = [Probe(f"shop/{src}", parse_address(services[family]), "TCP", 80) for src in ("api", "near", "web")]
        assert world.outcomes(*probes) == [OPEN, REJECTED, OPEN]


@backends
def test_a_port_of_which_nobody_knows_whose_it_is_stays_closed(world: Bridged, backend: Backend) -> None:
    """From the first packet: rules have not changed since the port came."""
    world.enforce(API)
    pod = world.lab.cluster.pods[0]
    added = world.lab.add(replace(pod, name="new", labels={}, addresses=()))
    both_ways = [
        Probe(*ends, "TCP", 80, family)
        for family in FAMILIES
        for ends in (("shop/free", "shop/new"), ("shop/new", "shop/free"), ("shop/far", "shop/new"), ("shop/new", "n1"))
    ]
    assert world.outcomes(*both_ways) == [DROPPED] * 8
    world.enforce(API)
    assert world.outcomes(*both_ways) == [OPEN] * 8
    assert added.name == "new"


@backends
def test_without_br_netfilter_nothing_is_pretended(world: Bridged, backend: Backend) -> None:
    compiled, view = world.compiled(API), world.view("n1")
    with world.lab.inside("n1"):
        assert bridge_filtering(FAMILIES) is None
        for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
            netns.set_sysctl(f"net.bridge.{name}", "0")
            with pytest.raises(HostRefused, match=rf"n1 can't be enforced: .*: sysctl -w net.bridge.{name}=1$"):
                plans(backend, compiled, view)
            netns.set_sysctl(f"net.bridge.{name}", "1")
        netns.set_sysctl("net.bridge.bridge-nf-call-ip6tables", "0")
        assert bridge_filtering((4,)) is None


@backends
def test_that_tagged_frames_pass_by_is_said_and_hinders_nothing(world: Bridged, backend: Backend) -> None:
    compiled, view = world.compiled(API), world.view("n1")
    with world.lab.inside("n1"):
        assert tags_pass_by() is None
        netns.set_sysctl("net.bridge.bridge-nf-filter-vlan-tagged", "0")
        assert str(tags_pass_by()).endswith("sysctl -w net.bridge.bridge-nf-filter-vlan-tagged=1")
        assert bridge_filtering(FAMILIES) is None and plans(backend, compiled, view)


@pytest.fixture
def wired(backend: Backend) -> Iterator[Bridged]:
    """A host of the wire behind a port of the pods' bridge, which is an uplink then."""
    with bridged(SHOP, backend) as made:
        wire = made.lab.host("n1").netns + ".wire"
        netns.create([wire])
        try:
            made.ip("n1", "link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", wire)
            made.ip("n1", "link", "set", "wire", "master", "cni0", "up")
            made.ip("n1", "addr", "add", "192.168.7.1/24", "dev", "cni0")
            for words in (
                "link set eth0 up",
                "addr add 192.168.7.2/24 dev eth0",
                "addr add fd07::2/64 dev eth0 nodad",
                "route add 10.244.1.0/24 dev eth0",
                "route add fd00:10:244:1::/64 dev eth0",
            ):
                done = netns.run_in(wire, ["ip", *words.split()])
                assert done.returncode == 0, done.stderr
            for pod in ("web", "api", "near", "free"):
                made.ip(f"shop/{pod}", "route", "add", "192.168.7.0/24", "dev", "eth0")
                made.ip(f"shop/{pod}", "-6", "route", "add", "fd07::/64", "dev", "eth0")
            bridges = made.view("n1").bridges | {"wire": "cni0"}
            made.options = {"uplinks": ("eth0", "cni0", "wire"), "bridges": bridges}
            yield made
        finally:
            netns.delete([wire])


@backends
def test_an_uplink_that_is_a_port_of_the_pods_bridge(wired: Bridged) -> None:
    wire = wired.lab.host("n1").netns + ".wire"
    wired.enforce_on("n1", API)
    wire_address = {4: "192.168.7.2", 6: "fd07::2"}
    kinds = {4: socket.AF_INET, 6: socket.AF_INET6}
    for family in FAMILIES:
        for pod, passes in (("free", True), ("api", False)):
            with listening(wired.lab, f"shop/{pod}", str(wired.lab.host(f"shop/{pod}").address(family)), 4444) as sock:
                with netns.inside(wire), socket.socket(kinds[family], socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"x", sock.getsockname()[:2])
                assert heard(sock, passes) is passes, pod
            with listening(wired.lab, "", wire_address[family], 4444, wire) as sock:
                with wired.lab.inside(f"shop/{pod}"), socket.socket(kinds[family], socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"x", (wire_address[family], 4444))
                assert heard(sock, passes) is passes, pod
    with listening(wired.lab, "n1", "192.168.7.1", 4444) as sock:
        with netns.inside(wire), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("192.168.7.1", 4444))
        assert heard(sock), "the node is reached by its bridge"


@backends
@pytest.mark.parametrize(
    ("kind", "sender", "receiver", "passes"),
    [
        (134, "shop/near", "shop/free", False),
        (134, "wire", "shop/api", True),
        (133, "shop/api", "wire", True),
        (133, "shop/api", "shop/free", False),
        (143, "shop/api", "wire", True),
        (137, "shop/near", "shop/free", False),
        (136, "shop/near", "shop/api", True),
    ],
    ids=["rogue router", "router", "solicitation", "solicitation to a pod", "listener", "redirect", "neighbour"],
)
def test_who_may_say_what_to_neighbours(wired: Bridged, kind: int, sender: str, receiver: str, passes: bool) -> None:
    """ICMPv6 from a link-local address to all nodes, which the bridge floods."""
    wired.enforce_on("n1", API)
    netns_of = {"wire": wired.lab.host("n1").netns + ".wire"}
    spaces = [netns_of.get(place) or wired.lab.host(place).netns for place in (sender, receiver)]
    with netns.inside(spaces[1]):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with sock:
        sock.settimeout(0.3)
        packet = icmp6("fe80::1:2", "ff02::1", kind)
        with netns.inside(spaces[0]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(frame("33:33:00:00:00:01", "02:00:00:00:00:99", packet, ethertype=0x86DD))
        assert heard(sock, passes, MARKER) is passes


@backends
def test_another_ipv6_address_than_the_ports_own_is_dropped(world: Bridged) -> None:
    world.enforce(API)
    web, near = world.lab.host("shop/web"), world.lab.host("shop/near")
    api, target = world.lab.host("shop/api").address(6), str(near.address(6))
    for number, lie in enumerate((str(api), "2001:db8::66", "fe80::66", str(web.address(6)))):
        with world.lab.inside("shop/near"):
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        with sock:
            sock.settimeout(0.3)
            packet = icmp6(lie, target, 128)
            send_frame(world.lab, "shop/web", frame(near.mac, web.mac, packet, ethertype=0x86DD))
            assert heard(sock, number == 3, MARKER) is (number == 3), lie
    assert world.status("n1", 6).spoofed == 3
