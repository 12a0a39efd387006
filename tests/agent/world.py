"""An agent's loop with everything around it faked, but for what it owns: index, rules, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from compiler.changes import Deleted
from compiler.compile import compile_cluster
from enforcer.agent.inbox import Inbox
from enforcer.agent.knowledge import Knowledge, Message
from enforcer.agent.loop import Loop
from enforcer.agent.settings import Settings
from enforcer.attachment.hostview import HostView
from enforcer.cluster.heard import KINDS, Heard
from enforcer.cluster.news import Changed, Gone, Key, Kind, Listed
from enforcer.connections.concern import Concern, Owners
from enforcer.connections.ender import Moment
from enforcer.connections.gate import Gate
from enforcer.keeping.keep import Keeper
from enforcer.keeping.repair import Repair, Repairer
from enforcer.kernel.drift import Wrote
from enforcer.kernel.rtnetlink import Link, Route
from enforcer.rules.layout import layout
from enforcer.rules.plan import plan
from enforcer.rules.steps import Plan
from policy.cidr import BITS, Address, Prefix, parse_cidr
from policy.errors import HostRefused, KernelRejected
from policy.model import Namespace, NetworkPolicy, Pod
from tests.compiler.slow_twin import Objects, happen, identity
from tests.enforcer.fake import StepFailed
from tests.enforcer.test_keep import FAMILIES, FakeKernel, cluster_of
from tests.enforcer.test_plan import interface

BLOCKS = tuple(map(parse_cidr, ("10.1.0.0/16", "fd00:1::/32")))


def host_of(pods: Iterable[Pod]) -> HostView:
    """Each pod behind a veth of its own, with a route to each of its addresses."""
    links, routes = {}, set()
    for number, pod in enumerate(sorted(pods, key=lambda pod: pod.key), 10):
        links[number] = Link(number, interface(pod), "veth", peer=number + 1000, peer_netns=number)
        routes |= {Route(Prefix(a.family, a.value, BITS[a.family]), 254, (number,)) for a in pod.addresses}
    return HostView(links, frozenset(routes))


class Kernel(FakeKernel):
    """Refuses as the real one does."""

    def begin(self, steps: Plan) -> Callable[[], None]:
        try:
            return super().begin(steps)
        except StepFailed:
            raise KernelRejected("told to") from None


class FakeFlows:
    def __init__(self) -> None:
        self.closed = frozenset[Address]()
        self.owners: list[Owners] = []
        self.began: list[Moment] = []
        self.told: list[Concern] = []

    def hand_over(self, owners: Owners) -> frozenset[Address]:
        self.owners.append(owners)
        return self.closed

    def begin(self, moment: Moment, old_marks: Iterable[int]) -> None:
        self.began.append(moment)

    def tell(self, change: Concern, moment: Moment) -> None:
        self.told.append(change)


class FakeDrift:
    def __init__(self) -> None:
        self.drifted = False

    def changed(self) -> bool:
        found, self.drifted = self.drifted, False
        return found

    def look(self) -> None:
        self.drifted = False

    def ours(self, wrote: Wrote | None = None) -> None:
        self.look()


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.applied_for: list[str] = []
        self.repairs: list[tuple[Repair, ...]] = []
        self.failures: list[str] = []
        self.defects: list[Exception] = []

    def applied(self, plans: tuple[Plan, ...], why: str, heard: float, began: float, ended: float) -> None:
        assert heard <= began <= ended
        self.applied_for.append(why)

    def repaired(self, repairs: tuple[Repair, ...]) -> None:
        self.repairs.append(repairs)

    def failed(self, error: HostRefused) -> None:
        self.failures.append(str(error))

    def stumbled(self, error: Exception) -> None:
        self.defects.append(error)

    def turned(self, loop: Loop) -> None:
        pass


class World:
    """Says things to a loop, and compares the kernel with what the objects mean."""

    def __init__(self, node: str, tmp: Path, kernel: Kernel | None = None, pods: Iterable[Pod] = ()) -> None:
        self.now = 0.0
        self.node = node
        self.kernel = kernel or Kernel()
        enforced = any(plane.chains for plane in self.kernel.planes.values())
        self.settings = Settings(node=node, pod_cidrs=BLOCKS, state_dir=str(tmp))
        self.knowledge = Knowledge(self.settings, host_of(pods), Heard(KINDS))
        self.inbox: Inbox[Message] = Inbox(lambda: self.now)
        self.nudged: list[Address] = []
        self.flows, self.drift, self.notes = FakeFlows(), FakeDrift(), Notes()
        self.keeper = Keeper(self.knowledge.view(frozenset()), FAMILIES, self.kernel)
        self.loop = Loop(
            self.knowledge,
            self.inbox,
            self.keeper,
            Gate(),
            self.flows,
            lambda keeper: Repairer(keeper, self.drift, lambda: self.now, 60.0),
            self.notes,
            self.nudged.extend,
            enforced,
            frozenset(),
            lambda: self.now,
        )
        self.present: Objects = {}

    def list(self, objects: Iterable[Namespace | Pod | NetworkPolicy]) -> None:
        """All kinds, as after a first sync."""
        self.present = {identity(each): each for each in objects}
        for kind in KINDS:
            self.inbox.put(Listed(kind, tuple(o for (k, *_), o in self.present.items() if k == kind)))

    def say(self, event: Namespace | Pod | NetworkPolicy | Deleted) -> None:
        kind: Kind = event.kind if isinstance(event, Deleted) else type(event).__name__  # type: ignore[assignment]
        key = Key(event.namespace, event.name) if not isinstance(event, Namespace) else Key("", event.name)
        self.inbox.put(Changed(kind, Gone(key) if isinstance(event, Deleted) else event))
        happen(self.present, event)

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.loop.turn(0)

    @property
    def empty(self) -> bool:
        return not any(plane.chains for plane in self.kernel.planes.values())

    def as_fresh(self) -> bool:
        """Whether the kernel holds what the present objects mean, laid out from nothing, once it is tidied."""
        assert self.loop.view
        self.keeper.tidy()
        compiled = compile_cluster(cluster_of(self.present))
        wanted = {family: layout(compiled, self.loop.view, family) for family in FAMILIES}
        return all(plan(self.kernel.read(family), wanted[family]) == () for family in FAMILIES)
