"""What a lab leaves behind: nothing, however it ends. And it needs no root where user namespaces are allowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import cluster, netns, state
from lab.cluster import Lab
from lab.probe import Outcome, Probe
from policy.errors import HostRefused, UsageError
from policy.model import Pod

from .conftest import cluster_of, pods

pytestmark = pytest.mark.kernel

LabOf = Callable[..., Lab]
ROOT = Path(__file__).parents[2]
# A process of its own: brings up the lab that its argument names, then goes on with one of the others.
BUILD = """
import sys, time
from lab.cluster import Lab
from policy.model import Cluster, Pod
with Lab(sys.argv[1], Cluster([], [Pod("x", f"p{n}", {}) for n in range(3)], [], [], [], []), [("TCP", 80)]) as lab:
    print("up", flush=True)
"""
HEARD = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
WAIT = "    time.sleep(60)\n"
PROBE = """
    from lab.probe import Probe
    protocols, families, places = ("TCP", "ICMP"), (4, 6), ("x/p0", "x/p1", "node-2", "outside")
    probes = [Probe(a, b, p, 80, f) for a in places for b in places for p in protocols for f in families]
    print(*{result.outcome.value for result in lab.probe(probes)})
    assert lab.run("node-1", ["iptables-nft", "-A", "FORWARD", "-j", "DROP"]).returncode == 0
    assert lab.run("node-1", ["iptables-legacy", "-A", "FORWARD", "-j", "DROP"]).returncode == 0
    print(*{result.outcome.value for result in lab.probe([Probe("x/p0", "x/p1", "TCP", 80, 4)], 0.2)})
"""


def traces(name: str) -> list[str]:
    """What there is of a lab: its namespaces and its folder."""
    found = [path.name for path in netns.FOLDER.glob(f"pf-{name}.*")] if netns.FOLDER.is_dir() else []
    return found + [each for each in state.names() if each == name]


def process(name: str, script: str) -> subprocess.Popen[str]:
    """A process whose lab is up when this returns."""
    # Whoever runs the tests in the background may have had signals ignored, and children inherit that.
    started = subprocess.Popen(
        [sys.executable, "-c", HEARD + script, name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    return started


def test_an_error_inside_leaves_nothing(lab_of: LabOf) -> None:
    lab = lab_of(*pods(2))
    with pytest.raises(ZeroDivisionError), lab:
        lab.probe([Probe("x/p0", "x/p1", "TCP", 80)])
        assert len(traces(lab.name)) == 6
        raise ZeroDivisionError
    assert traces(lab.name) == []


def test_an_error_while_building_leaves_nothing(lab_of: LabOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "ip"
    refusing.write_text("#!/bin/sh\necho 'no veth in this kernel' >&2; exit 2\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    lab = lab_of(*pods(2))
    with pytest.raises(HostRefused, match="no veth in this kernel"):
        lab.up()
    assert traces(lab.name) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: signal.Signals) -> None:
    name = f"signal-{os.getpid()}-{number}"
    running = process(name, BUILD + WAIT)
    assert len(traces(name)) == 7
    running.send_signal(number)
    assert running.wait(10) != 0
    assert traces(name) == []


def test_a_signal_at_any_moment_leaves_nothing() -> None:
    """Building, being up and taking down in turn, for ever: the signals meet all three."""
    forever = BUILD.replace("with Lab", "while True:\n  with Lab")
    for milliseconds in range(0, 100, 6):
        name = f"moment-{os.getpid()}-{milliseconds}"
        running = process(name, forever)
        time.sleep(milliseconds / 1000)
        running.terminate()
        assert running.wait(10) != 0
        assert traces(name) == []


def test_what_a_killed_run_left_is_taken_away_by_name() -> None:
    name = f"killed-{os.getpid()}"
    running = process(name, BUILD + WAIT)
    running.kill()
    running.wait()
    assert len(traces(name)) == 7
    with pytest.raises(UsageError, match=f"podfence lab down {name}"):
        Lab(name, cluster_of()).up()
    assert len(traces(name)) == 7, "the refused lab takes nothing away"
    cluster.down(name)
    assert traces(name) == []
    with pytest.raises(UsageError, match="no lab"):
        cluster.down(name)


def test_a_lab_killed_before_it_was_built(lab_of: LabOf) -> None:
    name = lab_of().name
    state.claim(name)
    with pytest.raises(UsageError, match=f"podfence lab down {name}"):
        cluster.attach(name)
    cluster.down(name)
    assert traces(name) == []


def test_a_lab_outlives_its_maker_and_others_probe_it(lab_of: LabOf) -> None:
    lab = lab_of(*pods(2))
    lab.up()
    try:
        lab.add(Pod("y", "late", {}))
        other = cluster.attach(lab.name)
        assert other.cluster.pods == lab.cluster.pods
        results = other.probe([Probe("y/late", "x/p1", "TCP", 80), Probe("x/p0", "y/late", "ICMP")])
        assert [result.outcome for result in results] == [Outcome.OPEN] * 2
        other.close()
    finally:
        cluster.down(lab.name)
    assert traces(lab.name) == []


@pytest.mark.parametrize("name", ["", "A", "a.b", "../x", "a" * 32])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a lab"):
        Lab(name, cluster_of()).up()


def test_the_hosts_own_namespace_is_as_before(lab_of: LabOf) -> None:
    def own() -> list[str]:
        asked = [
            ["ip", "-brief", "link"],
            ["ip", "-brief", "address"],
            ["ip", "route"],
            ["iptables-nft", "-S"],
            ["sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.icmp_ratelimit"],
            ["readlink", "/proc/self/ns/net"],
        ]
        return [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in asked]

    before = own()
    with lab_of(*pods(3)) as lab:
        assert lab.run("node-1", ["iptables-nft", "-A", "FORWARD", "-j", "DROP"]).returncode == 0
        lab.probe([Probe("x/p0", "x/p1", "TCP", 80)], 0.1)
        assert own() == before
    assert own() == before


def test_entering_a_namespace_always_ends() -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    with pytest.raises(FileNotFoundError), netns.inside("pf-nowhere"):
        pass
    name = f"pf-test-{os.getpid()}"
    netns.create([name])
    try:
        with pytest.raises(ZeroDivisionError), netns.inside(name):
            assert Path("/proc/thread-self/ns/net").readlink() != before
            raise ZeroDivisionError
        with pytest.raises(HostRefused, match=f"{name} already"):
            netns.create([name])
    finally:
        netns.delete([name])
    assert Path("/proc/thread-self/ns/net").readlink() == before
    assert not (netns.FOLDER / name).exists()


def test_without_root() -> None:
    """In a user namespace of its own, which sees nothing of the host's /run."""
    argv = netns.rootless([sys.executable, "-c", BUILD + PROBE, "rootless"])
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines() == ["up", "open", "dropped"], done.stderr
    assert traces("rootless") == []
