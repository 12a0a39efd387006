"""The watch: what it notices and what it leaves alone, and that looking never costs more than its share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from enforcer.kernel.backend import Backend, overtaken
from enforcer.kernel.drift import SHARE, SLOW, Watch, _Look
from lab import netns
from tests.enforcer.test_kernel import backends


class Looked:
    """Something that takes `cost` seconds of a processor to look at, which it `waits` for as well."""

    def __init__(self, cost: float, waits: float = 0.0) -> None:
        self.now = self.spent = 0.0
        self._waits = waits
        self.value = b""
        self.times = 0
        self._cost = cost

    def read(self) -> list[bytes]:
        self.now += self._cost + self._waits
        self.spent += self._cost
        self.times += 1
        return [self.value]


@pytest.mark.parametrize("cost", [0.00001, 0.002, 0.5])
@pytest.mark.parametrize("period", [0.0, SLOW])
def test_a_look_costs_no_more_than_its_share(cost: float, period: float) -> None:
    looked = Looked(cost)
    look = _Look(looked.read, period, True, lambda: looked.now, lambda: looked.spent)
    while looked.now < 500:
        looked.value = str(looked.times).encode()
        before = looked.times
        assert look.changed() == (looked.times > before)
        looked.now += 0.1
    assert looked.times * cost <= SHARE * looked.now + cost
    assert looked.times >= 500 * min(SHARE / cost, 1 / max(period, 0.1)) * 0.45, "and no less often than it may"


def test_a_look_that_has_to_wait_for_others_comes_no_more_seldom() -> None:
    """On a busy node, where somebody's change would be noticed many seconds later: found with Docker."""
    looked = Looked(0.001, waits=0.05)
    look = _Look(looked.read, SLOW, True, lambda: looked.now, lambda: looked.spent)
    for _ in range(600):
        look.changed()
        looked.now += 0.1
    assert looked.times >= 50


@pytest.fixture
def inside(backend: Backend) -> Iterator[Backend]:
    name = f"watch-{os.getpid()}"
    netns.create([name])
    try:
        with netns.inside(name):
            yield backend
    finally:
        netns.delete([name])


def run(*words: str, stdin: str = "") -> None:
    subprocess.run(words, input=stdin, text=True, check=True, capture_output=True)


@pytest.mark.kernel
@backends
def test_only_what_matters_is_noticed(inside: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", f"{tmp_path}/lock")
    sets = "create others hash:ip\ncreate pf-4-ip-1 hash:ip\ncreate pf-4-denied hash:ip counters\n"
    run("ipset", "restore", stdin=sets)
    run("ipset", "restore", stdin="add pf-4-ip-1 192.0.2.1\nadd pf-4-denied 192.0.2.1\n")
    iptables = f"iptables-{inside.mode}"
    run(iptables, "-N", "PF-x")
    run(iptables, "-A", "PF-x", "-m", "set", "--match-set", "pf-4-denied", "src")
    now = 0
    with Watch(inside, lambda: now) as watch:

        def noticed(*words: str, stdin: str = "") -> bool:
            nonlocal now
            run(*words, stdin=stdin)
            now += 2
            return watch.changed()

        assert not noticed("true")
        assert not noticed("ipset", "add", "others", "192.0.2.2"), "a set of others"
        assert not noticed("ipset", "restore", stdin="del pf-4-denied 192.0.2.1\nadd pf-4-denied 192.0.2.3 packets 7\n")
        assert noticed("ipset", "restore", stdin="del pf-4-ip-1 192.0.2.1\nadd pf-4-ip-1 192.0.2.2\n")
        assert noticed(iptables, "-A", "PF-x", "-s", "192.0.2.1", "-j", "DROP")
        assert noticed(iptables, "-R", "PF-x", "2", "-s", "192.0.2.2", "-j", "DROP"), "of the same size"
        assert noticed(f"ip6tables-{inside.mode}", "-N", "PF-y")
        run(iptables, "-F", "PF-x")
        watch.look()
        assert not noticed("true"), "a change of our own"


def test_a_restore_that_was_overtaken_is_tried_again_and_another_is_not() -> None:
    text = "*filter\n-A PF-x -j DROP\nCOMMIT\n"
    assert overtaken("iptables-restore: line 3 failed\n", text)
    assert not overtaken("iptables-restore: line 2 failed\n", text)
    assert not overtaken("Another app is currently holding the xtables lock. Stopped waiting after 30s.\n", text)
    assert not overtaken("", text)


def test_after_a_change_of_our_own_the_next_look_begins_anew() -> None:
    looked = Looked(0.001)
    look = _Look(looked.read, 0.0, True, lambda: looked.now)
    looked.now += 10
    looked.value = b"ours"
    look.forget()
    assert not look.changed()
    looked.now += 10
    looked.value = b"theirs"
    assert look.changed()
