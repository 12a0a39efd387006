"""Semantics, rows 34 to 40: what cannot be understood never widens, how files are read, and what is too much."""

from __future__ import annotations

from typing import Any

import pytest

from compiler.compile import Compiled, compile_cluster
from compiler.verdict import End, Flow, verdict
from policy.decode import read_documents
from policy.errors import UnreadableInput
from tests import oracle
from tests.oracle.fields import Object
from tests.semantics.world import OUTSIDE, pod, policy, space, world

GOOD_RULE = "{from: [{podSelector: {matchLabels: {app: db}}}]}"


@pytest.mark.parametrize(
    "rule",
    [
        "{form: [{podSelector: {}}]}",
        "{from: [{podSelector: {}}], port: [{port: 80}]}",
        "{from: [{namespaceSelector: {}, cidr: 10.0.0.0/8}]}",
        "{from: [{namespaceSelector: {matchlabels: {team: x}}}]}",
        "{from: [{podSelector: {matchExpressions: [{key: app, operator: Near, values: [db]}]}}]}",
        "{from: [{podSelector: {matchExpressions: [{key: app, operator: In}]}}]}",
        "{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: []}]}}]}",
        "{from: [{podSelector: {matchExpressions: [{key: app, operator: Exists, values: [db]}]}}]}",
        "{from: [{podSelector: {matchExpressions: [{operator: Exists}]}}]}",
        "{from: [{podSelector: {matchLabels: {app: 1}}}]}",
        "{from: [{ipBlock: {cidr: 10.1.1.10/33}}]}",
        "{from: [{ipBlock: {cidr: 10.0.0.0}}]}",
        "{from: [{ipBlock: {cidr: everywhere}}]}",
        "{from: [{ipBlock: {}}]}",
        "{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0/8]}}]}",
        "{from: [{ipBlock: {cidr: 0.0.0.0/0, excepts: [10.1.0.0/16]}}]}",
        "{from: [{ipBlock: {cidr: 10.1.0.0/16, except: [11.0.0.0/8]}}]}",
        "{from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}]}",
        "{from: {podSelector: {}}}",
        "{from: [null]}",
        "{from: [pods]}",
        "{ports: [{port: 80, protocol: tcp}]}",
        "{ports: [{port: 80, protocol: ICMP}]}",
        "{ports: [{port: 0}]}",
        "{ports: [{port: 65536}]}",
        "{ports: [{port: '80'}]}",
        "{ports: [{port: Http}]}",
        "{ports: [{port: 80, endPort: 70}]}",
        "{ports: [{port: 80, endport: 90}]}",
        "{ports: [null]}",
        "{ports: 80}",
        "null",
        "[]",
    ],
)
def test_row_34_a_rule_that_is_not_understood_grants_nothing_and_the_policy_isolates(rule: str) -> None:
    there = world(f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{rule}, {GOOD_RULE}]}}")
    for port in ("80/TCP", "81/TCP", "80/UDP", "ICMP"):
        assert there.who_reaches("shop/web", port) == {"shop/db"}
    (problem,) = there.engine.decoded.problems
    assert (problem.kind, problem.name) == ("NetworkPolicy", "shop/policy-0")
    assert problem.field.startswith("spec.ingress[0]")


@pytest.mark.parametrize(
    "rule",
    [
        "{from: [{podSelector: {matchLabels: {app: db}}}, {ipBlock: {cidr: 10.1.1.10/99}}]}",
        "{from: [{podSelector: {}}], ports: [{port: 80}, {port: 443, protocol: QUIC}]}",
        "{from: [{namespaceSelector: {}}, {}]}",
    ],
)
def test_row_34_what_is_good_in_a_rule_with_something_wrong_grants_nothing_either(rule: str) -> None:
    assert world(f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{rule}]}}").who_reaches("shop/web") == set()


@pytest.mark.parametrize("types", ["[Ingres]", "[ingress]", "[Ingress, Both]", "[null]", "Egress", "{}"])
def test_row_34_an_unknown_policy_type_isolates_both_directions(types: str) -> None:
    there = world(f"{{podSelector: {{}}, policyTypes: {types}, ingress: [{GOOD_RULE}]}}")
    assert there.who_reaches("shop/web") == set()  # shop/db may not send
    assert there.ingress("shop/db", "shop/web") and not there.ingress("bank/db", "shop/web")
    assert not there.egress("shop/web", "bank/web")


@pytest.mark.parametrize(
    "selector",
    [
        "[]",
        "web",
        "{matchLabel: {app: web}}",
        "{matchLabels: [app]}",
        "{matchExpressions: [{key: app, operator: Is, values: [web]}]}",
    ],
)
def test_row_34_an_unreadable_pod_selector_isolates_the_namespace_and_grants_nothing(selector: str) -> None:
    there = world(f"{{podSelector: {selector}, ingress: [{{}}]}}")
    for subject in ("shop/web", "shop/db"):
        assert there.who_reaches(subject) == set()
        assert there.egress(subject, OUTSIDE)
    assert there.passes(OUTSIDE, "bank/web")
    both = world(f"{{podSelector: {selector}, policyTypes: [Ingress, Egress], ingress: [{{}}], egress: [{{}}]}}")
    assert not both.ingress(OUTSIDE, "shop/db") and not both.egress("shop/db", OUTSIDE)


def _misread(**changes: Any) -> Object:
    return policy(f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{GOOD_RULE}, {{}}]}}") | changes


@pytest.mark.parametrize(
    "wrong",
    [
        policy("{podSelector: {matchLabels: {app: web}}, ingress: [{}], engress: [{}]}"),
        _misread(rules=[]),
        _misread(apiVersion="networking.k8s.io/v1beta1"),
    ],
)
def test_row_34_a_field_unknown_outside_rules_isolates_both_directions_and_grants_nothing(wrong: Object) -> None:
    there = world(wrong)
    assert there.who_reaches("shop/web") == set()
    assert not there.egress("shop/web", "bank/web")
    assert there.passes(OUTSIDE, "shop/db")


@pytest.mark.parametrize("spec", [[], "x", 1])
def test_row_34_an_unreadable_spec_isolates_the_namespace_in_both_directions(spec: Any) -> None:
    there = world(_misread(spec=spec))
    assert not there.ingress("bank/web", "shop/db") and not there.egress("shop/db", "bank/web")


@pytest.mark.parametrize("section", ["{}", "all", "{from: []}"])
def test_row_34_a_section_that_is_no_list_grants_nothing(section: str) -> None:
    there = world(f"{{podSelector: {{}}, ingress: {section}, egress: {section}}}")
    assert not there.ingress("bank/web", "shop/web") and not there.egress("shop/web", "bank/web")


@pytest.mark.parametrize(
    ("cidr", "inside", "outside"),
    [
        ("10.1.1.77/24", "10.1.1.10", "10.1.0.11"),
        ("010.001.001.010/32", "10.1.1.10", "10.1.1.8"),
        ("10.1.1.10/032", "10.1.1.10", "10.1.1.11"),
        ("::ffff:10.1.1.0/120", "10.1.1.10", "10.1.0.11"),
        ("::ffff:10.1.1.99/120", "10.1.1.10", "10.1.0.11"),
        ("::ffff:0:0/96", "203.0.113.7", "2001:db8:ffff::7"),
        ("FD00:1:0:1:0::ff/64", "fd00:1:0:1::a", "fd00:1::b"),
        ("::/80", "::5", "203.0.113.7"),
    ],
)
def test_row_35_sloppy_cidrs_are_read_as_kubernetes_reads_them(cidr: str, inside: str, outside: str) -> None:
    there = world(f"{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: '{cidr}'}}}}]}}]}}")
    assert not there.engine.decoded.problems
    for address, expected in ((inside, True), (outside, False)):
        assert there.passes(address, "fd00:1::a" if ":" in address else "10.1.0.10") is expected


def test_row_35_exceptions_are_read_alike() -> None:
    peer = "{ipBlock: {cidr: 10.1.0.9/16, except: ['010.001.001.099/24', '::ffff:10.1.0.0/127']}}"
    there = world(f"{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}")
    assert there.passes("10.1.2.1", "shop/web")
    assert not there.passes("bank/web", "shop/web") and not there.passes("10.1.0.1", "shop/web")


BY_NAME = (
    "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: bank}}}]}]}"
)


def test_row_36_the_name_label_is_always_there() -> None:
    assert world(BY_NAME).who_reaches("shop/web") == {"bank/web", "bank/db"}


def test_row_36_the_name_label_is_the_name_whatever_a_file_says() -> None:
    liar = space("shop", **{"kubernetes.io/metadata.name": "bank"})
    assert world(BY_NAME, liar).who_reaches("shop/web") == {"bank/web", "bank/db"}


def test_row_37_without_a_namespace_is_default() -> None:
    plain = policy("podSelector: {}", "default/closed")
    del plain["metadata"]["namespace"]
    there = world(plain, pod("default/one", ["10.1.0.60"]))
    assert there.who_reaches("default/one") == set()
    assert there.passes(OUTSIDE, "shop/web")
    bare = pod("default/two", ["10.1.0.61"])
    del bare["metadata"]["namespace"]
    assert not world(plain, bare).passes(OUTSIDE, "default/two")


def test_row_37_a_namespace_that_no_file_holds_has_only_its_name_label() -> None:
    ghost = pod("ghost/pod", ["10.1.0.62"], app="db")
    ghost_by_name = BY_NAME.replace("bank", "ghost")
    assert world(ghost_by_name, ghost).who_reaches("shop/web") == {"ghost/pod"}
    no_team = "[{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}]"
    there = world(f"{{podSelector: {{}}, ingress: [{{from: {no_team}}}]}}", ghost)
    assert there.who_reaches("shop/web") == {"ghost/pod"}


TEMPLATE = (
    "{metadata: {labels: {app: api}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}}"
)
WORKLOADS = {
    "deploy": ("Deployment", "apps/v1", f"{{template: {TEMPLATE}}}"),
    "sts": ("StatefulSet", "apps/v1", f"{{template: {TEMPLATE}}}"),
    "ds": ("DaemonSet", "apps/v1", f"{{template: {TEMPLATE}}}"),
    "rs": ("ReplicaSet", "apps/v1", f"{{template: {TEMPLATE}}}"),
    "job": ("Job", "batch/v1", f"{{template: {TEMPLATE}}}"),
    "cronjob": ("CronJob", "batch/v1", f"{{jobTemplate: {{spec: {{template: {TEMPLATE}}}}}}}"),
}


def from_file(text: str) -> Compiled:
    return compile_cluster(read_documents(text.encode(), "objects.yaml").cluster)


@pytest.mark.parametrize("short", WORKLOADS)
def test_row_38_a_workload_stands_for_the_pods_that_it_would_make(short: str) -> None:
    kind, version, spec = WORKLOADS[short]
    compiled = from_file(f"""
apiVersion: {version}
kind: {kind}
metadata: {{name: api, namespace: shop}}
spec: {spec}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
spec: {{containers: [{{name: c}}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: api, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: api}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: web}}}}}}], ports: [{{port: http}}]}}]
""")
    stand_in = next(each for each in compiled.cluster.pods if each.workload)
    assert (stand_in.workload, stand_in.namespace) == (f"{short}/api", "shop")
    web, api = End(compiled.pods["shop/web"]), End(stand_in)
    assert verdict(compiled, Flow(web, api, "TCP", 8080)).allowed
    assert not verdict(compiled, Flow(web, api, "TCP", 8081)).allowed
    assert not verdict(compiled, Flow(End(), api, "TCP", 8080)).allowed


@pytest.mark.parametrize(
    "spec",
    [
        "podSelector: {}\n  ingress: []\n  ingress: [{}]",
        "podSelector: {matchLabels: {app: web, app: db}}",
        "podSelector: {}\n  podSelector: {matchLabels: {app: db}}",
    ],
)
def test_row_39_duplicate_keys_are_an_error(spec: str) -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  "
    with pytest.raises(UnreadableInput, match=r"objects\.yaml:\d+: .*(podSelector|ingress|app)"):
        from_file(head + spec)


@pytest.mark.parametrize(
    "spec",
    [
        '{"podSelector": {}, "ingress": [], "ingress": [{}]}',
        '{"podSelector": {"matchLabels": {"app": "web", "app": "db"}}}',
    ],
)
@pytest.mark.parametrize("kind", ["NetworkPolicy", "ConfigMap"])
def test_row_39_duplicate_keys_in_json_are_an_error_too(kind: str, spec: str) -> None:
    with pytest.raises(UnreadableInput, match=r"objects\.yaml:1: .*'(ingress|app)' stands twice"):
        from_file(f'{{"apiVersion": "networking.k8s.io/v1", "kind": "{kind}", "spec": {spec}}}')


def test_row_40_of_more_rules_than_there_is_room_for_the_largest_policies_isolate_and_grant_nothing() -> None:
    """What the API text has no word for; so the engine alone is asked."""
    to_web = {"podSelector": {"matchLabels": {"app": "web"}}}
    blocks = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"10.{9 + at}.0.0/16"]}} for at in range(240)]
    rules = [{"from": [blocks[at % 240]], "ports": [{"port": 1000 + 2 * at}]} for at in range(1000)]
    large = policy("{}", "shop/large") | {"spec": {**to_web, "ingress": rules}}
    small = policy("{}", "shop/small") | {"spec": {**to_web, "ingress": [{"ports": [{"port": 80}]}]}}
    db, web = oracle.End("10.1.0.11", "shop/db"), oracle.End("10.1.0.10", "shop/web")
    for objects, allowed in (([large], set()), ([large, small], {80}), ([small], {80})):
        engine = world(*objects).engine
        flows = {port: oracle.Flow(db, web, "TCP", port) for port in (80, 1000, 1002)}
        assert {port for port, flow in flows.items() if engine.verdict(flow).allowed} == allowed
        assert {port for port, flow in flows.items() if engine.simulated(flow)} == allowed
