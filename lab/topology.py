"""Cluster → the namespaces that make it real. Pure: equal clusters give equal labs.

    pod ── veth ── node ── veth ── outside ── veth ── node ── veth ── pod

Every namespace but `outside` hangs on one router by one routed veth, as pods do with Calico: its end is `eth0` with
host addresses and a default route to a link-local gateway, the router's end has a host route for each address behind
it. There is no NAT. `outside` joins the nodes, and has addresses that stand for the rest of the world.

Pods that are attached to a bridge hang on their node by a port of it, as with the CNI plugin `bridge` and with Flannel:
they find pods in their node's blocks by themselves, and everybody else through the bridge. Where it is mixed, nodes
take turns: pods of the first are routed, those of the second on a bridge, and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from policy.cidr import Address, Family, Prefix, parse_address, parse_cidr
from policy.errors import UsageError
from policy.model import Cluster, Node, Pod, Protocol

Attach = Literal["routed", "bridge", "mixed"]

OUTSIDE = "outside"
BRIDGE = "cni0"
OUTSIDE_ADDRESSES = (parse_address("203.0.113.1"), parse_address("2001:db8::1"))

_DEFAULT_NODES = ("node-1", "node-2")
_POD_CIDRS = ("10.244.{}.0/24", "fd00:10:244:{:x}::/64")
_NODE_ADDRESSES = ("172.18.0.{}", "fd00:172:18::{:x}")
_MAX_NODES = 120
_MAX_NAME = 255

Listen = tuple[Protocol, int]


class Host(Struct, frozen=True):
    """One network namespace. `place` is a pod's key, a node's name or OUTSIDE; `router` is the place that its default
    route leads to, "" for OUTSIDE; `link` is the router's end of the veth, `mac` the address of its own end.
    `bridge` is what a pod's `link` is a port of, or what a node has for its pods; `neighbours` are blocks in which a
    pod looks for others by itself."""

    place: str
    netns: str
    addresses: tuple[Address, ...]
    listens: frozenset[Listen]
    router: str = ""
    link: str = ""
    mac: str = ""
    bridge: str = ""
    neighbours: tuple[Prefix, ...] = ()

    def address(self, family: Family) -> Address:
        """The first one of the family. UsageError where it has none."""
        for address in self.addresses:
            if address.family == family:
                return address
        raise UsageError(f"{self.place} has no IPv{family} address in this lab")


def complete(cluster: Cluster) -> Cluster:
    """`cluster` with what a running one would have: nodes (two, where it names none), both families on each node, a
    node for each pod, and an address of each of its node's families for a pod that has none at all.
    UsageError where addresses clash or run out."""
    nodes = _complete_nodes(cluster)
    taken = {address for pod in cluster.pods if not pod.finished for address in pod.addresses}
    taken.update(address for node in nodes.values() for address in node.addresses)
    pools = {name: [_free(prefix, taken) for prefix in node.pod_cidrs] for name, node in nodes.items()}
    turns = cycle(nodes)
    pods = []
    for pod in cluster.pods:
        name = pod.node or next(turns)
        addresses = pod.addresses
        if pod.host_network:
            addresses = nodes[name].addresses
        elif not addresses and not pod.finished:
            addresses = tuple(_take(pool, name) for pool in pools[name])
        pods.append(replace(pod, node=name, addresses=addresses))
    return replace(cluster, pods=pods, nodes=list(nodes.values()))


def _complete_nodes(cluster: Cluster) -> dict[str, Node]:
    nodes = {node.name: node for node in cluster.nodes}
    for pod in cluster.pods:
        if pod.node:
            nodes.setdefault(pod.node, Node(pod.node, {"kubernetes.io/hostname": pod.node}))
    for name in () if nodes else _DEFAULT_NODES:
        nodes[name] = Node(name, {"kubernetes.io/hostname": name})
    if OUTSIDE in nodes:
        raise UsageError(f"a lab can't have a node named {OUTSIDE}: that is its name for the rest of the world")
    if len(nodes) > _MAX_NODES:
        raise UsageError(f"a lab has at most {_MAX_NODES} nodes, not {len(nodes)}")
    taken = {address for node in cluster.nodes for address in node.addresses}
    numbers = (n for n in range(2, 255) if taken.isdisjoint(_numbered(_NODE_ADDRESSES, n)))
    for name, node in nodes.items():
        families = {address.family for address in node.addresses}
        if len(families) < 2 or not node.pod_cidrs:
            number = next(numbers)
            fresh = (address for address in _numbered(_NODE_ADDRESSES, number) if address.family not in families)
            blocks = node.pod_cidrs or tuple(parse_cidr(text.format(number)) for text in _POD_CIDRS)
            nodes[name] = replace(node, addresses=(*node.addresses, *fresh), pod_cidrs=blocks)
    return nodes


def _numbered(templates: Sequence[str], number: int) -> list[Address]:
    return [parse_address(text.format(number)) for text in templates]


def _free(block: Prefix, taken: set[Address]) -> Iterator[Address]:
    """The addresses of a block that nobody has: neither its network's own, nor the IPv4 broadcast."""
    for value in range(block.network + 1, block.last):
        address = Address(block.family, value)
        if address not in taken:
            taken.add(address)
            yield address


def _take(pool: Iterator[Address], node: str) -> Address:
    for address in pool:
        return address
    raise UsageError(f"node {node} has no free pod address left: give it a larger podCIDR, or spread the pods")


def hosts(cluster: Cluster, lab: str, listen: Sequence[Listen] = (), attach: Attach = "routed") -> dict[str, Host]:
    """The namespaces of a complete cluster by place, routers first. A hostNetwork pod's place is its node's host; a
    finished pod has none. Each listens on the ports that its containers declare, and on `listen`."""
    bridges = _bridges(cluster, attach)
    blocks = {node.name: node.pod_cidrs for node in cluster.nodes}
    everywhere = frozenset(listen)
    found = {OUTSIDE: Host(OUTSIDE, _netns(lab, OUTSIDE), OUTSIDE_ADDRESSES, everywhere)}
    living = [pod for pod in cluster.pods if not pod.finished]
    for node in cluster.nodes:
        shared = [pod for pod in living if pod.host_network and pod.node == node.name]
        listens = everywhere.union(*(declared(pod) for pod in shared))
        host = _host(node.name, _netns(lab, "node", node.name), node.addresses, listens, OUTSIDE, bridges[node.name])
        found[node.name] = host
        found.update((pod.key, host) for pod in shared)
    for pod in living:
        if not pod.host_network:
            netns, bridge = _netns(lab, "pod", pod.namespace, pod.name), bridges[pod.node]
            neighbours = blocks[pod.node] if bridge else ()
            listens = everywhere | declared(pod)
            found[pod.key] = _host(pod.key, netns, pod.addresses, listens, pod.node, bridge, neighbours)
    _refuse_clashes(found)
    return found


def _bridges(cluster: Cluster, attach: Attach) -> dict[str, str]:
    """By node: the bridge of its pods, "" where they are routed."""
    bridged = {"routed": (False,), "bridge": (True,), "mixed": (False, True)}[attach]
    return {node.name: BRIDGE if on_it else "" for node, on_it in zip(cluster.nodes, cycle(bridged), strict=False)}


def find(found: Mapping[str, Host], place: str) -> Host:
    """UsageError where there is no such place."""
    try:
        return found[place]
    except KeyError:
        raise UsageError(f"the lab has no pod or node {place}") from None


def declared(pod: Pod) -> frozenset[Listen]:
    return frozenset((port.protocol, port.port) for port in pod.ports)


def _netns(lab: str, *parts: str) -> str:
    """A file name of its own for each place of each lab: a lab's name has no dot, nor has a namespace's. A pod that
    stands for a workload is called `deploy/web`; no name of an object has a colon."""
    name = ".".join((f"pf-{lab}", *parts)).replace("/", ":")
    return name if len(name) <= _MAX_NAME else f"{name[:200]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _host(
    place: str,
    netns: str,
    addresses: tuple[Address, ...],
    listens: frozenset[Listen],
    router: str,
    bridge: str = "",
    neighbours: tuple[Prefix, ...] = (),
) -> Host:
    """On a bridge who has a pod's addresses next has its MAC address too, so that others need not find it anew: as with
    plugins that make one of the other."""
    link = f"veth{_digest(place)[:8]}"
    digest = _digest(" ".join(map(str, addresses)) if neighbours else place)
    mac = "02:" + ":".join(digest[i : i + 2] for i in range(0, 10, 2))
    return Host(place, netns, addresses, listens, router, link, mac, bridge, neighbours)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_clashes(found: dict[str, Host]) -> None:
    owners: dict[Address, str] = {}
    for host in found.values():
        for address in host.addresses:
            owner = owners.setdefault(address, host.place)
            if owner != host.place:
                raise UsageError(f"{owner} and {host.place} both have the address {address}")
