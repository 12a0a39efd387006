"""From an event to the kernel: how long a change takes where only sets change, and where a policy makes rules.

A node of 110 pods in a namespace of its own, on both backends. An event is timed from the decoded object to the last
answer of the kernel, in both families. The large cluster and the small one take turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random

from msgspec.structs import replace

from benchmarks.record import Figure, Size, figure
from compiler.changes import Deleted, Event
from enforcer.backend import MODES, Backend, Mode
from enforcer.host import HostKernel
from enforcer.ipset import Sets
from enforcer.keep import Keeper
from enforcer.layout import NodeView
from enforcer.steps import Transaction
from lab import netns
from policy.cidr import Address, Family, Prefix
from policy.model import ContainerPort, IPBlock, Namespace, NetworkPolicy, Peer, Pod, Port, Rule
from policy.selector import NAMESPACE_NAME_LABEL, in_, selector

FAMILIES: tuple[Family, Family] = (4, 6)
LOCAL_PODS, SPACES, APPS = 110, 20, 50
PODS: dict[Size, int] = {"quick": 2_000, "full": 10_000}
POLICIES: dict[Size, int] = {"quick": 50, "full": 1_000}
ROUNDS: dict[Size, int] = {"quick": 3, "full": 200}
LABEL_TARGETS, POLICY_TARGET, GROWTH_TARGET = {50: 1.0, 99: 5.0}, 10.0, 1.5


def measure(size: Size) -> Iterable[Figure]:
    for mode in MODES:
        with ExitStack() as stack:
            usual = stack.enter_context(_node(mode, PODS[size], POLICIES[size]))
            labels = [usual.relabel(number) for number in range(ROUNDS[size])]
            case: dict[str, str | int] = {"backend": mode, "pods": PODS[size], "policies": POLICIES[size]}
            for percent, target in LABEL_TARGETS.items():
                found = sorted(labels)[min(len(labels) * percent // 100, len(labels) - 1)]
                yield figure(f"label of a far pod to the kernel, p{percent}", [found], "ms", target, **case)
            policies = [usual.policy(number) for number in range(max(ROUNDS[size] // 8, 1))]
            yield figure("policy added to the kernel", policies, "ms", POLICY_TARGET, **case)
        yield from _growth(mode, size)


def _growth(mode: Mode, size: Size) -> Iterable[Figure]:
    """The same change in a hundred times as many pods."""
    with _node(mode, PODS[size] // 10, 100) as small, _node(mode, PODS[size] * 10, 100) as large:
        ratios = []
        for number in range(ROUNDS[size]):
            few, many = small.relabel(number), large.relabel(number)
            ratios.append(many / few)
        yield figure(
            "label of a far pod, in many pods against few", ratios, "ratio", GROWTH_TARGET,
            backend=mode, pods=PODS[size] * 10, against=PODS[size] // 10,
        )  # fmt: skip


class _Node:
    def __init__(self, mode: Mode, pods: int, policies: int, sets: Sets) -> None:
        self._rng = Random(7)
        self._pods = [self._pod(number, max(pods // LOCAL_PODS, 2)) for number in range(pods)]
        self._far = [pod for pod in self._pods if pod.node != "n0"]
        veths = {pod.key: f"veth{number}" for number, pod in enumerate(self._pods) if pod.node == "n0"}
        blocks = (Prefix(4, 10 << 24, 24), Prefix(6, 0xFD << 120, 64))
        view = NodeView("n0", veths, blocks, uplinks=("eth0",))
        self._keeper = Keeper(view, FAMILIES, HostKernel(Backend(mode, FAMILIES), sets))
        spaces = (Namespace(_space(n), {NAMESPACE_NAME_LABEL: _space(n)}) for n in range(SPACES))
        self._keeper.start([*spaces, *self._pods, *(self._policy(number, "policy") for number in range(policies))])

    def _pod(self, number: int, nodes: int) -> Pod:
        addresses = (Address(4, (10 << 24) + number + 1), Address(6, (0xFD << 120) + number + 1))
        ports = (ContainerPort("http", "TCP", 8080),)
        labels = {"app": f"app-{self._rng.randrange(APPS)}"}
        space = _space(self._rng.randrange(SPACES))
        return Pod(space, f"pod-{number}", labels, node=f"n{number % nodes}", addresses=addresses, ports=ports)

    def _policy(self, number: int, name: str) -> NetworkPolicy:
        """A few peers, one port, one block: as policies are."""
        peers = [Peer(pods=selector([in_("app", f"app-{self._rng.randrange(APPS)}")])) for _ in range(2)]
        peers.append(Peer(block=IPBlock(Prefix(4, (172 << 24) + (number % 65536 << 8), 24))))
        rule = Rule(tuple(peers), (Port("TCP", self._rng.choice([80, 443, 8080, 9090])),))
        subjects = selector([in_("app", f"app-{self._rng.randrange(APPS)}")])
        where = _space(number % SPACES)
        return NetworkPolicy(where, f"{name}-{number}", subjects, ("ingress", "egress"), (rule,), (rule,))

    def relabel(self, number: int) -> float:
        """Milliseconds for one far pod that becomes another application's; of those that change a set here."""
        for _ in range(10_000):
            at = self._rng.randrange(len(self._far))
            self._far[at] = replace(self._far[at], labels={"app": f"app-{self._rng.randrange(APPS)}"})
            spent, steps = self._timed(self._far[at])
            if steps:
                return spent
        raise RuntimeError("no label of a far pod changes a set here")

    def policy(self, number: int) -> float:
        """Milliseconds for a policy that selects pods of this node; it goes again, which is not timed."""
        local = [pod for pod in self._pods if pod.node == "n0"]
        target = local[number % len(local)]
        added = replace(
            self._policy(number, "added"),
            namespace=target.namespace,
            subjects=selector([in_("app", target.labels["app"])]),
        )
        spent, _ = self._timed(added)
        self._keeper.handle([Deleted("NetworkPolicy", added.namespace, added.name)])
        return spent

    def _timed(self, event: Event) -> tuple[float, int]:
        """And how many steps it took."""
        began = time.perf_counter()
        plans = self._keeper.handle([event])
        spent = (time.perf_counter() - began) * 1000
        rules = any(isinstance(step, Transaction) for steps in plans for step in steps)
        assert rules == isinstance(event, NetworkPolicy), "a label changes no rule, a policy does"
        return spent, sum(map(len, plans))


@contextmanager
def _node(mode: Mode, pods: int, policies: int) -> Iterator[_Node]:
    name = f"keep-bench-{os.getpid()}-{pods}"
    netns.create([name])
    try:
        with netns.inside(name), Sets() as sets:
            yield _Node(mode, pods, policies, sets)
    finally:
        netns.delete([name])


def _space(number: int) -> str:
    return f"team-{number}"
