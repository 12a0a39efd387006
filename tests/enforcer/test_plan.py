"""Plans: each step leaves every flow with its old or its new verdict, whatever fails, and ends where it should."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from compiler.compile import Compiled, compile_cluster
from enforcer.readback.simulate import Packet
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.names import is_own_chain, is_own_set
from enforcer.rules.parse import Counted, Foreign, Installed, InstalledSet
from enforcer.rules.plan import Actual, choose_names, plan, remove_everything
from enforcer.rules.ruleset import Count, Drop, Element, HookName, IpProtocol, IpSet, Return, Rule, RuleSet, Src
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Plan, Step, Transaction
from policy.cidr import Family, parse_address, parse_cidr
from policy.decode import decode_objects, read_documents
from policy.model import Pod
from tests.enforcer.fake import FakeDataplane, StepFailed
from tests.generate import cluster
from tests.generate.words import KEYS, VALUES
from tests.oracle.fields import Object

FAMILIES: tuple[Family, Family] = (4, 6)
CIDRS = tuple(map(parse_cidr, ("10.1.0.0/16", "fd00:1::/32")))
OUTSIDE = {4: parse_address("203.0.113.7"), 6: parse_address("2001:db8::7")}


def compiled_pair(seed: int) -> tuple[Compiled, Compiled, str]:
    """Two clusters that share most of their objects, and a node. By turns: anything, of which a fifth goes; or one or
    two pods of other nodes, or all pods, get other labels in a cluster where labels decide much."""
    rng = Random(seed)
    kind = seed % 4
    objects = cluster(rng) if kind == 0 else lively(rng)
    old = compile_cluster(decode_objects(objects).cluster)
    node = rng.choice(sorted({pod.node for pod in old.cluster.pods if pod.node}) or ["none"])
    if kind == 0:
        changed = [each for each in objects if each["kind"] == "Node" or rng.random() < 0.8]
    else:
        pods = [number for number, each in enumerate(objects) if each["kind"] == "Pod"]
        far = [number for number in pods if objects[number]["spec"].get("nodeName") != node]
        chosen = set(pods if kind == 3 else rng.sample(far, min(len(far), kind)))
        changed = [_relabelled(each, rng) if number in chosen else each for number, each in enumerate(objects)]
    return old, compile_cluster(decode_objects(changed).cluster), node


def lively(rng: Random) -> list[Object]:
    """Ten pods on two nodes, and policies that anyone can understand, whose peers are told by label."""

    def some() -> dict[str, object]:
        return {
            "podSelector": {"matchLabels": {key: rng.choice(VALUES) for key in rng.sample(KEYS, rng.randint(0, 1))}}
        }

    def rule(ends: str) -> dict[str, object]:
        peers = [some() for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.2:
            peers.append({"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.0.4/30"]}})
        ports = [{"port": rng.choice([80, 81, "http"])} for _ in range(rng.randint(0, 2))]
        return {ends: peers, "ports": ports}

    pods = [
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": f"p{n}", "namespace": "a", "labels": {k: rng.choice(VALUES) for k in KEYS}},
            "spec": {
                "nodeName": f"n{n % 2}",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": rng.choice([80, 81])}]}],
            },
            "status": {"podIPs": [{"ip": f"10.1.0.{n + 1}"}, {"ip": f"fd00:1::{n + 1:x}"}]},
        }
        for n in range(10)
    ]
    policies = [
        {
            "kind": "NetworkPolicy",
            "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": f"policy{n}", "namespace": "a"},
            "spec": some()
            | {"policyTypes": rng.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])}
            | {"ingress": [rule("from")], "egress": [rule("to")]},
        }
        for n in range(rng.randint(1, 5))
    ]
    return [*pods, *policies]


def _relabelled(pod: Object, rng: Random) -> Object:
    labels = {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.7}
    return pod | {"metadata": pod["metadata"] | {"labels": labels}}


def single(steps: Plan) -> Iterator[Step]:
    """The steps as the kernel takes them: a change of a set happens element by element."""
    for step in steps:
        if isinstance(step, ChangeSet):
            yield from (ChangeSet(step.name, (element,), ()) for element in step.add)
            yield from (ChangeSet(step.name, (), (element,)) for element in step.remove)
        else:
            yield step


def wanted_of(compiled: Compiled, node: str, family: Family) -> RuleSet:
    veths = {pod.key: interface(pod) for pod in local_pods(compiled, node)}
    return layout(compiled, NodeView(node, veths, CIDRS), family)


def interface(pod: Pod) -> str:
    return f"veth:{pod.key}"


def packets(compiled: Compiled, node: str, family: Family, rng: Random) -> list[tuple[HookName, Packet]]:
    """Packets that the node may see: between two pods of which one at least is its own, mostly, to ports that rules
    speak of; and a few from veths that are not the sender's, from outside, to the node, of other protocols."""
    pods = [(pod, a) for pod in compiled.cluster.pods for a in pod.addresses if a.family == family]
    near = [each for each in pods if each[0].node == node]
    found: list[tuple[HookName, Packet]] = []
    for number in range(40 if near else 0):
        ends = [rng.choice(near), rng.choice(pods)]
        rng.shuffle(ends)
        (src_pod, src), (dst_pod, dst) = ends
        veths = [interface(pod) if pod.node == node else "eth0" for pod in (src_pod, dst_pod)]
        hook, protocol, port = "FORWARD", "tcp", rng.choice([80, 81])
        if number % 4 == 0:
            src, dst = (rng.choice([each, each, OUTSIDE[family]]) for each in (src, dst))
            veths = [rng.choice([veth, veth, "eth0"]) for veth in veths]
            hook, protocol = rng.choice(["FORWARD", "INPUT"]), rng.choice(["tcp", "udp", "sctp"])
            port = rng.choice([80, 81, 53, 8080])
        out = veths[1] if hook == "FORWARD" else ""
        found.append((_hook(hook), Packet(src, dst, _protocol(protocol), port, veths[0], out)))
    return found


def _hook(name: str) -> HookName:
    return "INPUT" if name == "INPUT" else "FORWARD"


def _protocol(name: str) -> IpProtocol:
    return "udp" if name == "udp" else "sctp" if name == "sctp" else "tcp"


# Pairs of states, each in both families.
PAIRS, CHUNKS = 10_000 if os.environ.get("CI") else 2_500, 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_step_leaves_the_old_or_the_new_verdict(chunk: int) -> None:
    for seed in range(chunk, PAIRS, CHUNKS):
        old, new, node = compiled_pair(seed)
        for family in FAMILIES:
            assert_no_step_leaks(old, new, node, family, seed)


def assert_no_step_leaks(old: Compiled, new: Compiled, node: str, family: Family, seed: int) -> None:
    asked = packets(old, node, family, Random(seed))
    dataplane = FakeDataplane(family)
    dataplane.execute(plan(dataplane.read(), wanted_of(old, node, family)))
    wanted, lazily = wanted_of(new, node, family), seed % 8 >= 4
    steps = plan(dataplane.read(), wanted, lazily=lazily)
    seen = [dataplane.verdicts(asked)]
    for step in single(steps):
        dataplane.step(step)
        seen.append(dataplane.verdicts(asked))
    for number, answers in enumerate(seen):
        for was, now, end in zip(seen[0], answers, seen[-1], strict=True):
            assert now in (was, end), (seed, family, number)
    assert plan(dataplane.read(), wanted, lazily=lazily) == (), "nothing changed: nothing to write"
    for step in plan(dataplane.read(), wanted):
        assert lazily and isinstance(step, Transaction | DropSet)
        dataplane.step(step)
        assert dataplane.verdicts(asked) == seen[-1], "what no packet meets goes without a trace"
    fresh = FakeDataplane(family)
    fresh.execute(plan(fresh.read(), wanted))
    assert seen[-1] == fresh.verdicts(asked), "where a plan ends does not depend on where it began"
    assert plan(dataplane.read(), wanted) == ()


def test_changes_in_place_are_among_them() -> None:
    """The random pairs reach both ways of changing a set."""
    kinds = Counter[bool]()
    for seed in range(200):
        old, new, node = compiled_pair(seed)
        dataplane = FakeDataplane(4)
        dataplane.execute(plan(dataplane.read(), wanted_of(old, node, 4)))
        steps = plan(dataplane.read(), wanted_of(new, node, 4))
        if steps:
            kinds[any(isinstance(step, Transaction) for step in steps)] += 1
    assert kinds[True] > 20 and kinds[False] > 10, kinds


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_a_plan_that_fails_opens_nothing_and_is_finished_by_the_next(seed: int, lazily: bool) -> None:
    old, new, node = compiled_pair(seed)
    start = FakeDataplane(4)
    start.execute(plan(start.read(), wanted_of(old, node, 4)))
    asked = packets(old, node, 4, Random(seed))
    wanted = wanted_of(new, node, 4)
    steps = plan(start.read(), wanted, lazily=lazily)
    before = start.verdicts(asked)
    for fail_at in range(len(steps)):
        broken = FakeDataplane(4)
        broken.execute(plan(broken.read(), wanted_of(old, node, 4)))
        with pytest.raises(StepFailed):
            broken.execute(steps, fail_at)
        after = broken.verdicts(asked)
        broken.execute(plan(broken.read(), wanted))
        end = broken.verdicts(asked)
        assert all(now in (was, will) for was, now, will in zip(before, after, end, strict=True))
        assert plan(broken.read(), wanted) == ()


def example(family: Family = 4) -> tuple[FakeDataplane, RuleSet, Plan]:
    old, _, node = compiled_pair(3)
    dataplane = FakeDataplane(family)
    wanted = wanted_of(old, node, family)
    return dataplane, wanted, plan(dataplane.read(), wanted)


def test_order_sets_first_then_one_transaction_then_what_is_unused() -> None:
    dataplane, _, steps = example()
    kinds = [type(step) for step in steps]
    assert kinds == [MakeSet] * (len(kinds) - 1) + [Transaction]
    dataplane.execute(steps)
    removal = [type(step) for step in remove_everything(dataplane.read())]
    assert removal == [Transaction] + [DropSet] * len(dataplane.sets)
    dataplane.execute(remove_everything(dataplane.read()))
    assert not dataplane.chains and not dataplane.sets and dataplane.builtin == {"FORWARD": (), "INPUT": ()}


def test_a_jump_behind_others_is_put_first_again_and_a_double_one_removed() -> None:
    dataplane, wanted, steps = example()
    dataplane.execute(steps)
    for moved in (("", "PODFENCE-FORWARD"), ("PODFENCE-FORWARD", "", "PODFENCE-FORWARD"), ("",)):
        dataplane.builtin["FORWARD"] = moved
        dataplane.execute(plan(dataplane.read(), wanted))
        others = tuple(target for target in moved if not target)
        assert dataplane.builtin["FORWARD"] == ("PODFENCE-FORWARD", *others)


def test_a_foreign_rule_in_our_chain_is_replaced() -> None:
    dataplane, wanted, steps = example()
    dataplane.execute(steps)
    actual = dataplane.read()
    chains = dict(actual.tables.chains)
    chains["PODFENCE-FORWARD"] = (Counted(Foreign("-j ACCEPT")), *chains["PODFENCE-FORWARD"])
    actual.tables.chains.update(chains)
    (step,) = plan(actual, wanted)
    assert isinstance(step, Transaction) and list(step.write) == ["PODFENCE-FORWARD"]


def test_lazily_new_rules_come_before_the_old_and_nothing_is_deleted() -> None:
    for seed in range(3, 40, 4):
        old, new, node = compiled_pair(seed)
        dataplane = FakeDataplane(4)
        dataplane.execute(plan(dataplane.read(), wanted_of(old, node, 4)))
        before = dict(dataplane.chains), dict(dataplane.sets)
        steps = plan(dataplane.read(), wanted_of(new, node, 4), lazily=True)
        dataplane.execute(steps)
        assert before[0].keys() <= dataplane.chains.keys() and before[1].keys() <= dataplane.sets.keys()
        for name, rules in before[0].items():
            assert dataplane.chains[name][len(dataplane.chains[name]) - len(rules) :] == rules
        tidied = plan(dataplane.read(), wanted_of(new, node, 4))
        dataplane.execute(tidied)
        fresh = FakeDataplane(4)
        fresh.execute(plan(fresh.read(), wanted_of(new, node, 4)))
        assert len(dataplane.sets) == len(fresh.sets) and len(dataplane.chains) == len(fresh.chains)


def test_a_rule_that_lets_packets_go_on_hides_nothing() -> None:
    """Only behind an unconditional end may old rules stay."""
    drop, count = Rule((), Drop()), Rule((), Count())
    for rules, hides in (((drop,), True), ((count,), False), ((Rule((Src(CIDRS[0]),), Drop()),), False), ((), False)):
        wanted = RuleSet(4, {}, {"PF-x": rules}, {})
        actual = Actual(4, Installed({"PF-x": (*map(Counted, rules), Counted(Rule((), Return())))}, {}), {})
        assert (plan(actual, wanted, lazily=True) == ()) is hides
        assert plan(actual, wanted) != ()


def test_counters_survive_a_change_of_members() -> None:
    dataplane, wanted, steps = example()
    dataplane.execute(steps)
    counting = next(name for name, ipset in dataplane.sets.items() if ipset.counters)
    element = Element(parse_cidr("10.1.99.99/32"))
    dataplane.step(ChangeSet(counting, (element,), ()))
    (step,) = plan(dataplane.read(), wanted)
    assert step == ChangeSet(counting, (), (element,))


def test_a_generation_that_differs_is_left_and_one_that_agrees_is_taken() -> None:
    element = Element(parse_cidr("10.1.99.99/32"))
    wanted = IpSet("pf-4-ip-1234", "hash:ip", frozenset([element]))
    stale = IpSet("pf-4-ip-1234-g0", "hash:ip", frozenset())
    assert choose_names({}, [wanted]) == {"pf-4-ip-1234": "pf-4-ip-1234-g0"}
    assert choose_names({stale.name: InstalledSet(stale, {}, 65536)}, [wanted]) == {"pf-4-ip-1234": "pf-4-ip-1234-g1"}
    good = IpSet("pf-4-ip-1234-g7", "hash:ip", frozenset([element]))
    both = {each.name: InstalledSet(each, {}, 65536) for each in (stale, good)}
    assert choose_names(both, [wanted]) == {"pf-4-ip-1234": "pf-4-ip-1234-g7"}


def test_steps_touch_only_what_is_ours() -> None:
    dataplane, _, steps = example()
    for step in (*steps, *remove_everything(_after(dataplane, steps))):
        match step:
            case Transaction(_, write, delete, jump, unjump):
                assert all(map(is_own_chain, (*write, *delete, *jump.values(), *(chain for _, chain in unjump))))
            case MakeSet(_, ipset):
                assert is_own_set(ipset.name)
            case ChangeSet(name) | DropSet(name):
                assert is_own_set(name)


def _after(dataplane: FakeDataplane, steps: Plan) -> Actual:
    dataplane.execute(steps)
    return dataplane.read()


COUNTER_EXAMPLE = """
{kind: Pod, apiVersion: v1, metadata: {name: a, labels: LABELS}, spec: {nodeName: n1}, status: {podIP: 10.1.0.1}}
---
{kind: Pod, apiVersion: v1, metadata: {name: b, labels: {app: server}}, spec: {nodeName: n1}, status: {podIP: 10.1.0.2}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients-send-nothing}
spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server}
spec: {podSelector: {matchLabels: {app: server}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}
"""


def test_one_label_change_that_widens_one_half_and_narrows_the_other() -> None:
    """A to B is denied before, by A's egress, and after, by B's ingress: adds before removes would let it pass."""
    versions = [COUNTER_EXAMPLE.replace("LABELS", labels) for labels in ("{app: client}", "{}")]
    old, new = (compile_cluster(read_documents(each.encode(), "x").cluster) for each in versions)
    dataplane = FakeDataplane(4)
    dataplane.execute(plan(dataplane.read(), wanted_of(old, "n1", 4)))
    a, b = (old.pods[key] for key in ("default/a", "default/b"))
    packet = Packet(a.addresses[0], b.addresses[0], "tcp", 80, interface(a), interface(b))
    assert not dataplane.passes("FORWARD", packet)
    steps = plan(dataplane.read(), wanted_of(new, "n1", 4))
    for step in single(steps):
        dataplane.step(step)
        assert not dataplane.passes("FORWARD", packet)

    naive = FakeDataplane(4)
    naive.execute(plan(naive.read(), wanted_of(old, "n1", 4)))
    before = {name: ipset.elements for name, ipset in naive.sets.items()}
    (transaction,) = (step for step in steps if isinstance(step, Transaction))
    back = {name: f"{name.rpartition('-g')[0]}-g0" for name in dataplane.sets}
    naive.sets.update({name: IpSet(name, s.type, s.elements, s.counters) for name, s in dataplane.sets.items()})
    for name, old_name in back.items():
        if name != old_name:
            naive.sets[name] = naive.sets[old_name]
    naive.step(transaction)
    assert before and naive.passes("FORWARD", packet), "chains first, members after: the leak that the plan avoids"
