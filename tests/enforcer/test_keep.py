"""The keeper: after any history the kernel holds what a fresh start would, and on the way no verdict is neither the old
nor the new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted, Event
from compiler.compile import Compiled, compile_cluster
from enforcer.keeping.family import MOST_UNTIDY
from enforcer.keeping.keep import Keeper
from enforcer.readback.simulate import Packet
from enforcer.rules.allow import allow_rules, sources
from enforcer.rules.layout import NodeView, layout
from enforcer.rules.plan import Actual, plan
from enforcer.rules.ruleset import HookName
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Plan, Transaction
from policy.cidr import Family, parse_cidr
from policy.decode import decode_objects
from policy.model import DIRECTIONS, Cluster, IPBlock, Namespace, NetworkPolicy, Peer, Pod, Rule
from policy.selector import EVERYTHING, in_, not_in, selector
from tests.compiler.histories import batches, history, undone
from tests.compiler.slow_twin import Objects, happen
from tests.enforcer.fake import FakeDataplane, StepFailed
from tests.enforcer.test_plan import interface, lively, single
from tests.generate import cluster
from tests.generate.words import KEYS, VALUES

FAMILIES: tuple[Family, Family] = (4, 6)
CIDRS = tuple(map(parse_cidr, ("10.1.0.0/16", "fd00:1::/32")))


class FakeKernel:
    """Both families; fails at the step that it is told to. `lazy` as the kernel is with nft."""

    def __init__(self, lazy: bool = False) -> None:
        self.lazy = lazy
        self.planes = {family: FakeDataplane(family) for family in FAMILIES}
        self.fail_in: int | None = None
        self.seen: list[Plan] = []

    def read(self, family: Family) -> Actual:
        return self.planes[family].read()

    def begin(self, steps: Plan) -> Callable[[], None]:
        self.seen.append(steps)
        for step in single(steps):
            if self.fail_in is not None:
                self.fail_in -= 1
                if self.fail_in < 0:
                    self.fail_in = None
                    raise StepFailed
            family: Family = 6 if getattr(step, "family", 0) == 6 or "pf-6-" in step.text else 4
            self.planes[family].step(step)
        return lambda: None


def cluster_of(present: Objects) -> Cluster:
    known = [*present.values()]
    declared = [each for each in known if isinstance(each, Namespace)]
    pods = [each for each in known if isinstance(each, Pod)]
    named = {each.name for each in declared}
    implied = {each.namespace for each in known if isinstance(each, Pod | NetworkPolicy)} - named
    spaces = [*declared, *(Namespace(name, {"kubernetes.io/metadata.name": name}) for name in sorted(implied))]
    return Cluster(spaces, pods, [each for each in known if isinstance(each, NetworkPolicy)], [], [], [])


def view_of(events: list[Event], node: str) -> NodeView:
    return NodeView(node, {event.key: interface(event) for event in events if isinstance(event, Pod)}, CIDRS)


def assert_as_fresh(kernel: FakeKernel, present: Objects, view: NodeView, tidy: bool) -> None:
    """But for what no packet meets any more, which waits for a quiet moment."""
    compiled = compile_cluster(cluster_of(present))
    for family in FAMILIES:
        left = plan(kernel.read(family), layout(compiled, view, family), lazily=kernel.lazy and not tidy)
        assert not [step for step in left if tidy or not isinstance(step, DropSet)]


@pytest.mark.parametrize("seed", range(25))
def test_after_any_history_the_kernel_is_as_after_a_fresh_start(seed: int) -> None:
    rng = Random(seed)
    events = history(rng, 60)
    if seed % 3 == 0:
        events += undone(events)
    nodes = Counter(event.node for event in events if isinstance(event, Pod) and event.node)
    view = view_of(events, nodes.most_common(1)[0][0])
    kernel, present = FakeKernel(lazy=seed % 2 == 0), Objects()
    keeper = Keeper(view, FAMILIES, kernel)
    keeper.start([])
    for batch in batches(rng, events):
        if rng.random() < 0.3:
            kernel.fail_in = rng.randint(0, 5)
        # Some of it may be taken in while the kernel can't be asked, and what follows brings both.
        taken = rng.randint(0, len(batch)) if rng.random() < 0.3 else 0
        keeper.take(batch[:taken])
        try:
            keeper.handle(batch[taken:])
        except StepFailed:
            keeper.handle([])
        kernel.fail_in = None
        for event in batch:
            happen(present, event)
        if tidy := rng.random() < 0.3:
            keeper.tidy()
        assert_as_fresh(kernel, present, view, tidy)
    keeper.tidy()
    before = len(kernel.seen)
    keeper.handle(present.values())
    keeper.tidy()
    assert len(kernel.seen) == before, "nothing changed: nothing written"


@pytest.mark.parametrize("seed", range(60))
def test_no_flow_has_a_verdict_that_is_neither_the_old_nor_the_new(seed: int) -> None:
    rng = Random(seed)
    found = decode_objects(lively(rng)).cluster
    events: list[Event] = [*found.namespaces, *found.pods, *found.policies]
    view = view_of(events, "n0")
    kernel = FakeKernel(lazy=seed % 2 == 0)
    keeper = Keeper(view, FAMILIES, kernel)
    keeper.start(events)
    pods = {pod.key: pod for pod in found.pods}
    for _ in range(12):
        chosen = rng.sample(sorted(pods), rng.choice([1, 1, 1, 2, 3]))
        batch = [replace(pods[key], labels={k: rng.choice(VALUES) for k in KEYS}) for key in chosen]
        pods |= {pod.key: pod for pod in batch}
        asked = every_pair(compile_cluster(cluster_of_pods(found, pods)), "n0")
        plane = kernel.planes[4]
        seen = [plane.verdicts(asked)]
        kernel.seen.clear()
        watch = _Watch(kernel, asked, seen)
        keeper.handle(batch)
        handled = len(seen)
        keeper.tidy()
        watch.stop()
        assert all(answers == seen[-1] for answers in seen[handled - 1 :])
        for answers in seen:
            assert all(now in (was, end) for was, now, end in zip(seen[0], answers, seen[-1], strict=True))


def every_pair(compiled: Compiled, node: str) -> list[tuple[HookName, Packet]]:
    """Each flow between two pods that the node sees, at the two ports that rules speak of."""
    pods = compiled.cluster.pods
    return [
        ("FORWARD", Packet(src.addresses[0], dst.addresses[0], "tcp", port, _veth(src, node), _veth(dst, node)))
        for src in pods
        for dst in pods
        for port in (80, 81)
        if src is not dst and node in (src.node, dst.node)
    ]


def _veth(pod: Pod, node: str) -> str:
    return interface(pod) if pod.node == node else "eth0"


def cluster_of_pods(found: Cluster, pods: dict[str, Pod]) -> Cluster:
    return replace(found, pods=list(pods.values()))


class _Watch:
    """Asks the IPv4 dataplane after every single step."""

    def __init__(self, kernel: FakeKernel, asked: list, seen: list[list[bool]]) -> None:  # type: ignore[type-arg]
        self._plane = kernel.planes[4]
        self._step = self._plane.step

        def step(each) -> None:  # type: ignore[no-untyped-def]
            self._step(each)
            seen.append(self._plane.verdicts(asked))

        self._plane.step = step  # type: ignore[method-assign]

    def stop(self) -> None:
        self._plane.step = self._step  # type: ignore[method-assign]


def test_a_label_of_a_far_pod_changes_elements_and_no_rule() -> None:
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel()
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    keeper.start([*found.namespaces, *found.pods, *found.policies])
    far = next(pod for pod in found.pods if pod.node == "n1")
    kinds: set[type] = set()
    for value in (*VALUES, *VALUES):
        for steps in keeper.handle([replace(far, labels=dict.fromkeys(KEYS, value))]):
            kinds |= {type(step) for step in steps}
    assert kinds == {ChangeSet}


def test_an_allow_set_is_asked_for_its_sources_as_its_rules_would_say() -> None:
    for seed in range(20):
        compiled = compile_cluster(decode_objects(cluster(Random(seed)) + lively(Random(seed))).cluster)
        for pod in compiled.cluster.pods:
            for direction in DIRECTIONS:
                allow = compiled.allow(pod, direction)
                for family in FAMILIES:
                    specs = allow_rules(allow, direction, family).sets
                    assert set(sources(allow, family)) == {source for spec in specs for source, _ in spec.sources}


def test_a_policy_makes_rules_and_its_end_takes_them_out() -> None:
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel()
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    keeper.start([*found.namespaces, *found.pods])
    empty = kernel.read(4)
    (first, _) = keeper.handle([found.policies[0]])
    assert sum(isinstance(step, Transaction) for step in first) == 1
    gone = Deleted("NetworkPolicy", found.policies[0].namespace, found.policies[0].name)
    assert not any(isinstance(step, DropSet) for steps in keeper.handle([gone]) for step in steps)
    assert kernel.read(4).tables == empty.tables
    assert {type(step) for steps in keeper.tidy() for step in steps} == {DropSet}
    assert kernel.read(4) == empty
    assert keeper.tidy() == ((), ())


def test_what_waits_for_a_quiet_moment_is_bounded_and_a_start_takes_it_out() -> None:
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel()
    view = view_of([*found.pods], "n0")
    objects = [*found.namespaces, *found.pods]
    keeper = Keeper(view, FAMILIES, kernel)
    keeper.start(objects)
    most = 0
    for number in range(2 * MOST_UNTIDY):
        block = parse_cidr(f"198.51.{number}.0/24")
        rule = Rule((Peer(block=IPBlock(block)),))
        keeper.handle([NetworkPolicy("a", "p", EVERYTHING, ("ingress",), (rule,), ())])
        most = max(most, len(kernel.planes[4].sets))
    assert MOST_UNTIDY < most < MOST_UNTIDY + 20
    last = NetworkPolicy("a", "p", EVERYTHING, ("ingress",), (rule,), ())
    Keeper(view, FAMILIES, kernel).start([*objects, last])
    assert len(kernel.planes[4].sets) < 20


@pytest.mark.parametrize("seed", range(40))
def test_the_short_way_of_a_policy_is_the_long_one(seed: int) -> None:
    """Policies and labels come and go; a second keeper, which has no short way, writes the same."""
    rng = Random(seed)
    found = decode_objects(lively(rng)).cluster
    found = replace(found, pods=[one_family(pod, rng.choice([4, 6, 0])) for pod in found.pods])
    events: list[Event] = [*found.namespaces, *found.pods, *found.policies]
    view = view_of(events, "n0")
    kernels = FakeKernel(lazy=seed % 2 == 0), FakeKernel()
    short, long = (Keeper(view, FAMILIES, kernel) for kernel in kernels)
    for each in long._families:
        each.patch = lambda subjects: None  # type: ignore[method-assign]
    present = Objects()
    for keeper in (short, long):
        keeper.start(events)
    for event in events:
        happen(present, event)
    pods = {pod.key: pod for pod in found.pods}
    for _ in range(30):
        batch: list[Event] = []
        for _ in range(rng.choice([1, 1, 1, 2])):
            if rng.random() < 0.6:
                batch.append(replace(rng.choice(found.policies), name=f"other-{rng.randrange(3)}"))
                if rng.random() < 0.4:
                    batch.append(Deleted("NetworkPolicy", "a", f"other-{rng.randrange(3)}"))
            else:
                pod = pods[rng.choice(sorted(pods))]
                pod = pods[pod.key] = replace(pod, labels={key: rng.choice(VALUES) for key in KEYS})
                batch.append(pod)
        short.handle(batch)
        long.handle(batch)
        for event in batch:
            happen(present, event)
        if tidy := rng.random() < 0.3:
            short.tidy()
        assert_as_fresh(kernels[0], present, view, tidy)
        for family in FAMILIES:
            assert short._families[family == 6]._layout == long._families[family == 6]._layout


def test_the_short_way_is_gone_where_pods_stay_isolated() -> None:
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel()
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    first = NetworkPolicy("a", "first", EVERYTHING, ("ingress",), (), ())
    keeper.start([*found.namespaces, *found.pods, first])
    for each in keeper._families:
        each.lay_out = None  # type: ignore[method-assign, assignment]
    rule = Rule((Peer(pods=selector([in_(KEYS[0], *VALUES)])),))
    second = replace(first, name="second", ingress=(rule,))
    made, written = keeper.handle([second])[0]
    assert isinstance(made, MakeSet) and isinstance(written, Transaction)
    local = [pod for pod in found.pods if pod.node == "n0"]
    assert len(written.write) == len(local) + 1 and not written.delete
    (written,) = keeper.handle([Deleted("NetworkPolicy", "a", "second")])[0]
    assert isinstance(written, Transaction) and len(written.write) == len(local) and len(written.delete) == 1


@pytest.mark.parametrize("lazy", [False, True])
def test_the_meaning_of_a_set_is_forgotten_with_the_set(lazy: bool) -> None:
    """Where pods stay and policies change a node may never be laid out anew."""
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel(lazy)
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    keeper.start([*found.namespaces, *found.pods])
    other = next(pod for pod in found.pods if pod.node != "n0")
    for number in range(2 * MOST_UNTIDY):
        peers = selector([not_in("number", str(number))])
        keeper.handle([NetworkPolicy("a", "p", EVERYTHING, ("ingress",), (Rule((Peer(pods=peers),)),), ())])
        # Members alone: that is when the meaning of sets is asked for.
        keeper.handle([Deleted("Pod", other.namespace, other.name)])
        keeper.handle([other])
        keeper.tidy()
    for each in keeper._families:
        assert each._actual and len(each._roles or {}) < len(each._actual.sets) + 3


def test_a_pod_has_rules_in_its_own_families_alone() -> None:
    found = decode_objects(lively(Random(1))).cluster
    pods = [one_family(pod, 4) for pod in found.pods]
    kernel = FakeKernel()
    keeper = Keeper(view_of([*pods], "n0"), FAMILIES, kernel)
    first = NetworkPolicy("a", "first", EVERYTHING, ("ingress",), (), ())
    keeper.start([*found.namespaces, *pods, first])
    chains = {family: len(kernel.read(family).tables.chains) for family in FAMILIES}
    local = [pod for pod in pods if pod.node == "n0"]
    assert local and chains[4] >= chains[6] + len(local)
    second = replace(first, name="second", ingress=(Rule((Peer(pods=selector([in_(KEYS[0], *VALUES)])),)),))
    for each in keeper._families:
        each.lay_out = None  # type: ignore[method-assign, assignment]
    four, six = keeper.handle([second])
    assert four and not six, "the short way stays open, and leads nowhere where no pod is"
    for each in keeper._families:
        del each.lay_out
    keeper.handle([replace(local[0], addresses=next(p for p in found.pods if p.key == local[0].key).addresses)])
    assert len(kernel.read(6).tables.chains) > chains[6], "an address of the other family brings its rules"


def one_family(pod: Pod, family: int) -> Pod:
    """Without its addresses of the other one; all of them for 0."""
    return replace(pod, addresses=tuple(each for each in pod.addresses if not family or each.family == family))


def test_a_set_that_waited_is_taken_up_again() -> None:
    """As long as nothing looks in it nobody keeps it up: it serves only where its members are still the right ones."""
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel()
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    keeper.start([*found.namespaces, *found.pods])
    rule = Rule((Peer(pods=selector([in_(KEYS[0], *VALUES)])),))
    policy = NetworkPolicy("a", "p", EVERYTHING, ("ingress",), (rule,), ())
    (first, _) = keeper.handle([policy])
    gone = Deleted("NetworkPolicy", "a", "p")
    keeper.handle([gone])
    (again, _) = keeper.handle([policy])
    assert any(isinstance(step, MakeSet) for step in first) and not any(isinstance(step, MakeSet) for step in again)
    keeper.handle([gone])
    far = next(pod for pod in found.pods if pod.node == "n1")
    keeper.handle([replace(far, labels={KEYS[0]: VALUES[0]} if KEYS[0] not in far.labels else {})])
    (anew, _) = keeper.handle([policy])
    assert any(isinstance(step, MakeSet) for step in anew)
    present = Objects()
    for event in (*found.namespaces, *keeper.index.pods.values(), policy):
        happen(present, event)
    assert_as_fresh(kernel, present, view_of([*found.pods], "n0"), tidy=False)


def test_members_of_a_set_that_came_the_short_way_change_in_place() -> None:
    """Members changed before it, so that what sets mean is known already. Found by the soak: it ended the agent."""
    found = decode_objects(lively(Random(1))).cluster
    kernel = FakeKernel()
    keeper = Keeper(view_of([*found.pods], "n0"), FAMILIES, kernel)
    key, (one, other) = KEYS[0], VALUES[:2]

    def admits(*values: str) -> NetworkPolicy:
        return NetworkPolicy(
            "a", "p", EVERYTHING, ("ingress",), (Rule((Peer(pods=selector([in_(key, *values)])),)),), ()
        )

    far = next(pod for pod in found.pods if pod.node == "n1" and pod.namespace == "a" and pod.addresses)
    keeper.start([*found.namespaces, *found.pods, replace(far, labels={}), admits(one)])
    family = 0 if far.addresses[0].family == 4 else 1
    (step,) = keeper.handle([replace(far, labels={key: one})])[family]
    assert isinstance(step, ChangeSet)
    keeper.handle([admits(other)])
    (step,) = keeper.handle([replace(far, labels={key: other})])[family]
    assert isinstance(step, ChangeSet)


def test_repair_reads_back_what_somebody_else_changed() -> None:
    found = decode_objects(lively(Random(1))).cluster
    events: list[Event] = [*found.namespaces, *found.pods, *found.policies]
    kernel = FakeKernel()
    keeper = Keeper(view_of(events, "n0"), FAMILIES, kernel)
    keeper.start(events)
    wanted = kernel.read(4)
    plane = kernel.planes[4]
    plane.builtin["FORWARD"] = ("",)
    plane.chains["PODFENCE-FORWARD"] = ()
    keeper.repair()
    assert kernel.read(4).tables.chains == wanted.tables.chains
    assert plane.builtin["FORWARD"] == ("PODFENCE-FORWARD", "")
