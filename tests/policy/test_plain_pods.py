"""The fast way of reading pods says what the careful one says, or leaves the pod to it."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from policy.decode import decode_document
from policy.decode_plain import plain_pod
from policy.documents import Document
from policy.model import Pod
from tests.generate import cluster


def pods(seed: int) -> list[dict[str, Any]]:
    """As the API server sends them."""
    found = [each for each in cluster(Random(seed)) if each["kind"] == "Pod"]
    for number, each in enumerate(found):
        owner = {"kind": "ReplicaSet", "name": f"web-{number}", "controller": True, "apiVersion": "apps/v1", "uid": "u"}
        each["apiVersion"] = "v1"
        each["metadata"] |= {"uid": f"uid-{number}", "ownerReferences": [owner]}
        each["metadata"]["labels"]["pod-template-hash"] = str(number)
    return found


def both(tree: dict[str, Any]) -> tuple[Pod | None, object, bool]:
    """What the fast way says, what the careful one does, and whether it had anything to say about it."""
    careful = decode_document(Document("Pod", tree["apiVersion"], tree))
    return plain_pod(Raw(msgspec.json.encode(tree))), careful.object, bool(careful.problems)


def test_labels_that_are_many_are_not_kept() -> None:
    """Whoever may change the labels of a single pod may do so for ever."""
    tree = pods(1)[0]
    tracemalloc.start()
    try:
        for number in range(40):
            tree["metadata"]["labels"] = {f"key-{number}-{at}": "v" * 60 for at in range(1500)}
            plain, careful, _ = both(tree)
            assert plain and plain == careful
        del plain, careful
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 << 20


@pytest.mark.parametrize("seed", range(30))
def test_pods_are_read_alike(seed: int) -> None:
    for tree in pods(seed):
        plain, careful, _ = both(tree)
        assert plain == careful


def test_equal_parts_are_one_object() -> None:
    tree = pods(0)[0]
    one, other = (plain_pod(Raw(msgspec.json.encode(tree))) for _ in range(2))
    assert one and other
    assert one.labels is other.labels and one.ports is other.ports and one.node is other.node


BROKEN: dict[str, tuple[tuple[str, ...], Any]] = {
    "no name": (("metadata", "name"), None),
    "a name that is none": (("metadata", "name"), "Web"),
    "a namespace that is none": (("metadata", "namespace"), "a.b"),
    "a label key that is none": (("metadata", "labels"), {"-": "x"}),
    "a label value that is none": (("metadata", "labels"), {"app": "not a value"}),
    "a label that is a number": (("metadata", "labels"), {"app": 1}),
    "labels that are a list": (("metadata", "labels"), []),
    "an address that is none": (("status", "podIP"), "10.0.0.256"),
    "a port that is none": (("spec", "containers"), [{"ports": [{"containerPort": 0}]}]),
    "a port name that is none": (("spec", "containers"), [{"ports": [{"name": "-", "containerPort": 1}]}]),
    "a protocol that is none": (("spec", "containers"), [{"ports": [{"protocol": "tcp", "containerPort": 1}]}]),
    "a flag that is a text": (("spec", "hostNetwork"), "true"),
    "containers that are a mapping": (("spec", "containers"), {}),
    "owners that are a text": (("metadata", "ownerReferences"), "web"),
}


@pytest.mark.parametrize(("path", "value"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_left_to_the_careful_way(path: tuple[str, ...], value: Any) -> None:
    tree = pods(1)[0]
    tree[path[0]][path[1]] = value
    plain, _, complained = both(tree)
    assert complained
    assert plain is None
    assert decode_document(Document("Pod", "v1", Raw(msgspec.json.encode(tree)))).problems


ODD: dict[str, tuple[tuple[str, ...], Any]] = {
    "labels null": (("metadata", "labels"), None),
    "ports null": (("spec", "containers"), [{"ports": None}]),
    "addresses null": (("status", "podIPs"), None),
    "an address in two spellings": (("status", "podIPs"), [{"ip": "10.0.0.1"}, {"ip": "::ffff:a00:1"}]),
    "no address": (("status",), {"phase": "Pending"}),
    "a phase of tomorrow": (("status", "phase"), "Paused"),
    "a field of tomorrow": (("metadata", "shard"), {"of": 3}),
    "containers null": (("spec", "containers"), None),
    "a sidecar": (("spec", "initContainers"), [{"restartPolicy": "Always", "ports": [{"containerPort": 15001}]}]),
    "leaving": (("metadata", "deletionTimestamp"), "2026-01-01T00:00:00Z"),
}


@pytest.mark.parametrize(("path", "value"), ODD.values(), ids=ODD)
def test_what_is_odd_is_read_alike(path: tuple[str, ...], value: Any) -> None:
    tree = pods(2)[0]
    at: Any = tree
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    body = Raw(msgspec.json.encode(tree))
    stored = decode_document(Document("Pod", "v1", body)).object
    known = {**tree, "metadata": {key: each for key, each in tree["metadata"].items() if key != "shard"}}
    careful = decode_document(Document("Pod", "v1", known)).object
    assert stored == careful
    assert plain_pod(body) == careful
