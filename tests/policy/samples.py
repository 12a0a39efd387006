"""One right object of each kind with every field that is read, and ways to spoil one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Tree = dict[str, Any]
Path = tuple[str | int, ...]

_META = {"name": "a", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"x": "y"}, "uid": "u"}
_POD = {
    "nodeName": "n1",
    "hostNetwork": False,
    "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP", "hostPort": 1}]}],
    "initContainers": [{"restartPolicy": "Always", "ports": [{"containerPort": 81}]}],
}
_TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": _POD}
POLICY: Tree = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": _META,
    "spec": {
        "podSelector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "x"}}}],
                "ports": [{"port": 80}],
            },
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
            {"ports": [{"port": "http", "protocol": "UDP"}, {"port": 1, "endPort": 9}]},
        ],
        "egress": [{"to": [{"podSelector": {"matchExpressions": [{"key": "old", "operator": "Exists"}]}}]}, {}],
    },
}
OBJECTS: list[Tree] = [
    POLICY,
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "x"}}},
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**_META, "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5f", "controller": True}]},
        "spec": _POD,
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    },
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _META, "spec": {"template": _TEMPLATE}},
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _META,
        "spec": {"jobTemplate": {"spec": {"template": _TEMPLATE}}},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _META,
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": "web"},
            "clusterIP": "10.1.0.1",
            "clusterIPs": ["10.1.0.1"],
            "ports": [{"name": "a", "port": 80, "targetPort": "http", "nodePort": 30000, "protocol": "TCP"}],
        },
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**_META, "labels": {"kubernetes.io/service-name": "a"}},
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "a"}}
        ],
        "ports": [{"name": "a", "port": 80, "protocol": "TCP"}],
    },
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "labels": {"zone": "a"}},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
    },
]
# Wrong at every place of every sample.
WRONG: list[Any] = [1.5, True, "junk!", {"?": 1}, [[None]], -1, 10**30, "\x1b[2J"]


def places(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Every key and list index of `tree`."""
    for step, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, step)
        yield from places(value, (*path, step))


def at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def with_value(tree: Tree, path: Path, value: Any) -> Tree:
    spoiled = copy.deepcopy(tree)
    at(spoiled, path[:-1])[path[-1]] = copy.deepcopy(value)
    return spoiled


def with_key(tree: Tree, path: Path, key: str) -> Tree:
    spoiled = copy.deepcopy(tree)
    holder = at(spoiled, path[:-1])
    items = [(key if step == path[-1] else step, value) for step, value in holder.items()]
    holder.clear()
    holder.update(items)
    return spoiled


@st.composite
def spoiled(draw: st.DrawFn, times: int = 3) -> Tree:
    """A sample with some values replaced, keys renamed or dropped."""
    tree = draw(st.sampled_from(OBJECTS))
    for _ in range(draw(st.integers(0, times))):
        choices = [path for path in places(tree) if path != ("kind",)]
        if not choices:
            break
        path = draw(st.sampled_from(choices))
        if isinstance(path[-1], str) and draw(st.booleans()):
            tree = with_key(tree, path, draw(st.sampled_from([path[-1] + "x", path[-1].upper(), "é\x07"])))
        else:
            tree = with_value(tree, path, draw(st.sampled_from([*WRONG, None, [], {}, "", 0])))
    return tree
