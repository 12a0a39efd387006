"""What one node's kernel knows of its interfaces and of what is behind them, at one moment; and how changes that it
tells of lead from one such view to the next. Pure.

Some things the kernel does without telling, and they are done here too: with an interface that goes, or goes
down, go its routes. Where even that can't be known (routes that replace others, an address that takes routes
with it, an interface whose other end moves), `Tables` says what has to be read anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

from enforcer.kernel.rtnetlink import Change, Fact, Forwarding, Link, Neighbour, Own, Route
from policy.cidr import BITS, Address

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class HostView(Struct, frozen=True):
    """`links` by index. `routes` lead somewhere. `own` are the node's addresses. `neighbours`: the MAC address behind
    an address, by bridge and address. `fdb`: the port by bridge, MAC address and VLAN."""

    links: Mapping[int, Link] = {}
    routes: frozenset[Route] = frozenset()
    own: frozenset[Own] = frozenset()
    neighbours: Mapping[tuple[int, Address], bytes] = {}
    fdb: Mapping[tuple[int, bytes, int], int] = {}

    def name(self, index: int) -> str:
        """Of an interface; "" where there is none, or where its name ends in +: iptables would take that for every name
        that begins so."""
        link = self.links.get(index)
        return link.name if link and not link.name.endswith("+") else ""


def own_addresses(host: HostView) -> frozenset[Address]:
    return frozenset(each.address for each in host.own)


def leading_further(host: HostView) -> frozenset[int]:
    """The interfaces that lead to more than single addresses: where packets come from that are no pod's of this node.
    A bridge is one too; what its ports are is another question."""
    return frozenset(
        index
        for route in host.routes
        if route.gateway or route.prefix.length < BITS[route.prefix.family]
        for index in route.interfaces
    )


class Tables:
    """The same, as changes come in. `stale_links` and `stale_routes` are what has to be read anew,
    since a change may have had others with it."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.stale_links: set[int] = set()
        self.stale_routes = False
        self._links: dict[int, Link] = {}
        self._routes: set[Route] = set()
        self._own: set[Own] = set()
        self._neighbours: dict[tuple[int, Address], bytes] = {}
        self._fdb: dict[tuple[int, bytes, int], int] = {}
        for fact in facts:
            self._add(fact)

    def view(self) -> HostView:
        return HostView(
            self._links.copy(),
            frozenset(self._routes),
            frozenset(self._own),
            self._neighbours.copy(),
            self._fdb.copy(),
        )

    def replace_links(self, links: Iterable[Link]) -> None:
        self._links = {link.index: link for link in links}
        self.stale_links.clear()

    def refresh_links(self, links: Iterable[Link]) -> None:
        """Those of the stale ones that are still there; whether the others are gone, a change will say."""
        self._links |= {link.index: link for link in links if link.index in self._links}
        self.stale_links.clear()

    def replace_routes(self, routes: Iterable[Route]) -> None:
        self._routes = set(routes)
        self.stale_routes = False

    def apply(self, change: Change) -> bool:
        """Whether anything is otherwise now, as far as can be known."""
        fact = change.fact
        if isinstance(fact, Link):
            return self._apply_link(fact, change.gone)
        if isinstance(fact, Route) and change.replaces:
            self._routes = {route for route in self._routes if route.place != fact.place}
            self.stale_routes = True
        if isinstance(fact, Own) and change.gone:
            # IPv4: the route to its network goes too, and those with this address for their source.
            self.stale_routes = True
        return self._remove(fact) if change.gone else self._add(fact)

    def _apply_link(self, link: Link, gone: bool) -> bool:
        """Where the other end of a veth moves to, only a reading says: this side is not told of. What is here of it is
        told of when it goes or comes."""
        self.stale_links |= {link.index, *(each.index for each in self._links.values() if each.peer == link.index)}
        if link.peer and link.peer_netns < 0:
            self.stale_links.add(link.peer)
        if gone:
            self._links.pop(link.index, None)
            self._forget(link.index)
            return True
        if link.index not in self._links and link.kind != "bridge":
            self._neighbours = {key: mac for key, mac in self._neighbours.items() if key[0] != link.index}
        self._links[link.index] = link
        if not link.up:
            self._routes = {route for route in self._routes if link.index not in route.interfaces}
        return True

    def _forget(self, index: int) -> None:
        self._routes = {route for route in self._routes if index not in route.interfaces}
        self._own = {own for own in self._own if own.interface != index}
        self._neighbours = {key: mac for key, mac in self._neighbours.items() if key[0] != index}
        self._fdb = {key: port for key, port in self._fdb.items() if index not in (key[0], port)}

    def _add(self, fact: Fact) -> bool:
        match fact:
            case Link(index):
                self._links[index] = fact
            case Route():
                return _put(self._routes, fact)
            case Own():
                return _put(self._own, fact)
            case Neighbour(interface, address, mac):
                if not self._says_where(interface):
                    return False
                if not mac:
                    return self._remove(fact)
                return _set(self._neighbours, (interface, address), mac)
            case Forwarding(bridge, mac, vlan, port):
                return _set(self._fdb, (bridge, mac, vlan), port)
        return True

    def _says_where(self, interface: int) -> bool:
        """Whether a neighbour there helps to find a pod: on a bridge. On the veth of a routed pod they come and go with
        everybody whom the pod speaks to."""
        link = self._links.get(interface)
        return link is None or link.kind == "bridge"

    def _remove(self, fact: Fact) -> bool:
        match fact:
            case Route():
                if fact not in self._routes:
                    # Told of otherwise than when it was made.
                    self.stale_routes = True
                    return True
                self._routes.discard(fact)
            case Own():
                known = fact in self._own
                self._own.discard(fact)
                return known
            case Neighbour(interface, address):
                return self._neighbours.pop((interface, address), None) is not None
            case Forwarding(bridge, mac, vlan, port):
                if self._fdb.get((bridge, mac, vlan)) != port:
                    return False  # it is at another port by now
                del self._fdb[bridge, mac, vlan]
            case Link():
                return self._apply_link(fact, True)
        return True


def _put(into: set[T], value: T) -> bool:
    known = value in into
    into.add(value)
    return not known


def _set(into: dict[K, V], key: K, value: V) -> bool:
    known = into.get(key)
    into[key] = value
    return known != value
