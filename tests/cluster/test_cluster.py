"""The cluster itself: what other tests take for granted about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import pods, state
from tests.cluster.cluster import Cluster
from tests.cluster.control import in_network, until
from tests.cluster.errors import ClusterFailed

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PODS = ("one", "two")


@pytest.fixture(scope="module")
def addresses(cluster: Cluster) -> dict[str, list[str]]:
    """A Ready server on each node, by name, with its addresses of both families."""
    cluster.apply(*(pods.server(name, node) for name, node in zip(PODS, cluster.nodes, strict=True)))
    cluster.kubectl("wait", "--for=condition=Ready", "pod", *PODS, "--timeout=60s", timeout=70)
    items = json.loads(cluster.kubectl("get", "pods", *PODS, "-o", "json"))["items"]
    return {pod["metadata"]["name"]: [entry["ip"] for entry in pod["status"]["podIPs"]] for pod in items}


def page(cluster: Cluster, pod: str, address: str, port: int = 8080) -> str:
    """What a pod gets over TCP from an address."""
    host = f"[{address}]" if ":" in address else address
    return cluster.exec(pod, ["timeout", "5", "wget", "-q", "-O", "-", f"http://{host}:{port}/"]).stdout.strip()


def test_pods_reach_pods_of_both_nodes_in_both_families(cluster: Cluster, addresses: dict[str, list[str]]) -> None:
    assert [len(of_pod) for of_pod in addresses.values()] == [2, 2]
    got = {(src, address): page(cluster, src, address) for src in PODS for dst in PODS for address in addresses[dst]}
    assert got == {(src, address): dst for src in PODS for dst in PODS for address in addresses[dst]}


def test_a_service_is_reached_by_its_address_and_on_each_node(
    cluster: Cluster, addresses: dict[str, list[str]]
) -> None:
    cluster.apply(pods.node_port("two", port=8080, node_port=30080))
    until("endpoints", lambda: addresses["two"][0] in cluster.kubectl("get", "endpointslices", "-o", "yaml"), 20)
    service = json.loads(cluster.kubectl("get", "service", "two", "-o", "json"))
    for address in service["spec"]["clusterIPs"]:
        until(f"kube-proxy serves {address}", partial(serves, cluster, address, 80), 20)
        assert page(cluster, "one", address, 80) == "two"
    for node in cluster.nodes.values():
        fetch = ["timeout", "5", "busybox", "wget", "-q", "-O", "-", f"http://{node.addresses[0]}:30080/"]
        assert in_network(cluster.control.place, fetch).stdout.strip() == "two"


def serves(cluster: Cluster, address: str, port: int) -> bool:
    try:
        return page(cluster, "one", address, port) != ""
    except ClusterFailed:
        return False


def test_a_pod_is_not_ready_before_its_probe_passes(cluster: Cluster, addresses: dict[str, list[str]]) -> None:
    probed = pods.server("unprobed", "node-1")
    probed["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = 9999
    cluster.apply(probed)
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/unprobed", "--timeout=30s")
    with pytest.raises(ClusterFailed, match="timed out"):
        cluster.kubectl("wait", "--for=condition=Ready", "pod/unprobed", "--timeout=3s")
    until(
        "an event of the probe",
        lambda: "Readiness probe failed" in cluster.kubectl("get", "events"),
        20,
    )
    cluster.kubectl("delete", "pod", "unprobed")


def test_the_network_namespaces_are_the_pods_and_the_nodes(cluster: Cluster, addresses: dict[str, list[str]]) -> None:
    def links_in(netns: Path) -> str:
        return subprocess.run(["nsenter", f"--net={netns}", "ip", "addr"], capture_output=True, text=True).stdout

    assert f"inet {addresses['one'][0]}/" in links_in(cluster.pod_netns("one"))
    cluster.apply(pods.server("on-host", "node-2", port=8090, host_network=True))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/on-host", "--timeout=30s")
    assert page(cluster, "one", cluster.node("node-2").addresses[0], 8090) == "on-host"
    assert cluster.pod_netns("on-host").stat().st_ino == cluster.node("node-2").netns.stat().st_ino
    cluster.kubectl("delete", "pod", "on-host")


def test_nodes_have_files_of_their_own(cluster: Cluster, addresses: dict[str, list[str]]) -> None:
    """A hostPath of one node is not the other's."""
    for node in cluster.nodes.values():
        node.run(["sh", "-c", "mkdir -p /run/podfence && cat /etc/hostname >/run/podfence/here"])
    for name, node in cluster.nodes.items():
        assert node.run(["cat", "/run/podfence/here"]).stdout == f"{name}\n"
        assert node.run(["ls", "/var/lib/cni/results"]).stdout.split()
        assert node.run(["ls", "/run/netns"]).stdout.split()
    assert not Path("/run/podfence/here").exists()


def test_the_api_server_stops_and_starts_while_pods_go_on(cluster: Cluster, addresses: dict[str, list[str]]) -> None:
    cluster.stop_apiserver()
    try:
        with pytest.raises(ClusterFailed, match="refused"):
            cluster.kubectl("get", "nodes")
        fetch = ["timeout", "5", "busybox", "wget", "-q", "-O", "-", f"http://{addresses['two'][0]}:8080/"]
        netns = cluster.node("node-1").netns
        got = subprocess.run(["nsenter", f"--net={netns}", *fetch], capture_output=True, text=True, check=True)
        assert got.stdout == "two\n"
    finally:
        cluster.start_apiserver()
    assert page(cluster, "one", addresses["two"][0]) == "two"


def test_a_watch_from_before_a_compaction_is_gone(cluster: Cluster) -> None:
    before = json.loads(cluster.kubectl("get", "--raw=/api/v1/namespaces"))["metadata"]["resourceVersion"]
    for text in "ab":
        cluster.kubectl("annotate", "--overwrite", "namespace", "default", f"podfence.test/text={text}")
    assert cluster.compact_history() > int(before)
    watch = f"/api/v1/namespaces?watch=true&resourceVersion={before}&timeoutSeconds=5"
    done = cluster.control.kubectl("get", "--raw", watch, check=False)
    assert "too old resource version" in done.stdout + done.stderr


@pytest.fixture(scope="module", autouse=True)
def untouched_host() -> Iterator[None]:
    """Nothing of the host's network or mounts differs after a cluster, and nothing of the cluster is left."""
    before = host()
    yield
    assert host() == before


def host() -> dict[str, str]:
    views = {
        "links": ["ip", "-oneline", "link"],
        "addresses": ["ip", "-oneline", "addr", "show", "scope", "global"],
        "routes": ["ip", "route", "show", "table", "all"],
        "nft": ["iptables-nft-save"],
        "legacy": ["iptables-legacy-save"],
        "namespaces": ["ip", "netns"],
    }
    shown = {name: subprocess.run(argv, capture_output=True, text=True).stdout for name, argv in views.items()}
    shown = {name: "\n".join(line for line in text.splitlines() if line[:1] != "#") for name, text in shown.items()}
    shown["mounts"] = "\n".join(sorted(Path("/proc/self/mounts").read_text().splitlines()))
    shown["sysctls"] = "".join(
        Path("/proc/sys", path).read_text() for path in ("vm/overcommit_memory", "kernel/panic", "kernel/hostname")
    )
    ours = list(state.CGROUPS.glob(f"*/podfence-clusters/pytest-{os.getpid()}-*"))
    shown["cgroups"] = "\n".join(map(str, ours))
    shown["folders"] = "\n".join(path.name for path in state.ROOT.glob(f"pytest-{os.getpid()}-*"))
    return shown


def test_a_killed_run_leaves_nothing_that_hinders_the_next() -> None:
    """Its processes end with it, though nobody ends them; its folder is swept by the next."""
    name = f"pytest-{os.getpid()}-killed"
    code = (
        f"from tests.cluster.cluster import Cluster; c = Cluster('{name}'); c._claim(); c._start_machines();"
        "print(c.control.place.pid, flush=True); input()"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    with run:
        keeper = int(run.stdout.readline())
        assert state.keeper(name) == keeper
        run.kill()
    until("the cluster ended with its run", lambda: state.keeper(name) is None, 10)
    with state.claiming():
        state.sweep()
    assert not state.folder(name).exists()


def test_two_clusters_of_one_name_are_refused(cluster: Cluster) -> None:
    with pytest.raises(ClusterFailed, match="is up already"):
        Cluster(cluster.name).start()
    assert "node-1" in cluster.kubectl("get", "nodes")
