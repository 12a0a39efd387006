"""`podfence explain` against an API server: what it reads, what it leaves unread, and what it says of what it can't."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from msgspec import Raw

from podfence.cluster import collect, items_of, listed
from policy.errors import ApiRefused
from tests.cli.api_server import Server, serving
from tests.semantics.world import pod, policy, space, standing

POLICY = policy(
    "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"
)


@pytest.fixture
def asked(podfence, tmp_path: Path):
    """Runs `explain ARGUMENTS -o json` against `server`."""

    def run(server: Server, *arguments: object) -> Any:
        config = server.kubeconfig(tmp_path)
        return podfence("explain", *arguments, "-o", "json", "--kubeconfig", config)

    return run


def test_only_namespaces_that_can_matter_are_read(asked) -> None:
    with serving(Server([*standing(), POLICY])) as server:
        ran = asked(server, "shop/web", "shop/db", "--port", "8080", "--expect", "allow")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["verdict"] == "allowed"
    assert not [path for path in server.asked if "bank" in path or path == "/api/v1/pods"]


def test_where_all_pods_can_matter_each_kind_is_one_list(asked) -> None:
    with serving(Server([*standing(), POLICY])) as server:
        ran = asked(server, "10.1.0.0/16", "shop/db", "--port", "8080")
    assert {answer["verdict"] for answer in json.loads(ran.stdout)["answers"]} == {"allowed", "denied"}, ran.stderr
    assert not [path for path in server.asked if "/namespaces/" in path]
    kinds = [path.rpartition("/")[2] for path in dict.fromkeys(server.asked)]
    assert sorted(kinds) == ["endpointslices", "namespaces", "networkpolicies", "nodes", "pods", "services"]


def test_lists_come_in_pages_and_are_whole(asked) -> None:
    many = [pod(f"shop/more-{number}", [f"10.1.0.{100 + number}"], app="more") for number in range(7)]
    with serving(Server([*standing(), POLICY, *many])) as server:
        ran = asked(server, "shop/more-6", "db", "-n", "shop", "--port", "8080", "--expect", "deny")
    assert ran.returncode == 0, ran.stderr


def test_an_address_is_whoever_has_it(asked) -> None:
    with serving(Server([*standing(), POLICY])) as server:
        ran = asked(server, "10.1.1.10", "shop/db", "--port", "8080")
    (answer,) = json.loads(ran.stdout)["answers"]
    assert (answer["src"]["names"], answer["verdict"]) == (["bank/web"], "denied")


def test_an_address_that_is_a_services_leads_to_its_pods(asked) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    with serving(Server([*standing(), POLICY, service])) as server:
        ran = asked(server, "bank/web", "10.96.0.9", "--port", "80")
    (answer,) = json.loads(ran.stdout)["answers"]
    assert (answer["dst"]["names"], answer["port"], answer["verdict"]) == (["shop/db"], 8080, "denied")


def test_what_cannot_be_read_is_said_and_ends_with_3(asked) -> None:
    with serving(Server([*standing(), POLICY], refuse=("networkpolicies",))) as server:
        ran = asked(server, "shop/web", "shop/db", "--port", "8080", "--expect", "allow")
    document = json.loads(ran.stdout)
    assert (ran.returncode, document["verdict"]) == (3, "unknown")
    assert document["unseen"] == ["list networkpolicies of shop: 403 Forbidden"]
    assert "networkpolicies of shop" in ran.stderr


def test_no_cluster_at_all(podfence, tmp_path) -> None:
    ran = podfence("explain", "a", "b", "--port", "80", KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert ran.returncode == 3
    assert ran.stderr.count("\n") == 1 and "no cluster" in ran.stderr


def test_a_server_that_does_not_answer(podfence, tmp_path) -> None:
    server = Server([])
    server.url = "http://127.0.0.1:9"
    ran = podfence("explain", "a", "b", "--port", "80", "--kubeconfig", server.kubeconfig(tmp_path))
    assert ran.returncode == 3
    assert "list namespaces: no connection: Connection refused" in ran.stderr


def test_a_change_on_top_of_the_cluster(asked, tmp_path) -> None:
    change = tmp_path / "change.yaml"
    change.write_text(yaml.safe_dump(policy("{podSelector: {}, policyTypes: [Ingress]}", "shop/policy")))
    flow = ("shop/web", "shop/db", "--port", "8080")
    with serving(Server([*standing(), POLICY, space("empty")])) as server:
        assert asked(server, *flow, "--expect", "allow").returncode == 0
        assert asked(server, *flow, "--with", change, "--expect", "deny").returncode == 0
        assert asked(server, "bank/web", *flow[1:], "--expect", "deny").returncode == 0
        assert (
            asked(server, "bank/web", *flow[1:], "--without", "shop/netpol/policy", "--expect", "allow").returncode == 0
        )
        missing = asked(server, *flow, "--without", "shop/netpol/polcy")
    assert missing.returncode == 2
    assert "near it: shop/netpol/policy" in missing.stderr


def test_a_fix_without_a_file_is_yaml(asked) -> None:
    with serving(Server([*standing(), POLICY])) as server:
        ran = asked(server, "bank/web", "shop/db", "--port", "8080", "--fix")
    fix = json.loads(ran.stdout)["fix"]
    assert "patches" not in fix
    (changed,) = map(yaml.safe_load, fix["policies"])
    assert changed["metadata"] == {"name": "policy", "namespace": "shop"}


def test_a_list_whose_pages_expire_is_read_whole() -> None:
    asked = []

    def fetch(what: str, path: str, query: list[tuple[str, str]]) -> bytes:
        asked.append(path)
        if "/pods" not in path:
            return b'{"items": []}'
        if "continue" in dict(query):
            raise ApiRefused("list", what, 410, "Gone")
        items = [pod("shop/a", ["10.0.0.1"]), pod("shop/b", ["10.0.0.2"])]
        if "limit" in dict(query):
            return json.dumps({"metadata": {"continue": "x"}, "items": items[:1]}).encode()
        return json.dumps({"items": items}).encode()

    found = collect(fetch, ("shop/a", "shop/b"), "default")
    assert ([each.name for each in found.cluster.pods], found.unseen) == (["a", "b"], ())
    assert len([each for each in asked if "/pods" in each]) == 3


def _slice(name: str, *endpoints: dict[str, Any], port: int = 8080) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "sql", "port": port, "protocol": "TCP"}],
    }


def _endpoint(address: str, pod: str = "", ready: bool = True) -> dict[str, Any]:
    target = {"targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"}} if pod else {}
    return {"addresses": [address], "conditions": {"ready": ready}, **target}


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "db", "namespace": "shop"},
    "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 80, "targetPort": 1}]},
}


def test_where_there_are_endpoint_slices_they_say_who_is_behind_a_service(asked) -> None:
    """Without a selector too, with their own port, several together, and not those that are not ready."""
    slices = [
        _slice("db-1", _endpoint("10.1.0.11", "db"), _endpoint("10.1.0.10", "web", ready=False)),
        _slice("db-2", _endpoint("198.51.100.7"), port=5432),
    ]
    with serving(Server([*standing(), POLICY, SERVICE, *slices])) as server:
        ran = asked(server, "bank/web", "shop/svc/db", "--port", "80")
    found = json.loads(ran.stdout)["answers"]
    answers = {(answer["dst"]["names"][0], answer["port"], answer["verdict"]) for answer in found}
    assert len(answers) == 2 and ("shop/db", 8080, "denied") in answers
    assert {(port, verdict) for _, port, verdict in answers} == {(8080, "denied"), (5432, "allowed")}
    assert "not ready" in ran.stdout


def test_slices_that_lead_nowhere_are_an_answer_of_their_own(asked) -> None:
    with serving(Server([*standing(), SERVICE, _slice("db-1", _endpoint("10.1.0.11", "db", ready=False))])) as server:
        ran = asked(server, "bank/web", "shop/svc/db", "--port", "80")
    assert ran.returncode == 3
    assert "no ready endpoint for this port" in ran.stdout
    with serving(Server([*standing(), SERVICE])) as server:
        ran = asked(server, "bank/web", "shop/svc/db", "--port", "80")
    assert ran.returncode == 3 and "no EndpointSlice of it was read" in ran.stdout


def test_a_page_is_read_while_the_next_one_is_on_its_way() -> None:
    asked = Event()

    def fetch(what: str, path: str, query: list[tuple[str, str]]) -> bytes:
        if "continue" not in dict(query):
            return b'{"metadata": {"continue": "x"}, "items": [1]}'
        asked.set()
        return b'{"items": [2]}'

    def read(raw: Raw) -> tuple[bytes, bool]:
        return bytes(raw), asked.wait(10)

    assert items_of(fetch, listed("Pod"), {}, read) == [(b"1", True), (b"2", True)]
