"""Where a Service leads: from what a client asks for to the pods and ports that answer, which is what policies see
(semantics, row 30)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from compiler.compile import Compiled
from compiler.verdict import End
from podfence.ends import Ends, Named
from policy.errors import UsageError
from policy.model import Pod, Service, ServicePort
from policy.nearmiss import selector_obstacles
from policy.selector import in_, selector


class Backend(Struct, frozen=True):
    """One address that a flow may end at, and the port there."""

    end: End
    protocol: str
    port: int


class Way(Struct, frozen=True):
    """How a flow goes on. `asked` is what the client asks for and `leads_to` what becomes of it, in words;
    `service_port` the number that was asked for, where another counts. Where nothing is behind it, or it can't be
    known, `backends` is empty and `notes` say why; `known` is False for the latter."""

    asked: str
    leads_to: str
    backends: tuple[Backend, ...]
    service: Service | None = None
    service_port: int = 0
    notes: tuple[str, ...] = ()
    known: bool = True
    rewrites_source: bool = False


def ways(compiled: Compiled, ends: Ends, dst: Named, protocol: str, port: int | str | None) -> list[Way]:
    """The ways that a flow to `dst` takes: through the Service that it is, or through a node's port; none where it goes
    to `dst` itself. `port` None asks for every port of a Service. UsageError for a port that the Service hasn't."""
    if dst.service is not None:
        return list(_through(compiled, ends, dst.service, dst, protocol, port))
    if dst.sort == "node" and isinstance(port, int):
        return list(_through_node(compiled, ends, dst, protocol, port))
    return []


def _through(
    compiled: Compiled, ends: Ends, service: Service, dst: Named, protocol: str, port: int | str | None
) -> Iterator[Way]:
    name = f"Service {service.key}"
    if service.type == "ExternalName":
        note = f"{name} is an ExternalName: a DNS alias of {service.external_name}. No Service is on the way, policies "
        note += "see the address that the name has for the client, and which that is can't be known here"
        number = port if isinstance(port, int) else 0
        yield Way(name, service.external_name, (Backend(End(), protocol, number),), service, notes=(note,), known=False)
        return
    if service.headless:
        yield _headless(compiled, ends, service, name, protocol, port)
        return
    chosen = [each for each in service.ports if port is None or _is(each, protocol, port)]
    if not chosen:
        raise UsageError(_no_port(service, protocol, port))
    outside = bool(dst.ends) and dst.ends[0].address in service.entry_addresses
    for each in chosen:
        backends, notes, known = _backends(compiled, ends, service, each)
        kind = service.type + (f" {dst.name}" if dst.ends else "")
        yield Way(
            f"{name} ({kind}), port {each.port}/{each.protocol}",
            f"target port {each.target}",
            backends,
            service,
            each.port,
            notes,
            known,
            (outside or service.type in ("NodePort", "LoadBalancer")) and not service.keeps_source,
        )


def _is(each: ServicePort, protocol: str, port: int | str) -> bool:
    if isinstance(port, str):
        return each.name == port
    return each.port == port and each.protocol == protocol


def _no_port(service: Service, protocol: str, port: int | str | None) -> str:
    has = ", ".join(f"{each.port}/{each.protocol}" + (f" ({each.name})" if each.name else "") for each in service.ports)
    asked = f"{port}/{protocol}" if isinstance(port, int) else f"called {port}"
    hint = ""
    for each in service.ports:
        if each.target == port:
            hint = f"; {port} is the target port of {each.port}, which only the pods have"
        elif each.node_port == port:
            hint = f"; {port} is the node port of {each.port}, which the nodes have: ask for node/NAME"
    return f"Service {service.key} has no port {asked}; it has {has or 'none'}{hint}"


def _headless(
    compiled: Compiled, ends: Ends, service: Service, name: str, protocol: str, port: int | str | None
) -> Way:
    """DNS gives the pods' own addresses, and nothing translates ports."""
    asked = next((each for each in service.ports if port is not None and _is(each, protocol, port)), None)
    found, notes, known = _backends(compiled, ends, service, None)
    number = asked.port if asked else port if isinstance(port, int) else 0
    if asked and asked.target != asked.port:
        text = f"nothing translates the port of a headless Service: the client reaches {asked.port} at the pod"
        notes += (f"{text}, and not the target port {asked.target}",)
    backends = tuple(Backend(each.end, asked.protocol if asked else protocol, number) for each in found)
    return Way(f"{name} (headless)", "the pods' own addresses, from DNS", backends, service, 0, notes, known)


def _backends(
    compiled: Compiled, ends: Ends, service: Service, port: ServicePort | None
) -> tuple[tuple[Backend, ...], tuple[str, ...], bool]:
    """Those of its EndpointSlices where there are any, else of the pods that it selects."""
    slices = [s for s in compiled.cluster.slices if (s.namespace, s.service) == (service.namespace, service.name)]
    if slices:
        return _from_slices(compiled, ends, service, port)
    if service.selector is None:
        return (), ("it has no selector, and no EndpointSlice of it was read: where it leads can't be known",), False
    chosen = selector(in_(key, value) for key, value in service.selector.items())
    pods = [p for p in compiled.cluster.pods if p.namespace == service.namespace and not p.finished]
    selected = [pod for pod in pods if chosen.matches(pod.labels)]
    found = [Backend(end, *target) for pod in selected for target in _targets(pod, port) for end in _ends_of(pod)]
    notes: tuple[str, ...] = ()
    if not selected:
        text = ", ".join(f"`{key}: {value}`" for key, value in service.selector.items())
        notes = (
            f"it selects {text}, which no pod of {service.namespace} has: nothing answers",
            *_nearest(service, pods),
        )
    elif not found and port:
        notes = (f"no pod that it selects declares the target port {port.target}: nothing answers",)
    return tuple(found), notes, True


def _targets(pod: Pod, port: ServicePort | None) -> Sequence[tuple[str, int]]:
    if port is None:
        return [("TCP", 0)]
    if isinstance(port.target, int):
        return [(port.protocol, port.target)]
    return [(p.protocol, p.port) for p in pod.ports if p.name == port.target and p.protocol == port.protocol][:1]


def _ends_of(pod: Pod) -> Iterable[End]:
    node = pod.node if pod.host_network else ""
    return [End(pod, address, node) for address in pod.addresses] or [End(pod, None, node)]


def _from_slices(
    compiled: Compiled, ends: Ends, service: Service, port: ServicePort | None
) -> tuple[tuple[Backend, ...], tuple[str, ...], bool]:
    found: dict[tuple[object, int], Backend] = {}
    unready = 0
    for each in compiled.cluster.slices:
        if (each.namespace, each.service) != (service.namespace, service.name):
            continue
        numbers = [
            (p.protocol, p.port) for p in each.ports if port and (p.name, p.protocol) == (port.name, port.protocol)
        ]
        for endpoint in each.endpoints:
            unready += not endpoint.ready
            if not endpoint.ready:
                continue
            for address in endpoint.addresses:
                end = ends.at(address)
                pod = compiled.pods.get(f"{service.namespace}/{endpoint.pod}") if endpoint.pod else end.pod
                end = End(pod, address, pod.node if pod and pod.host_network else end.node)
                for target in numbers if port else [("TCP", 0)]:
                    found[address, target[1]] = Backend(end, *target)
    notes: tuple[str, ...] = (f"{unready} of its endpoints are not ready, and get nothing",) if unready else ()
    if not found:
        notes += ("its EndpointSlices have no ready endpoint for this port: nothing answers",)
    return tuple(found.values()), notes, True


def _nearest(service: Service, pods: Iterable[Pod]) -> tuple[str, ...]:
    """The pod that lacks least."""
    chosen = selector(in_(key, value) for key, value in (service.selector or {}).items())
    best: tuple[float, str] | None = None
    for pod in pods:
        found = selector_obstacles(chosen, pod.labels, f"pod {pod.key}", "pod")
        cost = sum(obstacle.cost for obstacle in found)
        if best is None or cost < best[0]:
            best = cost, "; ".join(obstacle.text for obstacle in found).replace("the rule", "the Service")
    return (f"nearest: {best[1]}",) if best and best[0] < 1 else ()


def _through_node(compiled: Compiled, ends: Ends, dst: Named, protocol: str, port: int) -> Iterator[Way]:
    """NodePorts, which every node has, and hostPorts, which the node of the pod has."""
    node = dst.ends[0].node
    for service in compiled.cluster.services:
        for each in service.ports:
            if (each.node_port, each.protocol) == (port, protocol):
                backends, notes, known = _backends(compiled, ends, service, each)
                asked = f"node port {port}/{protocol} of node {node}, Service {service.key}"
                if service.keeps_source:
                    backends = tuple(b for b in backends if not b.end.pod or b.end.pod.node == node)
                    notes += ("externalTrafficPolicy is Local: only pods of that node get it",)
                leads_to = f"target port {each.target}"
                rewrites = not service.keeps_source
                yield Way(asked, leads_to, backends, service, port, notes, known, rewrites)
    for pod in compiled.cluster.pods:
        if pod.node != node or pod.host_network or pod.finished:
            continue
        for declared in pod.ports:
            if (declared.host_port, declared.protocol) == (port, protocol):
                backends = tuple(Backend(end, protocol, declared.port) for end in _ends_of(pod))
                asked, leads_to = f"host port {port}/{protocol} of node {node}", f"pod port {declared.port}"
                yield Way(asked, leads_to, backends, None, port)
