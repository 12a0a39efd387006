"""The filter tables of iptables-legacy as the kernel holds them, asked by getsockopt as iptables does it: cheaper by
far than what `iptables-save` prints, and only good for being compared."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct as Layout
from sys import byteorder

from policy.cidr import Family
from policy.errors import HostRefused

_GET_INFO, _GET_ENTRIES = 64, 65
_INFO_SIZE, _ENTRIES_AT, _ENTRIES_HEAD = 84, 76, 40
# Where counters and the offset of the next entry stand in struct ipt_entry and ip6t_entry. That of the target, of two
# bytes as well, is before the latter.
_ENTRY: dict[Family, tuple[int, int]] = {4: (96, 90), 6: (152, 142)}
# Where the offsets of INPUT's and FORWARD's first entries stand in what GET_INFO says.
_HOOKS_AT = 40, 44
# A target has its name at 2, empty for a jump, and where that leads at 32: behind an entry with the chain's name, which
# stands so long before its end.
_TARGET_NAME, _VERDICT, _CHAIN_NAME = 2, 32, 32
_ASKED = Layout("=32sI")
_TRIES = 10
_SOCKETS: dict[Family, tuple[int, int]] = {4: (socket.AF_INET, 0), 6: (socket.AF_INET6, 41)}
_libc = ctypes.CDLL(None, use_errno=True)


class LegacyTables:
    """Those of the network namespace that it is made in. HostRefused where one can't be read."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._sockets = {family: socket.socket(_SOCKETS[family][0], socket.SOCK_DGRAM) for family in families}

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()

    def sizes(self) -> list[bytes]:
        """Number, size and hook offsets of the entries."""
        return [self._info(family) for family in self._sockets]

    def entries(self) -> list[bytes]:
        """Digests of the entries without their counters."""
        return [self._digest(family) for family in self._sockets]

    def first_jumps(self) -> list[bytes]:
        """The names of the chains that INPUT and FORWARD lead to first; "" where their first rule is no jump."""
        return [name for family in self._sockets for name in self._first_jumps(family)]

    def _first_jumps(self, family: Family) -> list[bytes]:
        info, entries = self._table(family)
        _, following = _ENTRY[family]
        names = []
        for hook in _HOOKS_AT if entries else ():
            entry = _number(info, hook)
            target = entry + _number(entries, entry + following - 2, 2)
            leads = _number(entries, target + _VERDICT)
            # Verdicts that end a walk are below zero.
            jumps = not entries[target + _TARGET_NAME] and leads < 1 << 31
            names.append(bytes(entries[leads - _CHAIN_NAME : leads]).split(b"\0")[0] if jumps else b"")
        return names

    def _digest(self, family: Family) -> bytes:
        _, entries = self._table(family)
        counters, following = _ENTRY[family]
        at = 0
        while at < len(entries):
            entries[at + counters : at + counters + 16] = bytes(16)
            at += _number(entries, at + following, 2)
        return blake2b(entries, digest_size=16).digest()

    def _table(self, family: Family) -> tuple[bytes, bytearray]:
        """What the table says of itself, and its entries."""
        for _ in range(_TRIES):
            info = self._info(family)
            size = int.from_bytes(info[-4:], byteorder)
            try:
                found = self._getsockopt(family, _GET_ENTRIES, _ENTRIES_HEAD + size, size)
                return info, bytearray(found[_ENTRIES_HEAD:])
            except BlockingIOError:  # the table was replaced since it said its size
                continue
        raise HostRefused(f"the filter table can't be read: it changed during each of {_TRIES} readings")

    def _info(self, family: Family) -> bytes:
        return self._getsockopt(family, _GET_INFO, _INFO_SIZE)

    def _getsockopt(self, family: Family, option: int, length: int, size: int = 0) -> bytes:
        """What the filter table of `family` says; nothing where there is none. Python's own getsockopt can't ask with
        a name."""
        answer = ctypes.create_string_buffer(_ASKED.pack(b"filter", size), length)
        given = ctypes.c_uint32(length)
        level = _SOCKETS[family][1]
        if _libc.getsockopt(self._sockets[family].fileno(), level, option, answer, ctypes.byref(given)) == 0:
            return answer.raw
        number = ctypes.get_errno()
        if number in (errno.ENOENT, errno.ENOPROTOOPT):
            return b""
        if number == errno.EAGAIN:
            raise BlockingIOError(number, os.strerror(number))
        raise HostRefused(f"the filter table can't be read: {os.strerror(number)}")


def entries_in(info: bytes) -> int:
    """How many entries a table has, by its size; 0 where there is no table."""
    return _number(info, _ENTRIES_AT)


def _number(data: bytes | bytearray, at: int, size: int = 4) -> int:
    return int.from_bytes(data[at : at + size], byteorder)
