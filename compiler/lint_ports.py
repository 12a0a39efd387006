"""Ports that mean nothing at the pods: names that none has, and a Service's port where the pods' counts."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.lint import Finding, Rule, World, finding, rules_with_paths
from compiler.peers import PeerSet, peers_of
from policy.model import DIRECTIONS, Direction, NetworkPolicy, Pod, Port, Service, ServicePort
from policy.source import Path

NO_SUCH_NAME = Rule(
    "PF008", "named port that no pod has", "warning", "name a port that the pods declare, or give its number", True
)
SERVICE_PORT = Rule(
    "PF009",
    "Service port for target port",
    "warning",
    "allow the target port: policies see the pod behind the Service",
    True,
)


def lint(world: World) -> Iterator[Finding]:
    for policy in world.policies:
        for direction in DIRECTIONS:
            for path, number in rules_with_paths(policy, direction):
                destinations = _destinations(world, policy, direction, number)
                if not destinations:
                    continue  # PF001 or PF002 has said it
                for at, port in enumerate(policy.rules(direction)[number].ports):
                    yield from _port(world, policy, (*path, "ports", at), port, destinations)


def _destinations(world: World, policy: NetworkPolicy, direction: Direction, number: int) -> list[Pod]:
    """The pods at which a rule's ports are looked up."""
    if direction == "ingress":
        return world.subjects(policy)
    peers: list[PeerSet] = [peers_of(peer, policy.namespace) for peer in policy.rules(direction)[number].peers]
    if not peers:
        return world.pods
    namespaces = world.compiled.namespaces
    return [
        pod
        for pod in world.pods
        if any(each.matches_pod(pod, namespaces) or any(map(each.addresses.contains, pod.addresses)) for each in peers)
    ]


def _port(world: World, policy: NetworkPolicy, path: Path, port: Port, pods: list[Pod]) -> Iterator[Finding]:
    if isinstance(port.port, str):
        if not any(known.name == port.port and known.protocol == port.protocol for pod in pods for known in pod.ports):
            names = sorted({f"{known.name} ({known.protocol})" for pod in pods for known in pod.ports if known.name})
            has = f"they declare {', '.join(names[:5])}" if names else "they declare none with a name"
            reason = f"no pod here has a {port.protocol} port called {port.port}; {has}"
            yield finding(NO_SUCH_NAME, policy, (*path, "port"), reason)
    elif port.port is not None and port.end == port.port:
        declared = any(
            known.port == port.port and known.protocol == port.protocol for pod in pods for known in pod.ports
        )
        for service, service_port, target in [] if declared else _services(world, port, pods):
            reason = (
                f"{port.port} is a port of Service {service.namespace}/{service.name}, whose target port is"
                f" {service_port.target}{f' ({target})' if isinstance(service_port.target, str) else ''}; no pod here"
                f" declares {port.port}"
            )
            yield finding(SERVICE_PORT, policy, (*path, "port"), reason)
            break


def _services(world: World, port: Port, pods: list[Pod]) -> Iterator[tuple[Service, ServicePort, int]]:
    """Those in front of the pods that have the number for their own port, and another one for the pods'."""
    for service in world.compiled.cluster.services:
        if not service.selector:
            continue
        behind = [
            pod
            for pod in pods
            if pod.namespace == service.namespace
            and all(pod.labels.get(key) == value for key, value in service.selector.items())
        ]
        for known in service.ports:
            if behind and known.port == port.port and known.protocol == port.protocol:
                targets = {_target(known, pod) for pod in behind} - {0}
                if targets and port.port not in targets:
                    yield service, known, min(targets)


def _target(port: ServicePort, pod: Pod) -> int:
    if isinstance(port.target, int):
        return port.target
    return next((each.port for each in pod.ports if each.name == port.target and each.protocol == port.protocol), 0)
