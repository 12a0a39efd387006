"""What is asked of ipset over netlink, as bytes. Pure: no socket is touched here; answers are read in `ipset_answer`.

A message is a netlink header, an nfgenmsg and attributes; an attribute is its length and kind in host order, then its
payload, padded to four bytes (linux/netlink.h, linux/netfilter/ipset/ip_set.h). Kernels since 2.6.39 read protocol 6,
those since 4.20 also 7; what is used here is the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from struct import Struct as Layout

from enforcer.rules.render import table_size
from enforcer.rules.ruleset import Element, IpSet, SetType
from policy.cidr import BITS, Family

OUR_PROTOCOLS = (6, 7)
# An element takes 72 bytes at most, and the nest that holds them says its length in 16 bits.
ELEMENTS_PER_MESSAGE = 900


class Command(IntEnum):
    PROTOCOL = 1
    CREATE = 2
    DESTROY = 3
    SWAP = 6
    LIST = 7
    ADD = 9
    DEL = 10


# The lowest revision of each type that knows counters, nomatch and all protocols: every ipset program since 6.14 reads
# it, while one older than the kernel would refuse the newest.
REVISIONS: dict[SetType, int] = {
    "hash:ip": 1,
    "hash:net": 3,
    "hash:ip,port": 2,
    "hash:net,port": 4,
    "hash:net,iface": 3,
}
AF: dict[Family, int] = {4: 2, 6: 10}
PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
FLAG_NOMATCH, FLAG_COUNTERS = 1 << 2, 1 << 3

# Attributes of a command; an element's and a set's own share numbers with them.
A_PROTOCOL, A_SETNAME, A_TYPENAME, A_REVISION, A_FAMILY = 1, 2, 3, 4, 5
A_SETNAME2, A_DATA, A_ADT, A_LINENO, A_PROTOCOL_MIN = 3, 7, 8, 9, 10
D_IP, D_CIDR, D_PORT, D_PROTO, D_FLAGS, D_LINENO = 1, 3, 4, 7, 8, 9
D_HASHSIZE, D_MAXELEM, D_IFACE = 18, 19, 23
NESTED, NETWORK_ORDER, KIND_MASK = 0x8000, 0x4000, 0x3FFF

NLM_REQUEST, NLM_ACK, NLM_EXCL, NLM_DUMP = 0x1, 0x4, 0x200, 0x300
SUBSYSTEM = 6 << 8
_MESSAGE = Layout("=IHHIIBBH")
HEAD = Layout("=HH")
_BE32, _BE16, _LINE = Layout(">I"), Layout(">H"), Layout("=I")
_LOW = (1 << 64) - 1


def attribute(kind: int, payload: bytes) -> bytes:
    return HEAD.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def request(command: Command, sequence: int, protocol: int, flags: int, body: bytes) -> bytes:
    """One message for the kernel. Its nfgenmsg says IPv4, as the ipset program does: the set knows its family."""
    head = _MESSAGE.size + 8
    packed = _MESSAGE.pack(head + len(body), SUBSYSTEM | command, NLM_REQUEST | flags, sequence, 0, AF[4], 0, 0)
    return packed + attribute(A_PROTOCOL, bytes([protocol])) + body


def name_attribute(name: str, kind: int = A_SETNAME) -> bytes:
    return attribute(kind, name.encode() + b"\0")


def create_body(ipset: IpSet, family: Family) -> bytes:
    hashsize, maxelem = table_size(len(ipset.elements))
    options = attribute(D_HASHSIZE | NETWORK_ORDER, _BE32.pack(hashsize))
    options += attribute(D_MAXELEM | NETWORK_ORDER, _BE32.pack(maxelem))
    if ipset.counters:
        options += attribute(D_FLAGS | NETWORK_ORDER, _BE32.pack(FLAG_COUNTERS))
    return (
        name_attribute(ipset.name)
        + name_attribute(ipset.type, A_TYPENAME)
        + attribute(A_REVISION, bytes([REVISIONS[ipset.type]]))
        + attribute(A_FAMILY, bytes([AF[family]]))
        + attribute(A_DATA | NESTED, options)
    )


# Family, bytes of an address, and the attribute that holds one.
_ADDRESSES: tuple[tuple[Family, int, int], ...] = ((4, 4, 1), (6, 16, 2))
# What stands before an element's address, by the size of what it has beside family, address and number.
_BEFORE: dict[Family, list[bytes]] = {
    family: [
        HEAD.pack(20 + size + rest, A_DATA | NESTED)
        + HEAD.pack(8 + size, D_IP | NESTED)
        + HEAD.pack(4 + size, which | NETWORK_ORDER)
        for rest in range(41)
    ]
    for family, size, which in _ADDRESSES
}
_ENTRY4, _ENTRY6 = Layout(">12sI8s").pack, Layout(">12sQQ8s").pack
_NUMBERS = [attribute(D_LINENO, _LINE.pack(number)) for number in range(1, ELEMENTS_PER_MESSAGE + 1)]
# By family and length: a whole address says none, as the types without prefixes want it.
_LENGTHS: dict[Family, list[bytes]] = {
    family: [attribute(D_CIDR, bytes([length])) for length in range(bits)] + [b""] for family, bits in BITS.items()
}
_NOMATCH = attribute(D_FLAGS | NETWORK_ORDER, _BE32.pack(FLAG_NOMATCH))


def elements_body(name: str, elements: Sequence[Element]) -> bytes:
    """The body of an ADD or DEL of at most ELEMENTS_PER_MESSAGE elements. They are numbered from 1: the kernel writes
    the number of the one that it refuses into the LINENO of the message that it sends back."""
    entries = []
    for element, number in zip(elements, _NUMBERS, strict=False):
        prefix = element.prefix
        rest = _LENGTHS[prefix.family][prefix.length]
        if element.protocol:
            rest += _service(element.protocol, element.port)
        if element.interface:
            rest += _interface(element.interface)
        if element.nomatch:
            rest += _NOMATCH
        before, network = _BEFORE[prefix.family][len(rest)], prefix.network
        if prefix.family == 4:
            entries.append(_ENTRY4(before, network, number) + rest)
        else:
            entries.append(_ENTRY6(before, network >> 64, network & _LOW, number) + rest)
    nest = attribute(A_ADT | NESTED, b"".join(entries))
    return name_attribute(name) + attribute(A_LINENO, _LINE.pack(0)) + nest


@lru_cache(maxsize=1 << 12)
def _service(protocol: str, port: int) -> bytes:
    numbers = attribute(D_PROTO, bytes([PROTOCOL_NUMBERS[protocol]]))
    return attribute(D_PORT | NETWORK_ORDER, _BE16.pack(port)) + numbers


@lru_cache(maxsize=1 << 12)
def _interface(name: str) -> bytes:
    return attribute(D_IFACE, name.encode() + b"\0")
