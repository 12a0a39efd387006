"""What a probe asks, what came of it, and how an answer of the network is read. Pure."""

from __future__ import annotations

import errno
import socket
import struct
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from policy.cidr import Address, Family
from policy.model import Protocol

AF = {4: socket.AF_INET, 6: socket.AF_INET6}


class Outcome(StrEnum):
    """`UNREACHABLE` is never a policy's doing: there is no route, or no such host."""

    OPEN = "open"
    REFUSED = "refused"  # by the destination: a TCP reset, an SCTP ABORT, ICMP port unreachable
    REJECTED = "rejected"  # by a firewall: ICMP administratively prohibited
    DROPPED = "dropped"  # silence, or the sender's own namespace swallowed it
    UNREACHABLE = "unreachable"


class Probe(Struct, frozen=True):
    """One new flow. `src` and `dst` are places: a pod's key, a node's name or OUTSIDE; `dst` may be an address, which
    then decides the family. `source` is the address that it is sent from, by default the first one of `src`.
    `port` means nothing to ICMP, which is an echo request."""

    src: str
    dst: str | Address
    protocol: Protocol | Literal["ICMP"] = "TCP"
    port: int = 0
    family: Family = 4
    source: Address | None = None


class Result(Struct, frozen=True):
    """`seconds` from the first packet to the answer, or to the end of patience. `answered_by` is the place that
    accepted an open flow, which the destination address need not be; "" for ICMP, where the kernel answers."""

    probe: Probe
    outcome: Outcome
    seconds: float
    answered_by: str = ""


_V4_UNREACHABLE, _V6_UNREACHABLE, _V6_PARAMETER = 3, 1, 4
# Network, host and communication administratively prohibited (RFC 1812 section 5.2.7.1); no protocol, no port.
_V4 = dict.fromkeys((9, 10, 13), Outcome.REJECTED) | dict.fromkeys((2, 3), Outcome.REFUSED)
# Administratively prohibited, policy, reject route; no port (RFC 4443 section 3.1).
_V6 = dict.fromkeys((1, 5, 6), Outcome.REJECTED) | {4: Outcome.REFUSED}
_ERRNO = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.REFUSED,
    errno.EPERM: Outcome.DROPPED,
    errno.EACCES: Outcome.REJECTED,
}

_ORIGIN_ICMP = (2, 3)
_EXTENDED_ERROR = struct.Struct("=IBBBB")
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}


def of_icmp(family: Family, kind: int, code: int) -> Outcome:
    if family == 4:
        return _V4.get(code, Outcome.UNREACHABLE) if kind == _V4_UNREACHABLE else Outcome.UNREACHABLE
    if kind == _V6_PARAMETER:
        return Outcome.REFUSED
    return _V6.get(code, Outcome.UNREACHABLE) if kind == _V6_UNREACHABLE else Outcome.UNREACHABLE


def of_errno(number: int) -> Outcome:
    """Of an error that no ICMP message explains. EPERM: a filter in the sender's own namespace dropped the packet."""
    return _ERRNO.get(number, Outcome.UNREACHABLE)


def ask_for_errors(sock: socket.socket, family: Family) -> None:
    """From now on ICMP errors wait on the socket's error queue, with type and code, for `read_error`."""
    level, option = _RECVERR[family]
    sock.setsockopt(level, option, 1)


def read_error(sock: socket.socket, family: Family) -> tuple[Outcome, bytes] | None:
    """The next ICMP error of a socket, and the payload that it quotes. None where there is none left."""
    level, option = _RECVERR[family]
    while True:
        try:
            payload, ancillary, _flags, _from = sock.recvmsg(512, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return None
        for its_level, its_option, data in ancillary:
            if (its_level, its_option) == (level, option):
                _errno, origin, kind, code, _pad = _EXTENDED_ERROR.unpack_from(data)
                if origin in _ORIGIN_ICMP:
                    return of_icmp(family, kind, code), payload
