"""What can be in the way of a rule, and the changes that would end it: the words of near misses."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from policy.cidr import Address
from policy.model import Labels, Pod, Protocol


class SetLabel(Struct, frozen=True, tag="set label"):
    """Of the other pod, or of its namespace. `value` None takes the label away."""

    of: Literal["pod", "namespace"]
    key: str
    value: str | None


class MoveTo(Struct, frozen=True, tag="move"):
    """The other pod would stand in this namespace."""

    namespace: str


class UsePort(Struct, frozen=True, tag="use port"):
    """The flow would go to this port."""

    protocol: Protocol
    port: int


class DeclarePort(Struct, frozen=True, tag="declare port"):
    """The destination pod would give its port this name."""

    name: str
    protocol: Protocol
    port: int


class UseAddress(Struct, frozen=True, tag="use address"):
    """The other end would have an address of this block, outside its exceptions."""

    cidr: str
    excepts: tuple[str, ...] = ()


Change = SetLabel | MoveTo | UsePort | DeclarePort | UseAddress
Kind = Literal[
    "label", "namespace", "namespace label", "protocol", "port", "service port", "named port", "icmp", "no pod",
    "block", "except", "not understood", "selects nothing", "no rule", "too large",
]  # fmt: skip


class Obstacle(Struct, frozen=True):
    """One thing in the way. `change` is None where no change of labels, ports or addresses ends it."""

    kind: Kind
    text: str
    cost: float
    change: Change | None = None


class Other(Struct, frozen=True):
    """The end that a rule's peers are asked about; `role` is how it is called. Where policies see no pod there,
    `pod` is None, and `what` says what it is."""

    role: Literal["source", "destination"]
    pod: Pod | None
    namespace_labels: Labels
    address: Address | None
    what: str = ""


class Asked(Struct, frozen=True):
    """What a rule's ports are asked about. `protocol` is one of the three or any other, such as ICMP. `service_port` is
    what the client asked a Service for, where one was on the way. `pod` is the destination, None where it is none."""

    protocol: str
    port: int
    pod: Pod | None
    service_port: int = 0


class Gap(Struct, frozen=True):
    """How far one rule is from admitting: the nearest entries (None: no such list), and what is in the way."""

    peer: int | None
    port: int | None
    obstacles: tuple[Obstacle, ...]

    @property
    def cost(self) -> float:
        return sum(obstacle.cost for obstacle in self.obstacles)
