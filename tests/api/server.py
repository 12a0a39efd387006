"""An API server that lists, watches, and fails as it is told to. Real sockets on 127.0.0.1, written by hand, since it
must break chunks and lines where no library would.

A fault is a function of the `Talk`, one request and its answer; `faults["watch pods"]` has one for each coming request,
in their order, and whoever has none is answered well.
"""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.api.history import KINDS, History, bookmarks


class Dropped(Exception):
    """The conversation is over."""


class Talk:
    """One request, and what is sent in answer."""

    def __init__(self, server: Server, connection: Any, method: str, target: str, headers: dict[str, str], body: bytes):
        parts = urlsplit(target)
        self.server = server
        self.history = server.history
        self.connection = connection
        self.method = method
        self.target = target
        self.path = unquote(parts.path)
        self.query = dict(parse_qsl(parts.query))
        self.headers = headers
        self.body = body
        self.watching = self.query.get("watch") == "true"
        self.cuts = server.cuts

    @property
    def title(self) -> str:
        verb = "watch" if self.watching else {"GET": "list"}.get(self.method, self.method.lower())
        return f"{verb} {self.path.rpartition('/')[2]}"

    @property
    def only(self) -> str:
        return self.query.get("fieldSelector", "").removeprefix("metadata.name=")

    def answer(self) -> None:
        """As a sane server does."""
        if self.method != "GET":
            self.whole(200, self.body or b"{}")
        elif self.path not in KINDS:
            self.refuse(404, "NotFound", f"no {self.path}")
        elif self.watching:
            self.watch()
        else:
            page = self.history.page(
                self.path, int(self.query.get("limit", 0)), self.query.get("continue", ""), self.only
            )
            if page is None:
                self.refuse(410, "Expired", "the provided continue parameter is too old")
            else:
                self.whole(200, page)

    def whole(self, status: int, body: bytes, **headers: str) -> None:
        if "gzip" in self.headers.get("accept-encoding", "") and len(body) > 128 << 10:
            body, headers = gzip.compress(body, 1), {**headers, "Content-Encoding": "gzip"}
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Whatever')}", "Content-Type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)

    def refuse(self, status: int, reason: str, message: str = "", cause: str = "", **headers: str) -> None:
        self.whole(status, status_body(status, reason, message, cause), **headers)

    def start(self) -> None:
        """The head of a watch's answer."""
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.server.sent += len(data)
        try:
            self.connection.sendall(data)
        except OSError:
            raise Dropped from None

    def reset(self) -> None:
        """Not a proper end: the peer's next read fails."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Dropped

    def hang(self, seconds: float = 60) -> None:
        """Nothing, until the server stops or the client is tired of it."""
        until = time.monotonic() + seconds
        self.connection.settimeout(0.02)
        while time.monotonic() < until and not self.server.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        raise Dropped

    def watch(self) -> None:
        self.start_watch()
        for line in self.lines():
            self.chunk(line)
        self.end()

    def start_watch(self) -> None:
        """The head, or the refusal of a version that is too old."""
        number = self.history.number_of(self.query.get("resourceVersion", ""))
        if number is None or number < self.history.oldest:
            self.refuse(410, "Expired", "too old resource version")
            raise Dropped
        self.start()

    def lines(self) -> Iterator[bytes]:
        """What happens, as it happens, with bookmarks; until the time is over. As a real server's cache does, one that
        was restored says nothing to a watch from a version that it has not reached."""
        number = self.history.number_of(self.query.get("resourceVersion", "")) or 0
        until = time.monotonic() + min(float(self.query.get("timeoutSeconds", 600)), self.server.longest_watch)
        marks, marked = bookmarks(self.history, self.path), time.monotonic()
        while not self.server.stopping.is_set():
            found = self.history.since(self.path, number, self.only)
            for each in found:
                number = each.number
                yield each.line
            if self.server.cuts != self.cuts:
                self.reset()
            if time.monotonic() > until:
                return
            if time.monotonic() - marked > self.server.bookmark_every and self.history.number >= number:
                marked = time.monotonic()
                yield next(marks)
            with self.history.changed:
                if not self.history.since(self.path, number, self.only):
                    self.history.changed.wait(min(0.02, self.server.bookmark_every))
        raise Dropped


Fault = Callable[[Talk], None]
_REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 410: "Gone", 429: "Too Many Requests", 500: "Oops"}


def status_body(code: int, reason: str, message: str, cause: str = "") -> bytes:
    details = {"causes": [{"reason": cause}]} if cause else {}
    tree = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    return json.dumps({**tree, "reason": reason, "message": message, "details": details}).encode()


class Server:
    """`requests` counts them by title, `log` has each; `token` is what it wants to see, None anything. `admits` is
    asked about the connection at each request: whom it lets in is authorized."""

    def __init__(self, history: History, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.history = history
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self.requests: Counter[str] = Counter()
        self.log: list[Talk] = []
        self.connections = 0
        self.sent = 0
        self.token: str | None = None
        self.admits: Callable[[Any], bool] = lambda _: True
        self.longest_watch = 600.0
        self.bookmark_every = 0.1
        self.stopping = threading.Event()
        self.cuts = 0
        self._context = context
        self._open: set[Any] = set()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._converse(self.request)

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass

        self._listener = Listener(("127.0.0.1", port), Handler)
        self.port = self._listener.server_address[1]
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._listener.shutdown()
        self._listener.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def cut_all(self) -> None:
        """Every watch that is open is reset."""
        self.cuts += 1

    def _converse(self, connection: Any) -> None:
        self.connections += 1
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            reader = connection.makefile("rb")
            while talk := self._asked(connection, reader):
                self.requests[talk.title] += 1
                self.log.append(talk)
                self._reply(talk)
        except (Dropped, OSError, ValueError):
            pass
        finally:
            self._open.discard(connection)
            connection.close()

    def _reply(self, talk: Talk) -> None:
        token = talk.headers.get("authorization", "").lower()
        if (self.token is not None and token != f"bearer {self.token}") or not self.admits(talk.connection):
            talk.refuse(401, "Unauthorized", "Unauthorized")
        elif self.faults[talk.title]:
            self.faults[talk.title].popleft()(talk)
        else:
            self.always.get(talk.title, Talk.answer)(talk)

    def _asked(self, connection: Any, reader: Any) -> Talk | None:
        first = reader.readline().decode().split()
        if len(first) < 3:
            return None
        headers: dict[str, str] = {}
        while (line := reader.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", 0)))
        return Talk(self, connection, first[0], first[1], headers, body)
