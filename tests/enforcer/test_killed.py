"""Killed at any moment, by SIGKILL, on a real kernel: what stays behind is the old state or the new one, flow by flow;
a start adopts it, finishes it, and then has nothing left to write."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

import enforcer.kernel.restorer
from compiler.changes import Deleted, Event
from compiler.compile import compile_cluster
from enforcer.keeping.host import HostKernel
from enforcer.keeping.keep import Keeper
from enforcer.kernel.backend import Backend, Mode
from enforcer.kernel.ipset import Sets, Wire, open_wire
from enforcer.readback.simulate import Packet
from enforcer.readback.verify import verify
from enforcer.rules.layout import NodeView
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import HookName, Rule
from enforcer.rules.steps import Plan
from lab import netns
from policy.cidr import Family
from policy.decode import decode_objects
from policy.errors import KernelRejected
from policy.model import Cluster
from tests.enforcer.fake import FakeDataplane
from tests.enforcer.test_keep import CIDRS, FAMILIES, every_pair
from tests.enforcer.test_plan import interface, lively

pytestmark = pytest.mark.kernel
MODES: tuple[Mode, Mode] = ("legacy", "nft")
modes = pytest.mark.parametrize("mode", MODES)
_numbers = count()
_CHILD_SUBREAPER = 36


class Turn:
    """A node with two states, of which one has all the policies and the other none of the last one, and other labels:
    members, chains, leaves and generations change between them."""

    def __init__(self, mode: Mode, seed: int) -> None:
        found = decode_objects(lively(Random(seed))).cluster
        pods = [pod for pod in found.pods if pod.node == "n0"]
        self.mode: Mode = mode
        self.view = NodeView("n0", {pod.key: interface(pod) for pod in pods}, CIDRS)
        other = decode_objects(lively(Random(seed + 1000))).cluster
        self.clusters = found, Cluster(found.namespaces, other.pods, other.policies, [], [], [])
        self.asked: list[tuple[HookName, Packet]] = every_pair(compile_cluster(found), "n0")

    def events(self, which: int, before: int | None = None) -> list[Event]:
        """What there is; and what is gone of the state `before`."""
        now = self.clusters[which]
        gone: list[Event] = []
        if before is not None:
            names = {policy.name for policy in now.policies}
            old = [policy for policy in self.clusters[before].policies if policy.name not in names]
            gone += (Deleted("NetworkPolicy", policy.namespace, policy.name) for policy in old)
        return [*now.namespaces, *now.pods, *now.policies, *gone]

    @contextmanager
    def keeper(self, wire: Wire | None = None, lock_wait: int = 30) -> Iterator[Keeper]:
        with Sets(wire) as sets, HostKernel(Backend(self.mode, FAMILIES), sets, lock_wait) as kernel:
            yield Keeper(self.view, FAMILIES, kernel)

    def bring(self, which: int) -> tuple[Plan, ...]:
        with self.keeper() as keeper:
            return keeper.start(self.events(which))

    def read(self, family: Family) -> Actual:
        with Sets() as sets, HostKernel(Backend(self.mode, FAMILIES), sets) as kernel:
            return kernel.read(family)

    def answers(self) -> list[bool]:
        """What passes, by the rules and sets that the kernel has."""
        actual, plane = self.read(4), FakeDataplane(4)
        for name, rules in actual.tables.chains.items():
            plane.chains[name] = tuple(each.rule for each in rules if isinstance(each.rule, Rule))
            assert len(plane.chains[name]) == len(rules)
        plane.sets = {name: found.ipset for name, found in actual.sets.items()}
        plane.builtin["FORWARD"] = actual.tables.builtin.get("FORWARD", ())
        return plane.verdicts(self.asked)

    def assert_between(self, old: list[bool], new: list[bool]) -> None:
        assert all(now in (was, will) for was, now, will in zip(old, self.answers(), new, strict=True))

    def assert_finished(self, which: int) -> None:
        self.bring(which)
        compiled = compile_cluster(self.clusters[which])
        for family in FAMILIES:
            assert verify(self.read(family), compiled, self.view) is None, "proven equal"
        assert not any(self.bring(which)), "adopted: nothing is written"


@contextmanager
def turn(mode: Mode, seed: int = 5) -> Iterator[Turn]:
    name = f"killed-{os.getpid()}-{next(_numbers)}"
    netns.create([name])
    try:
        with netns.inside(name):
            yield Turn(mode, seed)
    finally:
        netns.delete([name])


class Killer:
    """Ends its own process at the point of that number, wherever that is."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.armed = False

    def point(self) -> None:
        if not self.armed:
            return
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def write(self, descriptor: int, data: bytes) -> int:
        """Before a transaction is sent, in the middle of it, and when it is under way."""
        self.point()
        half = os.write(descriptor, data[: len(data) // 2])
        self.point()
        rest = os.write(descriptor, data[half:])
        self.point()
        return half + rest


class KilledWire:
    """Netlink, before and after each message."""

    def __init__(self, killer: Killer) -> None:
        self._wire, self._killer = open_wire(), killer
        self.recv, self.close = self._wire.recv, self._wire.close

    def sendto(self, data: bytes, address: tuple[int, int]) -> int:
        self._killer.point()
        sent = self._wire.sendto(data, address)
        self._killer.point()
        return sent


def killed(run: Callable[[], None]) -> bool:
    """Runs it in a process of its own; whether that was killed. One that fails otherwise fails the test. Programs that
    it leaves behind come to their end first: one that has all of its text does what it says."""
    child = os.fork()
    if not child:
        try:
            run()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    deadline = time.monotonic() + 20
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.002)
    assert time.monotonic() < deadline, "a program was left behind"
    return os.WIFSIGNALED(status)


@pytest.fixture(autouse=True)
def adopts_orphans() -> Iterator[None]:
    """What a killed process leaves behind becomes ours, so that we can wait for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(_CHILD_SUBREAPER, 0, 0, 0, 0)


@modes
def test_killed_at_every_point_of_a_change(mode: Mode) -> None:
    """Each message to a set, and each transaction: before it, after half of its text, and when it is under way."""
    with turn(mode) as world:
        world.bring(1)
        new = world.answers()
        world.bring(0)
        old = world.answers()
        assert old != new
        seen = set()
        for at in count():
            killer = Killer(at)

            def change(killer: Killer = killer) -> None:
                with world.keeper(KilledWire(killer)) as keeper:
                    keeper.start(world.events(0))
                    enforcer.kernel.restorer.os = _os_with(killer)  # type: ignore[attr-defined]
                    killer.armed = True
                    keeper.handle(world.events(1, 0))
                    keeper.tidy()
                    killer.armed = False

            if not killed(change):
                break
            world.assert_between(old, new)
            seen.add(world.answers() == new)
            world.assert_finished(1)
            world.bring(0)
        assert at > 20 and seen == {True, False}
        assert world.answers() == new
        world.assert_finished(1)


@modes
def test_killed_at_random_moments(mode: Mode) -> None:
    rng = Random(11)
    with turn(mode, 6) as world:
        world.bring(1)
        new = world.answers()
        world.bring(0)
        old = world.answers()
        for _ in range(15):
            after = rng.uniform(0.001, 0.2)

            def turns(after: float = after) -> None:
                with world.keeper() as keeper:
                    keeper.start(world.events(0))
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
                    for turn_ in count():
                        keeper.handle(world.events(1 - turn_ % 2, turn_ % 2))
                        keeper.tidy()

            assert killed(turns)
            world.assert_between(old, new)
            which = rng.randrange(2)
            world.assert_finished(which)
            assert world.answers() == (old, new)[which]


@modes
def test_restore_programs_killed_again_and_again(mode: Mode) -> None:
    """The keeper lives on: a transaction that got no answer is read back, and what is missing is made good."""
    with turn(mode, 7) as world, world.keeper() as keeper:
        keeper.start(world.events(0))
        restorers = keeper._families[0]._kernel._tables._restorers.values()  # type: ignore[attr-defined]
        stop, kills = threading.Event(), Counter[str]()

        def kill() -> None:
            rng = Random(3)
            while not stop.wait(rng.uniform(0.002, 0.02)):
                for restorer in restorers:
                    if process := restorer.process_id:
                        with suppress(ProcessLookupError):
                            os.kill(process, signal.SIGKILL)
                            kills["sent"] += 1

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            # On a fast machine sixty changes are over before the killer has hit any; the last one must be the even one.
            deadline = time.monotonic() + 60
            for number in count():
                enough = (kills["sent"] > 20 and kills["noticed"] > 2) or time.monotonic() > deadline
                if number >= 60 and number % 2 == 0 and enough:
                    break
                try:
                    keeper.handle(world.events(1 - number % 2, number % 2))
                except KernelRejected as refused:
                    assert "\n" not in str(refused)
                    kills["noticed"] += 1
        finally:
            stop.set()
            killer.join()
        keeper.handle([])
        assert kills["sent"] > 20 and kills["noticed"] > 2, kills
        world.assert_finished(0)


@modes
def test_a_writer_that_never_rests(mode: Mode) -> None:
    """It changes a chain of its own thousands of times; on nft each raises the generation that ours begins with."""
    program = Backend(mode, FAMILIES).program(4, "restore")
    with turn(mode, 8) as world, world.keeper() as keeper:
        keeper.start(world.events(0))
        text = "*filter\n:OTHERS - [0:0]\n-A OTHERS -s 192.0.2.1 -j ACCEPT\n-A OTHERS -j RETURN\nCOMMIT\n"
        stop, written = threading.Event(), []
        other = subprocess.Popen([program, "--noflush", "--wait", "30"], stdin=subprocess.PIPE, text=True)
        assert other.stdin

        def write() -> None:
            while not stop.is_set():
                other.stdin.write(text)  # type: ignore[union-attr]
                written.append(1)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(30):
                keeper.handle(world.events(1 - number % 2, number % 2))
                keeper.tidy()
        finally:
            stop.set()
            writer.join()
            other.stdin.close()
        assert other.wait() == 0 and len(written) > 200
        assert "OTHERS" in subprocess.run([program.replace("restore", "save")], capture_output=True, text=True).stdout
        world.assert_finished(0)


HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_another_process_holds_the_lock_for_longer_than_thirty_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))
    with turn("legacy", 9) as world, world.keeper() as keeper:
        keeper.start(world.events(0))
        old = world.answers()
        with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout and holder.stdout.readline() == "held\n"
            began = time.monotonic()
            with pytest.raises(KernelRejected, match="xtables lock") as refused:
                keeper.handle(world.events(1, 0))
            spent = time.monotonic() - began
            holder.kill()
        assert 29 < spent < 40 and "\n" not in str(refused.value)
        assert world.answers() == old
        keeper.handle([])
        world.assert_finished(1)


def _os_with(killer: Killer) -> SimpleNamespace:
    return SimpleNamespace(write=killer.write, read=os.read, set_blocking=os.set_blocking)
