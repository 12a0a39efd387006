"""Packets that podfence's rules told of, from the kernel: one reader a group, which the kernel sees to."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from enforcer.kernel.nflog_wire import BIND_REQUESTS, Logged, bind_requests, codes, logged
from enforcer.steady import steady
from policy.errors import HostRefused

_NETLINK_NETFILTER = 12
_RECEIVE = 1 << 17
_BUFFER = 1 << 20


class ReadCounts(Struct, frozen=True):
    """`lost`: how often the kernel had no room for packets, some of which are missing each time. `strange`: messages
    that could not be read, or that no rule of podfence sent."""

    packets: int = 0
    lost: int = 0
    strange: int = 0


class NflogReader:
    """Binds the group when made, in the network namespace of that thread, and reads it until closed. HostRefused where
    another program reads it, the kernel has no NFLOG, or a permission is missing."""

    def __init__(self, group: int) -> None:
        self.counts = ReadCounts()
        self._closing = False
        self._thread: threading.Thread | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        except OSError as error:
            raise HostRefused(f"denied packets can't be read: {error.strerror}") from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._bind(group)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._closing = True
        # A socket that somebody waits for is not closed: its number might be another's before they learn it.
        if self._thread:
            self._thread.join()
        self._socket.close()

    def read(self, timeout: float | None = None) -> list[Logged]:
        """The packets of one message of the kernel, which gathers for a twentieth of a second at most; none after
        `timeout` seconds without any, and where some were lost."""
        self._socket.settimeout(timeout)
        try:
            answer = self._socket.recv(_RECEIVE)
        except TimeoutError:
            return []
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise HostRefused(f"denied packets can't be read: {error.strerror}") from None
            self.counts = replace(self.counts, lost=self.counts.lost + 1)
            return []
        found = list(logged(answer))
        known = [each for each in found if each]
        counts = self.counts
        self.counts = replace(
            counts, packets=counts.packets + len(known), strange=counts.strange + len(found) - len(known)
        )
        return known

    def follow(
        self, take: Callable[[list[Logged]], None], complain: Callable[[str], None], pause: float = 0.25
    ) -> None:
        """A thread that gives `take` what is read until the reader is closed, and at least every `pause` seconds an
        empty list, so that what waits there is said. It goes on where something goes wrong, of which `complain` gets
        a line."""

        def run() -> None:
            while not self._closing:
                take(self.read(pause))

        self._thread = steady(run, "denials", complain)
        self._thread.start()

    def _bind(self, group: int) -> None:
        try:
            self._socket.settimeout(5)
            self._socket.send(bind_requests(group))
            found: list[int] = []
            while len(found) < BIND_REQUESTS:
                found += codes(self._socket.recv(_RECEIVE))
                if bad := next((code for code in found if code), 0):
                    raise OSError(bad, os.strerror(bad))
        except OSError as error:
            raise HostRefused(f"NFLOG group {group} can't be read: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EBUSY | errno.EPERM:
            # The kernel says EPERM of a group that is somebody else's, too.
            return "another program reads it, an agent or ulogd, or this one may not (it needs CAP_NET_ADMIN)"
        case errno.EINVAL | errno.EOPNOTSUPP:
            return f"{error.strerror} (is the kernel module nfnetlink_log there?)"
    return error.strerror or str(error)
