"""Real firewalld and real Docker on a node with an agent: started, at work, reloaded and stopped while packets go on.

What they do by themselves is seen on the other node, where the same program runs without podfence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from difflib import unified_diff
from itertools import pairwise
from pathlib import Path

import pytest

from lab import netns
from tests.agent.node import AgentProcess, Cluster, cluster_in, until
from tests.cluster.packets import Streams, streams
from tests.enforcer.test_kernel import BACKENDS, World, WorldOf, world
from tests.others.programs import Docker, Firewalld, Node, Others, nft_rules

pytestmark = [pytest.mark.kernel, pytest.mark.cluster, pytest.mark.slow]
__all__ = ["world"]
backends = pytest.mark.parametrize("backend", BACKENDS, ids=["legacy", "nft"])
ALLOW = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: api, namespace: shop},
 spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}}
"""
REPAIRED_WITHIN = 1.0
Step = Callable[[Others], None]


@pytest.fixture
def cluster(world: WorldOf, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(world, tmp_path) as found:
        found.apply(ALLOW)
        yield found


class Traffic:
    """New flows to `shop/api`, of `shop/web` who may and of `shop/other` who may not, every two milliseconds."""

    def __init__(self, world: World, flows: Streams) -> None:
        self.flows = flows
        self.friend, self.stranger = (address_of(world, name) for name in ("shop/web", "shop/other"))

    def openings(self) -> list[float]:
        """For how long, in seconds, the stranger got through, time after time."""
        passed = self.flows.passed(self.stranger)
        if not passed:
            return []
        begins = [passed[0], *(after for before, after in pairwise(passed) if after - before > 0.2)]
        ends = [*(before for before, after in pairwise(passed) if after - before > 0.2), passed[-1]]
        return [end - begin for begin, end in zip(begins, ends, strict=True)]


def address_of(world: World, place: str) -> str:
    return next(str(each) for each in world.lab.host(place).addresses if each.family == 4)


def path_of(world: World, place: str) -> Path:
    return netns.FOLDER / world.lab.host(place).netns


def others_rules(world: World, node: Node) -> str:
    """What a node has beside podfence's: of the tables of iptables, but for those that are as they were made, and of
    firewalld's own. Not in their order: firewalld puts a rule at a number's place, where podfence's jump counts."""
    found, table = [], ""
    for line in world.saved(node.name).splitlines():
        if line.startswith("*"):
            table = line
        said = line.startswith("-A") or (line.startswith(":") and not line.endswith(" ACCEPT"))
        if said and not any(name in line for name in ("PODFENCE-", "PF-", "pf-")):
            found.append(f"{table} {line}")
    return "\n".join(sorted(found)) + nft_rules(node)


def at_work(cluster: Cluster, make: Callable[[Node], Others], steps: list[Step]) -> tuple[Traffic, AgentProcess]:
    """Starts the program on both nodes, takes the `steps`, and stops it; after each podfence is whole again, and what
    there is of others is the same on both nodes."""
    world = cluster.world
    mode = world.backend.mode
    ours = Node(world.lab, "n1", mode, cluster.folder / "xtables.lock")
    alone = Node(world.lab, "n2", mode, cluster.folder / "other.lock")
    senders = {address_of(world, name): path_of(world, name) for name in ("shop/web", "shop/other")}
    to = path_of(world, "shop/api"), address_of(world, "shop/api")

    def settled() -> None:
        """No sooner than all that is to be repaired is: nothing is repaired any more for a while."""
        count = -1.0
        while count != (count := agent.metric("podfence_drift_repaired_total")):
            time.sleep(REPAIRED_WITHIN)
        first = "-A FORWARD -j PODFENCE-FORWARD"
        until(lambda: first_rule(world) == first, lambda: f"{first} is first: {agent.said()}", 5)
        until(lambda: others_rules(world, ours) == others_rules(world, alone), lambda: compared(world, ours, alone), 5)

    with cluster.agent() as agent, streams(senders, *to) as flows:
        time.sleep(0.5)
        with make(ours) as program, make(alone) as reference:
            settled()
            for step in steps:
                step(program)
                step(reference)
                settled()
        settled()
        assert agent.metric("podfence_kernel_writes_failed_total") == 0
        assert agent.get("/readyz")[0] == 200
        assert not any("Traceback" in str(line) for line in agent.said())
    return Traffic(world, flows), agent


def first_rule(world: World) -> str:
    program = world.backend.program(4, "save").removesuffix("-save")
    return world.lab.run("n1", [program, "-S", "FORWARD"]).stdout.splitlines()[1].partition(" -m comment")[0]


def compared(world: World, *nodes: Node) -> str:
    ours, alone = (others_rules(world, node).splitlines() for node in nodes)
    return "the same on both nodes:\n" + "\n".join(
        unified_diff(alone, ours, "alone", "beside podfence", n=0, lineterm="")
    )


def command(*argv: str) -> Step:
    return lambda program: program.command(*argv)  # type: ignore[attr-defined]


@backends
@pytest.mark.parametrize("rules", ["nftables", "iptables"])
def test_firewalld(cluster: Cluster, rules: str) -> None:
    """It flushes all tables of iptables when it starts and when it is reloaded. No flow that policies deny passes for
    longer than it takes to notice that."""
    steps = [command("--add-service=http"), command("--reload"), command("--complete-reload")]
    traffic, _ = at_work(cluster, lambda node: Firewalld(node, rules), steps)
    print("openings:", [round(each, 3) for each in traffic.openings()])
    assert max(traffic.openings(), default=0.0) < REPAIRED_WITHIN
    assert traffic.flows.arrived(traffic.friend) > 0.5 * traffic.flows.sent(traffic.friend)


@backends
def test_docker(cluster: Cluster) -> None:
    """It puts rules of its own before everybody else's; podfence goes before them again, and nothing ever opens."""
    network = ("--subnet", "10.77.0.0/24", "-o", "com.docker.network.bridge.name=br-theirs", "theirs")
    steps = [command("network", "create", *network), command("network", "rm", "theirs")]
    traffic, _ = at_work(cluster, Docker, steps)
    assert traffic.openings() == []
    assert traffic.flows.lost(traffic.friend) == []
