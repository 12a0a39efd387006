"""`/healthz`, `/readyz` and `/metrics` over HTTP, each from what the loop has published."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from enforcer.agent.board import AgentStatus
from enforcer.agent.serving import Serving
from policy.errors import HostRefused, UsageError

_TEXT = "text/plain; charset=utf-8"
_SECONDS_TO_ASK = 5
_MANY = 32


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:9470`, `[::1]:9470`, `:9470` → host and port. UsageError where it is none of these."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise UsageError(f"--listen {text}: expected ADDRESS:PORT, such as 127.0.0.1:9470")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Sources(Struct, frozen=True):
    """Where answers come from. `ails` says what keeps the agent from its work, "" where nothing does; `page` makes the
    page of metrics, in the format that an Accept header asks for, and its content type."""

    status: Callable[[], AgentStatus]
    ails: Callable[[], str]
    page: Callable[[str], tuple[bytes, str]]


class HttpServer(Serving):
    """HostRefused where the address can't be had."""

    def __init__(self, listen: str, sources: Sources) -> None:
        try:
            server = _Server(parse_listen(listen), sources)
        except OSError as error:
            raise HostRefused(f"--listen {listen}: {error.strerror}") from None
        super().__init__(server, "http")
        self._address = server.server_address

    @property
    def port(self) -> int:
        return int(self._address[1])


class _Server(ThreadingHTTPServer):
    """Answers a bounded number at a time: beyond `_MANY` whoever has been there for longest has to go, so that silent
    ones keep no probe away; while twice as many are still at it nobody is let in."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], sources: Sources) -> None:
        self.sources = sources
        self._there: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._there) >= 2 * _MANY:
                return False
            self._there[request] = None
            oldest = next(iter(self._there)) if len(self._there) > _MANY else None
        if oldest:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._there.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Whoever leaves early is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS_TO_ASK

    def do_GET(self) -> None:
        sources = self.server.sources
        match self.path.partition("?")[0]:
            case "/healthz":
                ails = sources.ails()
                self._say(503 if ails else 200, f"{ails or 'ok'}\n")
            case "/readyz":
                waits = sources.status().waits_for
                self._say(503 if waits else 200, "".join(f"waits for {each}\n" for each in waits) or "ok\n")
            case "/metrics":
                self._send(200, *sources.page(self.headers.get("Accept", "")))
            case _:
                self._say(404, "/healthz, /readyz, /metrics\n")

    def log_message(self, *_: object) -> None:
        """Probes and scrapes come every few seconds; they are not news."""

    def _say(self, code: int, text: str) -> None:
        self._send(code, text.encode(), _TEXT)

    def _send(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
