"""Random clusters and flows, as plain API objects, made to collide.

Few labels, ports and names, so that policies meet pods; blocks drawn around the addresses of pods and at the edges of
other blocks; a share of rules and policies that nobody can understand. All choices come from one `random.Random`, so
a seed names a cluster, and Hypothesis's own kind of it (`st.randoms()`) makes clusters that shrink.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from random import Random
from typing import Any

from tests.generate.pods import labels_of, nodes_of, pods_on
from tests.generate.policies import policy
from tests.generate.words import NAMES, NAMESPACES, OUTSIDE, PROTOCOLS
from tests.oracle import End, Flow
from tests.oracle.fields import Object, cidr, is_pod, pod_addresses


def cluster(rng: Random) -> list[Object]:
    """Nodes, namespaces, pods and policies, in random order."""
    nodes = nodes_of(rng)
    pods = pods_on(rng, nodes)
    anchors = [str(address) for pod in pods for address in pod_addresses(pod)]
    anchors += [each["address"] for node in nodes for each in node["status"]["addresses"]] + list(OUTSIDE)
    named = [(namespace, name) for namespace in NAMESPACES for name in NAMES]
    policies = [policy(rng, *key, anchors) for key in rng.sample(named, rng.randint(1, 7))]
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels_of(rng)}}
        for name in NAMESPACES
        if rng.random() < 0.8
    ]
    objects = [*nodes, *spaces, *pods, *policies]
    rng.shuffle(objects)
    return objects


def flows(rng: Random, objects: list[Object], count: int) -> list[Flow]:
    """Flows between those that can meet: their addresses are of one family, and somebody or somewhere."""
    ends = [
        End(str(address), f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        for pod in objects
        if pod["kind"] == "Pod"
        for address in pod_addresses(pod)
    ]
    live = {f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in objects if _live(pod)}
    subjects = [end for end in ends if end.pod in live]
    others = [End(end.address) for end in subjects] + [End(address) for address in _elsewhere(objects)]
    ports = sorted({near for number in _numbers(objects) for near in (number - 1, number, number + 1)})
    ports = [port for port in ports if 1 <= port <= 65535]
    found: list[Flow] = []
    while subjects and len(found) < count:
        subject = rng.choice(subjects)
        peers = [end for end in (ends if rng.random() < 0.6 else others) if _family(end) == _family(subject)]
        peer = subject if rng.random() < 0.02 or not peers else rng.choice(peers)
        src, dst = (subject, peer) if rng.random() < 0.5 else (peer, subject)
        protocol = "ICMP" if rng.random() < 0.03 else rng.choice(PROTOCOLS)
        found.append(Flow(src, dst, protocol, rng.choice(ports)))
    return found


def _live(each: Object) -> bool:
    return each["kind"] == "Pod" and is_pod(each)


def _family(end: End) -> int:
    return 6 if ":" in end.address else 4


def _elsewhere(objects: list[Object]) -> list[str]:
    """Nodes, the outside, and the edges of the blocks that policies speak of, where they are nobody's: an address in
    a node's pod block that no pod has is closed on that node, which is not a matter of policy."""
    found = set(OUTSIDE)
    nodes = [each for each in objects if each["kind"] == "Node"]
    found |= {each["address"] for node in nodes for each in node["status"]["addresses"]}
    taken = [ip_network(text) for node in nodes for text in node["spec"].get("podCIDRs", ())]
    for text in _texts(objects, "cidr"):
        try:
            network = cidr(str(text))
        except ValueError:
            continue
        first, last = int(network.network_address), int(network.broadcast_address)
        for value in (first - 1, first, last, last + 1):
            if 0 < value < 2**network.max_prefixlen:
                address = type(network.network_address)(value)
                special = address.is_multicast or address.is_loopback or address.is_link_local
                mapped = address.version == 6 and address.ipv4_mapped
                if not (special or mapped or any(address in each for each in taken)):
                    found.add(str(address))
    return sorted(found)


def _numbers(tree: Any) -> set[int]:
    mentioned = {_ for field in ("port", "endPort", "containerPort") for _ in _texts(tree, field)}
    return {each for each in mentioned if isinstance(each, int)} | {80}


def _texts(tree: Any, field: str) -> Iterator[Any]:
    """Every value of `field`, anywhere in `tree`, that is a scalar."""
    if isinstance(tree, list):
        for each in tree:
            yield from _texts(each, field)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if name == field and isinstance(value, int | str):
                yield value
            else:
                yield from _texts(value, field)
