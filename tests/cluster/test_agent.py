"""podfence installed by `kubectl apply -k` on real nodes: what policies say is what packets meet."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster import pods
from tests.cluster.cluster import Cluster
from tests.cluster.control import until
from tests.cluster.enforced import PORT, SERVERS, World
from tests.cluster.installed import TAINT
from tests.cluster.packets import Outcome, Receiver, all_outcomes, family_of, outcome, within

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Sizes = dict[str, list[tuple[int, ...]]]


@pytest.fixture(scope="module", params=[("ptp", "nft"), ("bridge", "legacy")], ids=["ptp-nft", "bridge-legacy"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    cni, iptables = request.param
    name = f"pytest-{os.getpid()}-{cni}"
    with Cluster(name, cni=cni, iptables=iptables, taints=[f"{TAINT}:NoSchedule"]) as cluster:
        yield World(cluster, cni == "bridge", iptables)


@pytest.fixture(autouse=True)
def no_policies(world: World) -> Iterator[None]:
    yield
    world.cluster.kubectl("delete", "networkpolicies", "--all", "--all-namespaces")


def flows(dst: str) -> list[tuple[str, str]]:
    """From every other pod, of the same node and of the other."""
    return [(src, dst) for src in SERVERS if src != dst]


def test_it_is_ready_on_every_node_and_takes_the_startup_taint_off(world: World) -> None:
    assert world.early == "", "a pod was scheduled before a node enforced"
    world.cluster.kubectl("wait", "--for=condition=Ready", "pod/early", "--timeout=30s")
    for node in world.cluster.nodes:
        assert TAINT not in world.cluster.kubectl("get", "node", node, "-o", "yaml")
        assert world.podfence.page(node, "/readyz")[0] == 200
        assert all(each["in_force"] for each in world.podfence.status(node)["families"])
        assert world.podfence.metric(node, "podfence_unattached_pods") == 0
        assert world.podfence.metric(node, "podfence_kernel_writes_failed_total") == 0


def test_policies_and_labels_are_followed(world: World) -> None:
    """Pods of both nodes, in both families: allowed, denied, and allowed again."""
    everything = [*flows("web-1"), *flows("web-2")]
    assert world.outcomes(*everything) == {"open"}
    world.cluster.apply(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("friend")]))
    world.becomes("denied", *everything)
    assert world.outcomes(*flows("other-1")) == {"open"}
    world.cluster.kubectl("label", "pod", "other-1", "other-2", "app=friend", "--overwrite")
    friends = [("other-1", "web-1"), ("other-1", "web-2"), ("other-2", "web-1"), ("other-2", "web-2")]
    world.becomes("open", *friends)
    assert world.outcomes(("web-1", "web-2"), ("web-2", "web-1")) == {"denied"}
    world.cluster.kubectl("label", "pod", "other-1", "other-2", "app=other", "--overwrite")
    world.becomes("denied", *friends)
    world.cluster.kubectl("delete", "networkpolicy", "web")
    world.becomes("open", *everything)


def test_egress_is_followed(world: World) -> None:
    out = {"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Egress"]}
    to_web = {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": PORT}]}
    world.cluster.apply(pods.policy_of("out", out | {"egress": [to_web]}))
    world.becomes("denied", ("other-1", "other-2"), ("other-2", "other-1"))
    assert world.outcomes(("other-1", "web-1"), ("other-1", "web-2"), ("web-1", "other-2")) == {"open"}
    assert world.outcomes(("other-2", "web-1"), port=9) == {"denied"}


def test_a_service_is_judged_by_its_backend_and_target_port(world: World) -> None:
    """By ClusterIP from a pod, and by NodePort from outside the cluster: kube-proxy's DNAT comes first."""
    cluster = world.cluster
    cluster.apply(pods.node_port("web", port=PORT, node_port=30080, app="web"))
    service = json.loads(cluster.kubectl("get", "service", "web", "-o", "json"))
    by_service = [("other-1", address) for address in service["spec"]["clusterIPs"]]

    def reached() -> set[Outcome]:
        return {outcome(world.netns[src], address, 80) for src, address in by_service}

    def from_outside() -> set[Outcome]:
        return {outcome(cluster.control.place.netns, n.addresses[0], 30080) for n in cluster.nodes.values()}

    until("kube-proxy serves", lambda: reached() == {"open"} == from_outside(), 30)
    cluster.apply(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("other") | {"ports": [{"port": 80}]}]))
    until("port 80, which is the service's, allows nothing", lambda: reached() == {"denied"} == from_outside(), 15)
    cluster.apply(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("other") | {"ports": [{"port": PORT}]}]))
    until("the target port is allowed", lambda: reached() == {"open"}, 15)
    assert from_outside() == {"denied"}
    outside = {"from": [{"ipBlock": {"cidr": "10.99.0.0/24"}}]}
    cluster.apply(pods.policy("web", {"app": "web"}, ingress=[outside]))
    until("outside is allowed", lambda: from_outside() == {"open"}, 15)


def test_pods_can_wait_for_their_policies_and_probes_pass_where_all_is_denied(world: World) -> None:
    """A readiness gate, an init container, and kubelet's HTTP probe of a pod that nobody may reach."""
    cluster = world.cluster
    cluster.apply(pods.policy_of("closed", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
    waiting = [pods.gated(pods.server(f"gated-{n}", f"node-{n}")) for n in (1, 2)]
    waiting += [pods.init_waits(pods.server(f"init-{n}", f"node-{n}")) for n in (1, 2)]
    names = [f"{kind}-{n}" for kind in ("gated", "init") for n in (1, 2)]
    cluster.apply(*waiting)
    cluster.kubectl("wait", "--for=condition=Ready", "pod", *names, "--timeout=60s", timeout=70)
    gate = cluster.kubectl("get", "pod", "gated-1", "-o", "jsonpath={.status.conditions}")
    assert any(each["type"] == "podfence.io/policy-ready" and each["status"] == "True" for each in json.loads(gate))
    assert "hold" in cluster.kubectl("logs", "init-2", "-c", "policies")
    closed = [(world.netns["web-1"], address, PORT) for name in names for address in pods.addresses(cluster, name)]
    assert set(all_outcomes(closed)) == {"denied"}
    cluster.kubectl("delete", "pod", *names, "--wait=false")


def test_a_status_a_node_from_a_laptop(world: World) -> None:
    """By kubeconfig, through the API server and kubelet, as whoever may exec into the agents' pods."""
    lines = world.laptop("status").splitlines()
    assert len(lines) == 2, lines
    for node, line in zip(world.cluster.nodes, lines, strict=True):
        assert line.split()[:3] == [node, "ready", "enforce,"]


def test_an_explanation_from_a_laptop_with_the_kernels_of_both_ends(world: World) -> None:
    """Verdict, and each node's way of the packet with what its rules have counted: one flow that passes, one that does
    not, right after their packets."""
    world.cluster.apply(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("other")]))
    world.becomes("denied", ("web-1", "web-2"))
    assert world.outcomes(("other-1", "web-2")) == {"open"}
    for src, verdict, end in (("other-1", "allowed", "accept"), ("web-1", "denied", "reject")):
        flow = (f"default/{src}", "default/web-2", "--port", str(PORT))
        found = json.loads(world.laptop("explain", *flow, "--live", "-o", "json"))
        assert found["verdict"] == verdict
        assert "unseen" not in found["live"]
        walks = {(walk["node"], walk["family"]): walk for walk in found["live"]["walks"]}
        assert {ends: walk["outcome"] for ends, walk in walks.items()} == {
            (node, family): end if node == "node-2" else "accept" for node in ("node-1", "node-2") for family in (4, 6)
        }
        for (node, _), walk in walks.items():
            assert "drift" not in walk
            assert walk["steps"][0]["chain"] == "PODFENCE-FORWARD"
            assert node == "node-1" or walk["steps"][-1]["packets"] > 0, walk["steps"]


def test_a_rehearsal_from_a_laptop_names_the_connection_that_would_be_cut(world: World, tmp_path: Path) -> None:
    world.cluster.apply(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("other")]))
    world.becomes("denied", ("web-1", "web-2"))
    proposed = tmp_path / "proposed.json"
    proposed.write_text(json.dumps(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("friend")])))
    # A port of its own: of connections that tests before this one closed, the kernel still has some in its table.
    address = (world.addresses["web-2"][0], 9100)
    with (
        within(world.netns["web-2"], lambda: socket.create_server(address)),
        within(world.netns["other-1"], lambda: socket.create_connection(address, timeout=5)),
    ):
        said = world.laptop("rehearse", "--agents", "-f", str(proposed), "--exit-code", "-o", "json", code=1)
    nodes = {each["node"]: each["rehearsed"]["connections"] for each in json.loads(said)}
    (cut,) = (each for each in nodes["node-2"] if each["port"] == address[1])
    assert (cut["src"], cut["dst"], cut["count"]) == ("default/other-1", "default/web-2", 1)
    assert [(by["direction"], by["policy"], by["file"]) for by in cut["by"]] == [
        ("ingress", "default/web", str(proposed))
    ]
    assert not [each for each in nodes["node-1"] if each["port"] == address[1]]


def test_a_bridge_that_iptables_does_not_see_is_told_and_a_routed_node_needs_no_such_setting(world: World) -> None:
    node = world.cluster.node("node-2")
    node.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])
    try:
        if world.bridged:
            told = "sysctl -w net.bridge.bridge-nf-call-iptables=1"
            until("told", lambda: told in world.podfence.page("node-2", "/readyz")[1], 15)
        else:
            time.sleep(2.5)
            assert world.podfence.page("node-2", "/readyz")[0] == 200
    finally:
        node.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"])
    world.podfence.wait_ready("node-2")


def test_jobs_that_talk_at_once_need_no_second_try(world: World) -> None:
    """Pods whose one act is to connect to an isolated pod, on its own node and on the other, which hears of them from
    the API server, when they have long spoken: those that may all do it, the stranger never does."""
    cluster, asked = world.cluster, [(each, PORT) for each in world.addresses["web-2"]]
    cluster.apply(pods.policy("web", {"app": "web"}, ingress=[pods.from_app("job")]))
    out = {"podSelector": {"matchLabels": {"app": "job"}}, "policyTypes": ["Egress"]}
    to_web = {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": PORT}]}
    cluster.apply(pods.policy_of("jobs", out | {"egress": [to_web]}))
    world.becomes("denied", ("other-1", "web-2"), ("other-2", "web-2"))
    jobs = [pods.job(f"job-{n}", f"node-{n}", "job", asked, times=6) for n in (1, 2)]
    strangers = [pods.job(f"stranger-{n}", f"node-{n}", "stranger", asked, times=1) for n in (1, 2)]
    cluster.apply(*jobs, *strangers)
    cluster.kubectl("wait", "--for=condition=Complete", "job/job-1", "job/job-2", "--timeout=90s", timeout=100)
    cluster.kubectl("wait", "--for=condition=Failed", "job/stranger-1", "job/stranger-2", "--timeout=90s", timeout=100)
    cluster.kubectl("delete", "jobs", "--all", "--wait=true")


def test_a_wave_of_pods_and_back(world: World) -> None:
    """0 to 40 to 0 replicas under a policy that denies by default. Each sends from its first instruction on: what the
    policy forbids never arrives, what it allows arrives from each; afterwards the rules are those of before."""
    cluster = world.cluster
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wave"}})
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace=wave", "--timeout=30s")
    sends = [(each, 9001) for each in world.addresses["web-1"]] + [(each, 9002) for each in world.addresses["web-2"]]
    with receiving(world, "web-1", 9001) as forbidden, receiving(world, "web-2", 9002) as allowed:
        arrive(forbidden, scaled(cluster, pods.deployment("free", "wave", pods.sends_at_once(sends)), 2))
        cluster.kubectl("delete", "deployment", "free", "--namespace=wave")
        until("free pods are gone", lambda: not pods_of(cluster, "free"), 30)
        cluster.apply(pods.policy_of("closed", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "wave"))
        to_web = [{"ipBlock": {"cidr": f"{each}/{128 if ':' in each else 32}"}} for each in world.addresses["web-2"]]
        out = {"podSelector": {"matchLabels": {"app": "wave"}}, "policyTypes": ["Egress"], "egress": [{"to": to_web}]}
        cluster.apply(pods.policy_of("to-web", out, "wave"))
        until("both policies", lambda: known_policies(world) == {2}, 15)
        before = settled(world)
        for receiver in (*forbidden, *allowed):
            receiver.arrived.clear()
        arrive(allowed, scaled(cluster, pods.deployment("wave", "wave", pods.sends_at_once(sends)), 40))
        cluster.kubectl("scale", "deployment", "wave", "--namespace=wave", "--replicas=0")
        until("the wave is gone", lambda: not pods_of(cluster, "wave"), 90)
        assert [receiver.senders() for receiver in forbidden] == [set(), set()]
        assert settled(world) == before
    cluster.kubectl("delete", "namespace", "wave", "--wait=false")


@contextmanager
def receiving(world: World, pod: str, port: int) -> Iterator[list[Receiver]]:
    """What arrives at a pod, in each family."""
    with ExitStack() as stack:
        families = map(family_of, world.addresses[pod])
        yield [stack.enter_context(Receiver(world.netns[pod], port, family)) for family in families]


def arrive(receivers: list[Receiver], expected: list[pods.Object]) -> None:
    """Waits until every pod has been heard of, by both its addresses."""
    wanted = {address for pod in expected for address in pods.addresses_of(pod)}
    until(
        f"packets of {len(wanted)} addresses",
        lambda: wanted <= set().union(*(receiver.senders() for receiver in receivers)),
        60,
    )


def pods_of(cluster: Cluster, app: str) -> list[pods.Object]:
    found = json.loads(cluster.kubectl("get", "pods", "--namespace=wave", f"--selector=app={app}", "-o", "json"))
    return list(found["items"])


def settled(world: World) -> Sizes:
    """What the kernels hold once the agents have taken out what nothing needs any more, which they do between changes:
    the same for five seconds."""
    seen: list[Sizes] = []

    def holds() -> bool:
        time.sleep(1)
        seen.append({node: world.podfence.sizes(node) for node in world.cluster.nodes})
        return seen[-5:] == [seen[-1]] * 5

    until("the kernels hold the same for five seconds", holds, 60, lambda: str(seen[-2:]))
    return seen[-1]


def known_policies(world: World) -> set[float]:
    return {world.podfence.metric(node, "podfence_policies") for node in world.cluster.nodes}


def scaled(cluster: Cluster, deployment: pods.Object, replicas: int) -> list[pods.Object]:
    """Its pods, all of them there."""
    deployment["spec"]["replicas"] = replicas
    cluster.apply(deployment)
    name = deployment["metadata"]["name"]
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--namespace=wave", "--timeout=180s", timeout=190)
    found = pods_of(cluster, name)
    assert len(found) == replicas
    return found
