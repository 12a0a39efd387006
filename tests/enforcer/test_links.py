"""The host's interfaces, read and followed on a real kernel: what is found, how soon, and that nothing is missed."""

from __future__ import annotations

import os
import queue
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

import pytest

from enforcer.attachment.attach import Attached, attach
from enforcer.attachment.hostview import HostView, own_addresses
from enforcer.attachment.links import HostLinks, dump
from enforcer.attachment.places import hashed_names
from lab import netns
from policy.cidr import parse_address, parse_cidr
from policy.model import Pod

pytestmark = pytest.mark.kernel

CIDRS = (parse_cidr("10.244.1.0/24"), parse_cidr("fd00:1::/64"))
_numbers = count()


def ip(*lines: str) -> None:
    """What `ip -batch` reads; in the namespace of this thread."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


@pytest.fixture
def pods() -> Iterator[str]:
    """This thread is in a node's namespace with an uplink; the name of a namespace where pods' ends of veths go."""
    node, elsewhere = (f"links-{os.getpid()}-{next(_numbers)}" for _ in range(2))
    netns.create([node, elsewhere])
    try:
        with netns.inside(node):
            ip(
                "link set lo up",
                f"link add eth0 type veth peer name eth0 netns {elsewhere}",
                "link set eth0 up",
                "addr add 192.168.0.10/24 dev eth0",
                "route add default via 192.168.0.1",
            )
            yield elsewhere
    finally:
        netns.delete([node, elsewhere])


def veths(pods: str, names: Sequence[str], master: str = "") -> list[str]:
    made = [f"link add {name} type veth peer name p{name[:13]} netns {pods}" for name in names]
    port = [f"link set {name} master {master}" for name in names] if master else []
    return [*made, *port, *(f"link set {name} up" for name in names)]


def pod(name: str, *addresses: str) -> Pod:
    return Pod("shop", name, {}, f"uid-{name}", "n1", tuple(map(parse_address, addresses)), phase="Running")


def attached(host: HostView, *pods: Pod) -> Attached:
    return attach(host, pods, pod_cidrs=CIDRS)


class Followed:
    """The views that a follower tells."""

    def __init__(self) -> None:
        self.views: queue.Queue[HostView] = queue.Queue()
        self.last = HostView()

    def settle(self, seconds: float = 10.0) -> HostView:
        """The first view that is what the kernel has; the last one where none comes to be."""
        deadline = time.monotonic() + seconds
        while True:
            while not self.views.empty():
                self.last = self.views.get()
            if self.last == dump() or time.monotonic() > deadline:
                return self.last
            time.sleep(0.002)

    def agree(self) -> None:
        found, fresh = self.settle(), dump()
        for field in HostView.__struct_fields__:
            assert getattr(found, field) == getattr(fresh, field), field


@contextmanager
def following(**options: int) -> Iterator[tuple[Followed, HostLinks]]:
    followed = Followed()
    with HostLinks(followed.views.put, **options) as links:
        yield followed, links


def test_routed(pods: str) -> None:
    ip(
        *veths(pods, ["v1", "v2"]),
        "route add 10.244.1.2/32 dev v1",
        "route add fd00:1::2/128 dev v1",
        "route add 10.244.1.3/32 dev v2 table 101",
    )
    found = attached(dump(), pod("a", "10.244.1.2", "fd00:1::2"), pod("b", "10.244.1.3"), pod("c", "10.244.1.4"))
    assert found.veths == {"shop/a": "v1", "shop/b": "v2"}
    assert found.uplinks == ("eth0",)
    assert found.unattached.keys() == {"shop/c"}
    assert own_addresses(dump()) >= {parse_address("192.168.0.10"), parse_address("127.0.0.1")}


def test_a_route_over_several(pods: str) -> None:
    ip(*veths(pods, ["v1", "v2"]), "route add 10.244.1.2/32 nexthop dev v1 nexthop dev v2")
    assert not attached(dump(), pod("a", "10.244.1.2")).veths


def say_something(pods: str, interface: str, to: str) -> None:
    """One datagram to a port that nobody listens at; before it goes, each end learns the other's MAC address."""
    with netns.inside(pods):
        netns.settle_link(interface)
        with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (to, 9))


T = TypeVar("T")


def wait_for(look: Callable[[], T], good: Callable[[T], bool], seconds: float = 10.0) -> T:
    """What is seen when it is good, or when time is up."""
    deadline = time.monotonic() + seconds
    while not good(found := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_bridge(pods: str, family: int) -> None:
    """Who speaks on a bridge is found by what the bridge and the neighbour table learn from it."""
    gateway, address, length = (("10.244.1.1", "10.244.1.2", 24), ("fd00:1::1", "fd00:1::2", 64))[family == 6]
    ip(
        "link add cni0 type bridge",
        "link set cni0 up",
        f"addr add {gateway}/{length} dev cni0 {'nodad' if family == 6 else ''}",
        *veths(pods, ["v1", "v2"], master="cni0"),
    )
    with netns.inside(pods):
        ip("link set lo up", "link set pv1 up", f"addr add {address}/{length} dev pv1 {'nodad' if family == 6 else ''}")
    assert not attached(dump(), pod("a", address)).veths
    say_something(pods, "pv1", gateway)
    found = wait_for(lambda: attached(dump(), pod("a", address)), lambda found: bool(found.veths))
    assert found.veths == {"shop/a": "v1"}
    assert found.bridges == {"v1": "cni0", "v2": "cni0"}
    assert found.strangers == ("v2",)
    assert found.uplinks == ("eth0",)


def test_docker_beside_pods(pods: str) -> None:
    ip(
        "link add docker0 type bridge",
        "addr add 172.17.0.1/16 dev docker0",
        "link set docker0 up",
        *veths(pods, ["veth1234567"], master="docker0"),
        "link add here0 type veth peer name here1",
        "link set here0 up",
        *veths(pods, [hashed_names("shop", "later")[0]]),
    )
    found = attached(dump(), pod("a", "10.244.1.2"))
    assert found.strangers == (hashed_names("shop", "later")[0],)
    assert not {"docker0", "veth1234567", "here0"} & set(found.uplinks)


def test_named_by_hash(pods: str) -> None:
    ip(*veths(pods, [hashed_names("shop", "a")[1]]))
    assert attached(dump(), pod("a", "10.0.0.7")).veths == {"shop/a": hashed_names("shop", "a")[1]}


def test_250_veths(pods: str) -> None:
    names = [f"v{number}" for number in range(250)]
    with following() as (followed, _):
        ip(*veths(pods, names), *(f"route add 10.244.1.{n + 1}/32 dev v{n}" for n in range(250)))
        followed.agree()
        found = attached(followed.last, *(pod(f"p{n}", f"10.244.1.{n + 1}") for n in range(250)))
    assert found.veths == {f"shop/p{n}": f"v{n}" for n in range(250)}


def test_a_burst_that_is_gone_again(pods: str) -> None:
    names = [f"v{number}" for number in range(40)]
    with following() as (followed, links):
        followed.agree()
        before = followed.last
        for _ in range(3):
            ip(*veths(pods, names), *(f"route add 10.244.1.{n + 1}/32 dev v{n}" for n in range(40)))
            ip(*(f"link del {name}" for name in names))
        followed.agree()
        assert followed.last == before
        assert links.dumps == 1, "nothing was lost"


def test_what_the_kernel_does_without_a_word(pods: str) -> None:
    with following() as (followed, _):
        steps = [
            [*veths(pods, ["v1", "v2"]), "route add 10.244.1.2/32 dev v1", "route add fd00:1::2/128 dev v1"],
            ["route replace 10.244.1.2/32 dev v2", "route replace fd00:1::2/128 dev v2"],
            ["link set v2 down"],
            ["link set v2 up"],
            ["link add cni0 type bridge", "addr add 10.244.1.1/24 dev cni0", "link set cni0 up"],
            ["route add 10.9.0.0/24 via 192.168.0.1 src 10.244.1.1"],
            ["addr del 10.244.1.1/24 dev cni0"],
            ["link set v2 master cni0", "link set v2 nomaster"],
            ["link add near type veth peer name far", "link set near up", f"link set far netns {pods}"],
            ["link set v1 down", "link set v1 name v9"],
            ["link del cni0", "link del v2", f"link add v2 index 77 type veth peer name again netns {pods}"],
        ]
        for step in steps:
            ip(*step)
            followed.agree()


def test_lost_events(pods: str) -> None:
    """With room for few events, they are lost, and everything is read anew."""
    with following(event_buffer=4096) as (followed, links):
        followed.agree()
        for turn in range(20):
            names = [f"v{turn}-{number}" for number in range(40)]
            ip(*veths(pods, names), *(f"route add 10.244.1.{n + 1}/32 dev {name}" for n, name in enumerate(names)))
            followed.agree()
            ip(*(f"link del {name}" for name in names))
            if links.dumps > 1:
                break
        followed.agree()
        assert links.dumps > 1
        assert links.alive
        assert links.failure is None


def test_what_makes_no_difference_is_not_told(pods: str) -> None:
    ip(*veths(pods, ["v1"]))
    with following() as (followed, _):
        followed.agree()
        time.sleep(0.1)
        assert followed.views.empty()
        ip("route add blackhole 10.99.0.0/16", "rule add from 10.9.9.9 lookup 77")
        time.sleep(0.1)
        assert followed.views.empty()


FORGER = """
import socket, sys, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("pv1", 0))
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    sock.send(b"\\xff" * 6 + b"\\x02" + number.to_bytes(5, "big") + b"\\x88\\xb5" + bytes(46))
    time.sleep(float(sys.argv[3]))
"""


def forge(pods: str, *words: str) -> None:
    with netns.inside(pods):
        forger = subprocess.Popen([sys.executable, "-c", FORGER, *words])
    assert forger.wait(30) == 0


def test_a_pod_that_forges_addresses_gets_a_share_of_a_core(pods: str) -> None:
    """Each forged address is an entry of the bridge, which the kernel tells of: with many of them some more each second
    kept a core busy."""
    ip(
        "link add cni0 type bridge",
        "addr add 10.244.1.1/24 dev cni0",
        "link set cni0 up",
        f"link add v1 type veth peer name pv1 netns {pods}",
        "link set v1 master cni0 up",
    )
    subprocess.run(["ip", "-n", pods, "link", "set", "pv1", "up"], check=True, env=_environment())
    with following() as (followed, _):
        followed.agree()
        forge(pods, "0", "40000", "0.00001")
        followed.agree()
        began, cpu = time.monotonic(), time.process_time()
        forge(pods, "100000", "101500", "0.003")
        spent, lasted = time.process_time() - cpu, time.monotonic() - began
        assert spent < 0.2 * lasted
        ip(f"link add v2 type veth peer name pv2 netns {pods}", "link set v2 master cni0 up")
        followed.agree()


@pytest.mark.parametrize("seed", range(6))
def test_random_histories(pods: str, seed: int) -> None:
    """The slow twin: after each few steps, what was followed is what a reading finds, and so are the attachments."""
    rng = random.Random(seed)
    history = History(rng, pods)
    known = [pod(f"p{n}", f"10.244.1.{n + 2}", f"fd00:1::{n + 2:x}") for n in range(8)]
    with following() as (followed, links):
        for _ in range(25):
            for _ in range(rng.randint(1, 6)):
                history.step()
            followed.agree()
            assert attached(followed.last, *known) == attached(dump(), *known)
        assert links.dumps == 1


class History:
    """Random things that happen to a node. A step that the kernel refuses is a step too."""

    def __init__(self, rng: random.Random, pods: str) -> None:
        self._rng = rng
        self._pods = pods

    def step(self) -> None:
        rng = self._rng
        name, address = f"v{rng.randrange(6)}", rng.randrange(8) + 2
        mac, family = f"02:00:00:00:00:{rng.randrange(4):02x}", rng.choice(("-4", "-6"))
        host = f"10.244.1.{address}" if family == "-4" else f"fd00:1::{address:x}"
        length = 32 if family == "-4" else 128
        change = rng.choice(("add", "replace", "append", "del"))
        lines = [
            f"link add {name} type veth peer name p{name} netns {self._pods}",
            f"link add {name} type veth peer name q{name}",
            f"link set q{name} netns {self._pods}",
            f"link del {name}",
            f"link set {name} up",
            f"link set {name} up",
            f"link set {name} down",
            f"link set {name} master br{rng.randrange(2)}",
            f"link set {name} nomaster",
            f"link add br{rng.randrange(2)} type bridge",
            f"link set br{rng.randrange(2)} up",
            f"link del br{rng.randrange(2)}",
            f"addr add 10.244.1.{rng.choice((1, 100))}/24 dev br{rng.randrange(2)}",
            f"addr del 10.244.1.{rng.choice((1, 100))}/24 dev br{rng.randrange(2)}",
            f"addr add fd00:1::1/64 dev br{rng.randrange(2)} nodad",
            f"{family} route {change} {host}/{length} dev {name}",
            f"{family} route {change} {host}/{length} dev {name} metric {rng.choice((5, 7))}",
            f"{family} route {change} {host}/{length} dev {name} table {rng.choice((101, 102))}",
            f"route {change} 10.77.0.0/24 via 192.168.0.1 src 10.244.1.1",
            f"route {change} 10.244.1.{address}/32 nexthop dev v0 nexthop dev v1",
            f"neigh {rng.choice(('replace', 'del'))} {host} lladdr {mac} nud stale dev br{rng.randrange(2)}",
        ]
        self._run("ip", *rng.choice(lines).split())
        if rng.random() < 0.3:
            change = rng.choice(("replace", "del"))
            self._run("bridge", "fdb", change, mac, "dev", name, "master", rng.choice(("static", "dynamic")))

    def _run(self, *words: str) -> None:
        subprocess.run(words, capture_output=True, check=False, env=_environment())
