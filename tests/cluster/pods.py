"""Objects that the tests of the cluster apply: pods of busybox that serve a page, and services before them."""

from __future__ import annotations

from tests.cluster import images

Object = dict[str, object]


def server(name: str, node: str, *, port: int = 8080, host_network: bool = False) -> Object:
    """A pod on `node` whose HTTP server on `port` answers with the pod's name; kubelet asks it before it is Ready."""
    serve = f"mkdir /www && echo {name} >/www/index.html && exec httpd -f -h /www -p {port}"
    container = {
        "name": "server",
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", serve],
        "readinessProbe": {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


def node_port(name: str, *, port: int, node_port: int) -> Object:
    """A service before the pod of the same name, for both families, open on each node."""
    ports = [{"port": 80, "targetPort": port, "nodePort": node_port}]
    spec = {"type": "NodePort", "selector": {"app": name}, "ports": ports, "ipFamilyPolicy": "RequireDualStack"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
