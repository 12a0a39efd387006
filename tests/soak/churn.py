"""What happens to the cluster by chance: pods come, go and are relabelled, policies and namespaces change. All choices
come from one `Random`, so that a seed names a run; only the time is not its own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

from lab.topology import OUTSIDE_ADDRESSES
from tests.generate.pods import labels_of
from tests.generate.policies import policy
from tests.generate.words import NAMESPACES
from tests.oracle.fields import Object
from tests.soak.cluster import MODES, Key, SoakCluster
from tests.soak.pods import Pods, addresses_of, floats
from tests.soak.probes import Probes

ANCHORS = 2  # pods of each node that stay
FEWEST, MOST = 15, 30
POLICIES = 15  # at most
FLOATING = 0.2  # of new pods: their addresses are in no node's block

Op = Callable[[], str]


class Churn:
    """`turn` does one thing, and waits until it is in force, unless `wait` is off."""

    def __init__(self, cluster: SoakCluster, probes: Probes, rng: Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.pods = Pods(cluster, probes, rng)
        self.wait = True
        self.counts: Counter[str] = Counter()
        self._names = itertools.count(1)
        self._anchors: set[Key] = set()

    def populate(self) -> None:
        """Pods that stay, with labels that stay. Nobody follows yet."""
        self.wait = False
        for node in MODES:
            for number in range(ANCHORS):
                tree = self.pods.new(node, NAMESPACES[number % len(NAMESPACES)], f"anchor-{node}-{number}")
                tree["metadata"]["labels"] = {"app": "x"}
                self._anchors.add((tree["metadata"]["namespace"], tree["metadata"]["name"]))
                self.pods.begin(tree, wait=False)
        self.cluster.change("namespaces", [_space(name, {}) for name in NAMESPACES], wait=False)
        self.wait = True

    def rest(self) -> None:
        """As after `populate`: what is left in the kernel then has to be the same each time."""
        objects, change = self.cluster.objects, self.cluster.change
        # One by one: between two of them there is a state of its own.
        for key in [*objects["NetworkPolicy"]]:
            change(f"policy {'/'.join(key)} is gone", deletes=[("NetworkPolicy", key)])
        for key in self._passing():
            self.pods.end(key, wait=True)
        for key in sorted(self._anchors):
            change(f"labels of {'/'.join(key)} at rest", [_relabelled(objects["Pod"][key], {"app": "x"})])
        for name in NAMESPACES:
            change(f"labels of {name} at rest", [_space(name, {})])

    def turn(self) -> None:
        pods = len(self.cluster.objects["Pod"])
        weights: dict[Op, float] = {
            self._add_pod: 3 if pods < FEWEST else 1,
            self._remove_pod: 0 if pods <= FEWEST or not self.wait else 3 if pods > MOST else 1,
            self._hand_over: 1 if self.wait and pods > FEWEST // 2 else 0,
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
        space, name = self.rng.choice(NAMESPACES), f"pod-{next(self._names)}"
        floating = bool(self.wait and self.pods.routed) and self.rng.random() < FLOATING
        node = self.rng.choice([*MODES])
        self.pods.begin(self.pods.floating(space, name) if floating else self.pods.new(node, space, name), self.wait)
        return "pods added"

    def _remove_pod(self) -> str:
        self.pods.end(self.rng.choice(self._passing()), wait=self.rng.random() < 0.5)
        return "pods removed"

    def _hand_over(self) -> str:
        key = self.rng.choice(self._passing())
        floated = floats(self.cluster.objects["Pod"][key])
        self.pods.hand_over(key, self.rng.choice(NAMESPACES), f"pod-{next(self._names)}")
        return "addresses handed over, perhaps to another node" if floated else "addresses handed over"

    def _passing(self) -> list[Key]:
        return [key for key in self.cluster.objects["Pod"] if key not in self._anchors]

    def _relabel(self) -> str:
        key = self.rng.choice([*self.cluster.objects["Pod"]])
        tree = _relabelled(self.cluster.objects["Pod"][key], labels_of(self.rng))
        self.cluster.change(f"pod {'/'.join(key)}: {tree['metadata']['labels']}", [tree], wait=self.wait)
        return "pods relabelled"

    def put_policy(self) -> str:
        names = [(space, f"policy-{number}") for space in NAMESPACES for number in range(POLICIES // len(NAMESPACES))]
        space, name = self.rng.choice(names)
        pods = self.cluster.objects["Pod"].values()
        anchors = [address for pod in pods for address in addresses_of(pod)]
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
