"""What an API server stores: objects, and the history of their versions. Versions are texts that no order can be read
from, as the API has it; only this file knows which was first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
KINDS = {
    PODS: ("Pod", "v1"),
    NAMESPACES: ("Namespace", "v1"),
    NODES: ("Node", "v1"),
    POLICIES: ("NetworkPolicy", "networking.k8s.io/v1"),
}
Key = tuple[str, str]


class Past(Struct):
    """One change: `body` is the object then, with its version; of a deletion, with that of the deletion."""

    number: int
    path: str
    type: str
    key: Key
    body: bytes

    @property
    def line(self) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (self.type.encode(), self.body)


class History:
    """Thread-safe. `oldest` is the first version that can still be watched from."""

    def __init__(self) -> None:
        self.number = 1
        self.oldest = 1
        self.objects: dict[str, dict[Key, bytes]] = {path: {} for path in KINDS}
        self.past: list[Past] = []
        self.changed = threading.Condition()
        self._snapshots: dict[str, tuple[str, list[bytes], int]] = {}
        self._numbers: dict[str, int] = {}

    def version(self, number: int | None = None) -> str:
        number = self.number if number is None else number
        text = str(number * 48271 % 2147483647)
        self._numbers[text] = number
        return text

    def number_of(self, version: str) -> int | None:
        return self._numbers.get(version)

    def put(self, path: str, tree: dict[str, Any]) -> None:
        kind, api_version = KINDS[path]
        meta = tree["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        with self.changed:
            self.number += 1
            meta = {**meta, "resourceVersion": self.version()}
            body = json.dumps({"kind": kind, "apiVersion": api_version, **tree, "metadata": meta}).encode()
            self._record(path, "MODIFIED" if key in self.objects[path] else "ADDED", key, body)
            self.objects[path][key] = body

    def put_bytes(self, path: str, key: Key, body: bytes) -> None:
        """As it is, whatever it is."""
        with self.changed:
            self.number += 1
            self.version()
            self._record(path, "MODIFIED" if key in self.objects[path] else "ADDED", key, body)
            self.objects[path][key] = body

    def delete(self, path: str, key: Key) -> None:
        with self.changed:
            self.number += 1
            last = self.objects[path].pop(key)
            try:
                tree = json.loads(last)
                tree["metadata"]["resourceVersion"] = self.version()
                last = json.dumps(tree).encode()
            except (ValueError, TypeError, KeyError):
                self.version()
            self._record(path, "DELETED", key, last)

    def _record(self, path: str, event: str, key: Key, body: bytes) -> None:
        self.past.append(Past(self.number, path, event, key, body))
        self.changed.notify_all()

    def compact(self) -> None:
        """No version before now can be watched from, and no list that is under way goes on. Open watches do."""
        with self.changed:
            self.oldest = self.number
            self._snapshots.clear()

    def saved(self) -> tuple[int, dict[str, dict[Key, bytes]]]:
        with self.changed:
            return self.number, {path: dict(found) for path, found in self.objects.items()}

    def restore(self, saved: tuple[int, dict[str, dict[Key, bytes]]]) -> None:
        """As etcd does from a backup: everything is as it was then, the number of the version too."""
        with self.changed:
            self.number, objects = saved
            self.objects = {path: dict(found) for path, found in objects.items()}
            self.oldest = self.number
            self.past.clear()
            self._snapshots.clear()
            self.changed.notify_all()

    def page(self, path: str, limit: int, token: str, name: str = "") -> bytes | None:
        """One page of a list; None where `token` is no longer good."""
        with self.changed:
            if token:
                found = self._snapshots.get(token)
                if found is None:
                    return None
                version, bodies, start = found
            else:
                version, start = self.version(), 0
                bodies = [body for (_, each), body in self.objects[path].items() if name in ("", each)]
            end = start + limit if limit else len(bodies)
            meta = {"resourceVersion": version}
            if end < len(bodies):
                meta["continue"] = f"{path}-{version}-{end}"
                self._snapshots[meta["continue"]] = (version, bodies, end)
            kind, api_version = KINDS[path]
            head = json.dumps({"kind": f"{kind}List", "apiVersion": api_version, "metadata": meta})
            return head[:-1].encode() + b',"items":[' + b",".join(bodies[start:end]) + b"]}"

    def since(self, path: str, number: int, name: str = "") -> list[Past]:
        """What happened after the version of that `number`."""
        with self.changed:
            found = [each for each in self.past if each.number > number and each.path == path]
        return [each for each in found if name in ("", each.key[1])]


def pod(space: str, name: str, uid: str = "u", address: str = "10.0.0.1", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": space, "uid": uid, "labels": labels},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


def node(name: str, **annotations: str) -> dict[str, Any]:
    taint = {"key": "podfence.io/not-ready", "effect": "NoSchedule"}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "annotations": annotations},
        "spec": {"podCIDRs": ["10.0.0.0/24"], "taints": [taint]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }


def policy(space: str, name: str, **labels: str) -> dict[str, Any]:
    rule = {"from": [{"podSelector": {"matchLabels": labels}}]}
    return {"metadata": {"name": name, "namespace": space}, "spec": {"podSelector": {}, "ingress": [rule]}}


def small_cluster(pods: int = 7) -> History:
    history = History()
    history.put(NODES, node("n1"))
    history.put(NODES, node("n2"))
    for space in ("a", "b"):
        history.put(NAMESPACES, namespace(space, team=space))
    history.put(POLICIES, policy("a", "only-web", app="web"))
    for number in range(pods):
        history.put(PODS, pod("ab"[number % 2], f"p{number}", f"u{number}", f"10.0.0.{number + 1}", app="web"))
    return history


def bookmarks(history: History, path: str) -> Iterator[bytes]:
    kind, api_version = KINDS[path]
    while True:
        meta = {"resourceVersion": history.version()}
        tree = {"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": api_version, "metadata": meta}}
        yield json.dumps(tree).encode() + b"\n"
