"""What a cluster becomes: nodes, addresses, namespaces. No packets."""

from __future__ import annotations

import pytest

from lab.topology import BRIDGE, OUTSIDE, complete, hosts
from policy.cidr import parse_address, parse_cidr
from policy.errors import UsageError
from policy.model import ContainerPort, Node, Pod

from .conftest import cluster_of, pods

NODES = ("n1", "n2", "n3")


def test_pods_without_anything_are_spread_over_two_nodes_with_both_families() -> None:
    made = complete(cluster_of(*pods(3)))
    assert [pod.node for pod in made.pods] == ["node-1", "node-2", "node-1"]
    blocks = {node.name: node.pod_cidrs for node in made.nodes}
    for pod in made.pods:
        assert [address.family for address in pod.addresses] == [4, 6]
        for address, block in zip(pod.addresses, blocks[pod.node], strict=True):
            assert block.network < address.value <= block.last


def test_what_the_cluster_says_is_kept() -> None:
    given = parse_address("192.168.1.1")
    node = Node("n", {}, (parse_address("10.0.0.1"),), (parse_cidr("10.9.0.0/29"),))
    made = complete(cluster_of(Pod("x", "a", {}, node="n", addresses=(given,)), Pod("x", "b", {}), nodes=[node]))
    assert made.pods[0].addresses == (given,), "a single-stack pod stays one"
    assert [str(address) for address in made.pods[1].addresses] == ["10.9.0.1"], "the node has no IPv6 block"
    assert made.nodes[0].addresses[0] == node.addresses[0]
    assert [address.family for address in made.nodes[0].addresses] == [4, 6]


def test_completing_twice_changes_nothing_and_order_of_unrelated_pods_keeps_addresses() -> None:
    once = complete(cluster_of(*pods(5)))
    assert complete(once) == once


def test_a_new_pod_gets_no_address_that_is_taken() -> None:
    made = complete(cluster_of(*pods(4)))
    more = complete(cluster_of(*made.pods, Pod("x", "new", {}), nodes=made.nodes))
    addresses = [address for pod in more.pods for address in pod.addresses]
    assert len(addresses) == len(set(addresses)) == 10


def test_a_node_that_only_a_pod_names_exists() -> None:
    made = complete(cluster_of(Pod("x", "a", {}, node="far")))
    assert [node.name for node in made.nodes] == ["far"]


def test_host_network_pods_live_on_their_node_and_finished_ones_nowhere() -> None:
    agent = Pod("x", "agent", {}, host_network=True, ports=(ContainerPort("", "TCP", 9000),))
    gone = Pod("x", "gone", {}, phase="Succeeded", addresses=(parse_address("10.244.2.1"),))
    made = complete(cluster_of(agent, gone))
    places = hosts(made, "t")
    assert made.pods[0].addresses == made.nodes[0].addresses
    assert places["x/agent"] == places["node-1"]
    assert ("TCP", 9000) in places["node-1"].listens
    assert "x/gone" not in places


def test_hosts_hang_on_their_router_and_routers_come_first() -> None:
    places = hosts(complete(cluster_of(*pods(2))), "t", [("UDP", 53)])
    assert list(places) == [OUTSIDE, "node-1", "node-2", "x/p0", "x/p1"]
    assert [host.router for host in places.values()] == ["", OUTSIDE, OUTSIDE, "node-1", "node-2"]
    assert all(("UDP", 53) in host.listens for host in places.values())
    assert places["x/p0"].listens == {("TCP", 80), ("UDP", 80), ("SCTP", 80), ("UDP", 53)}
    assert len({host.netns for host in places.values()}) == len(places)
    assert all(len(host.link) <= 15 for host in places.values()), "IFNAMSIZ"


def test_nodes_take_turns_where_it_is_mixed() -> None:
    cluster = complete(cluster_of(*(Pod("x", name, {}, node=node) for name, node in zip("abc", NODES, strict=True))))
    found = hosts(cluster, "lab", attach="mixed")
    assert [found[node].bridge for node in NODES] == ["", BRIDGE, ""]
    assert [found[f"x/{name}"].bridge for name in "abc"] == ["", BRIDGE, ""]
    assert [bool(found[f"x/{name}"].neighbours) for name in "abc"] == [False, True, False]


def test_names_of_different_places_differ_even_where_their_parts_run_together() -> None:
    made = complete(
        cluster_of(Pod("a", "b.c", {}), Pod("a-b", "c", {}), Pod("a", "x" * 253, {}), Pod("a", "x" * 252, {}))
    )
    names = [host.netns for host in hosts(made, "t").values()]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 255 for name in names)


def test_two_owners_of_an_address_are_refused() -> None:
    same = (parse_address("10.0.0.1"),)
    twice = cluster_of(Pod("x", "a", {}, addresses=same), Pod("x", "b", {}, addresses=same))
    with pytest.raises(UsageError, match=r"x/a and x/b both have the address 10\.0\.0\.1"):
        hosts(complete(twice), "t")


def test_a_full_node_is_refused_by_name() -> None:
    node = Node("tiny", {}, (), (parse_cidr("10.9.0.0/30"),))
    with pytest.raises(UsageError, match="node tiny has no free pod address"):
        complete(cluster_of(*pods(3), nodes=[node]))


def test_a_node_may_not_take_the_name_of_the_rest_of_the_world() -> None:
    with pytest.raises(UsageError, match=OUTSIDE):
        complete(cluster_of(nodes=[Node(OUTSIDE, {})]))


def test_a_workloads_stand_in_has_a_file_name_of_its_own() -> None:
    made = hosts(complete(cluster_of(Pod("x", "deploy/web", {}), Pod("x", "deploy.web", {}))), "lab")
    names = {host.netns for host in made.values()}
    assert len(names) == len({host.place for host in made.values()})
    assert not any("/" in name for name in names)
