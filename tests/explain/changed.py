"""What a near miss says it takes, done: the change that an obstacle names, applied to the objects or to the flow."""

from __future__ import annotations

from msgspec.structs import replace

from compiler.compile import Compiled, compile_cluster
from compiler.explain import Miss
from compiler.verdict import End, Flow
from policy.cidr import BITS, Address, parse_cidr
from policy.model import Cluster, ContainerPort, Direction, Namespace, Pod
from policy.obstacles import DeclarePort, MoveTo, SetLabel, UseAddress, UsePort
from policy.selector import NAMESPACE_NAME_LABEL


class Changed:
    """One cluster and one flow of it, to be changed as a miss in `direction` says."""

    def __init__(self, compiled: Compiled, flow: Flow, direction: Direction) -> None:
        self._cluster = compiled.cluster
        self._namespaces = {name.name: name for name in compiled.cluster.namespaces}
        self._direction = direction
        self._peer, self._subject = (flow.src, flow.dst) if direction == "ingress" else (flow.dst, flow.src)
        self._protocol, self._port = flow.protocol, flow.port
        self._replaced: dict[str, Pod] = {}

    def apply(self, miss: Miss) -> tuple[Compiled, Flow]:
        # A label of the namespace is one of where the pod then stands.
        for change in sorted((each.change for each in miss.obstacles), key=lambda each: not isinstance(each, MoveTo)):
            self._one(change)
        pods = [self._replaced.get(pod.key, pod) for pod in self._cluster.pods]
        cluster = Cluster([*self._namespaces.values()], pods, self._cluster.policies, [], [], self._cluster.nodes)
        src, dst = (self._peer, self._subject) if self._direction == "ingress" else (self._subject, self._peer)
        return compile_cluster(cluster), Flow(src, dst, self._protocol, self._port)

    def _one(self, change: object) -> None:
        match change:
            case SetLabel("pod", key, value):
                assert self._peer.pod
                self._set_peer(replace(self._peer.pod, labels=_with(self._peer.pod.labels, key, value)))
            case SetLabel("namespace", key, value):
                assert self._peer.pod
                name = self._peer.pod.namespace
                known = self._namespaces.get(name) or Namespace(name, {NAMESPACE_NAME_LABEL: name})
                self._namespaces[name] = replace(known, labels=_with(known.labels, key, value))
            case MoveTo(namespace):
                assert self._peer.pod
                self._namespaces.setdefault(namespace, Namespace(namespace, {NAMESPACE_NAME_LABEL: namespace}))
                self._set_peer(replace(self._peer.pod, namespace=namespace, name=f"moved-{self._peer.pod.name}"))
            case UsePort(protocol, port):
                self._protocol, self._port = protocol, port
            case DeclarePort(name, protocol, port):
                dst = self._subject if self._direction == "ingress" else self._peer
                assert dst.pod
                pod = replace(dst.pod, ports=(*dst.pod.ports, ContainerPort(name, protocol, port)))
                self._set_peer(pod) if dst is self._peer else self._set_subject(pod)
            case UseAddress(cidr, excepts):
                self._peer = replace(self._peer, address=_outside_exceptions(cidr, excepts))
            case _:
                raise AssertionError(change)

    def _set_peer(self, pod: Pod) -> None:
        self._replaced[self._original(self._peer)] = pod
        self._peer = replace(self._peer, pod=pod)

    def _set_subject(self, pod: Pod) -> None:
        self._replaced[self._original(self._subject)] = pod
        self._subject = replace(self._subject, pod=pod)

    def _original(self, end: End) -> str:
        assert end.pod
        return next((key for key, pod in self._replaced.items() if pod == end.pod), end.pod.key)


def _with(labels: dict[str, str], key: str, value: str | None) -> dict[str, str]:
    rest = {name: each for name, each in labels.items() if name != key}
    return rest if value is None else {**rest, key: value}


def _outside_exceptions(cidr: str, excepts: tuple[str, ...]) -> Address:
    block, holes = parse_cidr(cidr), [parse_cidr(each) for each in excepts]
    value = block.network
    while value <= block.last:
        inside = next((hole for hole in holes if hole.network <= value <= hole.last), None)
        if inside is None:
            return Address(block.family, value)
        value = inside.last + 1
    raise LookupError(f"{cidr} excepts all of itself, of {BITS[block.family]} bits")
