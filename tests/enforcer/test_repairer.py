"""What the agent's loop is told: what was wrong, in a line, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import TypeVar

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted, Event
from enforcer.keeping.host import HostKernel
from enforcer.keeping.keep import Keeper
from enforcer.keeping.repair import Repairer
from enforcer.kernel.drift import Watch, Wrote
from enforcer.kernel.ipset import Sets
from enforcer.rules.plan import Actual
from enforcer.rules.steps import Transaction
from lab.cluster import Lab
from policy.cidr import Family
from policy.decode import decode_objects
from tests.enforcer.shop import API
from tests.enforcer.test_keep import FAMILIES, FakeKernel, StepFailed, view_of
from tests.enforcer.test_kernel import SHOP, read_documents
from tests.enforcer.test_plan import lively
from tests.enforcer.test_repair import BACKENDS, Node, World

Made = TypeVar("Made", bound=FakeKernel)


class FakeWatch:
    """Sees what it is told."""

    def __init__(self) -> None:
        self.seen = True

    def look(self) -> None:
        self.seen = True

    def ours(self, wrote: Wrote | None = None) -> None:
        self.look()

    def changed(self) -> bool:
        return not self.seen


def kept(kernel: Made) -> tuple[Made, Keeper]:
    found = decode_objects(lively(Random(1))).cluster
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    keeper.start([*found.namespaces, *found.pods, *found.policies])
    return kernel, keeper


def test_damage_is_told_and_counted_once() -> None:
    kernel, keeper = kept(FakeKernel())
    watch, now = FakeWatch(), 0.0
    repairer = Repairer(keeper, watch, lambda: now, every=60)
    kernel.planes[4].builtin["FORWARD"] = ("", "PODFENCE-FORWARD")
    kernel.planes[4].chains["PODFENCE-INPUT"] = ()
    assert repairer.check() == (), "nobody saw it"
    watch.seen = False
    (repair,) = repairer.check()
    assert str(repair) == ("IPv4: the jump in FORWARD was not in its place; chains differed: PODFENCE-INPUT")
    assert repairer.repaired == {4: 1, 6: 0}
    watch.seen = False
    assert repairer.check() == () and repairer.repaired == {4: 1, 6: 0}, "a change that changes nothing of ours"


def test_everything_is_read_back_now_and_then_whatever_was_seen() -> None:
    kernel, keeper = kept(FakeKernel())
    now = 0.0
    repairer = Repairer(keeper, FakeWatch(), lambda: now, every=60)
    name = next(name for name in kernel.planes[6].sets if name.startswith("pf-6-known"))
    known = kernel.planes[6].sets[name]
    kernel.planes[6].sets[name] = type(known)(name, known.type, frozenset(), known.counters)
    now = 59.0
    assert repairer.check() == ()
    now = 60.0
    (repair,) = repairer.check()
    assert repair.family == 6 and "elements were missing" in repair.what and name in repair.what
    assert repairer.check() == ()


def test_a_repair_that_fails_is_tried_again_at_the_next_look() -> None:
    kernel, keeper = kept(FakeKernel())
    watch = FakeWatch()
    repairer = Repairer(keeper, watch, lambda: 0.0)
    kernel.planes[4].builtin["FORWARD"] = ("",)
    kernel.fail_in = 0
    watch.seen = False
    with pytest.raises(StepFailed):
        repairer.check()
    assert repairer.repaired == {4: 0, 6: 0}
    assert [each.family for each in repairer.check()] == [4]


class Busy(FakeKernel):
    """Somebody takes the jump out of its place after each of so many readings."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def read(self, family: Family) -> Actual:
        found = super().read(family)
        if family == 6 and self.times:
            self.times -= 1
            self.planes[4].builtin["FORWARD"] = ("", "PODFENCE-FORWARD")
        return found


def test_somebody_who_goes_on_while_it_is_repaired_is_found_soon() -> None:
    """As Docker does, which puts its rules there one by one: found with it, a minute later."""
    kernel, keeper = kept(Busy())
    watch, now = FakeWatch(), 0.0
    repairer = Repairer(keeper, watch, lambda: now, every=60)
    kernel.times, watch.seen = 3, False
    kernel.planes[4].builtin["FORWARD"] = ("",)
    assert len(repairer.check()) == 3
    assert kernel.planes[4].builtin["FORWARD"][0] == "", "somebody was the last"
    now = 0.5
    assert len(repairer.check()) == 1
    assert kernel.planes[4].builtin["FORWARD"][0] == "PODFENCE-FORWARD"
    now = 1.0
    assert repairer.check() == ()


def test_somebody_who_never_stops_is_met_ever_more_seldom() -> None:
    """But for what the watch sees."""
    kernel, keeper = kept(Busy())
    watch, now = FakeWatch(), 0.0
    repairer = Repairer(keeper, watch, lambda: now, every=60)
    kernel.times, watch.seen = 10**6, False
    met = 0
    while now < 600:
        met += bool(repairer.check())
        now += 0.2
    assert 10 <= met <= 20


@contextmanager
def kept_node(number: int) -> Iterator[tuple[Node, Repairer, list[float]]]:
    now = [0.0]
    cluster = read_documents(SHOP.encode(), "shop.yaml").cluster
    with Lab(f"repairer-{number}", cluster) as lab:
        node = Node(World(lab, BACKENDS[number]))
        with (
            lab.inside("n1"),
            Sets() as sets,
            HostKernel(node.backend, sets) as kernel,
            Watch(node.backend, lambda: now[0]) as watch,
        ):
            keeper = Keeper(node.view, FAMILIES, kernel)
            known = node.compiled.cluster
            keeper.start([*known.namespaces, *known.pods, *known.policies])
            repairer = Repairer(keeper, watch)
            watch.look()
            yield node, repairer, now


@pytest.mark.kernel
@pytest.mark.parametrize("number", [0, 1], ids=["legacy", "nft"])
def test_on_a_real_kernel(number: int) -> None:
    with kept_node(number) as (node, repairer, now):
        assert repairer.check() == ()
        node.run("iptables -F FORWARD")
        node.run("ip6tables -D PODFENCE-FORWARD 1")
        now[0] += 2
        found = {each.family: each.what for each in repairer.check()}
        assert found == {
            4: "the jump in FORWARD was not in its place",
            6: "chains differed: PODFENCE-FORWARD",
        }
        assert repairer.repaired == {4: 1, 6: 1} and not node.differences()
        now[0] += 2
        assert repairer.check() == ()


def changes_of(node: Node) -> Iterator[list[Event]]:
    """Policies come and go, and pods get other labels: the short way, the long one, and members alone."""
    pods = {pod.name: pod for pod in node.compiled.cluster.pods}
    for turn in range(12):
        policies = read_documents(API.replace("port: 80", f"port: {80 + turn % 3}").encode(), "api").cluster.policies
        yield [*policies]
        yield [replace(pods["other"], labels={"app": "web" if turn % 2 else "other"})]
        yield [replace(pods["web"], labels={"app": "api" if turn % 2 else "web"})]
        if turn % 4 == 3:
            yield [Deleted("NetworkPolicy", "shop", "api")]


@pytest.mark.kernel
@pytest.mark.parametrize("number", [0, 1], ids=["legacy", "nft"])
def test_changes_of_our_own_add_up(number: int) -> None:
    """However often podfence writes, it is not taken for somebody else."""
    with kept_node(number) as (node, repairer, now):
        keeper = repairer._keeper
        keeper.repair = lambda: pytest.fail("read back")  # type: ignore[method-assign]
        for events in changes_of(node):
            for write in (partial(keeper.handle, events), keeper.tidy):
                repairer.ours(write())
                now[0] += 0.1
                assert repairer.check() == ()


@pytest.mark.kernel
@pytest.mark.parametrize("number", [0, 1], ids=["legacy", "nft"])
@pytest.mark.parametrize("damage", ["iptables -F", "ip6tables -F PODFENCE-INGRESS", "iptables -D FORWARD 1"])
def test_what_others_do_while_we_write_does_not_hide_behind_it(number: int, damage: str) -> None:
    """Found by the soak: a flush between a transaction of ours and the look after it was seen a minute later."""
    with kept_node(number) as (node, repairer, now):
        written = 0
        for events in changes_of(node):
            plans = repairer._keeper.handle(events)
            written += any(isinstance(step, Transaction) for steps in plans for step in steps)
            if written == 3:
                node.run(damage)
            repairer.ours(plans)
            if written == 3:
                break
        now[0] += 0.1
        assert repairer.check() != ()
        now[0] += 0.1
        assert repairer.check() == ()


@pytest.mark.kernel
@pytest.mark.parametrize("number", [0, 1], ids=["legacy", "nft"])
def test_a_rule_that_is_put_before_ours_while_we_write_is_seen_too(number: int) -> None:
    """By taking it out and in again: a legacy table says the same numbers afterwards. Found with Docker."""
    with kept_node(number) as (node, repairer, now):
        node.run("iptables -A FORWARD -s 192.0.2.9 -j ACCEPT")
        now[0] += 2
        assert repairer.check() == ()
        for events in changes_of(node):
            plans = repairer._keeper.handle(events)
            if any(isinstance(step, Transaction) for steps in plans for step in steps):
                break
        node.run("iptables -D FORWARD -s 192.0.2.9 -j ACCEPT")
        node.run("iptables -I FORWARD -s 192.0.2.9 -j ACCEPT")
        repairer.ours(plans)
        now[0] += 0.5
        assert [each.what for each in repairer.check()] == ["the jump in FORWARD was not in its place"]
