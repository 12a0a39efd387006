"""The fields of API objects that a verdict needs, as the API text says to read them, and CIDRs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Object = dict[str, Any]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NAME_LABEL = "kubernetes.io/metadata.name"


def labels(each: Object) -> dict[str, str]:
    return each.get("metadata", {}).get("labels") or {}


def flat(objects: list[Object]) -> Iterator[Object]:
    for each in objects:
        if each["kind"].endswith("List"):
            yield from flat(each["items"])
        else:
            yield each


def default(holder: Object, field: str, otherwise: Any) -> Any:
    """Null is absent."""
    value = holder.get(field)
    return otherwise if value is None else value


def name_of(each: Object) -> str:
    return str(each["metadata"]["name"])


def namespace(each: Object) -> str:
    return each["metadata"].get("namespace") or "default"  # row 37


def node_of(pod: Object) -> str:
    return pod.get("spec", {}).get("nodeName") or ""


def finished(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_pod(pod: Object) -> bool:
    """Whether policies can select it: not finished, and not in its node's network (rows 23, 24)."""
    return not finished(pod) and not pod.get("spec", {}).get("hostNetwork")


def pod_addresses(pod: Object) -> list[Address]:
    status = pod.get("status", {})
    found = [each["ip"] for each in status.get("podIPs") or ()] + [status.get("podIP")]
    return [ip_address(each) for each in found if each]


def node_addresses(node: Object) -> list[Address]:
    """Those that are addresses: names of hosts are listed beside them."""
    listed = node.get("status", {}).get("addresses") or ()
    return [ip_address(each["address"]) for each in listed if each["type"] in ("InternalIP", "ExternalIP")]


def container_ports(pod: Object) -> Iterator[Object]:
    """Row 20: of its containers, and of the init containers that go on running."""
    spec = pod["spec"]
    running = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *running]:
        yield from container.get("ports") or ()


@lru_cache(maxsize=1 << 16)
def cidr(text: str) -> Network:
    """The block as Go's sloppy parser reads it: leading zeros are decimal, host bits are masked away, and an
    IPv4-mapped block of 96 bits or more is the IPv4 block (row 35). ValueError where it is none."""
    if text.count("/") != 1 or not text.isascii():
        raise ValueError(text)
    address, length = text.split("/")
    if not length.isdigit() or "%" in address:
        raise ValueError(text)
    # A dotted quad stands alone or at the end of an IPv6 address.
    head, colon, quad = address.rpartition(":")
    if "." in quad:
        octets = quad.split(".")
        if not all(map(str.isdigit, octets)):
            raise ValueError(text)
        quad = ".".join(str(int(octet)) for octet in octets)
    network = _network(head + colon + quad, int(length))
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return IPv4Network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


def _network(address: str, length: int) -> Network:
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return IPv4Network((parsed, length), strict=False)
    return IPv6Network((parsed, length), strict=False)
