"""Pods as kubelet and a network plugin begin and end them: objects, namespaces, links and addresses, in their order."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from random import Random

from tests.generate.pods import _containers, labels_of
from tests.oracle.fields import Object
from tests.soak.cluster import MODES, Key, SoakCluster, model_of
from tests.soak.probes import Probes
from tests.soak.station import Station

_HOSTS = range(10, 60)  # of a node's block; addresses come around as a plugin's do
_FLOATING = 99  # the third byte of addresses that are in no node's block, and may move between nodes
_A_WHILE = 0.3


class Pods:
    """Names and addresses are its own; all other choices come from `rng`."""

    def __init__(self, cluster: SoakCluster, probes: Probes, rng: Random) -> None:
        self.cluster = cluster
        self.probes = probes
        self.rng = rng
        self.gaps: list[float] = []  # seconds that an address has no link at most, between two pods
        self.routed = [node for node in MODES if not cluster.lab.host(node).bridge]
        self._hosts = {number: itertools.cycle(_HOSTS) for number in (_FLOATING, *map(_number, MODES))}

    def new(self, node: str, namespace: str, name: str, block: int = 0) -> Object:
        """With addresses that are free, of its node's block or of another."""
        return self._object(node, namespace, name, self._free(block or _number(node)))

    def floating(self, namespace: str, name: str) -> Object:
        """With addresses that no node's block has, on any node whose pods are routed."""
        return self.new(self.rng.choice(self.routed), namespace, name, _FLOATING)

    def begin(self, tree: Object, wait: bool) -> None:
        """Its probes begin before anybody knows of it: it is closed till then. Where its addresses are in no node's
        block nothing closes it before it is known (docs/adr/0009), so its first process comes after that."""
        self.cluster.lab.add(model_of(tree))
        station = self._station(tree)
        if floats(tree):
            self.cluster.change(_began(tree), [tree])
            self.probes.add(station)
        else:
            self.probes.add(station)
            self.cluster.change(_began(tree), [tree], wait=wait)

    def end(self, key: Key, wait: bool) -> None:
        """As a kubelet ends one: marked, then its namespace and veth go, then the object."""
        self._mark(key, wait)
        self.probes.remove("/".join(key))
        self.cluster.lab.remove("/".join(key))
        self.cluster.change(_gone(key), deletes=[("Pod", key)])

    def hand_over(self, key: Key, namespace: str, name: str) -> None:
        """The pod ends, and its addresses are at once those of another one, with labels of its own; on another node
        too where they float. The old object goes before the other's link is there, or between that and the other's
        object, or after it. Who talked to the old one goes on as if nothing had happened."""
        tree = self._successor(self.cluster.objects["Pod"][key], namespace, name)
        gone_before, gone_after = self.rng.choice([(True, False), (False, False), (False, True)])
        pause = self.rng.choice([0, self.rng.uniform(0, _A_WHILE)])
        self._mark(key, wait=True)  # kubelet acts on what the API server has said; by then the agent has heard it
        left = self.probes.remove("/".join(key))
        if gone_before:
            self.cluster.change(_gone(key), deletes=[("Pod", key)], wait=False)
        began = time.monotonic()
        self.cluster.lab.succeed("/".join(key), model_of(tree))
        self.gaps.append(time.monotonic() - began)
        station = self._station(tree)
        if not floats(tree):
            self.probes.add(station, left)
        time.sleep(pause)
        if not gone_before and not gone_after:
            self.cluster.change(_gone(key), deletes=[("Pod", key)], wait=False)
        self.cluster.change(_began(tree), [tree], wait=not gone_after or self.rng.random() < 0.5)
        if gone_after:
            time.sleep(pause)
            self.cluster.change(_gone(key), deletes=[("Pod", key)])
        if floats(tree):
            self.probes.add(station, left)

    def _station(self, tree: Object) -> Station:
        pod = model_of(tree)
        self.cluster.judge.nodes[pod.key] = pod.node
        return Station(self.cluster.lab, pod.key, addresses_of(tree))

    def _mark(self, key: Key, wait: bool) -> None:
        tree = self.cluster.objects["Pod"][key]
        leaving = {**tree, "metadata": {**tree["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        self.cluster.change(f"pod {'/'.join(key)} is to end", [leaving], wait=wait)

    def _successor(self, old: Object, namespace: str, name: str) -> Object:
        node = self.rng.choice(self.routed) if floats(old) else old["spec"]["nodeName"]
        return self._object(node, namespace, name, addresses_of(old))

    def _object(self, node: str, namespace: str, name: str, addresses: Sequence[str]) -> Object:
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

    def _free(self, block: int) -> list[str]:
        """Of both families, mostly."""
        taken = {address for pod in self.cluster.objects["Pod"].values() for address in addresses_of(pod)}
        for host in self._hosts[block]:
            own = [f"10.244.{block}.{host}", f"fd00:10:244:{block}::{host:x}"]
            if taken.isdisjoint(own):
                return self.rng.choices([own, own[:1], own[1:]], [6, 1, 1])[0]
        raise AssertionError("no address is free")


def addresses_of(tree: Object) -> list[str]:
    return [each["ip"] for each in tree["status"]["podIPs"]]


def floats(tree: Object) -> bool:
    return addresses_of(tree)[0].startswith((f"10.244.{_FLOATING}.", f"fd00:10:244:{_FLOATING}:"))


def _number(node: str) -> int:
    return int(node.removeprefix("n"))


def _began(tree: Object) -> str:
    meta = tree["metadata"]
    key = f"{meta['namespace']}/{meta['name']}"
    return f"pod {key} {addresses_of(tree)} {meta['labels']} on {tree['spec']['nodeName']}"


def _gone(key: Key) -> str:
    return f"pod {'/'.join(key)} is gone"
