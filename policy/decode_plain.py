"""Pods as the API server sends them, the fast way: what many pods have in common is read once, from equal bytes.

Nothing has two meanings: each part is read as `decode_pod` reads it, and a pod about which anything is to be said is
not plain, and read there whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Raw, Struct

from policy.cidr import Address, parse_pod_address
from policy.decode_parts import labels_of
from policy.decode_pod import container_ports, is_gated, workload_of
from policy.decode_wire import WireContainer, WireGate, WireMeta, WireOwner, WirePodSpec, WirePodStatus, WirePort
from policy.labels import dns_label_problem, dns_subdomain_problem
from policy.model import ContainerPort, Labels, Pod
from policy.validate import Report

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

# ruff: noqa: N815 (the API's own spelling)

_NULL = Raw(b"null")
# Bytes of what many pods have in common. One may have a megabyte of labels, other ones each time that it is changed.
_LONGEST_KEPT = 4096
_Found = TypeVar("_Found")


class _Meta(Struct, gc=False):
    name: str
    namespace: str
    uid: str = ""
    labels: Raw = _NULL
    deletionTimestamp: str | None = None
    ownerReferences: Raw = _NULL


class _Container(Struct, gc=False):
    ports: Raw = _NULL
    restartPolicy: str | None = None


class _Spec(Struct, gc=False):
    nodeName: str | None = None
    hostNetwork: bool | None = None
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None
    readinessGates: Raw = _NULL


class PlainPod(Struct, gc=False):
    """A pod's JSON as far as it is read here; what many have in common is still bytes."""

    metadata: _Meta
    spec: _Spec
    status: WirePodStatus


class _NotPlain(ValueError):
    """Something is to be said about it."""


_POD = msgspec.json.Decoder(PlainPod)
_LABELS = msgspec.json.Decoder(dict[str, str] | None)
_PORTS = msgspec.json.Decoder(list[WirePort] | None)
_OWNERS = msgspec.json.Decoder(list[WireOwner] | None)
_GATES = msgspec.json.Decoder(list[WireGate] | None)


def plain_pod(body: Raw) -> Pod | None:
    """The pod in `body`; None where it is not plain."""
    try:
        return pod_of(_POD.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def pod_of(wire: PlainPod) -> Pod | None:
    """The same of a pod that came in a list, whose items were decoded in one go."""
    try:
        meta, spec, status = wire.metadata, wire.spec, wire.status
        if dns_subdomain_problem(meta.name):
            return None
        labels = _lately(_labels, bytes(meta.labels))
        return Pod(
            namespace=_namespace(meta.namespace),
            name=meta.name,
            labels=labels,
            uid=meta.uid,
            node=_shared(spec.nodeName or ""),
            addresses=_addresses(status),
            ports=_ports(spec),
            host_network=bool(spec.hostNetwork),
            phase=_shared(status.phase or ""),
            deleting=bool(meta.deletionTimestamp),
            workload=_lately(_workload, bytes(meta.ownerReferences), labels.get("pod-template-hash", "")),
            gated=_lately(_gated, bytes(spec.readinessGates)),
        )
    except (msgspec.DecodeError, ValueError):
        return None


def _lately(find: _lru_cache_wrapper[_Found], text: bytes, *more: str) -> _Found:
    return find(text, *more) if len(text) <= _LONGEST_KEPT else find.__wrapped__(text, *more)


@lru_cache(maxsize=1 << 12)
def _shared(text: str) -> str:
    """Equal texts as one object."""
    return text


@lru_cache(maxsize=1 << 12)
def _namespace(name: str) -> str:
    if dns_label_problem(name):
        raise _NotPlain
    return name


@lru_cache(maxsize=1 << 12)
def _labels(text: bytes) -> Labels:
    report = Report("Pod", None)
    labels = labels_of(WireMeta(labels=_LABELS.decode(text)), (), report)
    if report:
        raise _NotPlain
    return labels


@lru_cache(maxsize=1 << 8)
def _gated(text: bytes) -> bool:
    return is_gated(_GATES.decode(text))


@lru_cache(maxsize=1 << 12)
def _container_ports(text: bytes) -> tuple[ContainerPort, ...]:
    report = Report("Pod", None)
    ports = container_ports(WirePodSpec(containers=[WireContainer(_PORTS.decode(text))]), (), report)
    if report:
        raise _NotPlain
    return ports


@lru_cache(maxsize=1 << 12)
def _workload(owners: bytes, template_hash: str) -> str:
    return workload_of(_OWNERS.decode(owners) or (), {"pod-template-hash": template_hash})


def _ports(spec: _Spec) -> tuple[ContainerPort, ...]:
    """As `container_ports`; one container's are the same object for all of its like."""
    containers = spec.containers or []
    if spec.initContainers:
        containers += (container for container in spec.initContainers if container.restartPolicy == "Always")
    found = [ports for container in containers if (ports := _lately(_container_ports, bytes(container.ports)))]
    if len(found) == 1:
        return found[0]
    return tuple(port for ports in found for port in ports)


def _addresses(status: WirePodStatus) -> tuple[Address, ...]:
    first, entries = status.podIP, status.podIPs or []
    if first and len(entries) == 1 and entries[0].ip == first:
        return (parse_pod_address(first),)
    texts = dict.fromkeys([entry.ip for entry in entries])
    texts[first] = None
    found = [parse_pod_address(text) for text in texts if text]
    return tuple(found) if len(found) < 2 else tuple(dict.fromkeys(found))
