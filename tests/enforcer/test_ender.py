"""Existing flows of a running node, with a table in memory that does what it is told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import product
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted, Event
from compiler.compile import compile_cluster
from compiler.index import Index
from enforcer.connections.concern import Concern, concern, owners_of, touched
from enforcer.connections.ender import Counts, Ender, Moment
from enforcer.connections.gate import Gate
from enforcer.connections.remembered import Memory, Remembered
from enforcer.connections.revocation import Judge
from enforcer.keeping.keep import Keeper
from enforcer.kernel.conntrack import Judges
from enforcer.kernel.conntrack_answer import Tracked
from enforcer.kernel.conntrack_wire import Identity, packed
from enforcer.rules.base import DEFAULT_MARK
from enforcer.rules.layout import NodeView, is_local, local_pods
from policy.cidr import Address, parse_address
from policy.decode import read_documents
from policy.errors import HostRefused
from policy.model import Cluster, Pod
from tests.compiler.histories import batches, history
from tests.compiler.slow_twin import Objects, happen
from tests.enforcer.test_keep import FAMILIES, FakeKernel, cluster_of, view_of


class FakeTable:
    """Flows by identity, and those that have the bit; fails as often as it is told."""

    def __init__(self) -> None:
        self.flows: dict[Identity, Tracked] = {}
        self.marked: set[Identity] = set()
        self.asked: list[Collection[Address] | None] = []
        self.failures = 0

    def add(self, *flows: Tracked) -> None:
        self.flows |= {identity(flow): flow for flow in flows}

    def forbidden(self, judge: Judges, mark: int, addresses: Collection[Address] | None = None) -> list[Identity]:
        self.asked.append(addresses)
        if self.failures:
            self.failures -= 1
            raise HostRefused("the connection table can't be used: No buffer space available")
        return [known for known in self._with(addresses) - self.marked if judge.forbids(self.flows[known])]

    def pardoned(self, judge: Judges, mark: int, addresses: Collection[Address] | None = None) -> list[Identity]:
        return [known for known in self._with(addresses) & self.marked if not judge.forbids(self.flows[known])]

    def with_ends(self, wanted: Callable[[Tracked], bool], addresses: Collection[Address]) -> list[Identity]:
        return [known for known in self._with(addresses) if wanted(self.flows[known])]

    def write(self, mark: int, is_set: bool, found: Sequence[Identity]) -> int:
        assert mark == DEFAULT_MARK
        (self.marked.update if is_set else self.marked.difference_update)(found)
        return len(found)

    def delete(self, found: Sequence[Identity]) -> int:
        for known in found:
            del self.flows[known]
            self.marked.discard(known)
        return len(found)

    def forget(self, mark: int) -> int:
        return 0

    def _with(self, addresses: Collection[Address] | None) -> set[Identity]:
        ends = None if addresses is None else set(map(packed, addresses))
        return {known for known, flow in self.flows.items() if ends is None or {flow.src, flow.dst} & ends}


def identity(flow: Tracked) -> Identity:
    return len(flow.src), b"".join((flow.src, flow.dst, bytes([flow.protocol]), flow.port))


def flow(src: Address | str, dst: Address | str, port: int = 80) -> Tracked:
    ends = (packed(parse_address(end) if isinstance(end, str) else end) for end in (src, dst))
    return Tracked(*ends, 6, port.to_bytes(2, "big"), b"", 0)


class Followed:
    """A node that follows events, as the agent's loop does, with `table` for its connections."""

    def __init__(self, view: NodeView, memory: Memory, table: FakeTable, own: Collection[Address] = ()) -> None:
        self.view = view
        self.own = frozenset(own)
        self.table = table
        self.gate = Gate()
        self.index = Index(view.name, Keeper(view, FAMILIES, FakeKernel())._uses)
        self.now = 0.0
        self.complaints: list[str] = []
        self.purges = 0
        self.enforced: Callable[[Pod], bool] = lambda _: True
        self.ender = Ender(
            self.index,
            self.gate,
            memory,
            table,
            purged=self._purged,
            complain=self.complaints.append,
            clock=lambda: self.now,
        )
        self.closed: frozenset[Address] = frozenset()

    def start(self, events: Sequence[Event]) -> Followed:
        self._take(events)
        self.ender.begin(self.moment())
        self.work()
        return self

    def handle(self, events: Sequence[Event], also: Sequence[str] = ()) -> Followed:
        self.ender.tell(self._take(events, also), self.moment())
        return self

    def work(self) -> int:
        runs = 0
        while self.ender.work():
            runs += 1
        return runs

    def moment(self) -> Moment:
        return Moment(self.view, self.local(), self.own, self.enforced)

    def local(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.index.pods.values() if is_local(pod, self.view.name))

    def _take(self, events: Sequence[Event], also: Sequence[str] = ()) -> Concern:
        with self.gate.changing(touched(self.index, events)):
            changes = self.index.apply(events)
        self.closed = self.ender.hand_over(owners_of(self.local(), self.index))
        return concern(changes, {pod.key: pod for pod in self.local()}, also)

    def _purged(self) -> None:
        self.purges += 1


@pytest.mark.parametrize("seed", range(40))
def test_after_each_batch_every_bit_says_what_a_fresh_start_would(seed: int) -> None:
    """Whatever happens, and though only flows with the concerned ends are looked at."""
    rng = Random(seed)
    events = history(rng, 50)
    nodes = Counter(event.node for event in events if isinstance(event, Pod) and event.node)
    view = view_of(events, nodes.most_common(1)[0][0])
    addresses = sorted({address for event in events if isinstance(event, Pod) for address in event.addresses})
    outside = [parse_address(text) for text in ("192.0.2.1", "2001:db8::1", "10.1.77.77")]
    pairs = [pair for pair in product((*addresses, *outside), repeat=2) if pair[0].family == pair[1].family]
    flows = [flow(*pair, port) for pair in pairs for port in (80, 443)]
    table, present = FakeTable(), Objects()
    node = Followed(view, Memory(None), table).start([])

    def forbids() -> Callable[[Tracked], bool]:
        compiled = compile_cluster(cluster_of(present))
        return Judge(compiled, view, local_pods(compiled, view.name), ()).forbids

    for batch in batches(rng, events):
        before = forbids()
        table.add(*(each for each in flows if identity(each) not in table.flows and not before(each)))
        node.handle(batch).work()
        for event in batch:
            happen(present, event)
        now = forbids()
        assert table.marked == {known for known, each in table.flows.items() if now(each)}
    assert None not in table.asked[1:]


NODE, FAR, API = "10.0.1.1", "10.0.2.2", "10.0.1.2"
PODS = f"""
{{apiVersion: v1, kind: Pod, metadata: {{name: api, namespace: shop, uid: u1, labels: {{app: api}}}},
  spec: {{nodeName: near}}, status: {{podIPs: [{{ip: {API}}}]}}}}
---
{{apiVersion: v1, kind: Pod, metadata: {{name: far, namespace: shop, uid: u2, labels: {{app: web}}}},
  spec: {{nodeName: far}}, status: {{podIPs: [{{ip: {FAR}}}]}}}}
"""
OPEN = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}
"""
SHUT = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec: {podSelector: {matchLabels: {app: api}}}
"""
VIEW = NodeView("near", {"shop/api": "veth1", "shop/next": "veth2"})
ASKS = flow(FAR, API)


def objects(*texts: str) -> list[Event]:
    found: Cluster = read_documents("\n---\n".join(texts).encode(), "test.yaml").cluster
    return [*found.namespaces, *found.pods, *found.policies]


def followed(memory: Memory | None = None, *policies: str, table: FakeTable | None = None) -> Followed:
    made = Followed(VIEW, memory or Memory(None), table or FakeTable(), [parse_address(NODE)])
    return made.start(objects(PODS, *policies))


def test_a_change_ends_flows_and_another_lets_them_go_on() -> None:
    node = followed()
    node.table.add(ASKS, flow(FAR, "10.0.9.9"), flow(NODE, API))
    assert node.handle(objects(SHUT)).work() == 1
    assert node.table.marked == {identity(ASKS)}, "the node's own, and others', live"
    node.handle(objects(OPEN)).work()
    assert node.table.marked == set()
    assert node.ender.counts == Counts(runs=3, ended=1, restored=1, last=0.0)


def test_what_waits_is_one_run_however_much_was_told() -> None:
    node = followed()
    node.table.add(ASKS)
    for _ in range(50):
        node.handle(objects(SHUT)).handle(objects(OPEN))
    node.handle(objects(SHUT))
    assert node.work() == 1
    assert node.table.marked == {identity(ASKS)}


def test_what_only_joins_or_leaves_is_not_looked_for_in_vain() -> None:
    node = followed(None, OPEN)
    assert node.handle([Deleted("Pod", "shop", "far")]).work() == 1
    assert node.table.asked[1:] == [frozenset([parse_address(FAR)])], "it left: its flows may be forbidden"
    assert node.handle([pod for pod in objects(PODS) if isinstance(pod, Pod) and pod.name == "far"]).work() == 1
    assert len(node.table.asked) == 2, "it joined: nothing can be forbidden for that"
    assert node.handle([]).work() == 0, "nothing is new"


def test_a_first_sync_spares_and_a_change_that_concerns_a_flow_does_not(tmp_path: Path) -> None:
    table = FakeTable()
    table.add(ASKS)
    memory = Memory(tmp_path / "flows")
    node = followed(memory, SHUT, table=table)
    assert table.marked == set() and node.ender.counts.spared == 1
    node.now += 1000
    assert node.work() == 1 and table.marked == set(), "the look at all bits is no change"
    later = flow(FAR, API, 81)
    table.add(later)
    node.now += 1000
    node.work()
    assert table.marked == {identity(later)}, "which could not begin, so someone took its bit"
    again = followed(memory, SHUT, table=table)
    assert again.ender.counts.spared == 1 and table.marked == {identity(later)}, "a new start spares it too"
    again.handle(objects(PODS.replace("labels: {app: api}", "labels: {app: api, new: label}")))
    again.work()
    assert table.marked == {identity(later)}, "the pod's policies are the same"
    again.handle([Deleted("NetworkPolicy", "shop", "api")]).handle(objects(SHUT)).work()
    assert table.marked == {identity(later), identity(ASKS)}
    assert again.ender.counts.spared == 0 and memory.load_spared() == frozenset()


def test_what_changed_while_nobody_followed_ends_at_the_next_start(tmp_path: Path) -> None:
    table, memory = FakeTable(), Memory(tmp_path)
    followed(memory, table=table)
    table.add(ASKS)
    followed(memory, SHUT, table=table)
    assert table.marked == {identity(ASKS)}


def moved(uid: str = "u3") -> list[Event]:
    """api is gone, and its address another pod's."""
    (pod,) = (pod for pod in objects(PODS) if isinstance(pod, Pod) and pod.name == "api")
    return [Deleted("Pod", "shop", "api"), replace(pod, name="next", uid=uid, labels={"app": "next"})]


def test_an_address_stays_closed_until_the_flows_of_its_former_owner_are_gone() -> None:
    node = followed()
    others, owns = flow(FAR, "10.0.9.9"), flow(NODE, API)
    node.table.add(ASKS, flow(API, FAR), others, owns)
    node.handle(moved())
    assert node.closed == {parse_address(API)}
    node.work()
    assert set(node.table.flows) == {identity(others), identity(owns)}, "what the node itself made lives"
    assert node.purges == 1 and node.ender.counts.forgotten == 2
    node.table.add(ASKS)
    node.handle([])
    assert node.closed == frozenset()
    node.work()
    assert identity(ASKS) in node.table.flows, "the new owner's own"


def test_the_flows_of_a_released_address_go_before_anybody_gets_it() -> None:
    node = followed()
    node.table.add(ASKS)
    gone, new = moved()
    node.handle([gone]).work()
    assert not node.table.flows
    node.handle([new])
    assert not node.closed, "its new owner does not wait"


@pytest.mark.parametrize("uid", ["u3", "u1"])
def test_another_owner_is_known_after_a_restart(tmp_path: Path, uid: str) -> None:
    table, memory = FakeTable(), Memory(tmp_path)
    followed(memory, table=table)
    table.add(ASKS)
    node = Followed(VIEW, memory, table, [parse_address(NODE)])
    far = [pod for pod in objects(PODS) if isinstance(pod, Pod) and pod.name == "far"]
    assert bool(node.start([*far, *moved(uid)[1:]]).purges) is (uid == "u3")
    assert bool(table.flows) is (uid == "u1")


def test_a_purge_that_was_interrupted_is_made_good_after_a_restart(tmp_path: Path) -> None:
    table, memory = FakeTable(), Memory(tmp_path)
    node = followed(memory, table=table)
    table.add(ASKS)
    node.handle(moved())
    assert memory.load() == Remembered({parse_address(API): "u3"}, frozenset([parse_address(API)]))
    again = Followed(VIEW, memory, table).start([*objects(PODS)[1:], *moved()[1:]])
    assert again.closed and not table.flows
    assert again.handle([]).closed == frozenset()


def test_nobody_knows_whose_flows_there_were_where_nothing_is_remembered(tmp_path: Path) -> None:
    table = FakeTable()
    table.add(ASKS)
    (tmp_path / "owners.json").write_bytes(b'{"owners": {"10.0.1.2": 3}}')
    followed(Memory(tmp_path), table=table)
    assert table.flows and not table.marked
    assert Memory(tmp_path).load() == Remembered({parse_address(API): "u1"})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"owners": {"x": "u"}, "unpurged": []}', b"\xff\xfe"])
def test_a_broken_memory_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "owners.json").write_bytes(content)
    for name in ("spared", "interfaces"):
        (tmp_path / name).write_bytes(content)
    memory = Memory(tmp_path)
    assert memory.load() is None and memory.load_spared() == frozenset() and memory.load_interfaces() == {}


def test_a_memory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostRefused, match=r"owners\.json can't be written: File exists"):
        Memory(tmp_path / "file").save(Remembered({}))


def test_a_memory_that_cannot_be_written_is_said_and_flows_end_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    node = followed(Memory(tmp_path / "file"))
    node.table.add(ASKS)
    node.handle(objects(SHUT)).work()
    assert node.table.marked == {identity(ASKS)}
    node.handle(moved()).work()
    assert not node.table.flows and not node.handle([]).closed
    assert any("owners.json can't be written" in said for said in node.complaints)
    assert any("spared can't be written" in said for said in node.complaints)


def test_a_change_that_comes_with_a_start_concerns_what_was_spared(tmp_path: Path) -> None:
    table, memory = FakeTable(), Memory(tmp_path)
    table.add(ASKS)
    followed(memory, SHUT, table=table)
    node = Followed(VIEW, memory, table)
    node._take(objects(PODS, OPEN))
    node.ender.begin(node.moment())
    node.handle(objects(SHUT)).work()
    assert table.marked == {identity(ASKS)}


def test_policies_that_are_not_enforced_end_no_flow() -> None:
    node = followed()
    node.table.add(ASKS)
    node.enforced = lambda pod: pod.namespace != "shop"
    node.handle(objects(SHUT)).work()
    assert not node.table.marked
    node.enforced = lambda pod: True
    node.handle([], also=["shop/api"]).work()
    assert node.table.marked == {identity(ASKS)}
    node.enforced = lambda pod: False
    node.handle([], also=["shop/api"]).work()
    assert not node.table.marked, "an opened node opens what had ended too"


def test_a_lost_bit_is_set_again_and_counted() -> None:
    node = followed()
    node.table.add(ASKS)
    node.handle(objects(SHUT)).work()
    node.table.marked.clear()
    node.now = 59
    assert node.work() == 0
    node.now = 60
    assert node.work() == 1
    assert node.table.marked == {identity(ASKS)} and node.ender.counts.lost == 1


def test_a_run_that_fails_is_said_and_tried_again() -> None:
    node = followed()
    node.table.add(ASKS)
    node.table.failures = 1
    node.handle(objects(SHUT))
    assert node.ender.work() and not node.table.marked
    assert node.complaints == [
        "existing flows: the connection table can't be used: No buffer space available; tried again in 1 s"
    ]
    assert not node.ender.work(), "not at once"
    node.now += 1
    assert node.ender.work() and node.table.marked == {identity(ASKS)}
    assert node.ender.counts.failures == 1


@pytest.mark.parametrize("told", [True, False])
def test_a_judge_never_mixes_two_moments(told: bool) -> None:
    """Two peers that were alike: what is found for the one after a change is not said of the other."""
    twin = PODS.replace("name: far", "name: twin").replace("uid: u2", "uid: u9").replace(FAR, "10.0.2.3")
    gate, index = Gate(), Index("near")
    index.apply(objects(PODS, twin, OPEN))
    local = tuple(pod for pod in index.pods.values() if pod.node == "near")
    judge = Judge(index, VIEW, local, (), gate=gate)
    assert not judge.forbids(flow("10.0.2.3", API, 1)) and not judge.forbids(flow(FAR, API, 1)), "both are known"
    changed = [replace(index.pods["shop/far"], labels={"app": "other"})]
    with gate.changing(touched(index, changed) if told else None):
        index.apply(changed)
    assert judge.forbids(flow(FAR, API, 2))
    assert not judge.forbids(flow("10.0.2.3", API, 2))


@pytest.mark.parametrize("seed", range(40))
def test_a_judge_that_lives_through_changes_answers_as_a_new_one(seed: int) -> None:
    """As long as the pods of its node stay the same."""
    rng = Random(seed)
    events = history(rng, 60)
    nodes = Counter(event.node for event in events if isinstance(event, Pod) and event.node)
    view = view_of(events, nodes.most_common(1)[0][0])
    gate, index = Gate(), Index(view.name)
    known: tuple[Pod, ...] = ()
    judge = Judge(index, view, known, (), gate=gate)
    lived = 0
    addresses = sorted({address for event in events if isinstance(event, Pod) for address in event.addresses})
    flows = [flow(*pair) for pair in product(addresses, repeat=2) if pair[0].family == pair[1].family]
    for batch in batches(rng, events):
        with gate.changing(touched(index, batch) if rng.random() < 0.9 else None):
            index.apply(batch)
        local = tuple(pod for pod in index.pods.values() if is_local(pod, view.name))
        if local != known:
            known, judge = local, Judge(index, view, local, (), gate=gate)
        else:
            lived += 1
        for each in rng.sample(flows, min(40, len(flows))):
            # A port of its own makes it ask, so that it learns that there was a change.
            asked = each._replace(port=rng.randbytes(2))
            new = Judge(index, view, local, ())
            assert judge.forbids(asked) == new.forbids(asked)
            assert judge.forbids(each) == new.forbids(each)
    assert lived > 3


def test_it_works_in_a_thread_until_it_is_stopped() -> None:
    node = followed()
    node.table.add(ASKS)
    ended = threading.Event()
    ender = Ender(node.index, node.gate, Memory(None), node.table, observe=lambda *_: ended.set())
    thread = ender.start()
    ender.hand_over(owners_of(node.local(), node.index))
    ender.begin(node.moment())
    assert ended.wait(5)
    ended.clear()
    with node.gate.changing():
        changes = node.index.apply(objects(SHUT))
    ender.tell(concern(changes, {pod.key: pod for pod in node.local()}), node.moment())
    assert ended.wait(5) and node.table.marked == {identity(ASKS)}
    ender.stop()
    thread.join(5)
    assert not thread.is_alive()
