"""From the names that people use to the ends of a flow.

A name is a pod (`web` with a default namespace, `shop/web`, `shop/pod/web`), a workload (`deploy/web`,
`shop/deploy/web`), a Service (`svc/api`, `shop/svc/api`), a node (`node/n1`), an address, which is whoever has it, a
CIDR, or `internet`: every public address that no pod or node of the cluster has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from compiler.compile import Compiled
from compiler.prefixes import AddressSet, addresses_of
from compiler.verdict import End
from podfence.scope import KINDS
from policy.cidr import Address, parse_address, parse_cidr
from policy.errors import UsageError
from policy.labels import bare
from policy.model import Labels, Pod, Service

# Addresses that are nobody's: set aside for documentation (RFC 5737, RFC 3849).
INTERNET = (parse_address("203.0.113.1"), parse_address("2001:db8::1"))
# What is not public: this host, private, shared, link-local, benchmarks, multicast and reserved (RFC 6890).
_NOT_PUBLIC = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
)
Sort = Literal["pod", "workload", "service", "node", "address", "block", "internet"]


class Named(Struct, frozen=True):
    """What a name stands for: its full form, and an end for each of its addresses (one without, where it has none).

    Of a `block` the ends are examples only: `podfence.blocks` says where its addresses differ. Of a `service` that is
    called by its name there are none: `podfence.services` says where it leads; one that is called by an address has
    the address for its end."""

    name: str
    ends: tuple[End, ...]
    sort: Sort = "pod"
    block: AddressSet | None = None
    service: Service | None = None


class Ends:
    """Names looked up in one cluster. Each name has one reading, or is refused with all of them."""

    def __init__(self, compiled: Compiled, namespace: str = "default") -> None:
        self._compiled = compiled
        self._namespace = namespace
        self._nodes = {node.name: node.addresses for node in compiled.cluster.nodes}
        self._node_of: dict[Address, str] = {a: name for name, addresses in self._nodes.items() for a in addresses}
        self._workloads: dict[str, list[Pod]] = {}
        for pod in compiled.cluster.pods:
            if pod.host_network and pod.node:
                self._node_of.update((address, pod.node) for address in pod.addresses)
            if pod.workload:
                self._workloads.setdefault(f"{pod.namespace}/{pod.workload}", []).append(pod)
        self._services = {f"{each.namespace}/svc/{each.name}": each for each in compiled.cluster.services}
        self._known: dict[str, Named] = {}

    def find(self, name: str) -> Named:
        """UsageError where nothing has that name, with the nearest ones, or where two things do, with both."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._find(name)
        return found

    def to_be(self, name: str, labels: Labels) -> Named:
        """A pod that need not be there yet, with these labels, or one that is, as it would be with them."""
        namespace, slash, rest = name.rpartition("/")
        key = f"{namespace if slash else self._namespace}/{rest}"
        if "/" in namespace or not rest:
            raise UsageError(f"{name!r} is no name for a pod with labels of its own, expected NAMESPACE/NAME")
        known = self._compiled.pods.get(key)
        if known is None:
            pod = Pod(key.partition("/")[0], rest, labels)
            return Named(key, (End(pod),))
        pod = Pod(known.namespace, known.name, labels, node=known.node, addresses=known.addresses, ports=known.ports)
        return Named(key, _ends(pod))

    @property
    def nodes(self) -> Mapping[str, tuple[Address, ...]]:
        return self._nodes

    def at(self, address: Address) -> End:
        """Whoever has the address."""
        return End(self._compiled.pod_at(address), address, self._node_of.get(address, ""))

    def held_by_nodes(self) -> Iterable[Address]:
        return self._node_of

    def _find(self, name: str) -> Named:
        if name == "internet":
            ends = tuple(End(address=address) for address in INTERNET)
            return Named(name, ends, "internet", public_addresses())
        try:
            if "/" in name:
                block = parse_cidr(name)
                return Named(
                    str(block), (self.at(Address(block.family, block.network)),), "block", addresses_of([block])
                )
            return self._addressed(name, parse_address(name))
        except ValueError:
            pass
        readings = list(dict.fromkeys(self._readings(name)))
        if len(readings) > 1:
            raise UsageError(f"{name!r} is ambiguous: " + " or ".join(readings))
        if not readings:
            raise UsageError(f"no pod, workload, Service or node is called {name!r}{self._nearest(name)}")
        return self._named(readings[0])

    def _addressed(self, name: str, address: Address) -> Named:
        for service in self._compiled.cluster.services:
            if address in service.cluster_ips or address in service.entry_addresses:
                return Named(name, (self.at(address),), "service", service=service)
        return Named(name, (self.at(address),), "node" if self._node_of.get(address) else "address")

    def _readings(self, name: str) -> Iterable[str]:
        """The full names that `name` can stand for: `namespace/pod/web`, `namespace/deploy/web`, `node/n1`."""
        parts = name.split("/")
        if len(parts) == 1:
            candidates = [(self._namespace, "pod", name)]
        elif len(parts) == 2:
            kind = KINDS.get(parts[0], parts[0])
            candidates = [(parts[0], "pod", parts[1]), (self._namespace, kind, parts[1])]
        else:
            candidates = [(parts[0], KINDS.get(parts[1], parts[1]), "/".join(parts[2:]))]
        for namespace, kind, rest in candidates:
            full = f"{namespace}/{kind}/{rest}"
            if kind == "node" and rest in self._nodes:
                yield f"node/{rest}"
            elif kind == "pod" and f"{namespace}/{rest}" in self._compiled.pods:
                yield f"{namespace}/pod/{rest}"
            elif full in self._workloads or full in self._services:
                yield full

    def _named(self, full: str) -> Named:
        if full.startswith("node/") and full.count("/") == 1:
            node = full.removeprefix("node/")
            ends = tuple(End(None, address, node) for address in self._nodes[node]) or (End(node=node),)
            return Named(full, ends, "node")
        namespace, kind, rest = full.split("/", 2)
        if kind == "svc":
            return Named(full, (), "service", service=self._services[full])
        if kind != "pod":
            pods = self._workloads[full]
            # A finished pod's address may be someone else's: what is asked about is those that run, or would again.
            pods = [pod for pod in pods if not pod.finished] or pods
            return Named(full, tuple(end for pod in pods for end in _ends(pod)), "workload")
        pod = self._compiled.pods[f"{namespace}/{rest}"]
        return Named(pod.key, _ends(pod))

    def _nearest(self, name: str) -> str:
        from difflib import get_close_matches

        known = [*self._compiled.pods, *self._workloads, *self._services, *(f"node/{node}" for node in self._nodes)]
        asked = [name, f"{self._namespace}/{name}", name.replace("/", "/pod/", 1)] if "/" in name else []
        asked = asked or [f"{self._namespace}/{name}"]
        # The same name elsewhere, or of another kind, is nearer than any spelling.
        last = name.rpartition("/")[2]
        near = [each for each in known if each.rpartition("/")[2] == last][:3]
        near += [each for text in asked for each in get_close_matches(text, known, n=3, cutoff=0.6)]
        shown = list(dict.fromkeys(near))[:3]
        return f"; near it: {', '.join(map(bare, shown))}" if shown else ""


def public_addresses() -> AddressSet:
    """Those that the world routes."""
    whole = addresses_of([parse_cidr("0.0.0.0/0"), parse_cidr("2000::/3")])
    return whole.difference(addresses_of(map(parse_cidr, _NOT_PUBLIC)))


def _ends(pod: Pod) -> tuple[End, ...]:
    node = pod.node if pod.host_network else ""
    return tuple(End(pod, address, node) for address in pod.addresses) or (End(pod, None, node),)


def can_speak(one: End, other: End) -> bool:
    """Whether they have a family in common, or an address that is not known yet."""
    return not (one.address and other.address) or one.address.family == other.address.family


def pairs(src: Named, dst: Named) -> tuple[tuple[End, End], ...]:
    """The pairs of ends that can speak: those of one family, where both have addresses. Where a workload is an end, a
    pod of it to itself is not what is asked about, unless it has no other."""
    speaking = tuple((one, other) for one in src.ends for other in dst.ends if can_speak(one, other))
    apart = tuple(pair for pair in speaking if not one_pod(*pair))
    return apart or speaking


def one_pod(one: End, other: End) -> bool:
    return one.pod is not None and other.pod is not None and one.pod.key == other.pod.key
