"""Semantics, rows 23 to 31: what is a pod, whose address it is, the pod's own node, and what a node rewrites."""

from __future__ import annotations

import pytest

from compiler.compile import compile_cluster
from compiler.verdict import End, Flow, Verdict, verdict
from policy.decode import decode_objects
from tests.oracle.fields import Object
from tests.semantics.world import NODES, OUTSIDE, OUTSIDE_6, World, pod, policy, standing, world

DENY = "{podSelector: {}, policyTypes: [Ingress, Egress]}"
FROM_SHOP = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}"


def host_pod(key: str, node: str, **labels: str) -> Object:
    made = pod(key, list(NODES[node]), node, "http:80/TCP", **labels)
    made["spec"]["hostNetwork"] = True
    return made


def test_row_23_a_host_network_pod_is_not_selected_as_subject() -> None:
    there = world(DENY, host_pod("shop/agent", "node-1"))
    assert there.passes("bank/web", "shop/agent") and there.passes("shop/agent", OUTSIDE)


def test_row_23_a_host_network_pod_is_not_a_peer_but_its_node() -> None:
    there = world(FROM_SHOP, host_pod("shop/agent", "node-1"))
    assert not there.passes("shop/agent", "shop/web")
    by_address = world(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.11/32}}]}]}", host_pod("shop/agent", "node-1")
    )
    assert by_address.passes("shop/agent", "shop/web")
    assert world(FROM_SHOP, host_pod("shop/agent", "node-0")).passes("shop/agent", "shop/web")  # row 27


def test_row_23_a_host_network_pod_has_no_named_port_for_policies() -> None:
    named = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"
    assert not world(named, host_pod("shop/agent", "node-1")).passes("shop/web", "shop/agent")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_row_24_a_finished_pod_is_neither_subject_nor_peer(phase: str) -> None:
    done = pod("shop/job", ["10.9.0.1"], app="db")
    done["status"]["phase"] = phase
    there = world(DENY, FROM_SHOP, done)
    assert there.ingress(OUTSIDE, "shop/job")
    assert not there.ingress("shop/job", "shop/web")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_row_24_a_finished_pods_address_may_be_someone_elses(phase: str) -> None:
    done = pod("shop/job", ["10.1.1.10"], app="db")
    done["status"]["phase"] = phase
    # bank/web has the address now: it is not in the namespace shop, and nothing isolates it.
    there = world(FROM_SHOP, DENY, done)
    assert not there.passes("10.1.1.10", "shop/web") and there.passes(OUTSIDE, "bank/web")
    to_jobs = "{podSelector: {matchLabels: {app: web}}, egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]}"
    assert not world(to_jobs, done).passes("shop/web", "bank/web")


def test_row_24_a_pod_without_an_address_is_explained_as_if_it_had_one_of_its_own() -> None:
    waiting = pod("shop/soon", [], app="soon")
    opened = world(
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: soon}}}]}]}",
        policy("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}", "bank/web"),
        policy(
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}", "bank/db"
        ),
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}",
    )
    compiled = compile_cluster(decode_objects([*standing(), waiting, *opened.more]).cluster)
    soon = End(compiled.pods["shop/soon"])

    def answer(dst: str) -> Verdict:
        end = compiled.pods[dst]
        return verdict(compiled, Flow(soon, End(end, end.addresses[0]), "TCP", 80))

    # By its labels, as everyone, and as any address of the family; a smaller block may turn out to hold it or not.
    assert all(answer(dst).allowed for dst in ("shop/web", "bank/web", "shop/db"))
    assert not answer("bank/db").allowed and answer("bank/db").uncertain
    # On a node it is nobody: what others may is what it would be without it.
    assert World([waiting, *opened.more]).who_reaches("shop/web") == set()


def test_row_25_a_pod_being_deleted_is_still_a_pod() -> None:
    leaving = pod("shop/leaving", ["10.1.0.40"], app="db")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    there = world(
        FROM_SHOP, policy("{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}", "shop/db"), leaving
    )
    assert there.passes("shop/leaving", "shop/web")
    assert not there.passes(OUTSIDE, "shop/leaving")


def test_row_26_every_address_of_both_families_counts() -> None:
    many = pod("shop/many", ["10.1.0.50", "fd00:1::32", "10.1.0.51"], app="db")
    there = world(FROM_SHOP, policy("{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}", "shop/db"), many)
    for address, web in (("10.1.0.50", "10.1.0.10"), ("10.1.0.51", "10.1.0.10"), ("fd00:1::32", "fd00:1::a")):
        assert there.passes(address, web)
        assert not there.passes(OUTSIDE_6 if ":" in address else OUTSIDE, address)
    assert not there.passes("fd00:1:0:1::b", "fd00:1::a")


def test_row_26_a_block_of_one_family_leaves_the_other_closed() -> None:
    there = world("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 'fd00:1:0:1::/64'}}]}]}")
    assert there.passes("fd00:1:0:1::a", "fd00:1::a")
    assert not there.passes("10.1.1.10", "10.1.0.10")


@pytest.mark.parametrize("addresses", NODES["node-0"])
def test_row_27_the_pods_own_node_reaches_it(addresses: str) -> None:
    there = world(DENY)
    web = "fd00:1::a" if ":" in addresses else "10.1.0.10"
    for port in ("80/TCP", "53/UDP", "ICMP"):
        assert there.passes(addresses, web, port)


def test_row_27_another_node_is_a_peer_like_any() -> None:
    assert not world(DENY).passes("node-1", "shop/web")
    assert world(DENY).passes("node-1", "bank/web")


def test_row_28_to_the_own_node_follows_the_egress_rules() -> None:
    assert not world(DENY).passes("shop/web", "node-0")
    to_node = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.10/32}}]}]}"
    there = world(to_node)
    assert there.passes("shop/web", "node-0") and not there.passes("shop/web", "node-1")
    assert there.passes("fd00:1::a", "fd00:1::b") is False


def test_row_28_node_egress_allow_opens_the_own_node_only() -> None:
    there = world(DENY, node_egress="allow")
    assert there.passes("shop/web", "node-0") and not there.passes("shop/web", "node-1")
    assert there.passes("fd00:1::a", "2001:db8::10", "53/UDP")


def test_row_29_a_pod_reaches_itself() -> None:
    there = world(DENY)
    assert there.passes("shop/web", "shop/web") and there.passes("fd00:1::a", "fd00:1::a", "ICMP")
    many = world(DENY, pod("shop/many", ["10.1.0.50", "10.1.0.51"]))
    assert many.passes("10.1.0.50", "10.1.0.51")
    assert not many.passes("shop/web", "shop/many")


def service(key: str, cluster_ip: str, port: int, target: int | str) -> Object:
    space, name = key.split("/")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "clusterIP": cluster_ip,
            "selector": {"app": "web"},
            "ports": [{"port": port, "targetPort": target, "nodePort": 30080}],
        },
    }


def test_row_30_policy_sees_the_backend_pod_and_its_target_port() -> None:
    # What a node sees after translation is the pod at its target port; neither the Service's address nor its port,
    # nor its node port, opens anything.
    by_service = "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8088}, {port: 30080}]}]}"
    there = world(by_service, service("shop/web", "10.96.0.10", 8088, "http"))
    assert not there.passes("bank/web", "shop/web", "80/TCP")
    by_target = world("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}", *there.more[1:])
    assert by_target.passes("bank/web", "shop/web", "80/TCP")
    to_address = "{podSelector: {matchLabels: {app: web}}, egress: [{to: [{ipBlock: {cidr: 10.96.0.10/32}}]}]}"
    assert not world(to_address, *there.more[1:]).egress("shop/web", "bank/web", "8000/TCP")


def test_row_30_a_host_port_is_not_the_pods_port() -> None:
    subject = pod("shop/host", ["10.1.0.90"], "node-0", "http:80/TCP", app="web")
    subject["spec"]["containers"][0]["ports"][0]["hostPort"] = 8888
    there = world("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}", subject)
    assert there.passes(OUTSIDE, "shop/host", "80/TCP") and not there.passes(OUTSIDE, "shop/host", "8888/TCP")


def test_row_31_a_rewritten_source_counts_as_what_it_was_rewritten_to() -> None:
    """A node that masquerades what its pods send shows its own address: labels no longer tell, a block does."""
    by_label = world("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}")
    assert by_label.passes("bank/web", "shop/web") and not by_label.passes(NODES["node-1"][0], "shop/web")
    by_node: World = world("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.11/32}}]}]}")
    assert by_node.passes(NODES["node-1"][0], "shop/web") and not by_node.passes("bank/web", "shop/web")
