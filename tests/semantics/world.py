"""A small cluster, always the same, to write policies against. Two nodes, two namespaces of two pods each:

    shop/web  app=web  node-0  TCP http 80, UDP dns 53          shop/db  app=db  node-0  TCP http 8080
    bank/web  app=web  node-1  TCP http 8000                    bank/db  app=db  node-1  (no ports)

Namespaces carry `team` with their name; all pods have an address of both families. Each answer is asked of the
verdict, and it is an error if the simulated rules or the oracle say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from compiler.verdict import NodeEgress, Verdict
from tests.engine import Engine
from tests.oracle import End, Flow, Oracle
from tests.oracle.fields import Object, name_of, namespace, node_addresses, pod_addresses

NODES = {"node-0": ("192.0.2.10", "2001:db8::10"), "node-1": ("192.0.2.11", "2001:db8::11")}
OUTSIDE = "203.0.113.7"
OUTSIDE_6 = "2001:db8:ffff::7"


def policy(spec: str, key: str = "shop/policy", **top: Any) -> Object:
    """A NetworkPolicy from the YAML of its spec; `top` are further fields at its top level."""
    space, name = key.split("/")
    metadata = {"name": name, "namespace": space}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": yaml.safe_load(spec),
        **top,
    }


def pod(key: str, addresses: list[str], node: str = "node-0", ports: str = "", **labels: str) -> Object:
    """`ports` is like "http:80/TCP dns:53/UDP"."""
    space, name = key.split("/")
    status: Object = {"phase": "Running"}
    if addresses:
        status |= {"podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses]}
    container = {"name": "main", "image": "none", "ports": [_port(each) for each in ports.split()]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": labels},
        "spec": {"nodeName": node, "containers": [container]},
        "status": status,
    }


def _port(text: str) -> Object:
    name, rest = text.split(":")
    number, protocol = rest.split("/")
    return {"name": name, "containerPort": int(number), "protocol": protocol}


def space(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def node(name: str) -> Object:
    number = name.removeprefix("node-")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": [f"10.1.{number}.0/24", f"fd00:1:0:{number}::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in NODES[name]]},
    }


def standing() -> list[Object]:
    return [
        *map(node, NODES),
        space("shop", team="shop"),
        space("bank", team="bank"),
        pod("shop/web", ["10.1.0.10", "fd00:1::a"], "node-0", "http:80/TCP dns:53/UDP", app="web"),
        pod("shop/db", ["10.1.0.11", "fd00:1::b"], "node-0", "http:8080/TCP", app="db"),
        pod("bank/web", ["10.1.1.10", "fd00:1:0:1::a"], "node-1", "http:8000/TCP", app="web"),
        pod("bank/db", ["10.1.1.11", "fd00:1:0:1::b"], "node-1", app="db"),
    ]


@dataclass
class World:
    """The standing cluster with some more objects; one of the same kind and name takes the place of a standing one."""

    more: list[Object] = field(default_factory=list)
    node_egress: NodeEgress = "enforce"

    def __post_init__(self) -> None:
        objects = {(each["kind"], namespace(each), name_of(each)): each for each in [*standing(), *self.more]}
        self.objects = list(objects.values())
        self.engine = Engine(self.objects, self.node_egress)
        self.oracle = Oracle(self.objects)

    def ingress(self, src: str, dst: str, port: str = "80/TCP") -> bool:
        """Whether the destination's ingress allows it."""
        return self.verdict(src, dst, port).ingress.allowed

    def egress(self, src: str, dst: str, port: str = "80/TCP") -> bool:
        """Whether the source's egress allows it."""
        return self.verdict(src, dst, port).egress.allowed

    def passes(self, src: str, dst: str, port: str = "80/TCP") -> bool:
        return self.verdict(src, dst, port).allowed

    def who_reaches(self, dst: str, port: str = "80/TCP") -> set[str]:
        """The pods that have an address, and the outside, that pass; the destination itself left out."""
        having = [each for each in self.objects if each["kind"] == "Pod" and pod_addresses(each)]
        pods = [f"{namespace(each)}/{name_of(each)}" for each in having]
        return {src for src in [*pods, OUTSIDE] if src != dst and self.passes(src, dst, port)}

    def verdict(self, src: str, dst: str, port: str = "80/TCP") -> Verdict:
        """An end is an address, or a pod or node, by its first address; `port` may be "ICMP"."""
        number, _, protocol = port.partition("/") if "/" in port else ("0", "", port)
        flow = Flow(self._end(src), self._end(dst), protocol, int(number))
        verdict = self.engine.verdict(flow)
        assert self.oracle.halves(flow, self.node_egress) == self.engine.halves(flow), f"the oracle differs on {flow}"
        assert self.engine.simulated(flow) == verdict.allowed, f"the simulated rules differ on {flow}"
        return verdict

    def _end(self, text: str) -> End:
        for each in self.objects:
            if each["kind"] == "Pod" and f"{namespace(each)}/{name_of(each)}" == text:
                return End(str(pod_addresses(each)[0]), text)
            if each["kind"] == "Node" and name_of(each) == text:
                return End(str(node_addresses(each)[0]))
        return End(text)


def world(*specs: str | Object, node_egress: NodeEgress = "enforce") -> World:
    """The standing cluster with policies of the namespace shop, each the YAML of its spec, or with any objects."""
    named = [policy(each, f"shop/policy-{at}") if isinstance(each, str) else each for at, each in enumerate(specs)]
    return World(named, node_egress)
