"""What breaks around an agent: no room, no memory, a clock that jumps, a node that is new under a state that is old, a
second agent that nobody told of the first."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.probe import Probe
from tests.agent.node import AgentProcess, Cluster, cluster_in, saved, until
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import BACKENDS, OPEN, REJECTED, World, WorldOf, _world, backends, world
from tests.hostile.memory import memory_group

__all__ = ["world"]
ROOT = Path(__file__).parents[2]
WEB_TO_API = Probe("shop/web", "shop/api", "TCP", 80)
OTHER_TO_API = Probe("shop/other", "shop/api", "TCP", 80)
on_nft = pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])


@pytest.fixture
def cluster(world: WorldOf, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(world, tmp_path) as found:
        yield found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The agent's state folder, on a disk without room."""
    folder = tmp_path / "state"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "rest").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def follows(cluster: Cluster) -> None:
    cluster.relabel("web", app="nobody")
    until(lambda: cluster.world.outcomes(WEB_TO_API) == [REJECTED], "changes are followed")
    cluster.relabel("web", app="web")
    until(lambda: cluster.world.outcomes(WEB_TO_API) == [OPEN], "and back")


@pytest.mark.kernel
@on_nft
def test_a_full_disk_keeps_nobody_from_enforcing(small_disk: Path, cluster: Cluster) -> None:
    """From the start, and from the middle on."""
    fill(small_disk)
    cluster.apply(API)
    with cluster.agent() as agent:
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        follows(cluster)
        assert not any("Traceback" in str(line) for line in agent.said())
        (small_disk / "rest").unlink()
        follows(cluster)
        fill(small_disk)
        follows(cluster)
        assert agent.get("/healthz")[0] == 200


@pytest.mark.kernel
@on_nft
def test_without_enough_memory_the_agent_ends_and_rules_stay(cluster: Cluster) -> None:
    """With what the manifests give it, it lives."""
    cluster.apply(API)
    with cluster.agent():
        before = saved(cluster.world)
    for megabytes in (60, 100, 140):
        limited = ("prlimit", f"--as={megabytes << 20}")
        agent = AgentProcess(cluster.world, "n1", cluster.folder, cluster.config, wait=False, under=limited)
        until(lambda agent=agent: agent.process.poll() is not None or agent.get("/readyz")[0] == 200, "an end")  # type: ignore[misc]
        agent.kill()
        assert saved(cluster.world) == before
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
    with cluster.agent(under=("prlimit", f"--data={512 << 20}")):
        follows(cluster)


CROWD = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: crowd-{0}, namespace: crowd}}
spec:
  podSelector: {{matchLabels: {{app: crowd-{0}}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{from: "{0}"}}}}}}], ports: [{{port: {1}}}]}}]
"""


@pytest.mark.kernel
@pytest.mark.slow
@backends
def test_killed_for_memory_it_opens_nothing_and_comes_back(cluster: Cluster) -> None:
    """By the kernel (OOM), in a cgroup as kubelet makes one: while it begins, with limits ever nearer to what it needs,
    and while it works, by a crowd of policies that come at once."""
    cluster.apply(API)
    with memory_group("agent") as group:
        with cluster.agent(under=group.under):
            follows(cluster)
            needs = group.megabytes
        before = saved(cluster.world)
        for share in (0.4, 0.6, 0.8, 0.9, 0.97):
            group.limit(needs * share)
            with cluster.agent(wait=False, under=group.under) as agent:
                is_watched_until(cluster, lambda agent=agent: ended(agent) or agent.get("/readyz")[0] == 200)  # type: ignore[misc]
                agent.kill()
            assert saved(cluster.world) == before
        assert group.kills >= 3, "the kernel killed it, again and again"
        print(
            f"\n{cluster.world.backend.mode}: it needs {needs:.0f} MB, and was killed {group.kills} times as it began"
        )
        group.limit(None)
        with cluster.agent(under=group.under) as agent:
            follows(cluster)
            kills = group.kills
            group.limit(group.megabytes + 4)
            for number in range(20_000):
                cluster.apply(CROWD.format(number, 1 + number))
                if number % 50 == 0:
                    is_watched_until(cluster, lambda: True)
                    if ended(agent):
                        break
            is_watched_until(cluster, lambda: ended(agent))
            assert agent.process.returncode == -signal.SIGKILL and group.kills > kills, "killed while it worked"
        is_watched_until(cluster, lambda: True)
        group.limit(512)
        with cluster.agent(under=group.under):
            assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
            follows(cluster)


def ended(agent: AgentProcess) -> bool:
    return agent.process.poll() is not None


def is_watched_until(cluster: Cluster, holds: Callable[[], bool]) -> None:
    """With packets, all the time; once more after it."""
    ends = time.monotonic() + 60
    while True:
        done = holds()
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        if done:
            return
        assert time.monotonic() < ends


@pytest.mark.kernel
def test_a_new_node_under_an_old_state(tmp_path: Path) -> None:
    """As after a reboot, or where all network namespaces are gone: what was remembered of the old hinders nothing."""
    for _ in range(2):
        with _world(BACKENDS[1]) as made, cluster_in(made, tmp_path) as cluster:
            cluster.apply(API)
            with cluster.agent():
                assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
                follows(cluster)
        assert (tmp_path / "state" / "flows" / "owners.json").exists()


@pytest.mark.kernel
@on_nft
def test_two_agents_that_know_nothing_of_each_other(cluster: Cluster, tmp_path: Path) -> None:
    """Their folders differ, so no lock is in the way. They want the same, and neither opens or closes more."""
    cluster.apply(API)
    state = tmp_path / "second"
    with cluster.agent(), cluster.agent("--state-dir", str(state), "--listen", "127.0.0.1:9471", wait=False) as second:
        until((state / "agent.sock").exists, f"the second one's socket: {second.said()}")
        for _ in range(5):
            follows(cluster)
            assert cluster.world.outcomes(OTHER_TO_API) == [REJECTED]
        assert not any("Traceback" in str(line) for line in second.said())
        assert second.process.poll() is None


@pytest.mark.kernel
@on_nft
def test_flows_that_somebody_forgets_stay_what_policies_say(world: World) -> None:
    """`conntrack -F`: what is allowed goes on, what is denied stays denied."""
    world.enforce(API)
    for _ in range(3):
        assert world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        assert world.lab.run("n1", ["conntrack", "-F"]).returncode == 0


# Where the wall clock may be asked: for the moments that denials are told with, and for whether a file is old.
_WALL_CLOCKS = {"enforcer/agent/tales.py", "enforcer/cluster/watch_files.py", "podfence/node_denials.py"}


def test_nothing_that_waits_or_decides_asks_the_wall_clock() -> None:
    """A clock that jumps delays nothing and opens nothing: all waiting is by the monotonic clock."""
    asks = re.compile(
        r"\btime\.(time|time_ns|localtime|gmtime|strftime|ctime|clock_gettime)\b|from time import"
        r"|\b(datetime|date)\.(now|utcnow|today)\b"
    )
    found = {
        str(file.relative_to(ROOT))
        for folder in ("policy", "compiler", "enforcer", "podfence")
        for file in (ROOT / folder).rglob("*.py")
        if asks.search(file.read_text())
    }
    # The moments of Events are for people.
    assert found == _WALL_CLOCKS | {"enforcer/agent/wiring.py"}
