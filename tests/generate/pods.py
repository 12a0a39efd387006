"""Random nodes and pods: of either family or both, some of them the node itself, done, leaving or not there yet."""

from __future__ import annotations

from random import Random

from tests.generate.words import KEYS, NAMES, NAMESPACES, NUMBERS, PORT_NAMES, PROTOCOLS, VALUES
from tests.oracle.fields import Object, pod_addresses


def nodes_of(rng: Random) -> list[Object]:
    """The pod blocks of the first two may be halves next to each other; some nodes are given none."""
    halves = rng.random() < 0.3
    nodes: list[Object] = []
    for number in range(rng.choice((1, 2, 2, 3))):
        first = f"10.1.0.{128 * number}/25" if halves and number < 2 else f"10.1.{number}.0/24"
        blocks = [first, f"fd00:1:0:{number}::/64"]
        addresses = (f"192.0.2.{10 + number}", f"2001:db8::{10 + number}")
        nodes.append(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"node-{number}"},
                "spec": {"podCIDR": first, "podCIDRs": blocks} if rng.random() < 0.9 else {},
                "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
            }
        )
    return nodes


def pods_on(rng: Random, nodes: list[Object]) -> list[Object]:
    pods: list[Object] = []
    hosts = rng.sample(range(1, 127), 10)
    for (namespace, name), host in zip(_pod_names(rng), hosts, strict=False):
        number = rng.randrange(len(nodes))
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels_of(rng)},
            "spec": {"nodeName": f"node-{number}", **_containers(rng)},
            "status": {"phase": "Running"},
        }
        own = [f"10.1.{number}.{host}", f"fd00:1:0:{number}::{host:x}"]
        if nodes[number]["spec"].get("podCIDR", "").endswith(".128/25"):
            own[0] = f"10.1.0.{128 + host}"
        _make_odd(rng, pod, own, pods, nodes[number])
        pods.append(pod)
    return pods


def _make_odd(rng: Random, pod: Object, own: list[str], before: list[Object], node: Object) -> None:
    """Gives `pod` its addresses: of either family or both; a few pods are the node, done, leaving or not there yet."""
    addresses = rng.choice((own, own, own[:1], own[1:], own[::-1]))
    kind = rng.random()
    if kind < 0.06:
        pod["spec"]["hostNetwork"] = True
        addresses = [each["address"] for each in node["status"]["addresses"]]
    elif kind < 0.14:
        pod["status"]["phase"] = rng.choice(("Succeeded", "Failed"))
        # Its address is someone else's by now, or nobody's.
        addresses = ["10.9.9.9", "fd00:9::9"]
        if before and rng.random() < 0.7:
            addresses = [str(address) for address in pod_addresses(rng.choice(before))]
    elif kind < 0.2:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    elif kind < 0.23:
        pod["status"]["phase"] = "Pending"
        addresses = []
    if addresses:
        pod["status"] |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}


def _pod_names(rng: Random) -> list[tuple[str, str]]:
    return rng.sample([(namespace, name) for namespace in NAMESPACES for name in NAMES], rng.randint(2, 9))


def _containers(rng: Random) -> Object:
    def port() -> Object:
        found: Object = {"containerPort": rng.choice(NUMBERS)}
        if rng.random() < 0.8:
            found["name"] = rng.choice(PORT_NAMES)
        if rng.random() < 0.7:
            found["protocol"] = rng.choice(PROTOCOLS)
        return found

    def container(name: str, most: int) -> Object:
        ports = {(each.get("name"), each.get("protocol", "TCP")): each for each in (port() for _ in range(most))}
        return {"name": name, "image": "none", "ports": list(ports.values())}

    spec: Object = {"containers": [container("main", rng.randint(0, 3))]}
    if rng.random() < 0.2:
        restart = {"restartPolicy": "Always"} if rng.random() < 0.5 else {}
        spec["initContainers"] = [container("first", 1) | restart]
    return spec


def labels_of(rng: Random) -> dict[str, str]:
    return {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.6}
