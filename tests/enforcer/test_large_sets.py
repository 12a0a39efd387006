"""A set of a million entries, through the keeper and into the kernel: grown by a larger copy when it would overflow."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from enforcer.keeping.host import HostKernel
from enforcer.keeping.keep import Keeper
from enforcer.kernel.backend import Backend, Mode
from enforcer.kernel.ipset import Sets
from enforcer.rules.layout import NodeView
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Transaction
from lab import netns
from policy.cidr import Address, parse_cidr
from policy.model import NetworkPolicy, Peer, Pod, Port, Rule
from policy.selector import EVERYTHING, in_, selector

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
GROUPS, PORTS = 10, 100
FEW, MANY = 40, 1_000


def pods(first: int, last: int) -> Iterable[Pod]:
    for number in range(first * GROUPS, last * GROUPS):
        labels = {"group": f"g{number % GROUPS}"}
        yield Pod("a", f"far-{number}", labels, node="n2", addresses=(Address(4, (10 << 24) + number),))


@pytest.mark.parametrize("mode", ["nft"])
def test_a_million_entries(mode: Mode) -> None:
    """Ten groups of peers, each with a hundred ports of its own: one set of address and port."""
    near = Pod("a", "near", {}, node="n1", addresses=(Address(4, (172 << 24) + 1),))
    rules = tuple(
        Rule((Peer(pods=selector([in_("group", f"g{n}")])),), (Port("TCP", 1000 * n + 1, 1000 * n + PORTS),))
        for n in range(GROUPS)
    )
    policy = NetworkPolicy("a", "p", EVERYTHING, ("ingress",), rules, ())
    view = NodeView("n1", {near.key: "veth0"}, (parse_cidr("172.0.0.0/24"),))
    name = f"large-{os.getpid()}"
    netns.create([name])
    try:
        with netns.inside(name), Sets() as sets, HostKernel(Backend(mode, (4,)), sets) as kernel:
            keeper = Keeper(view, [4], kernel)
            keeper.start([near, policy, *pods(0, FEW)])
            (large,) = (found for found in sets.read(4).values() if found.ipset.type == "hash:ip,port")
            assert len(large.ipset.elements) == FEW * GROUPS * PORTS and large.maxelem < MANY * GROUPS * PORTS
            (steps,) = keeper.handle(pods(FEW, MANY))
            assert [type(step) for step in steps] == [MakeSet, Transaction, ChangeSet], "a larger copy, and one switch"
            assert isinstance(steps[2], ChangeSet) and "everyone" in steps[2].name
            (found,) = (step.ipset for step in steps if isinstance(step, MakeSet))
            assert len(found.elements) == MANY * GROUPS * PORTS == 1_000_000
            (steps,) = keeper.handle(pods(MANY, MANY + 1))
            assert {type(step) for step in steps} == {ChangeSet}, "there is room for more"
            (steps,) = keeper.tidy()
            assert DropSet(large.ipset.name) in steps
            (grown,) = (found for found in sets.read(4).values() if found.ipset.type == "hash:ip,port")
            assert len(grown.ipset.elements) == (MANY + 1) * GROUPS * PORTS
            assert grown.maxelem >= 2_000_000 and grown.references == 1
    finally:
        netns.delete([name])
