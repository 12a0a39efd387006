"""A lane: a node with one set of rules, and the frames whose way through them is timed.

Lanes that are compared stand beside each other and take turns, sample by sample, so that what else happens on the
machine happens to all. A ratio is the median over the turns.

The receiver's end of the veth takes frames for another station: the last thing that a frame meets is the counter of its
interface, which proves for each sample that all flows passed.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from msgspec import Struct

from benchmarks.frames import Batch, Flow, Sender
from benchmarks.scenario import BLOCK, NODE, Scenario, veth
from benchmarks.shapes import Shape
from enforcer.kernel.backend import Backend, Mode
from enforcer.rules.layout import NodeView, local_pods
from lab import netns
from lab.cluster import Lab
from lab.topology import OUTSIDE
from policy.errors import HostRefused
from policy.model import Cluster, Node, Pod

SRC, DST = "pods/src", "pods/dst"
FEWEST_FLOWS = 10
_SAMPLE_NS = 6_000_000
_GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
_NOBODYS_MAC = "02:00:00:00:00:99"
_numbers = count()


class Setup(Struct, frozen=True):
    """What a lane is made of."""

    mode: Mode
    shape: Shape
    scenario: Scenario


class Lane:
    """Frames of a scenario, sent through the rules that are installed on its node."""

    def __init__(self, lab: Lab, scenario: Scenario) -> None:
        self._lab = lab
        self._flows = scenario.flows
        if scenario.sender == "src":
            sends, device, self._mac = SRC, "eth0", _GATEWAY_MAC
        else:
            node = lab.host(NODE)
            sends, device, self._mac = OUTSIDE, node.link, node.mac
        with lab.inside(sends):
            self._sender = Sender(device)
        self._batch = Batch(self._mac, self._flows[:FEWEST_FLOWS])

    def close(self) -> None:
        self._sender.close()

    def size(self) -> None:
        """Makes the batch as large as a sample of some milliseconds takes, after a look at what a flow costs."""
        cost = min(self.sample() for _ in range(2))
        self._batch = Batch(self._mac, self._flows[: max(FEWEST_FLOWS, int(_SAMPLE_NS / cost))])

    def sample(self) -> float:
        """Nanoseconds a flow, all flows being new. HostRefused where not all of them arrived."""
        with self._lab.inside(NODE):
            forget_flows()
        before = self._arrived()
        spent = self._batch.send(self._sender)
        arrived = self._arrived() - before
        if arrived != self._batch.count:
            raise HostRefused(f"{arrived} of {self._batch.count} flows passed, all should")
        return spent / self._batch.count

    def passed(self, flows: Sequence[Flow]) -> int:
        """How many of `flows` arrive."""
        before = self._arrived()
        Batch(self._mac, flows).send(self._sender)
        return self._arrived() - before

    def lost(self) -> float:
        """Nanoseconds for a frame that the node's veth takes for another station's: what the sender itself costs."""
        batch = Batch(_NOBODYS_MAC, self._flows)
        return batch.send(self._sender) / batch.count

    def _arrived(self) -> int:
        with self._lab.inside(DST):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        return next(int(line.split()[2]) for line in lines if line.lstrip().startswith("eth0:"))


@contextmanager
def lanes(wanted: Mapping[str, Setup]) -> Iterator[dict[str, Lane]]:
    """Each with a lab of its own, and its rules installed there."""
    with ExitStack() as exits:
        yield {name: exits.enter_context(_lane(setup)) for name, setup in wanted.items()}


@contextmanager
def _lane(setup: Setup) -> Iterator[Lane]:
    scenario = setup.scenario
    ends = [
        Pod("pods", name, {}, node=NODE, addresses=pod.addresses)
        for name, pod in (("src", scenario.src), ("dst", scenario.dst))
    ]
    bare = Cluster([], ends, [], [], [], [Node(NODE, {}, pod_cidrs=(BLOCK,))])
    with Lab(f"bench-{os.getpid()}-{next(_numbers)}", bare) as lab:
        _quiet(lab)
        _divert(lab)
        real = {scenario.src.key: lab.host(SRC).link, scenario.dst.key: lab.host(DST).link}
        with lab.inside(NODE):
            setup.shape(scenario.compiled, node_view(scenario, real)).install(Backend(setup.mode, (4,)))
        lane = Lane(lab, scenario)
        try:
            yield lane
        finally:
            lane.close()


def node_view(scenario: Scenario, real: Mapping[str, str] | None = None) -> NodeView:
    """The node as its rules are laid out for. `real`: the veths that do exist, by pod."""
    veths = {pod.key: veth(pod) for pod in local_pods(scenario.compiled, NODE)}
    return NodeView(NODE, {**veths, **(real or {})}, (BLOCK,), ("eth0",))


def turns(made: Mapping[str, Lane], rounds: int) -> dict[str, list[float]]:
    """Nanoseconds a flow, sample by sample; a round asks each lane once, every other round the other way round."""
    for lane in made.values():
        lane.size()
    found: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(rounds):
        for name in list(made)[:: 1 if turn % 2 else -1]:
            found[name].append(made[name].sample())
    return found


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Turn by turn."""
    return [a / b for a, b in zip(of, to, strict=True)]


@contextmanager
def on_one_core() -> Iterator[None]:
    """The thread stays on the last core that it may use: a frame's way is walked where it is sent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


_NETLINK_NETFILTER = 12
_CTNETLINK_DELETE = 1 << 8 | 2
_REQUEST_ACK = 5


def forget_flows() -> None:
    """Ends every flow that the namespace of the thread tracks (ctnetlink: a deletion that names no flow)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, _CTNETLINK_DELETE, _REQUEST_ACK, 0, 0, socket.AF_UNSPEC, 0, 0))
        (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
        if error:
            raise OSError(-error, f"flows can't be forgotten: {os.strerror(-error)}")


def _quiet(lab: Lab) -> None:
    """No IPv6, which now and then speaks of its own accord, and would be counted."""
    for place in (OUTSIDE, NODE, SRC, DST):
        with lab.inside(place):
            netns.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")


def _divert(lab: Lab) -> None:
    """Frames to DST are sent to a station that is not there, so that no socket and no ICMP error costs time."""
    host = lab.host(DST)
    words = ["neigh", "replace", str(host.address(4)), "lladdr", _NOBODYS_MAC, "dev", host.link, "nud", "permanent"]
    done = lab.run(NODE, ["ip", *words])
    if done.returncode:
        raise HostRefused(f"ip {' '.join(words)}: {done.stderr.strip()}")
