"""Duplicate keys in JSON (semantics, row 39), in small files and in dumps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.decode import read_documents
from policy.errors import UnreadableInput
from policy.json_unique import SMALL
from tests.policy.samples import OBJECTS

POD = """{
"apiVersion": "v1", "kind": "Pod",
"metadata": {
"name": "web", "namespace": "shop",
"labels": {"app": "web"}
},
"spec": {"nodeName": "n1", "hostNetwork": false},
"status": {
"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}}"""
# What stands in the pod, what it becomes, the key that stands twice, and its line in the pod.
TWICE = [
    ('"kind": "Pod"', '"kind": "Pod", "kind": "ConfigMap"', "kind", 2),
    ('"apiVersion": "v1"', '"apiVersion": "v1", "apiVersion": "v1"', "apiVersion", 2),
    ('"metadata": {', '"metadata": {},\n"metadata": {', "metadata", 4),
    ('"spec": {', '"spec": {}, "spec": {', "spec", 7),
    ('"status": {', '"status": null, "status": {', "status", 8),
    ('"name": "web"', '"name": "db", "name": "web"', "name", 4),
    ('"namespace": "shop"', '"namespace": "a", "n\\u0061mespace": "shop"', "namespace", 4),
    ('"labels": {', '"labels": {}, "labels": {', "labels", 5),
    ('"app": "web"', '"app": "web", "app": "db"', "app", 5),
    ('"nodeName": "n1"', '"nodeName": "n1", "nodeName": ""', "nodeName", 7),
    ('"hostNetwork": false', '"hostNetwork": false, "hostNetwork": true', "hostNetwork", 7),
    ('"phase": "Running"', '"phase": "Running", "phase": "Failed"', "phase", 9),
    ('"podIPs": [', '"podIPs": null, "podIPs": [', "podIPs", 9),
]
FILLER = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b" * SMALL}})


def refused(text: str, file: str = "f.json") -> str:
    with pytest.raises(UnreadableInput) as caught:
        read_documents(text.encode(), file)
    return str(caught.value)


@pytest.mark.parametrize(("before", "after", "key", "line"), TWICE, ids=[each[2] for each in TWICE])
@pytest.mark.parametrize("filler", ["", f"\n{FILLER},"], ids=["small", "large"])
def test_a_key_that_stands_twice_is_refused(filler: str, before: str, after: str, key: str, line: int) -> None:
    wrong = POD.replace(before, after)
    assert wrong != POD
    above = filler.count("\n")
    text = f'{{"kind": "List", "apiVersion": "v1", "items": [{filler}{wrong}]}}'
    assert refused(text) == f"f.json:{line + above}: the key '{key}' stands twice in one object"
    read_documents(text.replace(wrong, POD).encode(), "f.json")
    assert "stands twice" in refused(wrong + " " * len(filler))


@pytest.mark.parametrize("filler", ["", FILLER], ids=["small", "large"])
@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "List", "items": [POD], "items": [FILLER]}',
        '{"kind": "List", "items": [FILLER], "items": [FILLER, POD]}',
        '{"kind": "List", "items": [FILLER, POD], "kind": "List"}',
        '{"kind": "ConfigMap", "items": [FILLER, POD], "kind": "List"}',
        '{"apiVersion": "v2", "kind": "List", "apiVersion": "v1", "items": [POD, FILLER]}',
        '[POD, {"kind": "List", "kind": "List", "items": [FILLER]}]',
    ],
)
def test_a_list_with_a_key_twice_is_refused(text: str, filler: str) -> None:
    assert "stands twice" in refused(text.replace("FILLER", filler or '{"kind": "A"}').replace("POD", POD))


def test_a_small_file_is_searched_at_every_level() -> None:
    assert "'port'" in refused(POD.replace('"n1"', '"n1", "containers": [{"ports": [{"port": 1, "port": 2}]}]'))


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("tree", OBJECTS, ids=lambda tree: tree["kind"])
def test_large_files_without_duplicates_mean_what_small_ones_do(tree: dict[str, Any], indent: int | None) -> None:
    odd = {**tree, "metadata": {**tree["metadata"], "annotations": {'"a": {': '\\"b\\'}}}
    small = json.dumps({"apiVersion": "v1", "kind": "List", "items": [odd]}, indent=indent)
    large = f"{small[: small.index('[') + 1]}{FILLER},{small[small.index('[') + 1 :]}"
    one, other = read_documents(small.encode(), "f"), read_documents(large.encode(), "f")
    assert one.problems == other.problems == ()
    assert str(one.cluster.pods) == str(other.cluster.pods)
    assert str(one.cluster.policies) == str(other.cluster.policies)
