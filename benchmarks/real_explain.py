"""How long `podfence explain` takes against a real API server, beside the bare transfer of the lists that it needs.

`python -m benchmarks.real_explain` makes a control plane without nodes (docs/cluster-tests.md), as root, and fills it
with 10,000 pods, 1,000 policies, nodes and namespaces, which takes some minutes; `make bench` does not run it. The
partner is a whole Python process too: it asks for the same lists in the same pages on one TLS connection, gzipped as
Kubernetes' clients have them, unpacks them, and does nothing else. Both run in turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Any

from benchmarks.api_objects import PORT, World, namespace, pod, policy
from benchmarks.by_itself import keep
from benchmarks.explain_bench import keys
from benchmarks.process import seconds
from benchmarks.record import RESULTS, Case, Figure, Size, figure
from tests.cluster import addresses
from tests.cluster.cluster import Cluster
from tests.cluster.control import Control, until
from tests.cluster.packets import enter, within

NAME = "explain-server"
_AT_ONCE = 8
_TRANSFER = """
import http.client, re, ssl, sys, zlib
server, authority, certificate, key, *paths = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.load_cert_chain(certificate, key)
connection = http.client.HTTPSConnection(server, context=context)
for path in paths:
    more = ""
    while True:
        asked = f"{path}?limit=500" + (f"&continue={more}" if more else "")
        connection.request("GET", asked, headers={"Accept": "application/json", "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status}")
        if answer.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, 31)
        found = re.search(rb'"continue":"(.*?)"', body[:2000])
        if not found:
            break
        more = found[1].decode()
"""


class Server:
    """The API server of a control plane, spoken to as admin by many threads."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.place = (addresses.CONTROL[0], addresses.API_PORT)
        pki = control.authority
        self.identity = [str(each) for each in (pki.certificate, pki.crt("admin"), pki.key("admin"))]
        self._context = ssl.create_default_context(cafile=self.identity[0])
        self._context.load_cert_chain(*self.identity[1:])
        self._own = local()

    def send(self, method: str, path: str, body: object, kind: str = "application/json") -> None:
        if not hasattr(self._own, "connection"):
            enter(self.control.place.netns)
            self._own.connection = http.client.HTTPSConnection(*self.place, context=self._context)
        self._own.connection.request(method, path, json.dumps(body).encode(), {"Content-Type": kind})
        answer = self._own.connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said.decode()}")


def fill(server: Server, world: World) -> None:
    """As a cluster has them: pods on nodes, owned, and running."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:

        def each(count: int, made: Any) -> None:
            list(threads.map(made, range(count)))

        each(world.spaces, lambda n: server.send("POST", "/api/v1/namespaces", json.loads(namespace(world, n))))
        until("an account for each namespace's pods", lambda: _accounts(server.control) >= world.spaces, 120)
        # Pods of nodes and owners that are not there would be taken away.
        server.control.stop_controllers()
        each(world.nodes, lambda n: server.send("POST", "/api/v1/nodes", _node(n)))
        each(world.policies, lambda n: _policy(server, world, n))
        each(world.pods, lambda n: _pod(server, world, n))


def _accounts(control: Control) -> int:
    listed = control.kubectl("get", "serviceaccounts", "-A", "--field-selector=metadata.name=default", "-o", "name")
    return listed.stdout.count("\n") - len(("default", "kube-system", "kube-public", "kube-node-lease"))


def _node(number: int) -> object:
    address = f"192.0.{2 + number // 250}.{number % 250 + 1}"
    status = {"addresses": [{"type": "InternalIP", "address": address}]}
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": f"node-{number}"}, "status": status}


def _policy(server: Server, world: World, number: int) -> None:
    tree = json.loads(policy(world, number))
    del tree["metadata"]["uid"]
    path = f"/apis/networking.k8s.io/v1/namespaces/{tree['metadata']['namespace']}/networkpolicies"
    server.send("POST", path, tree)


def _pod(server: Server, world: World, number: int) -> None:
    tree = json.loads(pod(world, number))
    del tree["metadata"]["uid"], tree["metadata"]["resourceVersion"]
    path = f"/api/v1/namespaces/{tree['metadata']['namespace']}/pods"
    server.send("POST", path, tree)
    status = {"status": tree["status"]}
    server.send("PATCH", f"{path}/{tree['metadata']['name']}/status", status, "application/merge-patch+json")


def measure(size: Size) -> Iterator[Figure]:
    world, runs = (World(10_000, 1_000, 2_000), 9) if size == "full" else (World(240, 24, 48), 1)
    with Cluster(f"bench-{os.getpid()}", nodes=0) as cluster:
        server = Server(cluster.control)
        fill(server, world)
        src, dst = keys(world, 0, world.pods // 2)
        case: Case = {"pods": world.pods, "policies": world.policies}
        common = ["/api/v1/namespaces", "/api/v1/nodes"]
        spaces = [path for key in (src, dst) for path in _paths(key.partition("/")[0])]
        yield from within(cluster.control.place.netns, lambda: list(_starts(runs)))
        for what, ask, paths in (
            ("two pods", src, [*common, *spaces]),
            ("a block and a pod", "10.0.0.0/8", [*common, *_paths("")]),
        ):
            ours, bare = _turns(server, cluster.kubeconfig, (ask, dst), paths, runs)
            yield figure(f"explain of {what} against an API server", ours, "s", None, **case)
            yield figure(f"transfer of the lists for {what}", bare, "s", None, **case)
            ratios = [one / other for one, other in zip(ours, bare, strict=True)]
            yield figure(f"explain of {what}, against the transfer", ratios, "ratio", 1.3, **case)


def _starts(runs: int) -> Iterator[Figure]:
    """What no explanation can be quicker than."""
    for what, code in (
        ("python -c pass", "pass"),
        ("import of the kubernetes package's configuration", "import kubernetes.config.kube_config"),
    ):
        yield figure(what, [seconds("-c", code) * 1000 for _ in range(runs + 1)][1:], "ms")


def _turns(
    server: Server, config: Path, ends: tuple[str, str], paths: Sequence[str], runs: int
) -> tuple[list[float], list[float]]:
    """Seconds of each, side by side, after one that nobody counts."""
    place = f"{server.place[0]}:{server.place[1]}"

    def turns() -> tuple[list[float], list[float]]:
        ours, bare = [], []
        for _ in range(runs + 1):
            bare.append(seconds("-c", _TRANSFER, place, *server.identity, *paths))
            argv = ("explain", *ends, "--port", str(PORT), "--kubeconfig", str(config))
            ours.append(seconds("-m", "podfence", *argv))
        return ours[1:], bare[1:]

    return within(server.control.place.netns, turns)


def _paths(space: str) -> list[str]:
    """The lists of one namespace, or of all."""
    where = f"namespaces/{space}/" if space else ""
    policies, slices = f"networking.k8s.io/v1/{where}networkpolicies", f"discovery.k8s.io/v1/{where}endpointslices"
    return [f"/api/v1/{where}pods", f"/api/v1/{where}services", f"/apis/{policies}", f"/apis/{slices}"]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_explain", description=__doc__)
    parser.add_argument("--size", choices=("quick", "full"), default="full")
    parser.add_argument("--into", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    return keep(NAME, options.size, options.into, lambda: measure(options.size))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
