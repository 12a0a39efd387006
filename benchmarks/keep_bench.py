"""From an event to the kernel: how long a change takes where only sets change, and where a policy makes rules.

A node of 110 pods in a namespace of its own, on both backends. An event is timed from the decoded object to the last
answer of the kernel, in both families. The large cluster and the small one take turns. So do a policy on a node that
has IPv4 alone and a rewrite of all that kube-router would have there: its two programs, the text not counted.

A policy comes after a moment in which the keeper could tidy up, as most do; those that come in a row are told too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random

from msgspec.structs import replace

from benchmarks.record import Case, Figure, Size, figure
from benchmarks.shapes.kube_router import kube_router
from compiler.changes import Deleted, Event
from compiler.compile import compile_cluster
from enforcer.keeping.host import HostKernel
from enforcer.keeping.keep import Keeper
from enforcer.kernel.backend import MODES, Backend, Mode
from enforcer.kernel.ipset import Sets
from enforcer.rules.layout import NodeView
from enforcer.rules.steps import Transaction
from lab import netns
from policy.cidr import Address, Family, Prefix
from policy.model import Cluster, ContainerPort, IPBlock, Namespace, NetworkPolicy, Peer, Pod, Port, Rule
from policy.selector import NAMESPACE_NAME_LABEL, in_, selector

FAMILIES: tuple[Family, Family] = (4, 6)
LOCAL_PODS, SPACES, APPS = 110, 20, 50
PODS: dict[Size, int] = {"quick": 2_000, "full": 10_000}
POLICIES: dict[Size, int] = {"quick": 50, "full": 1_000}
ROUNDS: dict[Size, int] = {"quick": 3, "full": 200}
LABEL_TARGETS, POLICY_TARGET, GROWTH_TARGET = {50: 1.0, 99: 5.0}, 10.0, 1.5
REWRITE_TARGET = 1 / 20
QUIET = 0.05


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
            in_a_row = usual.policies_in_a_row(len(policies))
            yield figure("policy added to the kernel, in a row", in_a_row, "ms", None, **case)
        yield from _rewritten(mode, size)
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


def _rewritten(mode: Mode, size: Size) -> Iterable[Figure]:
    """A policy against everything once more; both know IPv4 only."""
    with _node(mode, PODS[size], POLICIES[size], (4,)) as node, _rewriting(node, mode) as rewrite:
        ours, theirs = [], []
        for number in range(max(ROUNDS[size] // 8, 1)):
            ours.append(node.policy(number))
            theirs.append(rewrite())
        case: Case = {"backend": mode, "pods": PODS[size], "policies": POLICIES[size], "against": "kube-router's shape"}
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        yield figure("policy added, IPv4, against a full rewrite", ratios, "ratio", REWRITE_TARGET, **case)
        yield figure("full rewrite in kube-router's shape, IPv4", theirs, "ms", None, **case)


class _Node:
    def __init__(self, pods: int, policies: int, kernel: HostKernel, families: Sequence[Family]) -> None:
        self._rng = Random(7)
        self._pods = [self._pod(number, max(pods // LOCAL_PODS, 2)) for number in range(pods)]
        self._far = [pod for pod in self._pods if pod.node != "n0"]
        veths = {pod.key: f"veth{number}" for number, pod in enumerate(self._pods) if pod.node == "n0"}
        blocks = (Prefix(4, 10 << 24, 24), Prefix(6, 0xFD << 120, 64))
        self.view = NodeView("n0", veths, blocks, uplinks=("eth0",))
        self._keeper = Keeper(self.view, families, kernel)
        spaces = [Namespace(_space(n), {NAMESPACE_NAME_LABEL: _space(n)}) for n in range(SPACES)]
        its_policies = [self._policy(number, "policy") for number in range(policies)]
        self.cluster = Cluster(spaces, list(self._pods), its_policies, [], [], [])
        self._keeper.start([*spaces, *self._pods, *its_policies])

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
        """Milliseconds for a policy that selects pods of this node, in a quiet moment; it goes again, untimed."""
        added = self._added(number)
        self._keeper.tidy()
        time.sleep(QUIET)
        spent, _ = self._timed(added)
        self._keeper.handle([Deleted("NetworkPolicy", added.namespace, added.name)])
        return spent

    def policies_in_a_row(self, count: int) -> list[float]:
        """The same with no moment between them."""
        added = [self._added(number) for number in range(count)]
        spent = [self._timed(each)[0] for each in added]
        self._keeper.handle([Deleted("NetworkPolicy", each.namespace, each.name) for each in added])
        return spent

    def _added(self, number: int) -> NetworkPolicy:
        local = [pod for pod in self._pods if pod.node == "n0"]
        target = local[number % len(local)]
        subjects = selector([in_("app", target.labels["app"])])
        return replace(self._policy(number, "added"), namespace=target.namespace, subjects=subjects)

    def _timed(self, event: Event) -> tuple[float, int]:
        """And how many steps it took."""
        began = time.perf_counter()
        plans = self._keeper.handle([event])
        spent = (time.perf_counter() - began) * 1000
        rules = any(isinstance(step, Transaction) for steps in plans for step in steps)
        assert rules == isinstance(event, NetworkPolicy), "a label changes no rule, a policy does"
        return spent, sum(map(len, plans))


@contextmanager
def _node(mode: Mode, pods: int, policies: int, families: Sequence[Family] = FAMILIES) -> Iterator[_Node]:
    with ExitStack() as stack:
        stack.enter_context(_alone(f"keep-bench-{os.getpid()}-{pods}-{len(families)}"))
        kernel = stack.enter_context(HostKernel(Backend(mode, FAMILIES), stack.enter_context(Sets())))
        yield _Node(pods, policies, kernel, families)


@contextmanager
def _rewriting(node: _Node, mode: Mode) -> Iterator[Callable[[], float]]:
    """Milliseconds for all that kube-router has for the same objects, in another namespace than the node's."""
    name, backend = f"keep-bench-{os.getpid()}-rewrite", Backend(mode, FAMILIES)
    text = kube_router(compile_cluster(node.cluster), node.view)

    def rewrite() -> float:
        with netns.inside(name):
            began = time.perf_counter()
            text.rewrite(backend)
            return (time.perf_counter() - began) * 1000

    netns.create([name])
    try:
        rewrite()
        yield rewrite
    finally:
        netns.delete([name])


@contextmanager
def _alone(name: str) -> Iterator[None]:
    netns.create([name])
    try:
        with netns.inside(name):
            yield
    finally:
        netns.delete([name])


def _space(number: int) -> str:
    return f"team-{number}"
