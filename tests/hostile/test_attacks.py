"""A pod that attacks with frames of its own making (CAP_NET_RAW, which Kubernetes gives by default): what of them
reaches a pod that policies close to it. Each attempt is made without rules first, where all that is no nonsense to the
kernel itself arrives; then with rules. docs/attacks.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.kernel.backend import Backend
from enforcer.kernel.headers import headers
from enforcer.kernel.weaknesses import weaknesses
from lab import netns
from lab.topology import OUTSIDE
from policy.cidr import Family
from tests.enforcer.bridged import FAMILIES, frame, listening
from tests.hostile.attack import (
    ALLOWED,
    ATTACKER,
    DENIED,
    FRIEND,
    GATEWAY,
    POLICIES,
    VICTIM,
    Attacked,
    Frames,
    attacked,
    marker,
)
from tests.hostile.wire import (
    ACK,
    DEST_OPTIONS,
    FIN,
    FRAGMENT,
    HOP_BY_HOP,
    PSH,
    ROUTING,
    RST,
    SYN,
    TCP,
    UDP,
    URG,
    fragment6,
    ip4,
    ip6,
    loose_source_route,
    routing6,
    tcp,
    udp,
)

pytestmark = pytest.mark.kernel

Attempts = dict[str, Frames]
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(params=["legacy-routed", "nft-routed", "legacy-bridge", "nft-bridge"])
def world(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    mode, _, attach = str(request.param).partition("-")
    with attacked(Backend(mode, FAMILIES), attach) as made:  # type: ignore[arg-type]
        yield made


def tried(world: Attacked, attempts: Attempts, sender: str = ATTACKER) -> None:
    """Each of `attempts` arrives without rules, and none with them."""
    assert world.arrives(attempts, sender) == attempts.keys()
    world.enforce(POLICIES)
    assert world.arrives(attempts, sender) == set()


def one(world: Attacked, src: str, protocol: int, data: Callable[[str, str], bytes], mac: str = "") -> Frames:
    """A packet from `src` to the victim."""
    dst = world.address(VICTIM, 6 if ":" in src else 4)
    return [world.framed(ATTACKER, world.packet(src, protocol, data(src, dst)), mac=mac)]


@families
def test_odd_flags_open_nothing(world: Attacked, family: Family) -> None:
    """Not even those that no connection begins with: INVALID is not ESTABLISHED, and meets the rules."""
    own = world.address(ATTACKER, family)
    flags = {
        "SYN": SYN,
        "SYN+FIN": SYN | FIN,
        "null": 0,
        "xmas": FIN | PSH | URG,
        "all": 63,
        "ACK": ACK,
        "RST": RST,
        "FIN": FIN,
        "SYN+ACK": SYN | ACK,
        "PSH+ACK": PSH | ACK,
    }
    attempts = {
        f"{name}-{port}": one(world, own, TCP, lambda a, b, p=port, f=bits, n=name: tcp(a, b, p, f, marker(f"{n}-{p}")))
        for name, bits in flags.items()
        for port in (ALLOWED, DENIED)
    }
    tried(world, attempts)


@families
def test_odd_flags_reach_no_other_port_of_a_friend(world: Attacked, family: Family) -> None:
    """A pod that may use one port gets no segment to another."""
    own, dst = world.address(FRIEND, family), world.address(VICTIM, family)
    attempts: Attempts = {
        name: [world.framed(FRIEND, world.packet(own, TCP, tcp(own, dst, DENIED, bits, marker(name))))]
        for name, bits in {"SYN": SYN, "null": 0, "xmas": FIN | PSH | URG, "ACK": ACK, "SYN+ACK": SYN | ACK}.items()
    }
    tried(world, attempts, FRIEND)


# Source addresses that the kernel never forwards, whoever sends them.
_MARTIANS = {4: ("127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"), 6: ("::1", "ff02::1", "::")}
_STRANGERS = {4: ("10.244.1.200", "198.51.100.7", "169.254.7.7"), 6: ("fd00:10:244:1::aaaa", "2001:db8::7", "fe80::7")}


@families
def test_a_source_address_that_is_anothers_gains_nothing(world: Attacked, family: Family) -> None:
    """A friend's, the node's, another node's pod's, nobody's, outside's, the victim's own."""
    others = [world.address(place, family) for place in (FRIEND, "shop/far", "n1", "n2", OUTSIDE)]
    sources = [*others, *_STRANGERS[family], *_MARTIANS[family], world.address(VICTIM, family)]
    attempts = {
        src: one(world, src, UDP, lambda a, b, s=src: udp(a, b, ALLOWED, marker(s)))
        for src in sources
    }  # fmt: skip
    attempts |= {
        f"tcp {src}": one(world, src, TCP, lambda a, b, s=src: tcp(a, b, ALLOWED, SYN, marker(f"tcp {s}")))
        for src in others[:2]
    }
    control = world.arrives(attempts)
    assert control >= {others[0], others[1], f"tcp {others[0]}", _STRANGERS[family][0]}, "lies work without rules"
    world.enforce(POLICIES)
    assert world.arrives(attempts) == set()
    found = world.status("n1", family)
    assert found.spoofed >= 4


@families
@pytest.mark.parametrize("whose", [FRIEND, "n1", "nobody"])
def test_a_mac_address_that_is_anothers_gains_nothing(world: Attacked, family: Family, whose: str) -> None:
    """With the attacker's own address and with the friend's. The bridge then thinks that the friend is where the
    attacker is, until that speaks again: the friend's frames are lost meanwhile, none is read."""
    mac = "02:00:00:00:00:77" if whose == "nobody" else (GATEWAY if whose == "n1" else world.mac(FRIEND))
    attempts = {
        src: one(world, world.address(src, family), TCP, lambda a, b, s=src: tcp(a, b, ALLOWED, SYN, marker(s)), mac)
        for src in (ATTACKER, FRIEND)
    }
    tried(world, attempts)


def _fragments4(world: Attacked, sender: str, port: int) -> Attempts:
    """A segment to `port` that is cut up in ways that hide its port from those who look at single fragments."""
    src, dst = world.address(sender), world.address(VICTIM)

    def cut(name: str, *spans: tuple[int, int], to: int = port) -> list[bytes]:
        data = tcp(src, dst, to, SYN, marker(name) * 4)
        data += bytes(-len(data) % 8)
        number = abs(hash(name)) % 60000 + 1
        return [
            ip4(src, dst, TCP, data[a:b], offset=a // 8, more=b < len(data) and b > 0, number=number)
            for a, b in ((a, b or len(data)) for a, b in spans)
        ]

    def framed(packets: list[bytes]) -> Frames:
        return [world.framed(sender, packet) for packet in packets]

    decoy = cut("overlap", (0, 24), to=ALLOWED)
    return {
        "tiny": framed(cut("tiny", (0, 8), (8, 0))),
        "backwards": framed(cut("backwards", (8, 0), (0, 8))),
        "three": framed(cut("three", (0, 8), (8, 16), (16, 0))),
        "overlap": framed([*decoy, *cut("overlap", (0, 24), (24, 0))]),
        "rewrite": framed([*cut("rewrite", (0, 24), to=ALLOWED), *cut("rewrite", (8, 24), (24, 0))]),
        "later alone": framed(cut("later alone", (32, 0))),
        "first alone": framed(cut("first alone", (0, 64))),
    }


def assert_open_ports_only(world: Attacked, attempts: Attempts) -> None:
    """Of fragments that overlap the kernel takes the first: where that says an open port, it is an open port that it
    goes to. Later fragments, which have no port, only come with a first one."""
    heard = [headers(data[14:]) for data in world.what_arrives(attempts, FRIEND)]
    ports = [found.port for found in heard if found and found.protocol == "TCP"]
    assert DENIED not in ports
    assert set(ports) <= {ALLOWED, None}
    assert ALLOWED in ports or not ports


def test_fragments_hide_no_port_v4(world: Attacked) -> None:
    """Connection tracking puts them together before any rule sees them, and drops those that overlap."""
    world.enforce(POLICIES)
    assert world.arrives(_fragments4(world, ATTACKER, ALLOWED)) == set()
    assert_open_ports_only(world, _fragments4(world, FRIEND, DENIED))
    attempts = _fragments4(world, FRIEND, ALLOWED)
    assert world.arrives(attempts, FRIEND) >= {"tiny", "backwards", "three"}, "whole ones to an open port arrive"


def _fragments6(world: Attacked, sender: str, port: int) -> Attempts:
    src, dst = world.address(sender, 6), world.address(VICTIM, 6)
    pad = bytes([TCP, 1]) + b"\x01\x0c" + bytes(12)  # destination options of sixteen bytes, TCP behind them

    def packets(name: str, chain: bytes, first: int, *spans: tuple[int, int], to: int = port) -> list[bytes]:
        data = chain + tcp(src, dst, to, SYN, marker(name) * 4)
        data += bytes(-len(data) % 8)
        number = abs(hash(name)) % 60000 + 1
        cut = ((a, b or len(data)) for a, b in spans)
        parts = [fragment6(first, data[a:b], offset=a // 8, more=b < len(data), number=number) for a, b in cut]
        return [ip6(src, dst, FRAGMENT, part) for part in parts]

    def framed(found: list[bytes]) -> Frames:
        return [world.framed(sender, packet) for packet in found]

    decoy = packets("overlap", b"", TCP, (0, 24), to=ALLOWED)
    hop = bytes([TCP, 0]) + b"\x01\x04" + bytes(4)
    options = ip6(src, dst, HOP_BY_HOP, hop + tcp(src, dst, port, SYN, marker("hop by hop")))
    return {
        "atomic": framed(packets("atomic", b"", TCP, (0, 0))),
        "tiny": framed(packets("tiny", b"", TCP, (0, 8), (8, 0))),
        "two": framed(packets("two", b"", TCP, (0, 32), (32, 0))),
        "no ports": framed(packets("no ports", pad, DEST_OPTIONS, (0, 16), (16, 0))),
        "no ports backwards": framed(packets("no ports backwards", pad, DEST_OPTIONS, (16, 0), (0, 16))),
        "overlap": framed([*decoy, *packets("overlap", b"", TCP, (0, 24), (24, 0))]),
        "later alone": framed(packets("later alone", b"", TCP, (32, 0))),
        "first alone": framed(packets("first alone", b"", TCP, (0, 64))),
        "hop by hop": framed([options]),
    }


def test_fragments_and_extension_headers_hide_no_port_v6(world: Attacked) -> None:
    world.enforce(POLICIES)
    assert world.arrives(_fragments6(world, ATTACKER, ALLOWED)) == set()
    assert_open_ports_only(world, _fragments6(world, FRIEND, DENIED))
    attempts = _fragments6(world, FRIEND, ALLOWED)
    found = world.arrives(attempts, FRIEND)
    assert found >= {"atomic", "two", "hop by hop"}, "whole ones to an open port arrive"
    assert not found & {"tiny", "no ports"}, "the kernel wants all headers in the first fragment (RFC 7112)"


@pytest.mark.parametrize("tags", [(0x8100,), (0x8100, 0x8100), (0x88A8, 0x8100)], ids=["tag", "two", "QinQ"])
def test_tags_lead_around_nothing_where_the_node_routes(tags: tuple[int, ...]) -> None:
    """Bridged nodes: tests/enforcer/test_bridged.py, test_tagged_frames."""
    for mode in ("legacy", "nft"):
        with attacked(Backend(mode, FAMILIES), "routed") as world:  # type: ignore[arg-type]
            src, dst = world.address(ATTACKER), world.address(VICTIM)
            packet = world.packet(src, UDP, udp(src, dst, ALLOWED, marker("tagged")))
            attempts = {"tagged": [frame(GATEWAY, world.mac(ATTACKER), packet, tags)]}
            tried(world, attempts)


def _routes(world: Attacked) -> Attempts:
    """Packets to the node that ask it to send them on to the victim."""
    node, victim = world.address("n1"), world.address(VICTIM)
    node6, victim6 = world.address("n1", 6), world.address(VICTIM, 6)
    own, own6 = world.address(ATTACKER), world.address(ATTACKER, 6)
    found: Attempts = {}
    name = "LSRR"
    packet = ip4(own, node, UDP, udp(own, victim, ALLOWED, marker(name)), options=loose_source_route(victim))
    found[name] = [world.framed(ATTACKER, packet, "n1")]
    for kind in (0, 4):
        name = f"RH{kind}"
        data = routing6(kind, UDP, victim6) + udp(own6, victim6, ALLOWED, marker(name))
        found[name] = [world.framed(ATTACKER, ip6(own6, node6, ROUTING, data), "n1")]
    return found


def test_source_routes_lead_around_nothing(world: Attacked) -> None:
    """The kernel's defaults refuse them. Where the node's sysctls say otherwise, rules see where they lead."""
    attempts = _routes(world)
    assert world.arrives(attempts) == set()
    with world.lab.inside("n1"):
        allow_source_routes()
    assert world.arrives(attempts) == {"LSRR", "RH4"}
    world.enforce(POLICIES)
    assert world.arrives(attempts) == set()


@pytest.mark.parametrize("way", ["LSRR", "RH4"])
def test_a_source_route_in_an_open_flow_to_the_node_is_a_weakness_that_is_said(world: Attacked, way: str) -> None:
    """The flow is the attacker's own, to its node; its packets ask to be sent on to the victim. With the kernel's
    defaults none is; with others rule 1 lets them pass, and podfence says what to do."""
    family: Family = 4 if way == "LSRR" else 6
    node, own, victim = (world.address(place, family) for place in ("n1", ATTACKER, VICTIM))
    world.enforce(POLICIES)
    with (
        listening(world.lab, "n1", node, 4445) as server,
        listening(world.lab, ATTACKER, own, 40000) as client,
    ):
        client.sendto(b"open", (node, 4445))
        _, back = server.recvfrom(99)
        server.sendto(b"answer", back)
        assert client.recv(99) == b"answer"
        # The sum is right for the node, where the flow is looked up: another would be INVALID there.
        datagram = udp(own, node, 4445, marker(way))
        if family == 4:
            packet = ip4(own, node, UDP, datagram, options=loose_source_route(victim))
        else:
            packet = ip6(own, node, ROUTING, routing6(4, UDP, victim) + datagram)
        attempt = {way: [world.framed(ATTACKER, packet, "n1")]}
        with world.lab.inside("n1"):
            assert weaknesses(False) == ()
        assert world.arrives(attempt) == set()
        with world.lab.inside("n1"):
            allow_source_routes()
            said = [found for found in weaknesses(False) if f"net.ipv{family}" in found]
        assert world.arrives(attempt) == {way}, "if it does not arrive any more, it is no weakness any more"
        command = said[0].partition("set it: ")[2]
        assert world.lab.run("n1", command.split()).returncode == 0
        assert world.arrives(attempt) == set(), "the command that is shown closes it"


def allow_source_routes() -> None:
    for kind, name in (("ipv4", "accept_source_route"), ("ipv6", "seg6_enabled")):
        for device in sorted(Path(f"/proc/sys/net/{kind}/conf").iterdir()):
            netns.set_sysctl(f"net.{kind}.conf.{device.name.replace('.', '/')}.{name}", "1")
