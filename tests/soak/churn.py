"""What happens to the cluster by chance: pods come, go and are relabelled, policies and namespaces change. All choices
come from one `Random`, so that a seed names a run; only the time is not its own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

from lab.topology import OUTSIDE_ADDRESSES
from tests.generate.pods import _containers, labels_of
from tests.generate.policies import policy
from tests.generate.words import NAMESPACES
from tests.oracle.fields import Object
from tests.soak.cluster import MODES, Key, SoakCluster, model_of
from tests.soak.probes import Probes
from tests.soak.station import Station

ANCHORS = 2  # pods of each node that stay
FEWEST, MOST = 15, 30
POLICIES = 15  # at most
_HOSTS = range(10, 60)  # of a node's block; addresses come around as a plugin's do

Op = Callable[[], str]


class Churn:
    """`turn` does one thing, and waits until it is in force, unless `wait` is off."""

    def __init__(self, cluster: SoakCluster, probes: Probes, rng: Random) -> None:
        self.cluster = cluster
        self.probes = probes
        self.rng = rng
        self.wait = True
        self.counts: Counter[str] = Counter()
        self._names = itertools.count(1)
        self._hosts = {node: itertools.cycle(_HOSTS) for node in MODES}
        self._anchors: set[Key] = set()

    def populate(self) -> None:
        """Pods that stay, with labels that stay. Nobody follows yet."""
        self.wait = False
        for node in MODES:
            for number in range(ANCHORS):
                tree = self._pod(node, NAMESPACES[number % len(NAMESPACES)], f"anchor-{node}-{number}")
                tree["metadata"]["labels"] = {"app": "x"}
                self._anchors.add((tree["metadata"]["namespace"], tree["metadata"]["name"]))
                self._begin(tree)
        self.cluster.change("namespaces", [_space(name, {}) for name in NAMESPACES], wait=False)
        self.wait = True

    def rest(self) -> None:
        """As after `populate`: what is left in the kernel then has to be the same each time."""
        objects, change = self.cluster.objects, self.cluster.change
        # One by one: between two of them there is a state of its own.
        for key in [*objects["NetworkPolicy"]]:
            change(f"policy {'/'.join(key)} is gone", deletes=[("NetworkPolicy", key)])
        for key in [key for key in objects["Pod"] if key not in self._anchors]:
            self._end(key, wait=True)
        for key in sorted(self._anchors):
            change(f"labels of {'/'.join(key)} at rest", [_relabelled(objects["Pod"][key], {"app": "x"})])
        for name in NAMESPACES:
            change(f"labels of {name} at rest", [_space(name, {})])

    def turn(self) -> None:
        pods = len(self.cluster.objects["Pod"])
        weights: dict[Op, float] = {
            self._add_pod: 3 if pods < FEWEST else 1,
            self._remove_pod: 0 if pods <= FEWEST or not self.wait else 3 if pods > MOST else 1,
            self._relabel: 3,
            self.put_policy: 5,
            self._delete_policy: 0 if len(self.cluster.objects["NetworkPolicy"]) < 8 else 2,
            self._label_namespace: 1,
            self._take_namespace: 0.3,
        }
        if pods >= MOST:
            weights[self._add_pod] = 0
        op = self.rng.choices([*weights], [*weights.values()])[0]
        self.counts[op()] += 1

    def harmless(self) -> None:
        """What needs no lab, so that it can be taken back."""
        op = self.rng.choice([self._relabel, self.put_policy, self._label_namespace])
        self.counts[op()] += 1

    def _add_pod(self) -> str:
        node = self.rng.choice([*MODES])
        self._begin(self._pod(node, self.rng.choice(NAMESPACES), f"pod-{next(self._names)}"))
        return "pods added"

    def _begin(self, tree: Object) -> None:
        """Its probes begin before anybody knows of it: it is closed till then."""
        pod = model_of(tree)
        self.cluster.judge.nodes[pod.key] = pod.node
        self.cluster.lab.add(pod)
        addresses = [each["ip"] for each in tree["status"]["podIPs"]]
        self.probes.add(Station(self.cluster.lab, pod.key, addresses))
        self.cluster.change(f"pod {pod.key} {addresses} {pod.labels} on {pod.node}", [tree], wait=self.wait)

    def _pod(self, node: str, namespace: str, name: str) -> Object:
        number = node.removeprefix("n")
        host = self._free(node)
        own = [f"10.244.{number}.{host}", f"fd00:10:244:{number}::{host:x}"]
        addresses = self.rng.choices([own, own[:1], own[1:]], [6, 1, 1])[0]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}",
                "labels": labels_of(self.rng),
            },
            "spec": {"nodeName": node, **_containers(self.rng)},
            "status": {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses]},
        }

    def _free(self, node: str) -> int:
        taken = {each["ip"] for pod in self.cluster.objects["Pod"].values() for each in pod["status"]["podIPs"]}
        number = node.removeprefix("n")
        for host in self._hosts[node]:
            if not {f"10.244.{number}.{host}", f"fd00:10:244:{number}::{host:x}"} & taken:
                return host
        raise AssertionError("no address is free")

    def _remove_pod(self) -> str:
        key = self.rng.choice([key for key in self.cluster.objects["Pod"] if key not in self._anchors])
        self._end(key, wait=self.rng.random() < 0.5)
        return "pods removed"

    def _end(self, key: Key, wait: bool) -> None:
        """As a kubelet ends one: marked, then its namespace and veth go, then the object."""
        tree = self.cluster.objects["Pod"][key]
        place = "/".join(key)
        leaving = {**tree, "metadata": {**tree["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        self.cluster.change(f"pod {place} is to end", [leaving], wait=wait)
        self.probes.remove(place)
        self.cluster.lab.remove(place)
        self.cluster.change(f"pod {place} is gone", deletes=[("Pod", key)])

    def _relabel(self) -> str:
        key = self.rng.choice([*self.cluster.objects["Pod"]])
        tree = _relabelled(self.cluster.objects["Pod"][key], labels_of(self.rng))
        self.cluster.change(f"pod {'/'.join(key)}: {tree['metadata']['labels']}", [tree], wait=self.wait)
        return "pods relabelled"

    def put_policy(self) -> str:
        names = [(space, f"policy-{number}") for space in NAMESPACES for number in range(POLICIES // len(NAMESPACES))]
        space, name = self.rng.choice(names)
        pods = self.cluster.objects["Pod"].values()
        anchors = [each["ip"] for pod in pods for each in pod["status"]["podIPs"]]
        anchors += [str(each) for each in OUTSIDE_ADDRESSES]
        tree = policy(self.rng, space, name, anchors)
        if tree["apiVersion"] != "networking.k8s.io/v1":  # the server of the tests has no other
            return "policies left out"
        self.cluster.change(f"policy {space}/{name}: {tree.get('spec')}", [tree], wait=self.wait)
        return "policies put"

    def _delete_policy(self) -> str:
        key = self.rng.choice([*self.cluster.objects["NetworkPolicy"]])
        self.cluster.change(f"policy {'/'.join(key)} is gone", deletes=[("NetworkPolicy", key)], wait=self.wait)
        return "policies deleted"

    def _label_namespace(self) -> str:
        tree = _space(self.rng.choice(NAMESPACES), labels_of(self.rng))
        self.cluster.change(
            f"namespace {tree['metadata']['name']}: {tree['metadata']['labels']}", [tree], wait=self.wait
        )
        return "namespaces relabelled"

    def _take_namespace(self) -> str:
        """The object alone: its pods and policies are there, and its labels are not."""
        there = [*self.cluster.objects["Namespace"]]
        if not there:
            return "namespaces left out"
        key = self.rng.choice(there)
        self.cluster.change(f"namespace {key[1]} is gone", deletes=[("Namespace", key)], wait=self.wait)
        return "namespaces deleted"


def _relabelled(tree: Object, labels: dict[str, str]) -> Object:
    return {**tree, "metadata": {**tree["metadata"], "labels": labels}}


def _space(name: str, labels: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
