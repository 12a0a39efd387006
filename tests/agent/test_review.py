"""What a review found: each test is named for the promise that did not hold."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import pytest

from compiler.compile import compile_cluster
from compiler.ports import PortSet
from enforcer.agent.backoff import Backoff
from enforcer.agent.opening import opened_by
from enforcer.agent.programmed import Programmed
from enforcer.agent.report import About, Gate, Reporter, Said
from enforcer.attachment.cni_cache import Unreadable, parse
from enforcer.cluster.news import Changed
from enforcer.cluster.resources import PODS, POLICIES, read_object
from enforcer.connections.revocation import Judge
from enforcer.kernel.conntrack_wire import packed
from enforcer.rules.layout import NodeView, local_pods
from policy.cidr import Address, parse_address, parse_cidr
from policy.errors import ApiRefused
from policy.model import Cluster, Namespace, NetworkPolicy, Pod
from policy.selector import EVERYTHING
from tests.agent.test_report import FakeApi, reported
from tests.agent.world import World

BLOCK = parse_cidr("10.1.0.0/16")


def pod_json(*addresses: str) -> bytes:
    status = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses]}
    meta = {"name": "evil", "namespace": "shop", "uid": "u1"}
    return msgspec.json.encode(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1"}, "status": status}
    )


@pytest.mark.parametrize("zero", ["0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0"])
def test_an_address_that_no_set_of_the_kernel_takes_is_no_pods(zero: str) -> None:
    """Who may write one pod's status, as each kubelet may, would else have every agent's changes refused for good."""
    read = read_object(PODS, pod_json("10.1.0.9", zero))
    assert isinstance(read, Changed) and isinstance(read.event, Pod)
    assert read.event.addresses == (parse_address("10.1.0.9"),)
    assert read.finding and zero in str(read.finding.problems[0])
    alone = read_object(PODS, pod_json(zero)).event
    assert isinstance(alone, Pod) and alone.addresses == ()


def test_nor_is_it_from_a_cni_result() -> None:
    args = [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "evil"], ["K8S_POD_UID", "u1"]]
    head = {"kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "cniArgs": args}
    assert isinstance(
        parse("f", msgspec.json.encode({**head, "result": {"ips": [{"address": "0.0.0.0/0"}]}})), Unreadable
    )


def test_a_policy_as_large_as_an_object_may_be_does_not_stop_the_loop() -> None:
    """8,000 blocks took 27 s before; the limit of the API server would have been beyond what a probe waits for."""
    blocks = [{"ipBlock": {"cidr": f"10.{at // 250}.{at % 250}.0/25"}} for at in range(16_000)]
    spec = {"podSelector": {}, "ingress": [{"from": blocks, "ports": [{"port": 80}]}]}
    meta = {"name": "large", "namespace": "shop"}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    policy = read_object(POLICIES, msgspec.json.encode(body)).event
    assert isinstance(policy, NetworkPolicy)
    pod = Pod("shop", "web", {}, node="n1", addresses=(Address(4, 1),), phase="Running")
    compiled = compile_cluster(Cluster([], [pod], [policy], [], [], []))
    began = time.process_time()
    (grant,) = compiled.allow(pod, "ingress").grants
    assert len(grant.peers.addresses.v4) == 16_000
    assert time.process_time() - began < 5


def test_nor_does_one_with_as_many_ports() -> None:
    """71 s before."""
    ports = [{"port": each} for each in range(1, 60_000, 3)]
    spec = {"podSelector": {}, "ingress": [{"ports": ports}]}
    meta = {"name": "large", "namespace": "shop"}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    policy = read_object(POLICIES, msgspec.json.encode(body)).event
    assert isinstance(policy, NetworkPolicy)
    pod = Pod("shop", "web", {}, node="n1", addresses=(Address(4, 1),), phase="Running")
    compiled = compile_cluster(Cluster([], [pod], [policy], [], [], []))
    began = time.process_time()
    (grant,) = compiled.allow(pod, "ingress").grants
    assert isinstance(grant.ports, PortSet) and grant.ports.ranges == 20_000
    assert time.process_time() - began < 5


@pytest.mark.parametrize(("mode", "unknown"), [("audit", "closed"), ("off", "closed"), ("enforce", "open")])
def test_where_the_unknown_passes_its_flows_do_not_end(mode: str, unknown: str) -> None:
    """In audit the answers of a marked flow are refused, so that audit was no audit for them."""
    view = NodeView("n1", {}, pod_cidrs=(BLOCK,), mode=mode, unknown=unknown)  # type: ignore[arg-type]
    compiled = compile_cluster(Cluster([], [], [], [], [], []))
    src, dst = (packed(parse_address(text)) for text in ("10.1.0.99", "192.0.2.1"))
    flow = (src, dst, 6, (443).to_bytes(2, "big"), b"", 0)
    assert not Judge(compiled, view, local_pods(compiled, "n1"), ()).forbids(flow)  # type: ignore[arg-type]
    assert Judge(compiled, NodeView("n1", {}, pod_cidrs=(BLOCK,)), (), ()).forbids(flow)  # type: ignore[arg-type]


def test_on_a_node_that_is_off_no_namespace_ends_flows(tmp_path: Path) -> None:
    world = World("n1", tmp_path)
    pod = Pod("shop", "web", {}, uid="u1", node="n1", addresses=(parse_address("10.1.0.9"),), phase="Running")
    labels = {"podfence.io/mode": "enforce"}
    world.list([Namespace("shop", labels), pod, NetworkPolicy("shop", "deny", EVERYTHING, ("ingress", "egress"))])
    (tmp_path / "open").write_text("drill\n")
    world.turn()
    (moment,) = world.flows.began
    assert moment.node.mode == "off" and not moment.enforced(pod)


def test_who_writes_into_the_folder_of_pods_opens_no_node(tmp_path: Path) -> None:
    programmed = Programmed(str(tmp_path))
    (tmp_path / "pods" / "u1").symlink_to("../open")
    assert programmed.put(["u1", "u2"]) == {"u2"}
    assert not (tmp_path / "open").exists() and opened_by(str(tmp_path), {}) == ""


def test_who_writes_into_the_folder_of_pods_keeps_no_agent_from_starting(tmp_path: Path) -> None:
    (tmp_path / "pods" / "folder").mkdir(parents=True)
    (tmp_path / "pods" / "u1").touch()
    Programmed(str(tmp_path))
    assert [each.name for each in (tmp_path / "pods").iterdir()] == ["folder"]


EVENT = Said(About("NetworkPolicy", "gone", "api"), "NotUnderstood", "spec: unknown field")
FORBIDDEN = ApiRefused("create", "events", 403, "Forbidden")


def test_an_event_that_is_refused_keeps_no_gate_waiting() -> None:
    """A namespace that is being deleted refuses Events for as long as it is there."""
    warnings: list[str] = []
    api = FakeApi(FORBIDDEN)
    reporter = Reporter(api, "n1", True, lambda: "now", warnings.append)
    reporter.say(EVENT)
    thread = threading.Thread(target=reporter.run, args=[Backoff(30, 60)], daemon=True)
    thread.start()
    for _ in range(1000):
        if warnings:
            break
        time.sleep(0.002)
    reporter.ready(Gate("shop", "web", "u1"))
    for _ in range(1000):
        if len(api.sent) == 2:
            break
        time.sleep(0.002)
    reporter.end()
    thread.join(5)
    assert not thread.is_alive()
    assert [path for _, path, _ in api.sent][1:] == ["/api/v1/namespaces/shop/pods/web/status"] and len(warnings) == 1


def test_a_taint_that_may_not_be_taken_off_keeps_no_gate_waiting_and_is_tried_again() -> None:
    api = FakeApi(ApiRefused("get", "nodes", 403, "Forbidden"))
    sent = reported(api, until=3, say=lambda r: (r.untaint(), r.ready(Gate("shop", "web", "u1")))[0])
    assert [(method, path.rpartition("/")[2]) for method, path, _ in sent] == [
        ("GET", "n1"), ("PATCH", "status"), ("GET", "n1"),
    ]  # fmt: skip


def test_an_answer_that_is_no_node_ends_no_thread() -> None:
    api = FakeApi(b"<html>", b'["no node"]')
    assert len(reported(api, until=3, say=Reporter.untaint)) == 3


def test_more_events_than_are_remembered_are_not_said_again_and_again() -> None:
    """501 policies of one tenant would else be 500 requests a second from each node, for ever."""
    now = [0.0]
    reporter = Reporter(FakeApi(), "n1", True, lambda: "now", lambda _: None, clock=lambda: now[0])
    every = [Said(About("NetworkPolicy", "shop", f"p{at}"), "NotUnderstood", "why") for at in range(600)]
    said = []
    for _ in range(5):
        for each in every:
            reporter.say(each)
        said.append(len(reporter._events))
        reporter._events.clear()
    assert said == [500, 0, 0, 0, 0]
