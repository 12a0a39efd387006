"""Services, EndpointSlices and Nodes, from wire structs to the model."""

from __future__ import annotations

from policy.cidr import parse_address, parse_cidr
from policy.decode_parts import entries, labels_of, parsed, port_number, protocol_named
from policy.decode_wire import WireNode, WirePort, WireService, WireSlice
from policy.model import Endpoint, EndpointSlice, Node, Service, ServicePort
from policy.source import Path
from policy.validate import Report

_SERVICE_LABEL = "kubernetes.io/service-name"


def service_model(wire: WireService, namespace: str, name: str, report: Report) -> Service:
    spec = wire.spec
    if spec is None:
        return Service(namespace, name, source=report.source)
    addresses = [*entries(spec.clusterIPs, ("spec", "clusterIPs")), (("spec", "clusterIP"), spec.clusterIP)]
    balancer = wire.status.loadBalancer.ingress if wire.status and wire.status.loadBalancer else None
    outside: list[tuple[Path, str | None]] = [*entries(spec.externalIPs, ("spec", "externalIPs"))]
    outside += [(("status", "loadBalancer", "ingress", at, "ip"), entry.ip) for at, entry in enumerate(balancer or ())]
    return Service(
        namespace=namespace,
        name=name,
        type=spec.type or "ClusterIP",
        selector=spec.selector,
        # "None" is how a headless Service says that it has none.
        cluster_ips=parsed(((at, text) for at, text in addresses if text != "None"), parse_address, report),
        ports=_ports(spec.ports, ("spec", "ports"), report),
        external_name=spec.externalName or "",
        headless=spec.clusterIP == "None" or "None" in (spec.clusterIPs or ()),
        entry_addresses=parsed(outside, parse_address, report),
        keeps_source=spec.externalTrafficPolicy == "Local",
        source=report.source,
    )


def _ports(wires: list[WirePort] | None, path: Path, report: Report) -> tuple[ServicePort, ...]:
    ports = []
    for at, wire in enumerate(wires or ()):
        number = port_number(wire.port, (*path, at, "port"), report)
        protocol = protocol_named(wire.protocol, (*path, at, "protocol"), report)
        if number and protocol:
            # API text of targetPort: absent, it is the port; 0 in stored objects means the same.
            ports.append(ServicePort(wire.name or "", protocol, number, wire.targetPort or number, wire.nodePort or 0))
    return tuple(ports)


def slice_model(wire: WireSlice, namespace: str, name: str, report: Report) -> EndpointSlice:
    endpoints = []
    for at, entry in enumerate(wire.endpoints or ()):
        target, conditions = entry.targetRef, entry.conditions
        endpoints.append(
            Endpoint(
                addresses=parsed(entries(entry.addresses, ("endpoints", at, "addresses")), parse_address, report),
                # API text of ready: null is to be read as ready.
                ready=not (conditions and conditions.ready is False),
                pod=(target and target.kind == "Pod" and target.name) or "",
            )
        )
    labels = (wire.metadata and wire.metadata.labels) or {}
    return EndpointSlice(
        namespace=namespace,
        name=name,
        service=labels.get(_SERVICE_LABEL, ""),
        endpoints=tuple(endpoints),
        ports=_ports(wire.ports, ("ports",), report),
        source=report.source,
    )


def node_model(wire: WireNode, _: str, name: str, report: Report) -> Node:
    spec, status = wire.spec, wire.status
    addresses: list[tuple[Path, str | None]] = [
        (("status", "addresses", at, "address"), entry.address)
        for at, entry in enumerate((status and status.addresses) or ())
        if entry.type in ("InternalIP", "ExternalIP")
    ]
    blocks: list[tuple[Path, str | None]] = []
    if spec:
        blocks = [*entries(spec.podCIDRs, ("spec", "podCIDRs")), (("spec", "podCIDR"), spec.podCIDR)]
    return Node(
        name=name,
        labels=labels_of(wire.metadata, ("metadata",), report),
        addresses=parsed(addresses, parse_address, report),
        pod_cidrs=parsed(blocks, parse_cidr, report),
        source=report.source,
    )
