"""A lab's cluster as objects of the API: what `-f` takes, with the nodes and addresses that the lab gave. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policy.decode_pod import WORKLOADS
from policy.model import Cluster, ContainerPort, Labels, Namespace, Node, Pod

Object = dict[str, Any]
_KINDS = {short: kind for kind, short in WORKLOADS.items()}


def api_objects(cluster: Cluster) -> Object:
    """The nodes, namespaces and pods of `cluster` as one List: read again, they are the same, but for one name.
    What stands for a workload is `deploy.web` instead of `deploy/web`, a pod that this workload owns."""
    items = [*map(_node, cluster.nodes), *map(_namespace, cluster.namespaces), *map(_pod, cluster.pods)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _object(kind: str, name: str, labels: Labels, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels, **more}}


def _node(node: Node) -> Object:
    addresses = [{"type": "InternalIP", "address": each} for each in _texts(node.addresses)]
    spec = {"podCIDRs": _texts(node.pod_cidrs)}
    return {**_object("Node", node.name, node.labels), "spec": spec, "status": {"addresses": addresses}}


def _namespace(namespace: Namespace) -> Object:
    return _object("Namespace", namespace.name, namespace.labels)


def _pod(pod: Pod) -> Object:
    about: Object = {"namespace": pod.namespace}
    if pod.uid:
        about["uid"] = pod.uid
    if pod.workload:
        short, _, owner = pod.workload.partition("/")
        about["ownerReferences"] = [{"kind": _KINDS[short], "name": owner, "controller": True}]
    if pod.deleting:
        # When it will be gone is not kept, and nothing asks.
        about["deletionTimestamp"] = "1970-01-01T00:00:00Z"
    ports = [_port(port) for port in pod.ports]
    spec: Object = {"nodeName": pod.node, "containers": [{"name": "main", "ports": ports}]}
    if pod.host_network:
        spec["hostNetwork"] = True
    addresses = _texts(pod.addresses)
    status: Object = {"phase": pod.phase or "Running", "podIPs": [{"ip": each} for each in addresses]}
    if addresses:
        status["podIP"] = addresses[0]
    made = _object("Pod", pod.name.replace("/", "."), pod.labels, **about)
    return {**made, "spec": spec, "status": status}


def _port(port: ContainerPort) -> Object:
    made: Object = {"containerPort": port.port, "protocol": port.protocol}
    if port.name:
        made["name"] = port.name
    if port.host_port:
        made["hostPort"] = port.host_port
    return made


def _texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]
