"""What a pod sends before this node has heard of it is dropped where others' is refused, so that it may try again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted, Event
from compiler.peers import EVERY_POD
from enforcer.connections.concern import NOTHING, concern, deciding
from enforcer.keeping.keep import Keeper
from enforcer.readback.simulate import Outcome, Packet
from enforcer.rules.layout import NodeView
from enforcer.rules.ruleset import CtState
from enforcer.rules.steps import ChangeSet, MakeSet, Plan, Transaction
from enforcer.rules.view import host_addresses
from policy.cidr import parse_address
from policy.decode import decode_objects
from policy.model import Pod
from tests.enforcer.test_keep import FAMILIES, FakeKernel
from tests.enforcer.test_plan import single

VIEW = NodeView("n1", {"shop/api": "veth-api"})
Object = dict[str, Any]
JOB = ("10.2.0.9", "fd00:2::9")


def policy(selects: str = "api", ports: Sequence[Object] = (), kind: str = "Ingress") -> list[Event]:
    """Lets `web` in, and applies to the pods of an app."""
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [*ports]}
    spec = {"podSelector": {"matchLabels": {"app": selects}}, "policyTypes": [kind], "ingress": [rule]}
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    found = decode_objects([head | {"metadata": {"name": "api", "namespace": "shop"}, "spec": spec}])
    return [*found.cluster.policies]


def pod(name: str, app: str, node: str, v4: str, v6: str) -> list[Event]:
    return [
        *decode_objects(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": app}},
                    "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
                    "status": {"phase": "Running", "podIPs": [{"ip": v4}, {"ip": v6}]},
                }
            ]
        ).cluster.pods
    ]


API = pod("api", "api", "n1", "10.1.0.1", "fd00:1::1")
OTHER = pod("other", "other", "n2", "10.2.0.1", "fd00:2::1")


class Node:
    """`api` lives here, and lets `web` in; `other` is known, and of another node."""

    def __init__(self, view: NodeView = VIEW, policies: Sequence[Event] = (), kernel: FakeKernel | None = None) -> None:
        self.kernel = kernel or FakeKernel()
        self.keeper = Keeper(view, FAMILIES, self.kernel)
        self.keeper.start([*API, *OTHER, *(policies or policy())])
        self.kernel.seen.clear()

    def outcomes(self, *sources: str, state: CtState = "NEW", mark: int = 0) -> set[Outcome]:
        """What becomes of TCP from each address to `api`; of a connection that is not new, of one of its segments."""
        found = set()
        for source in map(parse_address, sources):
            plane = self.kernel.planes[source.family]
            dst = parse_address("10.1.0.1" if source.family == 4 else "fd00:1::1")
            packet = Packet(source, dst, "tcp", 80, "eth0", "veth-api", state=state, syn=state == "NEW", mark=mark)
            found.update(plane.outcomes([("FORWARD", packet)]))
        return found


def test_a_new_flow_of_nobody_that_is_known_gets_no_answer() -> None:
    node = Node()
    assert node.outcomes("10.2.0.1", "fd00:2::1") == {"reject"}
    assert node.outcomes(*JOB) == {"drop"}


def test_a_node_is_told() -> None:
    node = Node(replace(VIEW, hosts=frozenset(map(parse_address, ("192.0.2.2", "fd00:ff::2")))))
    assert node.outcomes("192.0.2.2", "fd00:ff::2") == {"reject"}
    assert node.outcomes("192.0.2.3", "fd00:ff::3") == {"drop"}
    node.keeper.handle([], replace(VIEW, hosts=frozenset(map(parse_address, ("192.0.2.3", "fd00:ff::3")))))
    assert node.outcomes("192.0.2.2", "fd00:ff::2") == {"drop"}
    assert {type(step) for steps in node.kernel.seen for step in steps} == {ChangeSet}


def test_which_addresses_are_nodes() -> None:
    (job,) = pod("job", "web", "n2", *JOB)
    assert isinstance(job, Pod) and not host_addresses([job], "n1")
    there = replace(job, host_network=True)
    assert host_addresses([there], "n1") == frozenset(map(parse_address, JOB))
    assert not host_addresses([there], "n2"), "what comes from the node itself is never filtered"


def test_who_is_heard_of_is_let_in_or_refused() -> None:
    node = Node()
    node.keeper.handle(pod("job", "web", "n2", *JOB))
    assert node.outcomes(*JOB) == {"accept"}
    node.keeper.handle(pod("job", "other", "n2", *JOB))
    assert node.outcomes(*JOB) == {"reject"}


def test_a_connection_that_was_open_is_answered_whoever_it_is_of() -> None:
    assert Node().outcomes(*JOB, state="ESTABLISHED", mark=VIEW.mark) == {"reject"}


def test_to_hear_of_somebody_changes_elements_and_no_rule() -> None:
    node = Node()
    node.keeper.handle(pod("job", "other", "n2", *JOB))
    (steps, others) = node.kernel.seen
    assert [type(step) for step in (*steps, *others)] == [ChangeSet, ChangeSet]


def test_the_set_of_everyone_is_never_made_anew() -> None:
    """One pod gets what another loses, so the policy's set is: in both families, and before a transaction."""
    node = Node()
    node.keeper.handle([*pod("job", "web", "n2", *JOB), *pod("more", "more", "n2", "10.2.0.8", "fd00:2::8")])
    node.kernel.seen.clear()
    node.keeper.handle([*pod("job", "other", "n2", *JOB), *pod("more", "web", "n2", "10.2.0.7", "fd00:2::7")])
    steps = [step for plan in node.kernel.seen for step in plan]
    assert sum(isinstance(step, Transaction) for step in steps) == len(FAMILIES)
    assert not any(isinstance(step, MakeSet) and "everyone" in step.ipset.name for step in steps)
    assert sum(isinstance(step, ChangeSet) and "everyone" in step.name for step in steps) == len(FAMILIES)
    assert node.outcomes("10.2.0.7", "fd00:2::7") == {"accept"}
    assert node.outcomes("10.2.0.8", "fd00:2::8") == {"drop"}, "it has another address by now"


def test_a_list_that_is_full_is_made_anew_with_room() -> None:
    """Whatever may be in it, as long as the kernel has room for what there is."""
    node = Node()
    for plane in node.kernel.planes.values():
        plane.maxelem = 6
    keeper = Keeper(VIEW, FAMILIES, node.kernel)
    keeper.start([*API, *OTHER, *policy()])
    node.kernel.seen.clear()
    crowd = [pod(f"p{n}", "more", "n2", f"10.3.0.{n}", f"fd00:3::{n}") for n in range(1, 7)]
    keeper.handle([event for each in crowd for event in each])
    made = [step.ipset for steps in node.kernel.seen for step in steps if isinstance(step, MakeSet)]
    assert [len(ipset.elements) for ipset in made if "everyone" in ipset.name] == [8, 8]
    assert node.outcomes("10.3.0.1", "fd00:3::1", "10.2.0.1") == {"reject"}


class Stepwise(FakeKernel):
    """Asks after each single step what becomes of a packet."""

    def __init__(self) -> None:
        super().__init__()
        self.ask: Callable[[], set[Outcome]] = set
        self.seen_on_the_way: list[set[Outcome]] = []

    def begin(self, steps: Plan) -> Callable[[], None]:
        for step in single(steps):
            super().begin((step,))
            self.seen_on_the_way.append(self.ask())
        return lambda: None


@pytest.mark.parametrize("with_others", [False, True], ids=["in place", "by a transaction"])
def test_who_is_let_in_is_not_refused_in_the_moment_he_becomes_known(with_others: bool) -> None:
    kernel = Stepwise()
    node = Node(kernel=kernel)
    more = pod("more", "web", "n2", "10.2.0.8", "fd00:2::8")
    node.keeper.handle(more)
    kernel.ask = lambda: node.outcomes(JOB[0])
    others = pod("more", "more", "n2", "10.2.0.8", "fd00:2::8") if with_others else []
    kernel.seen.clear()
    node.keeper.handle([*others, *pod("job", "web", "n2", *JOB)])
    assert any(isinstance(step, Transaction) for steps in kernel.seen for step in steps) == with_others
    assert kernel.seen_on_the_way[-1] == {"accept"} and {"reject"} not in kernel.seen_on_the_way


def test_who_only_is_to_be_told_concerns_no_flow() -> None:
    keeper = Node().keeper
    for known in (pod("job", "other", "n2", *JOB), [Deleted("Pod", "shop", "job")]):
        changes = keeper.take(known)
        assert changes.members.keys() == {EVERY_POD} and not deciding(changes)
        assert concern(changes, {}) == NOTHING
    assert deciding(keeper.take(pod("job", "web", "n2", *JOB))).keys() > {*()}


def test_a_list_is_right_where_it_was_let_go_and_taken_up_at_once() -> None:
    """As where the kernel can't be asked for a while: who went in between is in no set."""
    node = Node()
    node.keeper.handle(pod("job", "web", "n2", *JOB))
    node.keeper.take([Deleted("NetworkPolicy", "shop", "api")])
    node.keeper.take([Deleted("Pod", "shop", "job"), *policy()])
    node.keeper.bring()
    assert node.outcomes(*JOB) == {"drop"}
    node.keeper.handle(pod("job", "web", "n2", *JOB))
    node.keeper.handle([Deleted("Pod", "shop", "job")])
    assert node.outcomes(*JOB) == {"drop"}


@pytest.mark.parametrize(
    ("view", "policies"),
    [
        (NodeView("n1", VIEW.veths, deny="drop"), policy()),
        (NodeView("n1", VIEW.veths, mode="audit"), policy()),
        (NodeView("n1", {}), policy()),
        (VIEW, policy("none")),
        (VIEW, policy(kind="Egress")),
    ],
    ids=["silent", "audit", "no veth", "nobody isolated", "egress only"],
)
def test_where_nobody_is_refused_nobody_is_listed(view: NodeView, policies: list[Event]) -> None:
    node = Node(view, policies)
    lists = [found for plane in node.kernel.planes.values() for name, found in plane.sets.items() if "everyone" in name]
    assert len(lists) == (0 if view.deny == "drop" else len(FAMILIES))
    assert not any(found.elements for found in lists)


def test_who_is_isolated_changes_no_rule_of_how_it_is_denied() -> None:
    """So that what these rules have counted stays; the list fills, and empties."""
    node = Node(VIEW, policy("none"))
    for policies, listed in ((policy(), 2), (policy("none"), 0), (policy(), 2)):
        before = {family: plane.chains["PODFENCE-DENY-IN"] for family, plane in node.kernel.planes.items()}
        node.keeper.handle(policies)
        for family, plane in node.kernel.planes.items():
            assert plane.chains["PODFENCE-DENY-IN"] == before[family]
            (everyone,) = (found for name, found in plane.sets.items() if "everyone" in name)
            assert len(everyone.elements) == listed


def test_the_list_is_kept_up_where_policies_come_and_go() -> None:
    node = Node()
    for port in (81, 82):
        node.keeper.handle(policy(ports=[{"port": port}]))
    node.keeper.handle(pod("job", "web", "n2", *JOB))
    assert node.outcomes(*JOB) == {"reject"}
