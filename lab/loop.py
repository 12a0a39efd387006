"""Sockets and what to do when one has something to say."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable


class Loop:
    """The sockets that are watched. Whoever watches one closes it with `forget`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}

    def watch(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        """Calls `handler` whenever the socket can be read, or has an error, until it has neither."""
        self._epoll.register(sock, select.EPOLLIN)
        self._handlers[sock.fileno()] = handler

    def forget(self, sock: socket.socket) -> None:
        self._handlers.pop(sock.fileno(), None)
        sock.close()

    def turn(self, patience: float) -> bool:
        """Handles what is ready, waiting up to `patience` seconds for it. False where nothing was."""
        ready = self._epoll.poll(patience, 256)
        for fd, _events in ready:
            # One handler may have closed the socket of another.
            if (handler := self._handlers.get(fd)) is not None:
                handler()
        return bool(ready)

    def close(self) -> None:
        self._epoll.close()
