"""What the kernel says of its sets over netlink, read from bytes: refusals, and the dump of all sets. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from struct import Struct as Layout
from sys import byteorder
from typing import cast

from msgspec import Struct

from enforcer.kernel.ipset_wire import (
    A_ADT,
    A_DATA,
    A_FAMILY,
    A_LINENO,
    A_SETNAME,
    A_TYPENAME,
    AF,
    D_CIDR,
    D_FLAGS,
    D_IFACE,
    D_IP,
    D_MAXELEM,
    D_PORT,
    D_PROTO,
    FLAG_COUNTERS,
    FLAG_NOMATCH,
    HEAD,
    KIND_MASK,
    PROTOCOL_NUMBERS,
    REVISIONS,
    Command,
)
from enforcer.rules.names import set_name
from enforcer.rules.parse import InstalledSet
from enforcer.rules.ruleset import Element, IpSet, SetType
from policy.cidr import BITS, Family, Prefix

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_DUMP_INTR = 0x10
ERR_PROTOCOL, ERR_FIND_TYPE, ERR_BUSY, ERR_EXIST = 4097, 4098, 4100, 4103
_NLMSG = Layout("=IHHII")
_ERRNO = Layout("=i")
_NFGEN_SIZE = 4


class Answer(Struct, frozen=True):
    """One message: `data[start:end]` is what follows its netlink header."""

    kind: int
    flags: int
    sequence: int
    data: bytes
    start: int
    end: int

    @property
    def attributes(self) -> dict[int, bytes]:
        """Those of a message of ipset's, by kind."""
        spans = attributes(self.data, self.start + _NFGEN_SIZE, self.end)
        return {kind: self.data[start:end] for kind, start, end in spans}

    @property
    def error(self) -> int:
        """Of an ERROR or DONE: the errno or IPSET_ERR_*, 0 where all is well."""
        return -int(_ERRNO.unpack_from(self.data, self.start)[0]) if self.end - self.start >= _ERRNO.size else 0

    @property
    def element(self) -> int:
        """Of an ERROR: the number of the element that was refused, from 1; 0 where the whole request was."""
        # The request comes back behind the error, its LINENO filled in.
        asked = self.start + _ERRNO.size + _NLMSG.size + _NFGEN_SIZE
        for kind, start, end in attributes(self.data, asked, self.end):
            if kind == A_LINENO:
                return int.from_bytes(self.data[start:end], byteorder)
        return 0


def answers(data: bytes) -> Iterator[Answer]:
    """The messages that one read of the socket gave."""
    offset = 0
    while offset + _NLMSG.size <= len(data):
        length, kind, flags, sequence, _ = _NLMSG.unpack_from(data, offset)
        yield Answer(kind, flags, sequence, data, offset + _NLMSG.size, offset + length)
        offset += max(length + 3 & ~3, _NLMSG.size)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, and start and end of the payload, of each attribute between two offsets."""
    while start + HEAD.size <= end:
        length, kind = HEAD.unpack_from(data, start)
        yield kind & KIND_MASK, start + HEAD.size, start + length
        start += max(length + 3 & ~3, HEAD.size)


# What is said of an element, whatever else the set holds, and whoever else is at it.
OF_THE_ELEMENT = frozenset({errno.EINVAL, errno.ERANGE, ERR_PROTOCOL, 4104, 4353, 4354, 4355})
_WORDS = {
    errno.EEXIST: "a set of that name exists already",
    errno.ENOENT: "there is no set of that name",
    errno.ENOMEM: "the kernel has no memory for it",
    errno.EPERM: "not permitted (run it as root, or with CAP_NET_ADMIN)",
    ERR_PROTOCOL: "the kernel does not understand the message",
    ERR_FIND_TYPE: "the kernel has no such set type",
    4099: "the kernel has as many sets as it can hold",
    ERR_BUSY: "the set is in use",
    4101: "there is no set of the second name",
    4102: "the sets are of different types",
    4104: "a prefix length that the set cannot hold",
    4106: "a family that the set type does not have",
    4108: "the set is in use",
    4352: "the set is full",
    4353: "an element that is all zero",
    4354: "a protocol that the set cannot hold",
    4355: "the element has no protocol",
}


def words(error: int, command: Command) -> str:
    """What an errno or IPSET_ERR_* (linux/netfilter/ipset/ip_set.h, ip_set_hash.h) means in answer to a command."""
    if error == ERR_EXIST:
        return "the set does not hold it" if command == Command.DEL else "the set holds it already"
    if error == ERR_PROTOCOL and command in (Command.ADD, Command.DEL):
        # Most often it is an address of the other family.
        return "the set cannot hold it"
    return _WORDS.get(error) or f"error {errno.errorcode.get(error, error)}"


_PROTOCOLS = {number: name for name, number in PROTOCOL_NUMBERS.items()}
_D_BYTES, _D_PACKETS, _D_ELEMENTS, _D_REFERENCES = 24, 25, 24, 25
# What a set's head may hold beside its counters flag: how it is hashed and what it takes, which decide no match.
_HARMLESS = {17, 18, D_MAXELEM, 21, 22, 23, _D_ELEMENTS, _D_REFERENCES, 26}


class Listing:
    """Our sets of one family, gathered from the messages of one dump.

    A set with options or elements that podfence never makes gets a type that equals no type of ours: it is replaced,
    and never trusted.
    """

    def __init__(self, family: Family) -> None:
        self._family: Family = family
        self._prefix = set_name(family, "").encode()
        self._sets: dict[bytes, _Reading] = {}

    def take(self, answer: Answer) -> None:
        """One message of the dump: the head of a set with some of its elements, or more of them."""
        found = answer.attributes
        name = found[A_SETNAME].rstrip(b"\0")
        # Our names are ASCII: another is somebody else's, whatever it begins with.
        if not name.startswith(self._prefix) or not name.isascii():
            return
        if A_TYPENAME in found:
            self._sets[name] = _Reading(name.decode(), self._family, found)
        if A_ADT in found:
            self._sets[name].add(found[A_ADT])

    @property
    def whole(self) -> bool:
        """Whether each set held, at its end, as many elements as it said at its start."""
        return all(reading.expected in (-1, reading.seen) for reading in self._sets.values())

    @property
    def sets(self) -> dict[str, InstalledSet]:
        return {reading.name: reading.result() for reading in self._sets.values()}


class _Reading:
    """One set, while its elements come in."""

    def __init__(self, name: str, family: Family, found: dict[int, bytes]) -> None:
        self.name = name
        self.family: Family = family
        self.type = found[A_TYPENAME].rstrip(b"\0").decode()
        data = found[A_DATA]
        options = {kind: data[start:end] for kind, start, end in attributes(data, 0, len(data))}
        flags = int.from_bytes(options.pop(D_FLAGS, b""), "big")
        self.counters = bool(flags & FLAG_COUNTERS)
        plain = not flags & ~FLAG_COUNTERS and options.keys() <= _HARMLESS
        self.ours = self.type in REVISIONS and found[A_FAMILY][0] == AF[family] and plain
        self.expected = int.from_bytes(options[_D_ELEMENTS], "big") if _D_ELEMENTS in options else -1
        self.references = int.from_bytes(options.get(_D_REFERENCES, b""), "big")
        self.maxelem = int.from_bytes(options.get(D_MAXELEM, b""), "big")
        self.seen = 0
        self.elements: dict[Element, int] = {}

    def add(self, data: bytes) -> None:
        """Elements, each a nest of attributes, in the order in which the kernel has them."""
        unpack, family, bits = HEAD.unpack_from, self.family, BITS[self.family]
        offset, end = 0, len(data)
        while offset < end:
            size, _ = unpack(data, offset)
            # A length of 0 makes no sense, and must not be read for ever.
            at, offset = offset + 4, offset + (size or 4)
            self.seen += 1
            network = port = packets = flags = 0
            length, protocol, interface = bits, "", ""
            while at < offset:
                size, kind = unpack(data, at)
                start, stop = at + 4, at + size
                at += size + 3 & ~3 or 4
                kind &= KIND_MASK
                if kind == D_IP:
                    network = int.from_bytes(data[start + 4 : stop], "big")
                elif kind == D_CIDR:
                    length = data[start]
                elif kind == D_PORT:
                    port = int.from_bytes(data[start:stop], "big")
                elif kind == D_PROTO:
                    protocol = _PROTOCOLS.get(data[start], "")
                    self.ours &= bool(protocol)
                elif kind == _D_PACKETS:
                    packets = int.from_bytes(data[start:stop], "big")
                elif kind == D_FLAGS:
                    flags = int.from_bytes(data[start:stop], "big")
                elif kind == D_IFACE:
                    interface = data[start : stop - 1].decode(errors="backslashreplace")
            self.ours &= not flags & ~FLAG_NOMATCH
            element = Element(Prefix(family, network, length), protocol, port, interface, bool(flags))
            self.elements[element] = packets

    def result(self) -> InstalledSet:
        kind = self.type if self.ours else f"{self.type}, none of ours"
        ipset = IpSet(self.name, cast(SetType, kind), frozenset(self.elements), self.counters)
        return InstalledSet(ipset, self.elements if self.counters else {}, self.maxelem, self.references)
