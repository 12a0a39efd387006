"""A node of a lab with a pod that attacks, and what of its frames arrives at the pod that they are for.

What arrives is read from the victim's own interface, before its kernel could drop anything: a packet that no socket
would ever see counts as arrived.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from enforcer.kernel.backend import Backend
from lab.topology import Attach
from policy.cidr import Family
from tests.enforcer.bridged import Bridged, bridged, frame
from tests.enforcer.shop import shop
from tests.hostile.wire import ETHERTYPE, ip

GATEWAY = "ee:ee:ee:ee:ee:ee"
VICTIM, FRIEND, ATTACKER, FREE = "shop/api", "shop/web", "shop/near", "shop/free"
ALLOWED, DENIED = 80, 4444
_ALL_PROTOCOLS = 3
_WAITS = 0.4

SHOP = shop(
    ("web", "web", "n1"), ("api", "api", "n1"), ("near", "near", "n1"), ("free", "free", "n1"), ("far", "web", "n2")
)
POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 80}, {port: 80, protocol: UDP}]
  egress: []
"""
Frames = Sequence[bytes]


class Attacked(Bridged):
    """`attach` says how the node's pods hang on it."""

    def __init__(self, world: Bridged, attach: Attach) -> None:
        super().__init__(world.lab, world.backend)
        self.attach = attach

    def address(self, place: str, family: Family = 4) -> str:
        return str(self.lab.host(place).address(family))

    def mac(self, place: str) -> str:
        return self.lab.host(place).mac

    def next_mac(self, place: str) -> str:
        """Whom a pod of the node sends a frame for `place` to."""
        return self.mac(place) if self.attach == "bridge" and place != "n1" else GATEWAY

    def framed(self, sender: str, packet: bytes, victim: str = VICTIM, mac: str = "") -> bytes:
        """As `sender` would send it, or one that has another's MAC."""
        family = packet[0] >> 4
        return frame(self.next_mac(victim), mac or self.mac(sender), packet, ethertype=ETHERTYPE[family])

    def packet(self, src: str, protocol: int, data: bytes, victim: str = VICTIM) -> bytes:
        return ip(src, self.address(victim, 6 if ":" in src else 4), protocol, data)

    def arrives(self, attempts: Mapping[str, Frames], sender: str = ATTACKER, victim: str = VICTIM) -> set[str]:
        """The names of those of which a frame reached the victim. Each frame holds the name of its attempt."""
        heard = self.what_arrives(attempts, sender, victim)
        return {name for data in heard for name in attempts if marker(name) in data}

    def what_arrives(self, attempts: Mapping[str, Frames], sender: str = ATTACKER, victim: str = VICTIM) -> list[bytes]:
        """Every frame that comes to the victim meanwhile."""
        with self.ear(victim) as ear:
            with self.lab.inside(sender), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                for frames in attempts.values():
                    for each in frames:
                        raw.send(each)
            return list(self.heard(ear))

    @contextmanager
    def ear(self, place: str) -> Iterator[socket.socket]:
        """Whatever comes to its interface, also for another station."""
        with self.lab.inside(place):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        with ear:
            ear.bind(("eth0", _ALL_PROTOCOLS))
            yield ear

    def heard(self, ear: socket.socket) -> Iterator[bytes]:
        """Frames that came in there, until it has been long enough."""
        ends = time.monotonic() + _WAITS
        while (left := ends - time.monotonic()) > 0:
            ear.settimeout(left)
            try:
                data, (_, _, way, *_) = ear.recvfrom(4096)
            except TimeoutError:
                return
            if way != socket.PACKET_OUTGOING:
                yield data


def marker(name: str) -> bytes:
    return f"<{name}>".encode()


@contextmanager
def attacked(backend: Backend, attach: Attach) -> Iterator[Attacked]:
    with bridged(SHOP, backend, attach) as world:
        yield Attacked(world, attach)
