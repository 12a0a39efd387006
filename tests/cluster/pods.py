"""Objects that the tests of the cluster apply: pods of busybox, services before them, and policies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.cluster import images
from tests.cluster.cluster import Cluster

Object = dict[str, Any]
AGENT_IMAGE = "podfence:0.1.0"
READY_FOLDER = "/run/podfence/pods"


def _pod(name: str, node: str, app: str, container: Object) -> Object:
    """On `node`, or where the scheduler wants it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": ({"nodeName": node} if node else {}) | {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def _container(name: str, shell: str) -> Object:
    return {"name": name, "image": images.BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", shell]}


def server(name: str, node: str, *, app: str = "", port: int = 8080, host_network: bool = False) -> Object:
    """A pod on `node` whose HTTP server on `port` answers with the pod's name; kubelet asks it before it is Ready."""
    serve = f"mkdir /www && echo {name} >/www/index.html && exec httpd -f -h /www -p {port}"
    probe = {"readinessProbe": {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}}
    pod = _pod(name, node, app or name, _container("server", serve) | probe)
    pod["spec"]["hostNetwork"] = host_network
    return pod


def sleeper(name: str, node: str = "", app: str = "") -> Object:
    return _pod(name, node, app or name, _container("sleeper", "exec sleep infinity"))


def gated(pod: Object) -> Object:
    """Not Ready before the agent says that its policies hold."""
    pod["spec"]["readinessGates"] = [{"conditionType": "podfence.io/policy-ready"}]
    return pod


def init_waits(pod: Object) -> Object:
    """Its containers start when its policies hold, as docs/agent.md has it."""
    init = {
        "name": "policies",
        "image": AGENT_IMAGE,
        "args": ["node", "wait"],
        "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
        "volumeMounts": [{"name": "ready", "mountPath": READY_FOLDER, "readOnly": True}],
    }
    pod["spec"] |= {"initContainers": [init], "volumes": [{"name": "ready", "hostPath": {"path": READY_FOLDER}}]}
    return pod


def sends_at_once(targets: Iterable[tuple[str, int]]) -> Object:
    """A container that sends UDP to all targets from its first instruction on, again and again."""
    sends = [f"timeout 1 tftp -g -r x -l /dev/null {address} {port}" for address, port in targets]
    shell = "".join(f"(while :; do {send}; usleep 500000; done) >/dev/null 2>&1 & " for send in sends)
    return _container("sends", shell + "exec sleep infinity")


def job(name: str, node: str, app: str, targets: Sequence[tuple[str, int]], times: int) -> Object:
    """That many pods at once, each of which connects to all targets as the first thing it does, once, and fails where
    one can't be reached. Nothing is tried a second time, neither by them nor for them."""
    connect = "import ast, socket, sys; [socket.create_connection(each, 20) for each in ast.literal_eval(sys.argv[1])]"
    container = {
        "name": "connects",
        "image": AGENT_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", connect, repr(list(targets))],
    }
    template = _pod(name, node, app, container)
    template["spec"]["restartPolicy"] = "Never"
    spec = {
        "completions": times,
        "parallelism": times,
        "backoffLimit": 0,
        "template": {"metadata": {"labels": {"app": app}}, "spec": template["spec"]},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def deployment(name: str, namespace: str, container: Object) -> Object:
    template = _pod(name, "", name, container)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def node_port(name: str, *, port: int, node_port: int, app: str = "") -> Object:
    """A service before the pods of `app`, by default the pod of the same name; for both families, on each node."""
    ports = [{"port": 80, "targetPort": port, "nodePort": node_port}]
    spec = {"type": "NodePort", "selector": {"app": app or name}, "ports": ports, "ipFamilyPolicy": "RequireDualStack"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def policy_of(name: str, spec: Mapping[str, Any], namespace: str = "default") -> Object:
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return head | {"metadata": {"name": name, "namespace": namespace}, "spec": dict(spec)}


def policy(name: str, labels: Mapping[str, str], *, ingress: Sequence[Object]) -> Object:
    """Of ingress alone, on the pods with these labels."""
    spec = {"podSelector": {"matchLabels": dict(labels)}, "policyTypes": ["Ingress"], "ingress": list(ingress)}
    return policy_of(name, spec)


def from_app(app: str) -> Object:
    """A rule that allows the pods with this label, of the policy's namespace."""
    return {"from": [{"podSelector": {"matchLabels": {"app": app}}}]}


def addresses_of(pod: Object) -> tuple[str, ...]:
    return tuple(entry["ip"] for entry in pod["status"]["podIPs"])


def addresses(cluster: Cluster, name: str, namespace: str = "default") -> tuple[str, ...]:
    """Of both families, of a pod that runs."""
    return addresses_of(json.loads(cluster.kubectl("get", "pod", name, f"--namespace={namespace}", "-o", "json")))
