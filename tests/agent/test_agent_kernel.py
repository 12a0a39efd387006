"""A real agent in a real kernel, with an API server that fails as it is told: both backends, real packets."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from enforcer.agent.serve_local import ask
from enforcer.connections.remembered import Memory
from lab.probe import Outcome, Probe
from lab.topology import Host
from podfence.lab_objects import _pod
from policy.cidr import Address
from policy.model import ContainerPort, Pod
from tests.agent.node import Cluster, cluster_in, saved, until
from tests.enforcer.connections import connection
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import DROPPED, OPEN, REJECTED, WorldOf, backends, world

SYSTEMD = Path(__file__).parents[2] / "manifests" / "systemd"
pytestmark = pytest.mark.kernel
__all__ = ["world"]

DENY_ALL = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop},
 spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
"""
LATER = """
{apiVersion: v1, kind: Pod, metadata: {name: later, namespace: shop}, spec: {nodeName: elsewhere}}
"""
WEB_TO_API = Probe("shop/web", "shop/api", "TCP", 80)
OTHER_TO_API = Probe("shop/other", "shop/api", "TCP", 80)
FAR_TO_API_6 = Probe("shop/far", "shop/api", "UDP", 80, family=6)


@pytest.fixture
def cluster(world: WorldOf, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(world, tmp_path) as found:
        yield found


def outcome(cluster: Cluster, probe: Probe) -> Outcome:
    (found,) = cluster.world.outcomes(probe)
    return found


@backends
def test_policies_labels_and_pods_are_followed(cluster: Cluster) -> None:
    with cluster.agent() as agent:
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, OPEN]
        cluster.apply(API)
        until(lambda: outcome(cluster, OTHER_TO_API) == REJECTED, "the policy")
        until(lambda: outcome(cluster, FAR_TO_API_6) == REJECTED, "the policy in the other family, which comes after")
        assert outcome(cluster, WEB_TO_API) == OPEN
        cluster.relabel("other", app="web")
        until(lambda: outcome(cluster, OTHER_TO_API) == OPEN, "the label")
        cluster.relabel("web", app="other")
        until(lambda: outcome(cluster, WEB_TO_API) == REJECTED, "the other label")
        cluster.delete("NetworkPolicy", "shop", "api")
        until(lambda: outcome(cluster, WEB_TO_API) == OPEN, "no policy")
        until(lambda: agent.applied()[-1]["why"] == "NetworkPolicy shop/api is gone", "told")
        whys = [each["why"] for each in agent.applied()]
        assert "NetworkPolicy shop/api" in whys
        assert agent.metric("podfence_event_to_kernel_seconds_count") == len(whys)
        assert agent.metric("podfence_kernel_writes_failed_total") == 0


@backends
def test_a_restart_with_nothing_changed_writes_nothing(cluster: Cluster) -> None:
    cluster.apply(API)
    with cluster.agent():
        before = saved(cluster.world)
    assert saved(cluster.world) == before, "rules stay when the agent stops"
    with cluster.agent() as agent:
        assert saved(cluster.world) == before
        assert agent.applied() == []
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]


@backends
def test_what_closes_a_node_from_boot_on_is_taken_over(cluster: Cluster) -> None:
    """After a reboot the kernel has no rules; manifests/systemd closes until the agent's first transaction."""
    cluster.apply(API)
    assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, OPEN], "why it is needed"
    for family, prefix in ((4, "10.0.0.0/8"), (6, "fd00::/8")):
        text = (SYSTEMD / f"closed.v{family}").read_text()
        closed = re.sub(r"-([sd]) \S+", rf"-\1 {prefix}", text)
        program = cluster.world.backend.program(family, "restore")  # type: ignore[arg-type]
        cluster.world.lab.run("n1", [program, "--noflush"], stdin=closed)
    assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API, FAR_TO_API_6) == [DROPPED] * 3
    with cluster.agent() as agent:
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API, FAR_TO_API_6) == [OPEN, REJECTED, REJECTED]
        assert agent.metric("podfence_kernel_writes_failed_total") == 0
        before = saved(cluster.world)
    with cluster.agent() as agent:
        assert saved(cluster.world) == before and agent.applied() == []


@backends
def test_what_happens_while_a_killed_agent_is_away_is_made_good(cluster: Cluster) -> None:
    cluster.apply(API)
    with cluster.agent() as agent:
        agent.kill()
    assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
    cluster.relabel("web", app="nobody")
    assert outcome(cluster, WEB_TO_API) == OPEN, "nobody follows"
    with cluster.agent():
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [REJECTED, REJECTED]


@backends
def test_without_an_api_server_what_was_enforced_stays_and_readyz_says_so(cluster: Cluster) -> None:
    cluster.apply(API)
    with cluster.agent():
        before = saved(cluster.world)
    for kind in ("pods", "namespaces", "networkpolicies", "nodes"):
        cluster.server.always[f"list {kind}"] = lambda talk: talk.reset()
    with cluster.agent(wait=False) as agent:
        until(lambda: "list" in agent.get("/readyz")[1] and "Pod" in agent.get("/readyz")[1], "what it waits for")
        time.sleep(0.5)
        assert saved(cluster.world) == before
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        assert agent.get("/healthz")[0] == 200
        cluster.server.always.clear()
        agent.wait_ready()
        assert saved(cluster.world) == before


@backends
def test_a_lost_permission_is_named_and_what_was_known_stays(cluster: Cluster) -> None:
    cluster.apply(API)
    with cluster.agent() as agent:
        refuse = "networkpolicies.networking.k8s.io is forbidden"
        for title in ("list networkpolicies", "watch networkpolicies"):
            cluster.server.always[title] = lambda talk: talk.refuse(403, "Forbidden", refuse)
        cluster.server.cut_all()
        until(lambda: agent.metric("podfence_watch_troubled") == 1, "trouble")
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        cluster.relabel("web", app="nobody")
        until(lambda: outcome(cluster, WEB_TO_API) == REJECTED, "pods are followed all the same")
        cluster.server.always.clear()
        until(lambda: agent.metric("podfence_watch_troubled") == 0, "recovery", 40)


@backends
def test_audit_lets_pass_counts_and_tells(cluster: Cluster) -> None:
    cluster.apply(DENY_ALL)
    with cluster.agent("--mode", "audit") as agent:
        assert cluster.world.outcomes(WEB_TO_API, FAR_TO_API_6) == [OPEN, OPEN]
        until(lambda: any(each["message"] == "denied" for each in agent.said()), "told")
        told = [each for each in agent.said() if each["message"] == "denied"]
        assert {each["why"] for each in told} == {"audit"} and told[0]["policies"] == ["shop/deny"]
        space = cluster.tree("Namespace", "", "shop")
        space["metadata"]["labels"]["podfence.io/mode"] = "enforce"
        cluster.put(space)
        until(lambda: outcome(cluster, WEB_TO_API) == REJECTED, "the namespace's own mode")


@backends
def test_a_new_pod_is_closed_until_it_is_known(cluster: Cluster) -> None:
    with cluster.agent():
        ports = (ContainerPort("", "TCP", 80),)
        pod = cluster.world.lab.add(Pod("shop", "new", {"app": "web"}, node="n1", uid="uid-new", ports=ports))
        into, out_of = Probe("shop/far", "shop/new", "TCP", 80), Probe("shop/new", "shop/far", "TCP", 80)
        assert cluster.world.outcomes(into, out_of) == [DROPPED, DROPPED]
        cluster.put(_pod(pod))
        until(lambda: cluster.world.outcomes(into, out_of) == [OPEN, OPEN], "the pod is known")


@backends
def test_who_has_the_address_of_a_pod_about_to_end_gets_neither_its_rules_nor_its_connections(cluster: Cluster) -> None:
    """Its link is there, with the old one's address, while the API server has only the old one's object."""
    cluster.apply(API)
    with cluster.agent():
        old = cluster.world.lab.host("shop/web")
        udp = Probe("shop/web", "shop/api", "UDP", 80), Probe("shop/web", "shop/far", "UDP", 80)
        assert cluster.world.outcomes(*udp)[1] == OPEN and open_flows(cluster, old) > 0
        tree = cluster.tree("Pod", "shop", "web")
        tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        cluster.put(tree)
        cluster.apply(LATER)
        until(lambda: programmed(cluster, "shop", "later"), "all that was said before is heard")
        pod = Pod("shop", "next", {"app": "next"}, node="n1", uid="uid-next", addresses=old.addresses)
        cluster.world.lab.succeed("shop/web", pod)
        until(lambda: open_flows(cluster, old) == 0, "the old one's connections are forgotten")
        into, out_of = Probe("shop/far", "shop/next", "TCP", 80), Probe("shop/next", "shop/api", "TCP", 80)
        for _ in range(3):
            assert cluster.world.outcomes(into, out_of) == [DROPPED, DROPPED]
        cluster.put(_pod(pod))
        until(lambda: cluster.world.outcomes(into, out_of) == [OPEN, REJECTED], "it is known")
        cluster.delete("Pod", "shop", "web")
        until(lambda: cluster.world.outcomes(into, out_of) == [OPEN, REJECTED], "the old one is gone")


@backends
def test_an_agent_that_begins_between_knows_that_the_address_is_anothers(cluster: Cluster) -> None:
    """The old pod's object is all that the API server has, and its interface went while no agent was there."""
    cluster.apply(API)
    with cluster.agent():
        old = cluster.world.lab.host("shop/web")
        assert cluster.world.outcomes(Probe("shop/web", "shop/far", "UDP", 80)) == [OPEN]
        assert open_flows(cluster, old) > 0
        tree = cluster.tree("Pod", "shop", "web")
        tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        cluster.put(tree)
        interfaces = Memory(cluster.folder / "state" / "flows").load_interfaces
        until(lambda: ("shop/web", tree["metadata"]["uid"]) in interfaces(), "it is written for the next agent")
    pod = Pod("shop", "next", {"app": "next"}, node="n1", uid="uid-next", addresses=old.addresses)
    cluster.world.lab.succeed("shop/web", pod)
    into, out_of = Probe("shop/far", "shop/next", "TCP", 80), Probe("shop/next", "shop/api", "TCP", 80)
    with cluster.agent():
        until(lambda: open_flows(cluster, old) == 0, "the old one's connections are forgotten")
        for _ in range(3):
            assert cluster.world.outcomes(into, out_of) == [DROPPED, DROPPED]
        cluster.put(_pod(pod))
        until(lambda: cluster.world.outcomes(into, out_of) == [OPEN, REJECTED], "it is known")


def open_flows(cluster: Cluster, host: Host) -> int:
    """Entries of the node's connection table that have an answer."""
    listed = cluster.world.lab.run("n1", ["conntrack", "-L", "-s", str(host.address(4))]).stdout.splitlines()
    return sum("UNREPLIED" not in line for line in listed)


def programmed(cluster: Cluster, namespace: str, name: str) -> bool:
    question = {"ask": "programmed", "kind": "Pod", "namespace": namespace, "name": name}
    return any(answer["programmed"] for answer in ask(str(cluster.folder / "state"), question))


@backends
def test_a_pod_of_another_node_may_have_an_address_of_this_nodes_block(cluster: Cluster) -> None:
    """As where the network gives addresses out by itself. Once it is gone the address is closed again."""
    block = next(node.pod_cidrs[0] for node in cluster.world.lab.cluster.nodes if node.name == "n1")
    guest = Pod("shop", "guest", {}, node="n2", uid="uid-guest", addresses=(Address(4, block.network + 200),))
    guest = cluster.world.lab.add(replace(guest, ports=(ContainerPort("", "TCP", 80),)))
    into, out_of = Probe("shop/web", "shop/guest", "TCP", 80), Probe("shop/guest", "shop/web", "TCP", 80)
    with cluster.agent():
        assert cluster.world.outcomes(into, out_of) == [DROPPED, DROPPED], "nobody is known to have it"
        cluster.put(_pod(guest))
        until(lambda: cluster.world.outcomes(into, out_of) == [OPEN, OPEN], "it is known")
        cluster.delete("Pod", "shop", "guest")
        until(lambda: cluster.world.outcomes(into, out_of) == [DROPPED, DROPPED], "it is gone")


@backends
def test_break_glass_by_annotation_opens_and_closes(cluster: Cluster) -> None:
    cluster.apply(DENY_ALL)
    with cluster.agent() as agent:
        assert outcome(cluster, WEB_TO_API) == REJECTED
        node = cluster.tree("Node", "", "n1")
        node["metadata"]["annotations"] = {"podfence.io/break-glass": "incident 7"}
        cluster.put(node)
        until(lambda: outcome(cluster, WEB_TO_API) == OPEN, "open")
        left = saved(cluster.world)
        assert "PF-" not in left and "PODFENCE" not in left and "pf-" not in left
        assert "incident 7" in agent.get("/readyz")[1] and agent.metric("podfence_opened") == 1
        node["metadata"]["annotations"] = {}
        cluster.put(node)
        until(lambda: outcome(cluster, WEB_TO_API) == REJECTED, "closed again")
        agent.wait_ready()


@backends
def test_others_changes_are_undone_within_a_second(cluster: Cluster) -> None:
    cluster.apply(DENY_ALL)
    with cluster.agent() as agent:
        program = cluster.world.backend.program(4, "save").removesuffix("-save")
        assert cluster.world.lab.run("n1", [program, "-F", "PODFENCE-FORWARD"]).returncode == 0
        assert until(lambda: outcome(cluster, WEB_TO_API) == REJECTED, "repaired") < 3
        until(lambda: agent.metric("podfence_drift_repaired_total") == 1, "counted")


@backends
def test_what_others_let_in_ends_once_the_rules_are_repaired(cluster: Cluster) -> None:
    """The agent stands still meanwhile, so that there is time to open a connection."""
    cluster.apply(DENY_ALL)
    program = cluster.world.backend.program(4, "save").removesuffix("-save")
    with cluster.agent() as agent:
        agent.process.send_signal(signal.SIGSTOP)
        try:
            assert cluster.world.lab.run("n1", [program, "-F", "FORWARD"]).returncode == 0
            with connection(cluster.world, "shop/web", "shop/api", "UDP", 4711) as let_in:
                let_in.alive()
                agent.process.send_signal(signal.SIGCONT)
                until(lambda: agent.metric("podfence_drift_repaired_total") == 1, "repaired")
                until(lambda: agent.metric("podfence_flows_ended_total") == 1, "ended", 5)
                let_in.nothing_arrives(let_in.client, let_in.server)
                let_in.nothing_arrives(let_in.server, let_in.client)
        finally:
            agent.process.send_signal(signal.SIGCONT)
