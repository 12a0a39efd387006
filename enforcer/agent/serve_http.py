"""`/healthz`, `/readyz` and `/metrics` over HTTP, each from what the loop has published."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from msgspec import Struct

from enforcer.agent.board import AgentStatus
from enforcer.agent.serving import Serving
from policy.errors import HostRefused, UsageError

_TEXT = "text/plain; charset=utf-8"
_SECONDS_TO_ASK = 5


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:9470`, `[::1]:9470`, `:9470` → host and port. UsageError where it is none of these."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise UsageError(f"--listen {text}: expected ADDRESS:PORT, such as 127.0.0.1:9470")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Sources(Struct, frozen=True):
    """Where answers come from. `alive` says whether the loop still turns; `page` makes the page of metrics, in the
    format that an Accept header asks for, and its content type."""

    status: Callable[[], AgentStatus]
    alive: Callable[[], bool]
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
    daemon_threads = True

    def __init__(self, address: tuple[str, int], sources: Sources) -> None:
        self.sources = sources
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS_TO_ASK

    def do_GET(self) -> None:
        sources = self.server.sources
        match self.path.partition("?")[0]:
            case "/healthz":
                self._say(200, "ok\n") if sources.alive() else self._say(503, "the loop has not turned for too long\n")
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
