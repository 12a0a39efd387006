"""API objects as a cluster stores them, in bytes: pods of 4.7 KB, and policies shaped as a published dump has them (few
pods, one port, now and then a block). Nothing is random, so that every run measures the same."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from msgspec import Struct

PORT = 8080
_ADDRESSES = 10 << 24


class World(Struct, frozen=True):
    """`pods` in `spaces` namespaces, of `apps` applications, which share their labels but where `own_labels`; `nodes`
    of 110 pods."""

    pods: int
    policies: int
    apps: int
    own_labels: bool = False

    @property
    def spaces(self) -> int:
        return max(self.pods // 166, 10)

    @property
    def nodes(self) -> int:
        return max(self.pods // 110, 1)

    def space_of(self, app: int) -> str:
        return f"team-{app % self.spaces}"


def namespace(world: World, number: int) -> bytes:
    name = f"team-{number % world.spaces}"
    labels = {"kubernetes.io/metadata.name": name, "env": "prod" if number % 3 else "test", "org": f"org-{number % 40}"}
    return _bytes({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def pod(world: World, number: int, **labels: str) -> bytes:
    """A running pod; `labels` beside its own, or in their place. An application's pods follow each other, as in a list
    of the API server's."""
    app = number * world.apps // world.pods % world.apps
    own = {"statefulset.kubernetes.io/pod-name": f"app-{app}-{number}"} if world.own_labels else {}
    value = _ADDRESSES + number + 2
    texts = {
        "NAME": f"app-{app}-{number * 2654435761 % 2**32:08x}-{number % 99991:05x}",
        "NAMESPACE": world.space_of(app),
        "LABELS": json.dumps(dict(sorted({**app_labels(app), **own, **labels}.items())), separators=(",", ":")),
        "OWNER": f"app-{app}-{app:010x}",
        "UID": f"{number:08x}-0000-4000-8000-{number * 40503 % 2**48:012x}",
        "NODE": f"node-{number % world.nodes}",
        "ADDRESS": ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0)),
    }
    head, *parts = _template()
    return "".join([head, *(texts[name] + tail for name, tail in parts)]).encode()


def app_labels(app: int) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": f"app-{app}",
        "app.kubernetes.io/part-of": f"suite-{app % 60}",
        "environment": "prod" if app % 3 else "test",
        "pod-template-hash": f"{app:010x}",
        "tier": ("web", "api", "data")[app % 3],
    }


def policy(world: World, number: int) -> bytes:
    """One application's, by turns: from an application of its namespace, from one of others, to a block, to all pods of
    an organisation's namespaces, by a port's name."""
    app = number * 7 % world.apps
    near = {"podSelector": _app((app + world.spaces) % world.apps)}
    far = {"namespaceSelector": {"matchLabels": {"org": f"org-{number % 40}"}}, "podSelector": _app(app // 2)}
    suite_labels = {"matchLabels": {"app.kubernetes.io/part-of": f"suite-{app % 60}"}}
    suite = {"namespaceSelector": {}, "podSelector": suite_labels}
    block = {"ipBlock": {"cidr": f"192.168.{number % 256}.0/24"}}
    ports = [{"protocol": "TCP", "port": "http" if number % 7 == 6 else PORT}]
    peers = ([near], [near], [near, far], [block], [near, block], [suite], [near])[number % 7]
    rule = {"from": peers, "ports": ports}
    spec: dict[str, Any] = {"podSelector": _app(app), "policyTypes": ["Ingress"], "ingress": [rule]}
    if number % 4 == 0:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": [{"to": [block, near]}]}
    return policy_of(world.space_of(app), f"policy-{number}", spec)


def policy_of(space: str, name: str, spec: dict[str, Any]) -> bytes:
    meta = {"creationTimestamp": "2026-01-01T00:00:00Z", "name": name, "namespace": space, "uid": f"{name:0>36}"}
    return _bytes({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})


def _app(app: int) -> dict[str, Any]:
    return {"matchLabels": {"app.kubernetes.io/name": f"app-{app}"}}


def _bytes(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()


@cache
def _template() -> tuple[Any, ...]:
    """A pod's JSON, cut at what differs: its first piece, then pairs of a field and the piece after it."""
    text = json.dumps(_pod_tree(), separators=(",", ":")).replace('"$LABELS$"', "$LABELS$")
    head, *rest = text.split("$")
    return (head, *zip(rest[::2], rest[1::2], strict=True))


def _pod_tree() -> dict[str, Any]:
    """As kubectl shows a Deployment's pod, keys sorted, without managed fields."""
    digest = "registry.example/shop/app@sha256:" + "b" * 64
    environment = [
        {"name": f"SETTING_{n}", "valueFrom": {"configMapKeyRef": {"key": f"setting-{n}", "name": "app-settings"}}}
        for n in range(12)
    ]
    get = {"path": "/healthz", "port": "http", "scheme": "HTTP"}
    probe = {"failureThreshold": 3, "httpGet": get, "periodSeconds": 10}
    secrets = "/var/run/secrets/kubernetes.io/serviceaccount"
    mount = {"mountPath": secrets, "name": "kube-api-access-x7x2p", "readOnly": True}
    container = {
        "env": environment,
        "image": "registry.example/shop/app:1.2.3",
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": probe,
        "name": "main",
        "ports": [
            {"containerPort": PORT, "name": "http", "protocol": "TCP"},
            {"containerPort": 9090, "name": "metrics", "protocol": "TCP"},
        ],
        "readinessProbe": probe,
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [mount],
    }
    tolerations = [
        {"effect": "NoExecute", "key": f"node.kubernetes.io/{key}", "operator": "Exists", "tolerationSeconds": 300}
        for key in ("not-ready", "unreachable")
    ]
    token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    root = {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}}
    started = "2026-01-01T00:00:00Z"
    conditions = [
        {"lastProbeTime": None, "lastTransitionTime": started, "status": "True", "type": name}
        for name in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    status = {
        "containerID": "containerd://" + "c" * 64,
        "image": "registry.example/shop/app:1.2.3",
        "imageID": digest,
        "lastState": {},
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "started": True,
        "state": {"running": {"startedAt": started}},
    }
    owner = {"apiVersion": "apps/v1", "blockOwnerDeletion": True, "controller": True, "kind": "ReplicaSet"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "annotations": {"checksum/config": "a" * 64, "prometheus.io/port": "9090", "prometheus.io/scrape": "true"},
            "creationTimestamp": started,
            "generateName": "$OWNER$-",
            "labels": "$LABELS$",
            "name": "$NAME$",
            "namespace": "$NAMESPACE$",
            "ownerReferences": [owner | {"name": "$OWNER$", "uid": "d" * 36}],
            "resourceVersion": "123456789",
            "uid": "$UID$",
        },
        "spec": {
            "containers": [container],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "nodeName": "$NODE$",
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "default",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": tolerations,
            "volumes": [{"name": mount["name"], "projected": {"defaultMode": 420, "sources": [token, root]}}],
        },
        "status": {
            "conditions": conditions,
            "containerStatuses": [status],
            "hostIP": "192.0.2.1",
            "phase": "Running",
            "podIP": "$ADDRESS$",
            "podIPs": [{"ip": "$ADDRESS$"}],
            "qosClass": "Burstable",
            "startTime": started,
        },
    }
