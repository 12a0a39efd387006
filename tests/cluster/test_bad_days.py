"""What goes wrong around an agent on a real cluster, while packets go on: nothing opens, nothing allowed is lost."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import pods
from tests.cluster.cluster import Cluster
from tests.cluster.control import until
from tests.cluster.installed import MANIFESTS, NAMESPACE, Installed
from tests.cluster.packets import Outcome, outcome, streams, within

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PODS = {"web": "node-1", "friend": "node-2", "stranger": "node-2", "near": "node-1"}
ALLOW = pods.policy("web", {"app": "web"}, ingress=[pods.from_app("friend")])
CLOSED = pods.policy("web", {"app": "web"}, ingress=[])


class World:
    """`web` on node-1 lets `friend` in, who is on the other node, and neither `stranger` nor its neighbour `near`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.podfence = Installed(cluster)
        cluster.apply(*(pods.server(name, node) for name, node in PODS.items()))
        cluster.kubectl("wait", "--for=condition=Ready", "pod", *PODS, "--timeout=60s", timeout=70)
        self.netns = {name: cluster.pod_netns(name) for name in PODS}
        self.addresses = {name: pods.addresses(cluster, name) for name in PODS}

    def outcome(self, src: str) -> Outcome:
        return outcome(self.netns[src], self.addresses["web"][0])

    def becomes(self, src: str, wanted: Outcome, seconds: float = 20) -> None:
        until(f"{src} to web {wanted}", lambda: self.outcome(src) == wanted, seconds)

    def begin(self) -> None:
        """The policy in force."""
        self.cluster.apply(ALLOW)
        self.becomes("stranger", "denied")
        self.becomes("friend", "open")

    @contextmanager
    def enforced_meanwhile(self) -> Iterator[None]:
        """Of new flows every two milliseconds, all of the friend's arrive, and none of anybody else's."""
        friend, *others = (self.addresses[name][0] for name in ("friend", "stranger", "near"))
        senders = {self.addresses[name][0]: self.netns[name] for name in ("friend", "stranger", "near")}
        with streams(senders, self.netns["web"], self.addresses["web"][0]) as flows:
            time.sleep(0.5)
            yield
            time.sleep(0.5)
        assert min(map(flows.sent, senders)) > 200
        assert [flows.arrived(other) for other in others] == [0, 0]
        assert flows.lost(friend) == []


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Cluster(f"pytest-{os.getpid()}-bad") as cluster:
        yield World(cluster)


@pytest.fixture(autouse=True)
def begun(world: World) -> None:
    world.begin()


def restarted(world: World, node: str, restart: Callable[[], object]) -> None:
    """After `restart` another agent runs on the node, and has written nothing."""
    before = world.podfence.pid(node)
    restart()
    until("another agent", lambda: world.podfence.has_another(node, before), 60)
    world.podfence.wait_ready(node)
    time.sleep(1.0)
    assert world.podfence.writes(node) == []
    assert world.podfence.metric(node, "podfence_drift_repaired_total") == 0


@contextmanager
def api_server_stopped(cluster: Cluster) -> Iterator[None]:
    cluster.stop_apiserver()
    try:
        yield
    finally:
        cluster.start_apiserver()


def test_a_killed_agent_leaves_its_rules_and_the_next_one_writes_nothing(world: World) -> None:
    with world.enforced_meanwhile():
        restarted(world, "node-1", lambda: world.podfence.kill("node-1"))
    world.cluster.apply(CLOSED)
    world.becomes("friend", "denied")


def test_an_agent_whose_pod_is_deleted_by_force(world: World) -> None:
    name = world.podfence.name("node-1")
    with world.enforced_meanwhile():
        argv = ["delete", "pod", name, "--force", "--grace-period=0"]
        restarted(world, "node-1", lambda: world.podfence.kubectl(*argv))


def test_an_upgrade_writes_nothing_and_opens_nothing(world: World) -> None:
    def upgrade() -> None:
        world.podfence.kubectl("rollout", "restart", "daemonset/podfence")
        world.podfence.rolled_out()

    with world.enforced_meanwhile():
        restarted(world, "node-1", upgrade)
    assert world.podfence.writes("node-2") == []


def test_without_an_api_server_what_was_enforced_stays(world: World) -> None:
    """Also where the agent is killed meanwhile; and what was forgotten of the past does not matter afterwards."""
    cluster, podfence = world.cluster, world.podfence
    pid = podfence.pid("node-1")
    restarts = podfence.metric("node-2", "podfence_watch_restarts_total")
    with world.enforced_meanwhile():
        with api_server_stopped(cluster):
            cluster.node("node-1").run(["kill", "-9", str(pid)])
            waits = "waits for the first list of NetworkPolicy objects"
            until("an agent that waits", lambda: waits in podfence.page("node-1", "/readyz")[1], 60)
            assert podfence.page("node-1", "/readyz")[0] == 503
            until("the other one says so", lambda: podfence.metric("node-2", "podfence_stale_seconds") > 0, 30)
            cluster.compact_history()
        podfence.wait_ready("node-1")
        assert podfence.writes("node-1") == []
    until("relisted", lambda: podfence.metric("node-2", "podfence_stale_seconds") == 0, 60)
    assert podfence.metric("node-2", "podfence_watch_restarts_total") > restarts
    cluster.apply(CLOSED)
    world.becomes("friend", "denied", 60)


def test_a_change_that_a_broken_watch_missed_is_followed(world: World) -> None:
    """410: the history between the last event heard and now is gone."""
    cluster = world.cluster
    cluster.compact_history()
    cluster.apply(CLOSED)
    world.becomes("friend", "denied", 60)
    cluster.compact_history()
    cluster.kubectl("delete", "networkpolicy", "web")
    world.becomes("stranger", "open", 60)


def test_break_glass_by_annotation_opens_one_node_and_says_so(world: World) -> None:
    cluster, podfence = world.cluster, world.podfence
    cluster.kubectl("annotate", "node", "node-1", "podfence.io/break-glass=incident 4711")
    try:
        world.becomes("stranger", "open")
        until("said", lambda: "incident 4711" in podfence.page("node-1", "/readyz")[1], 5)
        assert podfence.status("node-1")["agent"]["mode"] == "off"
        assert podfence.metric("node-1", "podfence_opened") == 1
        assert podfence.page("node-2", "/readyz")[0] == 200
        until("an Event", lambda: "incident 4711" in cluster.kubectl("get", "events", "-A", "-o", "yaml"), 20)
        world.podfence.kill("node-1")
        until("open through a restart", lambda: "incident 4711" in podfence.page("node-1", "/readyz")[1], 60)
        assert world.outcome("stranger") == "open"
    finally:
        cluster.kubectl("annotate", "node", "node-1", "podfence.io/break-glass-")
    world.becomes("stranger", "denied")
    world.becomes("friend", "open")


def test_enforcement_needs_none_of_the_rights_to_report(world: World) -> None:
    cluster = world.cluster
    cluster.kubectl("delete", "clusterrolebinding", "podfence-reports")
    try:
        cluster.apply(CLOSED)
        world.becomes("friend", "denied")
        cluster.apply(ALLOW)
        world.becomes("friend", "open")
        assert world.podfence.page("node-1", "/readyz")[0] == 200
    finally:
        world.podfence.apply("base")


def test_a_lost_right_to_list_leaves_the_last_known_state_and_is_named(world: World) -> None:
    cluster, podfence = world.cluster, world.podfence
    role = json.loads(cluster.kubectl("get", "clusterrole", "podfence", "-o", "json"))
    less = [rule for rule in role["rules"] if "networkpolicies" not in rule["resources"]]
    cluster.kubectl("patch", "clusterrole", "podfence", "--type=merge", "-p", json.dumps({"rules": less}))
    refused = "list networkpolicies"
    try:
        with world.enforced_meanwhile():
            podfence.kill("node-1")
            until("it says what it may not", lambda: "403" in podfence.page("node-1", "/readyz")[1], 60)
            assert refused in podfence.page("node-1", "/readyz")[1]
            assert podfence.metric("node-1", "podfence_watch_troubled") >= 1
            assert any(refused in json.dumps(line) for line in podfence.log("node-1"))
    finally:
        podfence.apply("base")
    podfence.wait_ready("node-1")
    cluster.apply(CLOSED)
    world.becomes("friend", "denied", 60)


def test_a_policy_that_is_not_understood_isolates_and_an_event_says_why(world: World) -> None:
    """The API server of these tests refuses such a policy, so it is put into etcd, as one of other days may be."""
    cluster = world.cluster
    bad = pods.policy_of("bad", {"podSelector": {"matchLabels": {"app": "near"}}, "policyTypes": ["Ingress"]})
    bad["metadata"]["uid"] = "00000000-0000-4000-8000-000000000001"
    bad["spec"]["ingress"] = [{"from": [{"ipBlock": {"cidr": "10.0/33"}}]}]
    cluster.control.etcdctl("put", "/registry/networkpolicies/default/bad", json.dumps(bad))
    near = world.addresses["near"][0]
    try:
        until("isolated", lambda: outcome(world.netns["stranger"], near) == "denied", 20)
        assert any("10.0/33" in problem for problem in world.podfence.status("node-1")["agent"]["problems"])
        events = ("get", "events", "--field-selector=involvedObject.name=bad", "-o", "json")
        until("an Event", lambda: "10.0/33" in cluster.kubectl(*events), 20)
        (event,) = json.loads(cluster.kubectl(*events))["items"]
        assert event["reason"] == "NotUnderstood" and "default/bad" in event["message"]
    finally:
        cluster.control.etcdctl("del", "/registry/networkpolicies/default/bad")
    until("open again", lambda: outcome(world.netns["stranger"], near) == "open", 20)


def test_audit_lets_pass_and_counts(world: World) -> None:
    """`kubectl apply -k manifests/overlays/audit` over what enforces, and back; a namespace may be enforced even so."""
    cluster, podfence = world.cluster, world.podfence
    podfence.apply("overlays/audit")
    world.becomes("stranger", "open")
    assert {podfence.status(node)["agent"]["mode"] for node in cluster.nodes} == {"audit"}
    audited = [each for family in podfence.status("node-1")["families"] for each in family["audited"]]
    assert any(each["pod"] == "default/web" and each["packets"] for each in audited)
    until("told in the log", lambda: any(line["message"] == "denied" for line in podfence.log("node-1")), 20)
    cluster.kubectl("label", "namespace", "default", "podfence.io/mode=enforce")
    world.becomes("stranger", "denied")
    cluster.kubectl("label", "namespace", "default", "podfence.io/mode-")
    world.becomes("stranger", "open")
    podfence.apply("base")
    world.becomes("stranger", "denied")


def test_the_overlay_for_monitoring_is_scraped_from_outside_and_that_for_k3s_enforces(world: World) -> None:
    cluster, podfence = world.cluster, world.podfence
    podfence.apply("overlays/monitoring")
    node = json.loads(cluster.kubectl("get", "node", "node-1", "-o", "json"))
    address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")

    def scraped() -> str:
        with urllib.request.urlopen(f"http://{address}:9470/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    page = within(cluster.control.place.netns, scraped)
    assert "podfence_policies 1.0" in page
    dashboard = podfence.kubectl("get", "configmap", "podfence-dashboard", "-o", "json")
    assert json.loads(json.loads(dashboard)["data"]["podfence.json"])["panels"]
    for overlay in ("overlays/k3s", "base"):
        podfence.apply(overlay)
        world.becomes("stranger", "denied")


SECCOMP = MANIFESTS / "overlays/seccomp/agent.json"
LISTENS_TO_FRAMES = ["python3", "-c", "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"]


def test_the_overlay_with_a_profile_of_its_own_opens_nothing_where_the_file_is_missing_and_enforces_where_it_is_there(
    world: World,
) -> None:
    cluster, podfence = world.cluster, world.podfence
    assert cluster.exec(podfence.name("node-1"), LISTENS_TO_FRAMES, namespace=NAMESPACE).returncode == 0, (
        "it may so far"
    )
    with world.enforced_meanwhile():
        cluster.kubectl("apply", "-k", str(MANIFESTS / "overlays/seccomp"))
        until("an agent that can't start", lambda: "CreateContainerError" in podfence.kubectl("get", "pods"), 60)
    for node in cluster.nodes:
        place = cluster.node(node).root / "var/lib/kubelet/seccomp/podfence/agent.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(SECCOMP.read_bytes())
    with world.enforced_meanwhile():
        podfence.rolled_out()
    for node in cluster.nodes:
        podfence.wait_ready(node)
        status = cluster.node(node).run(["cat", f"/proc/{podfence.pid(node)}/status"]).stdout
        assert "Seccomp:\t2" in status
        assert podfence.status(node)["agent"], "a program that is run beside the agent is under it too"
        refused = cluster.exec(podfence.name(node), LISTENS_TO_FRAMES, namespace=NAMESPACE, check=False)
        assert "Operation not permitted" in refused.stderr
    cluster.apply(CLOSED)
    world.becomes("friend", "denied")
    podfence.apply("base")
    world.begin()
