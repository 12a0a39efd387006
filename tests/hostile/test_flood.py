"""A pod that floods: others go on, logs stay bounded, the connection table does not fill. `-s` prints the figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median

import pytest

from benchmarks.frames import Batch, Flow, Sender
from enforcer.kernel.backend import Backend, Mode
from enforcer.kernel.nflog import NflogReader
from enforcer.rules.base import LOGS_PER_SECOND, UNCHECKED_LOGS_PER_SECOND
from lab.probe import Outcome, Probe
from policy.cidr import Address, parse_address
from tests.enforcer.bridged import FAMILIES
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
from tests.hostile.flood import Stream, flood
from tests.hostile.wire import UDP, udp

pytestmark = pytest.mark.kernel
RATE = 100_000
modes = pytest.mark.parametrize("mode", ["legacy", "nft"])


@pytest.fixture
def world(mode: Mode) -> Iterator[Attacked]:
    with attacked(Backend(mode, FAMILIES), "routed") as made:
        made.enforce(POLICIES)
        yield made


def denied(world: Attacked, count: int = 4000) -> list[Flow]:
    own, victim = (parse_address(world.address(place)) for place in (ATTACKER, VICTIM))
    return [Flow(own, victim, 1024 + number, DENIED) for number in range(count)]


def forged(world: Attacked, count: int = 20000) -> list[Flow]:
    """A source of its own for each packet."""
    victim, rng = parse_address(world.address(VICTIM)), Random(1)
    return [Flow(Address(4, 0x0B000000 + rng.randrange(1 << 24)), victim, 1024, ALLOWED) for _ in range(count)]


@modes
def test_others_go_on(world: Attacked, mode: Mode) -> None:
    """Flood and stream on cores of their own; turns, so that whatever else happens on the machine happens to both. The
    bound is loose, since the machine is shared; docs/attacks.md has the figures of a recording."""
    stream = Stream(world)
    ratios, costs, rates = [], [], []
    try:
        for _ in range(9):
            quiet = stream.rate(0.4)
            with flood(world, denied(world), RATE) as flooding:
                time.sleep(0.2)
                before, began = flooding.sent, time.monotonic()
                ratios.append(stream.rate(0.4) / quiet)
                rates.append((flooding.sent - before) / (time.monotonic() - began))
                costs.append(flooding.cost)
    finally:
        stream.close()
    print(f"\n{mode}: {median(rates):,.0f} denied packets a second of {median(costs):,.0f} ns each; the stream keeps")
    print(f"{median(ratios):.3f}: {' '.join(f'{each:.3f}' for each in sorted(ratios))}")
    assert median(rates) > 1000
    assert median(ratios) > 0.7


@modes
@pytest.mark.parametrize("kind", [denied, forged], ids=["denied", "forged"])
def test_what_is_told_of_a_flood_is_bounded(world: Attacked, mode: Mode, kind: object) -> None:
    """By the kernel, before anybody has to read it: also where each packet has a source of its own."""
    flows = kind(world)  # type: ignore[operator]
    with world.lab.inside("n1"), NflogReader(100) as reader, flood(world, flows, RATE) as flooding:
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            reader.read(0.1)
    told = reader.counts
    print(f"\n{mode}: {flooding.sent:,} packets in 3 s, told of {told.packets}, lost {told.lost}")
    assert flooding.sent > 10_000
    assert 0 < told.packets <= 4 * max(LOGS_PER_SECOND, UNCHECKED_LOGS_PER_SECOND)
    assert told.lost == 0


@modes
def test_denied_packets_take_no_room_in_the_connection_table(world: Attacked, mode: Mode) -> None:
    with flood(world, denied(world), RATE):
        time.sleep(1)
    assert entries(world) < 50
    with flood(world, forged(world), RATE):
        time.sleep(1)
    assert entries(world) < 50


def entries(world: Attacked) -> int:
    return int(world.lab.run("n1", ["conntrack", "-C"]).stdout)


@modes
def test_a_full_connection_table_opens_nothing(world: Attacked, mode: Mode) -> None:
    """Filled by a pod that nothing isolates, with as many flows as the kernel takes. Forbidden flows stay forbidden,
    open connections go on, and new ones push out the flood's, which nobody has answered."""
    room = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    src, nowhere = parse_address(world.address(FREE)), parse_address("198.51.100.1")
    flows = (Flow(src, nowhere, 1024 + number % 60000, 1 + number // 60000) for number in range(room + room // 8))
    stream = Stream(world)
    try:
        with world.lab.inside(FREE):
            sender = Sender("eth0")
        for part in batched(flows, 1000):
            Batch(GATEWAY, part).send(sender)
        sender.close()
        assert entries(world) > room * 0.95, "it is full"
        own, victim = world.address(ATTACKER), world.address(VICTIM)
        attempts = {
            f"{port}": [world.framed(ATTACKER, world.packet(own, UDP, udp(own, victim, port, marker(f"{port}"))))]
            for port in range(9000, 9050)
        }
        assert world.arrives(attempts) == set()
        assert stream.rate(0.1) > 0
        probes = [Probe(FRIEND, VICTIM, "TCP", ALLOWED), Probe(ATTACKER, VICTIM, "TCP", ALLOWED)]
        assert world.outcomes(*(probes * 5)) == [Outcome.OPEN, Outcome.REJECTED] * 5
        assert entries(world) > room * 0.9, "it still is"
    finally:
        stream.close()


def batched(flows: Iterator[Flow], size: int) -> Iterator[list[Flow]]:
    while part := list(islice(flows, size)):
        yield part
