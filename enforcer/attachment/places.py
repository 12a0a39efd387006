"""A view of the host, asked about single pods and interfaces: what could lead to a pod, and what surely does. Pure."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from enforcer.attachment.hostview import HostView, leading_further
from enforcer.kernel.rtnetlink import Link
from policy.cidr import BITS, Address, Family, Prefix

# What leads into a pod. Other kinds lead elsewhere, or to several pods.
POD_KINDS = ("veth", "netkit", "tun")
# Calico's, AWS's (its second kind is for pods with an ENI of their own), Azure's.
HASHED_PREFIXES = ("cali", "eni", "vlan", "azv")
_HASHED = re.compile(f"({'|'.join(HASHED_PREFIXES)})[0-9a-f]{{11}}")


class Places:
    """A view of the host, arranged for questions about single pods. `candidates` are the interfaces that could be a
    pod's, `hashed` those of them that are named as plugins name a pod's."""

    def __init__(self, host: HostView, host_interfaces: Sequence[str] = ()) -> None:
        self.host = host
        self._further = leading_further(host)
        self.by_name = {name: link for index, link in host.links.items() if (name := host.name(index))}
        self.candidates = frozenset(
            name
            for name, link in self.by_name.items()
            if link.kind in POD_KINDS
            and link.index not in self._further
            and not any(fnmatchcase(name, pattern) for pattern in host_interfaces)
        )
        self.hashed = frozenset(name for name in self.candidates if _HASHED.fullmatch(name))
        self._routes: dict[Address, set[str]] = defaultdict(set)
        self._seen: dict[tuple[int, bytes], set[int]] = defaultdict(set)
        for (bridge, mac, _), port in host.fdb.items():
            self._seen[bridge, mac].add(port)
        self._networks: dict[Family, dict[int, dict[int, set[int]]]] = {4: {}, 6: {}}
        for route in host.routes:
            family, length = route.prefix.family, route.prefix.length
            if length == BITS[family] and not route.gateway:
                address = Address(family, route.prefix.network)
                self._routes[address] |= set(map(host.name, route.interfaces)) - {""}
            if not route.gateway:
                of_length = self._networks[family].setdefault(length, {})
                of_length.setdefault(route.prefix.network, set()).update(route.interfaces)

    def routed(self, address: Address) -> frozenset[str]:
        """The candidates that host routes to `address` lead to."""
        return self.candidates.intersection(self._routes.get(address, ()))

    def routed_further(self, address: Address) -> set[str]:
        """Interfaces as pods have them that host routes to `address` lead to, and that lead further too."""
        names = self._routes.get(address, set())
        return {n for n in names if self.by_name[n].kind in POD_KINDS and self.by_name[n].index in self._further}

    def leads_to_a_pod(self, name: str) -> bool:
        """Into another namespace, and no further: a veth whose both ends are here is the node's own plumbing."""
        return name in self.candidates and self.by_name[name].peer_netns >= 0

    def master(self, name: str) -> Link | None:
        link = self.by_name.get(name)
        return self.host.links.get(link.master) if link else None

    def bridge(self, name: str) -> str:
        """The bridge that an interface is a port of, else ""."""
        master = self.master(name)
        return master.name if master and master.kind == "bridge" else ""

    def network_of(self, address: Address) -> frozenset[int]:
        """The interfaces whose network, the narrowest one, `address` is in; it may be a network of one address."""
        networks = self._networks[address.family]
        for length in sorted(networks, reverse=True):
            host_bits = BITS[address.family] - length
            if found := networks[length].get(address.value >> host_bits << host_bits):
                return frozenset(found)
        return frozenset()

    def observed(self, address: Address) -> frozenset[str]:
        """The ports where the bridge that `address` is routed to has seen it."""
        ports = set()
        for index in self.network_of(address):
            mac = self.host.neighbours.get((index, address))
            ports |= self._seen.get((index, mac), set()) if mac else set()
        return self.candidates.intersection(map(self.host.name, ports))

    def uplinks(self) -> set[str]:
        """Interfaces that lead further. Not one that is named as a pod's, nor a bridge unless it leads out and to no
        pod: what its ports bring in comes by it too."""
        names = {index: self.host.name(index) for index in self._further}
        return {
            name
            for index, name in names.items()
            if name
            and not _HASHED.fullmatch(name)
            and (self.host.links[index].kind != "bridge" or self._joins_no_pods(index))
        }

    def pods_network(self, attached: Collection[str], pod_cidrs: Sequence[Prefix]) -> set[str]:
        """The interfaces that surely lead to a pod, whose ever: by a name that only plugins for pods give, by a route
        to an address of the node's pods, or as ports of a bridge that is the pods' own. Containers of Docker, LXC or
        Podman have the same veths, but none of these."""
        bridges = self._pods_bridges(attached, pod_cidrs)
        routed = {name for address, names in self._routes.items() if _within(address, pod_cidrs) for name in names}
        return {
            name
            for name, link in self.by_name.items()
            if (link.master in bridges or name in routed or name in self.hashed) and self.leads_to_a_pod(name)
        }

    def _pods_bridges(self, attached: Collection[str], pod_cidrs: Sequence[Prefix]) -> set[int]:
        """Those with an address among the pods', and those that have a pod's port."""
        found = {own.interface for own in self.host.own if _within(own.address, pod_cidrs)}
        found |= {self.by_name[name].master for name in attached if name in self.by_name}
        return {index for index in found if index in self.host.links and self.host.links[index].kind == "bridge"}

    def ports_beside(self, ports: Collection[str]) -> set[str]:
        """The ports of the same bridges that surely lead to no pod: hardware, tunnels, and the host's own."""
        masters = {self.by_name[name].master for name in ports if self.bridge(name)}
        return {n for n, link in self.by_name.items() if link.master in masters and n not in self.candidates}

    def _joins_no_pods(self, bridge: int) -> bool:
        """Whether it leads out, and has no port that a pod could be behind."""
        ports = [link for link in self.host.links.values() if link.master == bridge]
        return any(not port.kind for port in ports) and not any(port.kind in POD_KINDS for port in ports)


def _within(address: Address, blocks: Iterable[Prefix]) -> bool:
    return any(block.holds(address) for block in blocks)


@lru_cache(maxsize=4096)
def hashed_names(namespace: str, pod: str) -> tuple[str, ...]:
    """What plugins that name an interface by the pod would call its own."""
    digest = hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
    return tuple(f"{prefix}{digest[:11]}" for prefix in HASHED_PREFIXES)
