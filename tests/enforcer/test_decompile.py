"""What is installed, as regions, against what is wanted: equal where it is, and a packet where it is not."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.compile import Compiled, compile_cluster
from enforcer.readback.decompile import longest_prefix
from enforcer.readback.regions import FIELDS, SRC, Box, Condition, Space, meet, split, without
from enforcer.readback.simulate import Packet, Simulator
from enforcer.readback.verify import verify
from enforcer.readback.why import installed_walk, reasons
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.names import split_generation
from enforcer.rules.parse import Foreign, parse_rule
from enforcer.rules.plan import plan
from enforcer.rules.ruleset import (
    ConnMark,
    Drop,
    Element,
    Goto,
    InSet,
    IpSet,
    Limit,
    Match,
    Nflog,
    Proto,
    Return,
    Rule,
    RuleSet,
)
from policy.cidr import Address, Prefix, parse_cidr
from policy.decode import decode_objects
from tests.enforcer.fake import FakeDataplane
from tests.enforcer.small import differing, installed, small_cluster, somehow, view
from tests.generate import cluster

BLOCKS = tuple(map(parse_cidr, ("10.1.0.0/16", "fd00:1::/32")))
LASTS = [3, 2, 2, 1, 1, 0, 0, 0, 0, 5, 3]  # of each field, few enough to count


def some(last: int) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    """A set of values as intervals."""
    values = st.sets(st.integers(0, last))
    return values.map(lambda found: tuple((value, value) for value in sorted(found)))


terms = st.fixed_dictionaries({}, optional={field: some(last) for field, last in enumerate(LASTS) if last})


def packets_in(space: Space, boxes: list[Box]) -> Counter[tuple[int, ...]]:
    """Every packet of `boxes`, as often as it is in one."""
    found: Counter[tuple[int, ...]] = Counter()
    for box in boxes:
        found.update(product(*([n for n in range(LASTS[f] + 1) if holds(space, f, box[f], n)] for f in FIELDS)))
    return found


def holds(space: Space, field: int, mask: int, value: int) -> bool:
    return bool(mask & space.axes[field].mask(((value, value),)))


@given(terms, terms, st.lists(some(3), max_size=3))
def test_boxes_are_sets_of_packets(one: dict, other: dict, far: list) -> None:  # type: ignore[type-arg]
    every = [{field: ((value, value),)} for field, last in enumerate(LASTS) for value in range(last + 1)]
    space = Space(LASTS, [one, other, *every])
    boxes = space.boxes([one])
    taken = space.boxes([other])
    before, away = packets_in(space, boxes), packets_in(space, taken)
    both = [found for box in boxes for each in taken if (found := meet(box, each))]
    rest = [left for box in boxes for left in (without(box, taken[0]) if taken else [box])]
    assert packets_in(space, both) == before & away
    assert packets_in(space, rest) == before - away
    keyed = tuple({0: ((number, number),), SRC: ranges} for number, ranges in enumerate(far))
    condition = Condition(0, keyed)
    inside, outside = split(boxes, [space.cut(condition)])
    assert packets_in(space, inside) == before & packets_in(space, space.boxes(keyed))
    assert packets_in(space, inside + outside) == before


@given(st.randoms(use_true_random=False))
def test_the_longest_prefix_decides(rng: Random) -> None:
    elements = {}
    for _ in range(rng.randint(0, 6)):
        length = rng.randint(26, 32)
        network = rng.randrange(1 << (length - 24)) << (32 - length)
        element = Element(Prefix(4, network, length), nomatch=rng.random() < 0.4)
        elements[element.prefix] = element
    ranges = longest_prefix(list(elements.values()))
    ipset = IpSet("pf-4-net", "hash:net", frozenset(elements.values()))
    rule = Rule((InSet("pf-4-net", ("src",)),), Drop())
    simulator = Simulator(RuleSet(4, {"FORWARD": "PF-x"}, {"PF-x": (rule,)}, {"pf-4-net": ipset}))
    for value in range(256):
        packet = Packet(Address(4, value), Address(4, 0), "tcp", 80)
        held = simulator.walk("FORWARD", packet).outcome == "drop"
        assert held == any(low <= value <= high for low, high in ranges)


@pytest.mark.parametrize("part", range(4))
def test_what_is_laid_out_is_proven_equal_to_what_is_meant(part: int) -> None:
    """Clusters with named ports, blocks with exceptions, odd pods and broken policies; each family, each option."""
    for seed in range(part * 40, part * 40 + 40):
        rng = Random(seed)
        compiled = compile_cluster(decode_objects(cluster(rng)).cluster)
        name = rng.choice(sorted({pod.node for pod in compiled.cluster.pods if pod.node}) or ["none"])
        veths = {pod.key: f"veth:{pod.key}" for pod in local_pods(compiled, name) if rng.random() < 0.9}
        uplinks = ("eth0",) if rng.random() < 0.5 else ()
        node = NodeView(name, veths, BLOCKS, uplinks, rng.choice(("enforce", "allow")), rng.choice(("reject", "drop")))
        node = somehow(rng, node)
        for family in (4, 6):
            dataplane = FakeDataplane(family)
            dataplane.execute(plan(dataplane.read(), layout(compiled, node, family)))
            assert verify(dataplane.read(), compiled, node) is None, (seed, family)


TRIED_WHOLE = 12


def test_another_wish_differs_if_and_only_if_a_packet_does() -> None:
    counts: Counter[bool] = Counter()
    for seed in range(150):
        rng = Random(seed)
        node = view(rng)
        old, new = small_cluster(rng), small_cluster(rng)
        dataplane = installed(old, node)
        found = verify(dataplane.read(), new, node)
        counts[found is None] += 1
        before, after = layout(old, node, 4), layout(new, node, 4)
        if found is None:
            assert counts[True] > TRIED_WHOLE or differing(before, after) is None, seed
            continue
        was, wanted = (Simulator(rules).walk(found.hook, found.packet).outcome for rules in (before, after))
        assert (was == "accept") != (wanted == "accept") == (found.wanted == "accept"), seed
        assert installed_walk(dataplane.read(), found.hook, found.packet)[0] == was
        why = reasons(new, node, found.hook, found.packet)
        assert all(reason.allowed for reason in why) == (wanted == "accept"), (seed, why)
    assert min(counts[True], counts[False]) > 1


def given_node() -> tuple[Compiled, NodeView, FakeDataplane]:
    rng = Random(3)
    compiled, node = small_cluster(rng), view(rng)
    return compiled, node, installed(compiled, node)


def in_front(dataplane: FakeDataplane, chain: str, rule: Rule | Foreign) -> None:
    dataplane.chains[chain] = (rule, *dataplane.chains[chain])  # type: ignore[assignment]


def looking_in(*matches: Match) -> Rule:
    return Rule(matches, Return())


STRANGE: dict[str, tuple[Rule | Foreign, str]] = {
    "foreign": (Foreign("-j ACCEPT"), "PODFENCE-INGRESS, rule 1 is none of podfence's: -j ACCEPT"),
    "rate": (looking_in(Limit("pf-x", "srcip", 10)), "decides by the rate pf-x"),
    "mark": (looking_in(ConnMark(0x2000)), "asks for the mark 0x2000, which is not podfence's 0x1000"),
    "no set": (looking_in(InSet("pf-4-none", ("src",))), "looks in the set pf-4-none, which does not exist"),
    "no chain": (Rule((), Goto("PF-none")), "the chain PF-none does not exist"),
    "another type": (looking_in(InSet("pf-4-odd", ("src",))), "which podfence never makes like that: list:set"),
    "source port": (looking_in(InSet("pf-4-ports", ("src", "src"))), "pf-4-ports, a hash:ip,port, by src,src"),
}


@pytest.mark.parametrize(("rule", "said"), STRANGE.values(), ids=STRANGE)
def test_what_cannot_be_judged_is_named(rule: Rule | Foreign, said: str) -> None:
    compiled, node, dataplane = given_node()
    dataplane.sets["pf-4-odd"] = IpSet("pf-4-odd", "list:set", frozenset())  # type: ignore[arg-type]
    dataplane.sets["pf-4-ports"] = IpSet("pf-4-ports", "hash:ip,port", frozenset())
    assert verify(dataplane.read(), compiled, node) is None, "nothing looks in it"
    in_front(dataplane, "PODFENCE-INGRESS", rule)
    found = verify(dataplane.read(), compiled, node)
    assert found and said in found.unknown


def test_what_no_packet_reaches_does_not_matter() -> None:
    compiled, node, dataplane = given_node()
    dataplane.chains["PF-unused"] = (Rule((), Drop()),)
    dataplane.chains["PODFENCE-INGRESS"] += (Foreign("-j ACCEPT"),)  # type: ignore[operator]
    in_front(dataplane, "PODFENCE-INGRESS", Rule((Proto("tcp"), Proto("udp")), Drop()))
    in_front(dataplane, "PODFENCE-INGRESS", Rule((Limit("pf-x", "srcip", 10),), Nflog(1, "x")))
    assert verify(dataplane.read(), compiled, node) is None


def test_the_hook_must_be_first_where_anything_is_denied() -> None:
    compiled, node, dataplane = given_node()
    dataplane.builtin["INPUT"] = ("", "PODFENCE-INPUT")
    found = verify(dataplane.read(), compiled, node)
    assert found and (found.hook, found.wanted) == ("INPUT", "deny")
    assert found.unknown == "others' rules come before podfence's jump in INPUT"
    dataplane.builtin["INPUT"] = ("",)
    found = verify(dataplane.read(), compiled, node)
    assert found and not found.unknown and found.wanted == "deny"


@pytest.mark.parametrize(
    "rule",
    [
        "-m socket -j RETURN",
        "-m mark --mark 0x1000/0x1000 -j RETURN",
        "-i veth+ -j RETURN",
        "-o veth+ -j RETURN",
        "-g OTHERS",
        "-j OTHERS",
        "-j ACCEPT",
        "! -s 10.0.0.1/32 -j RETURN",
        "-m set ! --match-set pf-4-known src,src -j RETURN",
        "-m connmark --mark 0x1000/0xffff -j RETURN",
        "-m set --match-set pf-4-known src,src --return-nomatch -j RETURN",
        "-s 10.0.0.0/255.0.255.0 -j RETURN",
        "-m physdev --physdev-in veth+ -j RETURN",
        "-m physdev --physdev-is-in -j RETURN",
        "-m physdev ! --physdev-in veth1 -j RETURN",
        "-m physdev --physdev-out veth1 -j RETURN",
        "-m physdev --physdev-out veth1 ! --physdev-is-bridged -j RETURN",
    ],
)
def test_no_word_of_a_rule_is_passed_over(rule: str) -> None:
    assert parse_rule(rule) == Foreign(rule)


def test_a_large_node() -> None:
    """250 pods, 300 policies, 3,000 pods elsewhere: proven equal; and one element too many in one set is found."""
    objects = [*(_pod(number) for number in range(3250)), *(_policy(number) for number in range(300))]
    compiled = compile_cluster(decode_objects(objects).cluster)
    veths = {pod.key: f"veth{number}" for number, pod in enumerate(local_pods(compiled, "here"))}
    assert len(veths) == 250
    node = NodeView("here", veths, (parse_cidr("10.1.0.0/24"),))
    dataplane = FakeDataplane(4)
    dataplane.execute(plan(dataplane.read(), layout(compiled, node, 4)))
    assert verify(dataplane.read(), compiled, node) is None
    peers = (each for each in dataplane.sets.values() if split_generation(each.name)[0].count("-") == 3)
    known = max((each for each in peers if not each.counters), key=lambda each: len(each.elements))
    like = min(known.elements)
    extra = Element(parse_cidr("10.99.0.1/32"), like.protocol, like.port)
    dataplane.sets[known.name] = IpSet(known.name, known.type, known.elements | {extra})
    found = verify(dataplane.read(), compiled, node)
    assert found and found.wanted == "deny"
    assert extra.prefix.network in (found.packet.src.value, found.packet.dst.value)


def _pod(number: int) -> dict[str, object]:
    here = number < 250
    address = f"10.1.0.{number}" if here else f"10.2.{number >> 8}.{number & 255}"
    labels = {"app": f"a{number % 40}", "tier": f"t{number % 7}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"p{number}", "namespace": f"ns{number % 10}", "labels": labels},
        "spec": {"nodeName": "here" if here else "there"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def _policy(number: int) -> dict[str, object]:
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"tier": f"t{number % 7}"}}}
    block = {"ipBlock": {"cidr": f"172.{number % 16 + 16}.0.0/16", "except": [f"172.{number % 16 + 16}.7.0/24"]}}
    ports = [{"port": 8000 + number % 9}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": f"ns{number % 10}"},
        "spec": {
            "podSelector": {"matchLabels": {"app": f"a{number % 40}"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer, block], "ports": ports}],
            "egress": [{"to": [peer], "ports": ports}],
        },
    }
