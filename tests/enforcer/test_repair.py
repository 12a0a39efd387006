"""What others do to our rules on a real kernel: noticed, judged by `verify`, and repaired without touching theirs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enforcer.keeping.host import attached, execute, plans, read
from enforcer.kernel.backend import LOCK_WAIT, Backend
from enforcer.kernel.drift import Watch
from enforcer.readback.verify import Difference, verify
from enforcer.rules import names
from enforcer.rules.layout import NodeView
from lab.cluster import Lab
from policy.cidr import Family
from policy.decode import read_documents
from policy.errors import KernelRejected
from policy.model import Pod
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import BACKENDS, FAMILIES, SHOP, World

pytestmark = pytest.mark.kernel
OTHERS = """
*filter
:OTHERS - [0:0]
-A FORWARD -s 192.0.2.1 -j ACCEPT
-A FORWARD -j OTHERS
-A OTHERS -p tcp --dport 1 -m comment --comment "PODFENCE-FORWARD" -j DROP
-I INPUT -j OTHERS
COMMIT
*nat
-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
COMMIT
"""
OURS = re.compile(r"(:|-A |create |add )(PODFENCE-|PF-|pf-)|-A \w+ -j PODFENCE-")


class Node:
    """One node of a lab, where the policy is in force, and others have rules and sets."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.backend = world.backend
        self.compiled = world.compiled(API)
        blocks = next(each.pod_cidrs for each in world.lab.cluster.nodes if each.name == "n1")
        with world.lab.inside("n1"):
            self.view = NodeView("n1", attached(self.compiled, "n1", {}).veths, blocks)

    def run(self, command: str, stdin: str = "") -> str:
        """`iptables`, `ip6tables` and their kin are those of the backend."""
        words = [re.sub(r"^(ip6?tables)", rf"\1-{self.backend.mode}", command.split()[0]), *command.split()[1:]]
        done = self.world.lab.run("n1", words, stdin)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def repair(self, lock_wait: int = LOCK_WAIT) -> int:
        with self.world.lab.inside("n1"):
            found = plans(self.backend, self.compiled, self.view)
            for family_plan in found:
                execute(self.backend, family_plan.steps, lock_wait)
        return sum(len(each.steps) for each in found)

    def differences(self) -> dict[Family, Difference]:
        with self.world.lab.inside("n1"):
            found = {family: verify(read(self.backend, family), self.compiled, self.view) for family in FAMILIES}
        return {family: difference for family, difference in found.items() if difference}

    def others(self) -> list[str]:
        """All that is not ours, in order."""
        return [line for line in self.world.saved("n1").splitlines() if not OURS.match(line)]

    def a_set(self, family: Family = 4, prefix: str = "ip-") -> str:
        """A set that rules look in."""
        sets = self.run("ipset list -n").split()
        return next(name for name in sorted(sets) if name.startswith(names.set_name(family, prefix)))


@pytest.fixture(scope="module", params=BACKENDS, ids=["legacy", "nft"])
def shared(request: pytest.FixtureRequest) -> Iterator[World]:
    backend: Backend = request.param
    cluster = read_documents(SHOP.encode(), "shop.yaml").cluster
    with Lab(f"repair-{backend.mode}-{os.getpid()}", cluster) as lab:
        yield World(lab, backend)


@pytest.fixture
def node(shared: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Node]:
    # Programs of ours take the lock that everybody in this test takes, and not the host's.
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    node = Node(shared)
    clean = "*filter\n:FORWARD ACCEPT\n:INPUT ACCEPT\nCOMMIT\n*nat\n:POSTROUTING ACCEPT\nCOMMIT\n"
    node.run("iptables-restore", clean)
    node.run("ip6tables-restore", clean)
    node.run("ipset destroy")
    node.run("iptables-restore --noflush", OTHERS)
    node.run("ipset create others hash:ip")
    node.run("ipset add others 192.0.2.7")
    assert node.repair() > 0
    assert not node.differences()
    yield node


Damage = Callable[[Node], None]


def commands(*lines: str) -> Damage:
    return lambda node: [node.run(line) for line in lines] and None


def whole_restore(node: Node) -> None:
    """As somebody's `iptables-restore` without --noflush."""
    chains = ":INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT"
    node.run("iptables-restore", f"*filter\n{chains}\n-A FORWARD -j ACCEPT\nCOMMIT\n")


def members_gone(node: Node) -> None:
    node.run(f"ipset flush {node.a_set()}")


def member_exchanged(node: Node) -> None:
    """As many members as before."""
    name = node.a_set()
    member = next(line.split()[2] for line in node.run(f"ipset save {name}").splitlines() if line.startswith("add"))
    node.run("ipset restore", f"del {name} {member}\nadd {name} 203.0.113.9\n")


def network_taken_out(node: Node) -> None:
    node.run(f"ipset flush {node.a_set(6, 'known')}")


def everything_destroyed(node: Node) -> None:
    node.run("iptables -F")
    node.run("iptables -X")
    for name in node.run("ipset list -n").split():
        if name.startswith("pf-4"):
            _destroy(node, name)


def _destroy(node: Node, name: str) -> None:
    """nft lets go of the sets of rules that were deleted a moment later."""
    for _ in range(100):
        if node.world.lab.run("n1", ["ipset", "destroy", name]).returncode == 0:
            return
        time.sleep(0.02)
    raise AssertionError(name)


def sets_of_another_type(node: Node) -> None:
    name = node.a_set()
    everything_destroyed(node)
    node.run(f"ipset create {name} list:set")


def sets_with_another_option(node: Node) -> None:
    name = node.a_set()
    everything_destroyed(node)
    node.run(f"ipset create {name} hash:ip timeout 300")


def order_of_two_swapped(node: Node) -> None:
    """Leaves number and size of the entries as they were."""
    rules = [line for line in node.run("iptables -S PODFENCE-INGRESS").splitlines() if line.startswith("-A")]
    first, second = rules[:2]
    body = first.removeprefix("-A PODFENCE-INGRESS ")
    node.run("iptables-restore --noflush", f"*filter\n-D PODFENCE-INGRESS 1\n-I PODFENCE-INGRESS 2 {body}\nCOMMIT\n")
    assert second


MEANINGFUL: dict[str, Damage] = {
    "FORWARD flushed": commands("iptables -F FORWARD"),
    "INPUT flushed, IPv6": commands("ip6tables -F INPUT"),
    "all flushed": commands("iptables -F"),
    "our hook flushed": commands("iptables -F PODFENCE-FORWARD"),
    "deny flushed": commands("iptables -F PODFENCE-DENY-IN"),
    "jump behind others": commands(
        "iptables -D FORWARD -j PODFENCE-FORWARD", "iptables -A FORWARD -j PODFENCE-FORWARD"
    ),
    "others in front of the jump": commands("iptables -I FORWARD -s 198.51.100.0/24 -j ACCEPT"),
    "a rule deleted": commands("iptables -D PODFENCE-FORWARD 5"),
    "an ACCEPT in front": commands("iptables -I PODFENCE-FORWARD -j ACCEPT"),
    "an ACCEPT for one": commands("ip6tables -I PODFENCE-INGRESS -s 2001:db8::9 -j ACCEPT"),
    "a RETURN": commands("iptables -I PODFENCE-INGRESS -s 203.0.113.9 -j RETURN"),
    "a restore of everything": whole_restore,
    "members gone": members_gone,
    "a member exchanged": member_exchanged,
    "known addresses gone, IPv6": network_taken_out,
    "rules and sets destroyed": everything_destroyed,
    "a set of another type": sets_of_another_type,
    "a set with another option": sets_with_another_option,
    "two rules swapped": order_of_two_swapped,
}
COSMETIC: dict[str, Damage] = {
    "a chain and a set that nothing leads to": commands(
        "iptables -N PF-unused", "iptables -A PF-unused -j ACCEPT", "ipset create pf-4-unused list:set"
    ),
    "a jump twice": commands("iptables -A FORWARD -j PODFENCE-FORWARD"),
    "a rule that no packet meets": commands("iptables -A PODFENCE-INGRESS -j DROP"),
    "a comment": commands(
        "iptables -R PODFENCE-FORWARD 4 -m comment --comment elsewhere -j PODFENCE-EGRESS",
    ),
}


@pytest.mark.parametrize("damage", MEANINGFUL.values(), ids=MEANINGFUL)
def test_damage_is_noticed_judged_and_repaired(node: Node, damage: Damage) -> None:
    now = 0
    with node.world.lab.inside("n1"), Watch(node.backend, clock=lambda: now) as watch:
        now += 2
        assert not watch.changed()
        damage(node)
        now += 2
        assert watch.changed()
        now += 2
        assert not watch.changed()
    others = node.others()
    assert node.differences(), "a meaningful difference"
    assert node.repair() > 0
    assert not node.differences(), "proven equal"
    assert node.repair() == 0
    assert node.others() == others


@pytest.mark.parametrize("damage", COSMETIC.values(), ids=COSMETIC)
def test_what_changes_no_packet_is_no_difference(node: Node, damage: Damage) -> None:
    damage(node)
    assert not node.differences()
    others = node.others()
    node.repair()
    assert node.repair() == 0 and not node.differences()
    assert node.others() == others


def held(lock: Path, seconds: float) -> threading.Thread:
    """Holds the xtables lock from now on, for a while, as another program would."""
    holds = threading.Event()

    def hold() -> None:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            holds.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(5)
    return thread


legacy_only = pytest.mark.parametrize("shared", BACKENDS[:1], ids=["legacy"], indirect=True)


@legacy_only
def test_a_lock_held_for_a_while_is_waited_for(node: Node) -> None:
    node.run("iptables -F PODFENCE-FORWARD")
    thread = held(Path(os.environ["XTABLES_LOCKFILE"]), 2.5)
    began = time.monotonic()
    assert node.repair() > 0
    assert time.monotonic() - began > 2
    thread.join()
    assert not node.differences()


@legacy_only
def test_a_lock_held_for_longer_is_one_line_and_changes_nothing(node: Node) -> None:
    node.run("iptables -F PODFENCE-FORWARD")
    before = node.world.saved("n1")
    thread = held(Path(os.environ["XTABLES_LOCKFILE"]), 3)
    with pytest.raises(KernelRejected, match="holding the xtables lock") as refused:
        node.repair(lock_wait=1)
    assert "\n" not in str(refused.value)
    thread.join()
    assert node.world.saved("n1") == before
    assert node.repair() > 0 and not node.differences()


def test_another_writer_at_work(node: Node) -> None:
    """It changes the table all the time, with a lock of its own, so that on either backend changes collide."""
    stop = threading.Event()
    written = []

    def write() -> None:
        while not stop.is_set():
            for verb in ("-A", "-D"):
                node.world.lab.run("n1", [f"iptables-{node.backend.mode}", verb, "FORWARD", "-s", "192.0.2.77"])
            written.append(1)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(12):
            node.run("ip6tables -F PODFENCE-FORWARD")
            node.world.lab.run("n1", [f"iptables-{node.backend.mode}", "-F", "PODFENCE-INGRESS"])
            node.repair()
            assert not node.differences()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert len(written) > 5


def test_a_set_that_others_rules_look_in_stays_while_they_do(node: Node) -> None:
    name = node.a_set()
    node.run(f"iptables -A OTHERS -m set --match-set {name} src -j RETURN")
    others = node.others()
    node.compiled = node.world.compiled("")
    assert node.repair() > 0
    assert not node.differences() and node.others() == others
    assert node.repair() == 0, "it is not tried again and again"
    assert [each for each in node.run("ipset list -n").split() if "-ip-" in each] == [name]
    node.run(f"iptables -D OTHERS -m set --match-set {name} src -j RETURN")
    assert node.repair() == 1
    assert name not in node.run("ipset list -n").split()


def test_what_others_do_in_a_loop_is_repaired_each_time(node: Node) -> None:
    """A whole restore in the middle of ours: whoever comes last is seen, and answered."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            whole_restore(node)
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            with suppress(KernelRejected):
                node.repair()
    finally:
        stop.set()
        writer.join()
    node.repair()
    assert not node.differences()
    assert "-A FORWARD -j ACCEPT" in node.others()


def manifest(pod: Pod) -> str:
    """A pod of the lab as a file has it, with the addresses that the lab gave it."""
    addresses = [str(address) for address in pod.addresses]
    status = {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    metadata = {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": pod.node}, "status": status}
    )


@pytest.fixture
def verify_words(node: Node, tmp_path: Path) -> list[str]:
    """The command, for the objects of the lab."""
    manifests = tmp_path / "shop.yaml"
    cluster = node.compiled.cluster
    manifests.write_text("\n---\n".join([*SHOP.strip().split("\n---\n")[:2], *map(manifest, cluster.pods), API]))
    options = ["-f", str(manifests), "--node", "n1", "--backend", node.backend.mode]
    return [sys.executable, "-m", "podfence", "node", "verify", *options]


def test_the_command_says_it(node: Node, verify_words: list[str]) -> None:
    def command(*more: str) -> subprocess.CompletedProcess[str]:
        with node.world.lab.inside("n1"):
            return subprocess.run([*verify_words, *more], capture_output=True, text=True, check=False)

    cluster = node.compiled.cluster
    done = command()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.count("proven equal") == 2
    address = str(cluster.pods[1].addresses[0])
    node.run(f"ipset del {node.a_set()} {next(str(p.addresses[0]) for p in cluster.pods if p.name == 'far')}")
    done = command()
    assert done.returncode == 1
    assert f"-> {address} (shop/api) TCP 80" in done.stdout and "installed: reject" in done.stdout
    assert "allowed by shop/api: spec.ingress[0]" in done.stdout
    answer = json.loads(command("-o", "json").stdout)
    assert not answer["proven_equal"]
    first, second = answer["families"]
    assert first["wanted"] == "accept" and first["packet"]["dst"] == f"{address} (shop/api)"
    assert second["proven_equal"]


def test_the_command_follows_changes(node: Node, verify_words: list[str]) -> None:
    """One answer at the start, and one for each change of something that matters to us."""
    with node.world.lab.inside("n1"):
        process = subprocess.Popen([*verify_words, "--follow"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert ["proven equal" in process.stdout.readline() for _ in range(2)] == [True, True]
        node.run("iptables -F FORWARD")
        assert process.stdout.readline().rstrip().endswith("differs")
    finally:
        process.terminate()
        process.wait(5)
        process.stdout.close()
