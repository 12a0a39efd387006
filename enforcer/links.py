"""Which interface leads to a pod's address, from the node's own routes; and which addresses are the node's.

A routed pod has a host route to each of its addresses through the node's end of its veth, whoever made it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from policy.cidr import BITS, Address, Family, parse_address
from policy.errors import HostRefused

MAIN_TABLE = 254
_FAMILIES: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


def host_routes(families: Iterable[Family]) -> dict[Address, str]:
    """Each address with a route of its own, and the interface that it leads to: one that leads nowhere else, since an
    address behind a gateway or an uplink is no pod of this node. HostRefused without pyroute2, or where routes can't be
    read."""
    routes = _routes(families)
    others = _leading_further(routes)
    return {
        parse_address(route.destination): route.interface
        for route in routes
        if route.length == BITS[route.family] and not route.gateway and route.interface not in others
    }


def uplinks(families: Iterable[Family]) -> tuple[str, ...]:
    """The interfaces that lead to more than single addresses, sorted: where packets come from that are no pod's of this
    node. HostRefused as `host_routes`."""
    return tuple(sorted(_leading_further(_routes(families))))


class _Route(Struct, frozen=True):
    """One route of the main table; `destination` is "" for the default."""

    family: Family
    destination: str
    length: int
    interface: str
    gateway: bool


def _leading_further(routes: Iterable[_Route]) -> set[str]:
    """Every interface has the link-local network, which says nothing of what is behind it."""
    return {
        route.interface
        for route in routes
        if (route.gateway or route.length < BITS[route.family])
        and not route.destination.startswith(("fe80:", "ff00:", "169.254."))
    }


def _routes(families: Iterable[Family]) -> list[_Route]:
    with _netlink() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        return [
            _Route(family, route.get_attr("RTA_DST") or "", route["dst_len"], name, _has_gateway(route))
            for family in families
            for route in netlink.get_routes(family=_FAMILIES[family], table=MAIN_TABLE)
            # iptables takes a name that ends in + for every name that begins so.
            if (name := names.get(route.get_attr("RTA_OIF"), "+")) and not name.endswith("+")
        ]


def _has_gateway(route: Any) -> bool:
    return route.get_attr("RTA_GATEWAY") is not None or route.get_attr("RTA_VIA") is not None


def own_addresses(families: Iterable[Family]) -> frozenset[Address]:
    """The node's own addresses, of all its interfaces. HostRefused without pyroute2, or where they can't be read."""
    with _netlink() as netlink:
        return frozenset(
            parse_address(known.get_attr("IFA_LOCAL") or known.get_attr("IFA_ADDRESS"))
            for family in families
            for known in netlink.get_addr(family=_FAMILIES[family])
        )


@contextmanager
def _netlink() -> Iterator[Any]:
    try:
        from pyroute2 import IPRoute
    except ImportError:
        raise HostRefused("pyroute2 is not installed: pip install 'podfence[node]'") from None
    try:
        with IPRoute() as netlink:
            yield netlink
    except OSError as error:
        raise HostRefused(f"routes and addresses can't be read: {error}") from None
