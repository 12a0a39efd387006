"""Pods and Namespaces, from wire structs to the model."""

from __future__ import annotations

from collections.abc import Iterable

from policy.cidr import Address, parse_pod_address
from policy.decode_parts import labels_of, parsed, port_number, protocol_named
from policy.decode_wire import WireContainer, WireGate, WireNamespace, WireOwner, WirePod, WirePodSpec, WirePodStatus
from policy.labels import port_name_problem
from policy.model import READINESS_GATE, ContainerPort, Labels, Namespace, Pod
from policy.selector import NAMESPACE_NAME_LABEL
from policy.source import Path
from policy.validate import Report

# How a workload is called, by the kind of the owner that pods name.
WORKLOADS = {
    "Deployment": "deploy",
    "StatefulSet": "sts",
    "DaemonSet": "ds",
    "ReplicaSet": "rs",
    "Job": "job",
    "CronJob": "cronjob",
    "PodTemplate": "podtemplate",
}


def namespace_model(wire: WireNamespace, _: str, name: str, report: Report) -> Namespace:
    labels = labels_of(wire.metadata, ("metadata",), report)
    return Namespace(name, {**labels, NAMESPACE_NAME_LABEL: name}, report.source)


def pod_model(wire: WirePod, namespace: str, name: str, report: Report) -> Pod:
    meta, spec, status = wire.metadata, wire.spec, wire.status
    labels = labels_of(meta, ("metadata",), report)
    return Pod(
        namespace=namespace,
        name=name,
        labels=labels,
        uid=(meta and meta.uid) or "",
        node=(spec and spec.nodeName) or "",
        addresses=_pod_addresses(status, report) if status else (),
        ports=container_ports(spec, ("spec",), report) if spec else (),
        host_network=bool(spec and spec.hostNetwork),
        phase=(status and status.phase) or "",
        deleting=bool(meta and meta.deletionTimestamp),
        workload=workload_of(meta.ownerReferences, labels) if meta and meta.ownerReferences else "",
        gated=is_gated(spec.readinessGates) if spec else False,
        source=report.source,
    )


def is_gated(gates: Iterable[WireGate] | None) -> bool:
    return any(gate.conditionType == READINESS_GATE for gate in gates or ())


def workload_of(owners: Iterable[WireOwner], labels: Labels) -> str:
    """What controls an object, as far as it tells by itself: a ReplicaSet whose name ends in the pod's template hash
    was made by the Deployment that the rest of the name names."""
    owner = next((owner for owner in owners if owner.controller and owner.kind in WORKLOADS), None)
    if owner is None:
        return ""
    template_hash = labels.get("pod-template-hash")
    if owner.kind == "ReplicaSet" and template_hash and owner.name.endswith(f"-{template_hash}"):
        return f"deploy/{owner.name.removesuffix(f'-{template_hash}')}"
    return f"{WORKLOADS[owner.kind]}/{owner.name}"


def container_ports(spec: WirePodSpec, path: Path, report: Report) -> tuple[ContainerPort, ...]:
    """Those of the containers, and of the init containers that go on running beside them (row 20)."""
    sidecars = [
        (at, container) for at, container in enumerate(spec.initContainers or ()) if container.restartPolicy == "Always"
    ]
    ports: list[ContainerPort] = []
    for at, container in enumerate(spec.containers or ()):
        if container.ports:
            ports += _container_ports(container, (*path, "containers", at, "ports"), report)
    for at, container in sidecars:
        ports += _container_ports(container, (*path, "initContainers", at, "ports"), report)
    return tuple(ports)


def _container_ports(container: WireContainer, path: Path, report: Report) -> Iterable[ContainerPort]:
    for at, wire in enumerate(container.ports or ()):
        name = wire.name or ""
        if name and (reason := port_name_problem(name)):
            report.say((*path, at, "name"), reason)
        number = port_number(wire.containerPort, (*path, at, "containerPort"), report)
        protocol = protocol_named(wire.protocol, (*path, at, "protocol"), report)
        if number and protocol:
            yield ContainerPort(name, protocol, number, wire.hostPort or 0)


def _pod_addresses(status: WirePodStatus, report: Report) -> tuple[Address, ...]:
    """Those of podIPs, of which podIP is the first; objects made by hand may have either alone."""
    texts: list[tuple[Path, str | None]] = [
        (("status", "podIPs", at, "ip"), entry.ip) for at, entry in enumerate(status.podIPs or ())
    ]
    return parsed([*texts, (("status", "podIP"), status.podIP)], parse_pod_address, report)
