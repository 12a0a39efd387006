"""Comparison: against a slow twin that asks the verdict of every flow before and after, and case by case."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from random import Random

import pytest

from compiler.compare import Cause, Change, compare
from compiler.compile import Compiled, compile_cluster
from compiler.verdict import End, Flow, verdict
from policy.cidr import Address, parse_address
from policy.decode import decode_objects
from policy.model import PROTOCOLS, Pod
from tests.generate import _elsewhere, _numbers, cluster
from tests.generate.pods import labels_of
from tests.generate.policies import policy as random_policy
from tests.generate.words import NAMES, NAMESPACES
from tests.oracle.fields import Object, pod_addresses
from tests.semantics.world import pod, policy, space, standing

Asked = tuple[str, str, str, int]  # the ends as pod keys or addresses, protocol, port
SEEDS = 40


def compiled(objects: list[Object]) -> Compiled:
    return compile_cluster(decode_objects(objects).cluster)


def changed(rng: Random, objects: list[Object]) -> list[Object]:
    """Some policies gone, some new ones, a pod with other labels, one gone, and other labels of a namespace."""
    after = deepcopy(objects)
    rng.shuffle(after)
    policies = [each for each in after if each["kind"] == "NetworkPolicy"]
    for each in rng.sample(policies, min(len(policies), rng.choice((0, 1, 1, 2)))):
        after.remove(each)
    anchors = [str(address) for each in after if each["kind"] == "Pod" for address in pod_addresses(each)]
    taken = {(each["metadata"].get("namespace"), each["metadata"]["name"]) for each in policies}
    free = [(space, name) for space in NAMESPACES for name in NAMES if (space, name) not in taken]
    if anchors and free and rng.random() < 0.7:
        after.append(random_policy(rng, *rng.choice(free), anchors))
    for each in after:
        if each["kind"] in ("Pod", "Namespace") and rng.random() < 0.2:
            each["metadata"]["labels"] = labels_of(rng)
    pods = [each for each in after if each["kind"] == "Pod"]
    if len(pods) > 2 and rng.random() < 0.3:
        after.remove(rng.choice(pods))
    return after


def ports_worth_asking(objects: list[Object]) -> list[tuple[str, int]]:
    numbers = sorted({near for each in _numbers(objects) for near in (each - 1, each, each + 1) if 0 < near < 65536})
    return [(protocol, number) for protocol in PROTOCOLS for number in numbers] + [("ICMP", 0)]


def slow(old: Compiled, new: Compiled, outside: list[str], ports: list[tuple[str, int]]) -> set[tuple[str, Asked, int]]:
    """Every flow that one side alone allows, with its address family, by asking for each."""
    found = set()
    for kind, has, lacks in (("opened", new, old), ("closed", old, new)):
        for src, dst, family in every_pair(has, outside):
            for protocol, port in ports:
                if allows(has, src, dst, family, protocol, port) and not allows(
                    lacks, src, dst, family, protocol, port
                ):
                    found.add((kind, (src, dst, protocol, port), family))
    return found


def every_pair(state: Compiled, outside: list[str]) -> Iterator[tuple[str, str, int]]:
    pods = [each for each in state.pods.values() if each.selectable]
    for family in (4, 6):
        having = [each.key for each in pods if any(address.family == family for address in each.addresses)]
        others = [text for text in outside if parse_address(text).family == family]
        for one in having:
            yield from ((one, other, family) for other in [*having, *others] if one != other)
            yield from ((other, one, family) for other in others)


def allows(state: Compiled, src: str, dst: str, family: int, protocol: str, port: int) -> bool:
    ends = [end(state, text, family) for text in (src, dst)]
    if None in ends:
        return False
    return verdict(state, Flow(ends[0], ends[1], protocol, port)).allowed


def end(state: Compiled, text: str, family: int) -> End | None:
    known: Pod | None = state.pods.get(text)
    if known is None:
        return None if "/" in text else End(address=parse_address(text))
    addresses = [each for each in known.addresses if each.family == family]
    return End(known, addresses[0]) if known.selectable and addresses else None


def fast(changes: tuple[Change, ...], flows: set[Asked], family: int, kind: str) -> set[Asked]:
    """Which of `flows` the changes speak of."""
    return {flow for flow in flows if any(speaks_of(each, flow, family) for each in changes if each.kind == kind)}


def speaks_of(change: Change, flow: Asked, family: int) -> bool:
    src, dst, protocol, port = flow
    if not change.ports.contains(protocol, port) or (change.families and family not in change.families):
        return False
    ends = []
    for text, groups in ((src, change.src), (dst, change.dst)):
        if "/" in text:
            ends.append(any(text in group.pods for group in groups))
        else:
            address: Address = parse_address(text)
            ends.append(not groups and change.outside is not None and change.outside.contains(address))
    return all(ends)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_as_the_slow_twin_says(seed: int) -> None:
    rng = Random(seed)
    before = cluster(rng)
    after = changed(rng, before)
    nodes = {each["address"] for one in before if one["kind"] == "Node" for each in one["status"]["addresses"]}
    old, new = compiled(before), compiled(after)
    outside = [text for text in _elsewhere([*before, *after]) if text not in nodes]
    held = {str(address) for state in (old, new) for each in state.pods.values() for address in each.addresses}
    outside = rng.sample([text for text in outside if text not in held], 4)
    ports = ports_worth_asking([*before, *after])
    ports = rng.sample(ports, min(len(ports), 24))
    expected = slow(old, new, outside, ports)
    changes = compare(old, new)
    for family in (4, 6):
        asked = {
            (src, dst, protocol, port)
            for state in (old, new)
            for src, dst, its in every_pair(state, outside)
            if its == family
            for protocol, port in ports
        }
        for kind in ("opened", "closed"):
            said = fast(changes, asked, family, kind)
            assert said == {flow for its_kind, flow, its in expected if (its_kind, its) == (kind, family)}


def test_the_random_clusters_open_and_close() -> None:
    kinds = []
    for seed in range(SEEDS):
        rng = Random(seed)
        before = cluster(rng)
        kinds += [
            (each.kind, each.outside is None) for each in compare(compiled(before), compiled(changed(rng, before)))
        ]
    for each in [(kind, pods) for kind in ("opened", "closed") for pods in (True, False)]:
        assert kinds.count(each) > 20


def between(before: list[Object], after: list[Object]) -> tuple[Change, ...]:
    return compare(compiled([*standing(), *before]), compiled([*standing(), *after]))


def shown(changes: tuple[Change, ...]) -> list[str]:
    return [
        f"{each.kind} {','.join(one.name for one in each.src) or 'outside'} -> "
        f"{','.join(one.name for one in each.dst) or 'outside'}: {each.ports}"
        for each in changes
    ]


FROM_WEB = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], %s}]}"


def test_nothing_changes() -> None:
    same = [policy(FROM_WEB % "ports: [{port: 80}]")]
    assert between(same, same) == ()
    # The same meaning in other words.
    assert between(same, [policy(FROM_WEB % "ports: [{port: 80, endPort: 80}]", "shop/other")]) == ()


def test_a_port_more_is_the_rule_on_the_new_side() -> None:
    (only,) = between(
        [policy(FROM_WEB % "ports: [{port: 80}]")], [policy(FROM_WEB % "ports: [{port: 80, endPort: 90}]")]
    )
    assert shown((only,)) == ["opened shop/web -> shop/db: 81-90/TCP"]
    (cause,) = only.causes
    assert (cause.side, cause.direction, cause.policy, cause.rule.path) == (
        "new",
        "ingress",
        "shop/policy",
        ("spec", "ingress", 0, "from", 0),
    )


def test_an_isolating_policy_closes_and_is_named() -> None:
    changes = between([], [policy("{podSelector: {matchLabels: {app: db}}}")])
    assert shown(changes) == [
        "closed shop/web,bank/web,bank/db -> shop/db: every port and protocol",
        "closed outside -> shop/db: every port and protocol",
    ]
    assert {each.causes for each in changes} == {(Cause("new", "ingress", "shop/policy"),)}
    back = between([policy("{podSelector: {matchLabels: {app: db}}}")], [])
    assert {each.kind for each in back} == {"opened"}
    assert {each.causes for each in back} == {(Cause("old", "ingress", "shop/policy"),)}


def test_only_the_half_that_changed_is_named() -> None:
    egress = policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}", "shop/out")
    ports = "ports: [{port: 80}]"
    (only,) = between(
        [egress, policy(FROM_WEB % ports)], [egress, policy(FROM_WEB % "ports: [{port: 81}, {port: 80}]")]
    )
    assert [(each.direction, each.policy) for each in only.causes] == [("ingress", "shop/policy")]


def test_outside_by_blocks() -> None:
    block = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: %s}}]}]}"
    (only,) = between([policy(block % "198.51.100.0/24")], [policy(block % "198.51.100.0/25")])
    assert shown((only,)) == ["closed outside -> shop/db: every port and protocol"]
    assert only.outside.v4 == ((0xC6336480, 0xC63364FF),)


def owned(name: str, address: str, **labels: str) -> Object:
    made = pod(f"shop/{name}", [address], app="shopper", **labels)
    made["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "shopper", "controller": True}]
    return made


def test_a_rollout_is_no_change() -> None:
    rule = policy(FROM_WEB.replace("app: web", "app: shopper") % "ports: [{port: 80}]")
    assert between([rule, owned("s-0", "10.1.0.30", hash="a")], [rule, owned("s-x", "10.1.0.31", hash="b")]) == ()


def test_a_new_pod_opens_what_it_may() -> None:
    rule = policy(FROM_WEB % "ports: [{port: 80}]")
    late = pod("shop/late", ["10.1.0.40"], app="web")
    changes = between([rule], [rule, late])
    assert "opened shop/late -> shop/db: 80/TCP" in shown(changes)
    assert all(
        each.causes == (Cause("new", "egress"),) for each in changes if each.src and each.src[0].name == "shop/late"
    )
    assert {each.kind for each in changes} == {"opened"}


def test_a_template_and_its_pods_are_the_same() -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "shopper", "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": {"app": "shopper"}}, "spec": {"containers": []}}},
    }
    rule = policy(FROM_WEB.replace("app: web", "app: shopper") % "ports: [{port: 80}]")
    closed = policy("{podSelector: {}}", "shop/all")
    assert between([rule, closed, deployment], [rule, closed, owned("s-0", "10.1.0.30")]) == ()


def test_a_namespace_label_opens() -> None:
    rule = policy(
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}}]}]}"
    )
    spaces = [each for each in standing() if each["metadata"]["name"] != "bank"]
    old, new = (compiled([*spaces, rule, space("bank", **labels)]) for labels in ({}, {"a": "b"}))
    (only,) = compare(old, new)
    assert shown((only,)) == ["opened bank/web,bank/db -> shop/db: every port and protocol"]
