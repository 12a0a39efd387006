"""Links, addresses, routes, neighbours and bridge forwarding, as the kernel tells of them over netlink. Pure: bytes in
and out; sockets are `links`' business.

A message is a header, a fixed body by its kind, and attributes: length and kind in host order, then the payload, padded
to four bytes (linux/rtnetlink.h, if_link.h, neighbour.h). Numbers within are in host order too; addresses are not.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct as Record

from policy.cidr import BITS, Address, Family, Prefix

DONE, ERROR, OVERRUN = 3, 2, 4
NEW_LINK, DEL_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
INTERRUPTED, REPLACE, APPEND = 0x10, 0x100, 0x800
_REQUEST, _DUMP = 0x1, 0x300
AF_INET, AF_INET6, AF_BRIDGE = 2, 10, 7
FAMILIES: dict[int, Family] = {AF_INET: 4, AF_INET6: 6}
LOCAL_TABLE, MAIN_TABLE = 255, 254

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_NEXT_HOP = struct.Struct("=HBBi")
_KIND = 0x3FFF
_NUMBER = struct.Struct("=I")
_OF_LINKS, _KIND_OF_LINK = frozenset((3, 5, 10, 18, 37)), frozenset((1,))
_OF_ADDRESSES, _OF_ROUTES, _OF_NEIGHBOURS = (
    frozenset((1, 2)),
    frozenset((1, 4, 5, 6, 9, 15, 18)),
    frozenset((1, 2, 5, 9)),
)
_UP, _UNICAST, _CLONED, _SELF = 0x1, 1, 0x200, 0x02
_NOARP, _PERMANENT = 0x40, 0x80
_SKIP_STATISTICS = 1 << 3
_MULTI = 2  # of an answer in several messages
# Every interface has these networks, which say nothing of what is behind it: link-local and multicast.
_EVERYWHERE = (Prefix(4, 0xA9FE << 16, 16), Prefix(6, 0xFE80 << 112, 10), Prefix(6, 0xFF << 120, 8))


class Link(Record, frozen=True, gc=False):
    """One interface. `kind` is what made it ("veth", "bridge"), "" for hardware; `master` the index of the bridge or
    other device that it is a port of, else 0. `peer` and `peer_netns`: the interface's other end, and the number that
    this namespace has for the other end's namespace; -1 where the other end is in this one, or there is none."""

    index: int
    name: str
    kind: str = ""
    master: int = 0
    peer: int = 0
    peer_netns: int = -1
    up: bool = True


class Own(Record, frozen=True, gc=False):
    """An address that the node itself has on an interface, with the length of its network."""

    interface: int
    address: Address
    length: int


class Route(Record, frozen=True, gc=False):
    """A route that leads somewhere, of any table but that of the node's own addresses. `gateway`: over another host.
    `interfaces` are several where packets are spread over them."""

    prefix: Prefix
    table: int
    interfaces: tuple[int, ...]
    gateway: bool = False
    metric: int = 0
    tos: int = 0

    @property
    def place(self) -> tuple[Prefix, int, int, int]:
        """What one route replaces another at."""
        return self.prefix, self.table, self.metric, self.tos


class Neighbour(Record, frozen=True, gc=False):
    """Who answers for an address on an interface."""

    interface: int
    address: Address
    mac: bytes


class Forwarding(Record, frozen=True, gc=False):
    """At which port a bridge has seen a MAC address."""

    bridge: int
    mac: bytes
    vlan: int
    port: int


Fact = Link | Own | Route | Neighbour | Forwarding


class Change(Record, frozen=True, gc=False):
    """A fact that is new, or gone. `replaces`: it may have put others out of force, which are not told of."""

    fact: Fact
    gone: bool = False
    replaces: bool = False


class Message(Record, frozen=True, gc=False):
    kind: int
    flags: int
    body: bytes


def request(kind: int, family: int = 0, bridge: int = 0) -> bytes:
    """Asks for all of a kind: of one address family; of one bridge, where the kernel can filter."""
    if kind == GET_LINK:
        body = _LINK.pack(family, 0, 0, 0, 0) + _number(29, _SKIP_STATISTICS)
    elif kind == GET_ADDRESS:
        body = _ADDRESS.pack(family, 0, 0, 0, 0)
    elif kind == GET_ROUTE:
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    else:
        body = _NEIGHBOUR.pack(family, 0, 0, 0, 0) + (_number(9, bridge) if bridge else b"")
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body


def link_request(index: int) -> bytes:
    """Asks for one link."""
    body = _LINK.pack(0, 0, index, 0, 0) + _number(29, _SKIP_STATISTICS)
    return _HEADER.pack(_HEADER.size + len(body), GET_LINK, _REQUEST, 1, 0) + body


def _number(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(8, kind) + _NUMBER.pack(value)


def messages(data: bytes) -> Iterator[Message]:
    """What one datagram holds. OSError where it is a refusal."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        body = data[at + _HEADER.size : at + length]
        if kind in (ERROR, DONE) and len(body) >= 4 and (code := struct.unpack_from("=i", body)[0]) < 0:
            raise OSError(-code, os.strerror(-code))
        yield Message(kind, flags, body)
        if length < _HEADER.size:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        at += (length + 3) & ~3


def change(message: Message) -> Change | None:
    """What a message tells, None where that is nothing of interest here."""
    kind, body = message.kind, message.body
    fact: Fact | None = None
    if kind in (NEW_LINK, DEL_LINK):
        # An event brings what the link has counted too, and is never the same again.
        fact = _link_of_old(body) if message.flags & _MULTI else _link(body)
    elif kind in (NEW_ADDRESS, DEL_ADDRESS):
        fact = _own(body)
    elif kind in (NEW_ROUTE, DEL_ROUTE):
        fact = _route(body)
    elif kind in (NEW_NEIGHBOUR, DEL_NEIGHBOUR):
        fact = _forwarding(body) if body[0] == AF_BRIDGE else _neighbour(body, kind == DEL_NEIGHBOUR)
    if fact is None:
        return None
    gone = kind in (DEL_LINK, DEL_ADDRESS, DEL_ROUTE, DEL_NEIGHBOUR)
    return Change(fact, gone, not gone and bool(message.flags & (REPLACE | APPEND)))


def _attributes(body: bytes, at: int, wanted: frozenset[int]) -> dict[int, bytes]:
    """Those of the wanted kinds. A link has forty attributes: as numbers they are walked twice as fast."""
    found = {}
    words = memoryview(body)[: len(body) & ~1].cast("H")
    at, end = at // 2, len(words) - 1
    while at < end:
        length = words[at]
        if length < 4:
            break
        kind = words[at + 1] & _KIND
        if kind in wanted:
            found[kind] = body[2 * at + 4 : 2 * at + length]
        at += ((length + 3) & ~3) >> 1
    return found


def _link(body: bytes) -> Link | None:
    """A message of a bridge about its port is not one about the link: it would seem gone when it leaves the bridge."""
    family, _, index, flags, _ = _LINK.unpack_from(body)
    if family == AF_BRIDGE:
        return None
    found = _attributes(body, _LINK.size, _OF_LINKS)
    kind = _attributes(found[18], 0, _KIND_OF_LINK).get(1, b"") if 18 in found else b""
    return Link(
        index,
        _text(found.get(3, b"")),
        _text(kind),
        _value(found, 10),
        _value(found, 5),
        struct.unpack("=i", found[37])[0] if 37 in found else -1,
        bool(flags & _UP),
    )


# A reading that follows a change finds nearly all links and routes as they were, to the byte.
_link_of_old = lru_cache(maxsize=1024)(_link)


def _own(body: bytes) -> Own | None:
    family, length, _, _, index = _ADDRESS.unpack_from(body)
    if family not in FAMILIES:
        return None
    found = _attributes(body, _ADDRESS.size, _OF_ADDRESSES)
    packed = found.get(2) or found.get(1)
    return Own(index, _address(FAMILIES[family], packed), length) if packed else None


@lru_cache(maxsize=4096)
def _route(body: bytes) -> Route | None:
    family, length, _, tos, table, _, _, kind, flags = _ROUTE.unpack_from(body)
    if family not in FAMILIES or kind != _UNICAST or flags & _CLONED:
        return None
    found = _attributes(body, _ROUTE.size, _OF_ROUTES)
    table = _value(found, 15) or table
    packed = found.get(1)
    prefix = Prefix(FAMILIES[family], int.from_bytes(packed, "big") if packed else 0, length)
    if table == LOCAL_TABLE or any(block.contains(prefix) for block in _EVERYWHERE):
        return None
    interfaces, gateway = [_value(found, 4)] if 4 in found else [], 5 in found or 18 in found
    for index, over in _next_hops(found.get(9, b"")):
        interfaces.append(index)
        gateway = gateway or over
    return Route(prefix, table, tuple(interfaces), gateway, _value(found, 6), tos)


def _next_hops(packed: bytes) -> Iterator[tuple[int, bool]]:
    at = 0
    while at + _NEXT_HOP.size <= len(packed):
        length, _, _, index = _NEXT_HOP.unpack_from(packed, at)
        found = _attributes(packed[at : at + length], _NEXT_HOP.size, _OF_ROUTES)
        yield index, 5 in found or 18 in found
        at += max(_NEXT_HOP.size, (length + 3) & ~3)


def _neighbour(body: bytes, gone: bool) -> Neighbour | None:
    """Without a MAC address where nobody answers (any more): then the one that was known is gone too."""
    family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    if family not in FAMILIES or (state & _NOARP and not gone):
        return None
    found = _attributes(body, _NEIGHBOUR.size, _OF_NEIGHBOURS)
    return Neighbour(index, _address(FAMILIES[family], found[1]), found.get(2, b"")) if 1 in found else None


def _forwarding(body: bytes) -> Forwarding | None:
    """A bridge's permanent entries are the MAC addresses of its own ports."""
    _, port, state, flags, _ = _NEIGHBOUR.unpack_from(body)
    found = _attributes(body, _NEIGHBOUR.size, _OF_NEIGHBOURS)
    if state & _PERMANENT or flags & _SELF or 9 not in found or 2 not in found:
        return None
    vlan = struct.unpack("=H", found[5])[0] if 5 in found else 0
    return Forwarding(_value(found, 9), found[2], vlan, port)


def _value(found: dict[int, bytes], kind: int) -> int:
    packed = found.get(kind)
    number: int = _NUMBER.unpack(packed)[0] if packed and len(packed) == 4 else 0
    return number


def _text(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="surrogateescape")


def _address(family: Family, packed: bytes) -> Address:
    return Address(family, int.from_bytes(packed[: BITS[family] // 8], "big"))
