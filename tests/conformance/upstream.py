"""The cases of `upstream.yaml`, as cases of a truth table: one for each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.tables import Case, Expected
from tests.oracle.fields import Object

DATA = Path(__file__).with_name("upstream.yaml")
NAMESPACES = ("x", "y", "z")
NAMES = ("a", "b", "c")
ADDRESSES = {
    f"{space}/{name}": f"10.20.{number}.{at}"
    for number, space in enumerate(NAMESPACES)
    for at, name in enumerate(NAMES, 1)
}
SERVED = tuple((protocol, port) for protocol in ("TCP", "UDP", "SCTP") for port in (80, 81))


def cases() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load(DATA.read_text())
    return loaded


def steps(case: dict[str, Any]) -> Iterator[Case]:
    """What stands and what is expected, step by step; flows are expected as a whole, not by direction."""
    labels: dict[str, dict[str, str]] = {}
    pods = case["pods"].split()
    for number, step in enumerate(case["steps"], 1):
        for key, added in step.get("label", {}).items():
            labels.setdefault(key, {}).update(added)
        expected: list[Expected] = []
        for port_text, denials in step["denied"].items():
            protocol, port = port_text.split("/")
            denied = set().union(*(_denied(text, pods) for text in denials))
            for src in pods:
                for dst in pods:
                    if src != dst:
                        passes = (src, dst) not in denied
                        expected.append(Expected(src, dst, protocol, int(port), passes, passes))
        yield Case(
            f"{case['number']}.{number} {case['title']}", (), _objects(pods, labels, step["policies"]), tuple(expected)
        )


def _denied(text: str, pods: list[str]) -> set[tuple[str, str]]:
    whole, _, taken_back = text.partition(" except ")
    found = _flows(whole, pods)
    for each in filter(None, taken_back.split(", ")):
        found -= _flows(each, pods)
    return found


def _flows(text: str, pods: list[str]) -> set[tuple[str, str]]:
    src, dst = text.split(" -> ")
    return {(one, other) for one in _pods(src, pods) for other in _pods(dst, pods)}


def _pods(text: str, pods: list[str]) -> list[str]:
    """`*`, `x/*` or `x/a`."""
    found = [pod for pod in pods if text in ("*", pod) or (text.endswith("/*") and pod.startswith(text[:-1]))]
    assert found, f"no pod is meant by {text}"
    return found


def _objects(pods: list[str], labels: dict[str, dict[str, str]], policies: dict[str, Any]) -> list[Object]:
    spaces = sorted({pod.split("/")[0] for pod in pods})
    objects: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": space, "labels": {"ns": space, **labels.get(space, {})}},
        }
        for space in spaces
    ]
    objects += [pod_object(key, labels.get(key, {})) for key in pods]
    for key, spec in policies.items():
        space, name = key.split("/")
        metadata = {"name": name, "namespace": space}
        spec = _with_addresses(spec)
        objects.append(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
        )
    return objects


def pod_object(key: str, labels: dict[str, str]) -> Object:
    space, name = key.split("/")
    ports = [
        {"name": f"serve-{port}-{protocol.lower()}", "containerPort": port, "protocol": protocol}
        for protocol, port in SERVED
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {"pod": name, **labels}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "serve", "image": "none", "ports": ports}]},
        "status": {"phase": "Running", "podIP": ADDRESSES[key], "podIPs": [{"ip": ADDRESSES[key]}]},
    }


def _with_addresses(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _with_addresses(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_addresses(value) for value in tree]
    if isinstance(tree, str) and tree.startswith("{"):
        pod, length = tree[1:].split("}/")
        return f"{ADDRESSES[pod]}/{length.replace('host', '32')}"
    return tree
