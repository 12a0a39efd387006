"""The objects, as frozen structs that hold only what the engine needs.

Labels are plain dicts that nobody changes. `source` is where a file holds the object, None for one from the API.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from policy.cidr import Address, Prefix
from policy.selector import Selector
from policy.source import Source

Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, Direction] = ("ingress", "egress")
Protocol = Literal["TCP", "UDP", "SCTP"]
# The condition that a pod can have its readiness wait for.
READINESS_GATE = "podfence.io/policy-ready"
PROTOCOLS: tuple[Protocol, Protocol, Protocol] = ("TCP", "UDP", "SCTP")
Labels = dict[str, str]


class Namespace(Struct, frozen=True, gc=False):
    """`labels` always hold `kubernetes.io/metadata.name` (semantics, row 36)."""

    name: str
    labels: Labels
    source: Source | None = None


class ContainerPort(Struct, frozen=True, gc=False):
    """A port that a container declares; `name` is "" where it has none."""

    name: str
    protocol: Protocol
    port: int
    host_port: int = 0


class Pod(Struct, frozen=True, gc=False):
    """`node` is "" where the pod is not scheduled. `ports` are those of its containers and restartable init
    containers, in order. `workload` is `deploy/web` for a pod of that workload, as far as its owners tell, else "".
    `gated`: its readiness waits for podfence to say that its policies hold (READINESS_GATE).
    A pod that stands for a template in a file is called by its workload: no real pod's name holds a slash."""

    namespace: str
    name: str
    labels: Labels
    uid: str = ""
    node: str = ""
    addresses: tuple[Address, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False
    phase: str = ""
    deleting: bool = False
    workload: str = ""
    gated: bool = False
    source: Source | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def stands_in(self) -> bool:
        """Whether it stands for all pods of its workload, however many they are."""
        return bool(self.workload) and self.workload == self.name

    @property
    def finished(self) -> bool:
        """Its address may already be someone else's (semantics, row 24)."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def selectable(self) -> bool:
        """Whether policies may select it, as subject or peer: not the node's own network, not finished (rows 23, 24).
        A pod without an address is selectable: explanation treats it as if it had one; a node waits for one."""
        return not (self.host_network or self.finished)


class ServicePort(Struct, frozen=True):
    """`target` is a number or a container port's name."""

    name: str
    protocol: Protocol
    port: int
    target: int | str
    node_port: int = 0


class Service(Struct, frozen=True):
    """`selector` is None where the Service has none: its endpoints are somebody else's business. `entry_addresses` are
    those of its load balancer and its external ones. `keeps_source`: externalTrafficPolicy is Local."""

    namespace: str
    name: str
    type: str = "ClusterIP"
    selector: Labels | None = None
    cluster_ips: tuple[Address, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    external_name: str = ""
    headless: bool = False
    entry_addresses: tuple[Address, ...] = ()
    keeps_source: bool = False
    source: Source | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Endpoint(Struct, frozen=True):
    """One backend of a slice; `pod` is its name where `targetRef` gives one, else ""."""

    addresses: tuple[Address, ...]
    ready: bool = True
    pod: str = ""


class EndpointSlice(Struct, frozen=True):
    namespace: str
    name: str
    service: str
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    source: Source | None = None


class Node(Struct, frozen=True):
    """`pod_cidrs` are the blocks that its pods get addresses from, where the cluster gives it any."""

    name: str
    labels: Labels
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Prefix, ...] = ()
    source: Source | None = None


class IPBlock(Struct, frozen=True, gc=False):
    cidr: Prefix
    excepts: tuple[Prefix, ...] = ()


class Peer(Struct, frozen=True, gc=False):
    """One entry of `from` or `to`: pods, or a block. None is an absent selector, which is not an empty one.
    All three None is a peer that matches nothing (semantics, row 14)."""

    pods: Selector | None = None
    namespaces: Selector | None = None
    block: IPBlock | None = None


class Port(Struct, frozen=True, gc=False):
    """One entry of `ports`. `port` None is every port of the protocol; a name is looked up at the destination pod.
    `end` is inclusive, and equals `port` where `endPort` is absent and `port` is a number."""

    protocol: Protocol
    port: int | str | None = None
    end: int | None = None


class Rule(Struct, frozen=True, gc=False):
    """One entry of `ingress` or `egress`. Empty `peers` is every peer and empty `ports` every port, as the API has it
    for absent and empty alike. Where `understood` is False it grants nothing (row 34)."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[Port, ...] = ()
    understood: bool = True


class NetworkPolicy(Struct, frozen=True, gc=False):
    """`isolates` are the directions that it isolates its subjects in; the rules of others have no effect (row 6)."""

    namespace: str
    name: str
    subjects: Selector
    isolates: tuple[Direction, ...]
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    source: Source | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rules of a direction, those that have no effect left out."""
        if direction not in self.isolates:
            return ()
        return self.ingress if direction == "ingress" else self.egress


class Cluster(Struct):
    """Everything that was read, in the order it was read in. Keys are unique within each kind."""

    namespaces: list[Namespace]
    pods: list[Pod]
    policies: list[NetworkPolicy]
    services: list[Service]
    slices: list[EndpointSlice]
    nodes: list[Node]
