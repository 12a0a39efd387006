"""The agent's local socket, for root: a question of one JSON line, and an answer of JSON lines.

    {"ask": "status"}                        one line: what is on the board
    {"ask": "programmed", "kind": "Pod", "namespace": "shop", "name": "web"}
                                             one line: {"programmed": true} where the kernel holds all that was heard of
                                             that kind up to this object
    {"ask": "denials"}                       a line for each denial of late; with "follow": true, those that come too

An answer that is {"error": "…"} is a refusal. Nobody but root can open the socket: its folder's file mode says so, and
the kernel's word on who is at the other end is asked again.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from types import TracebackType
from typing import Any

import msgspec

from enforcer.agent.serving import Serving
from policy.errors import HostRefused

SOCKET = "agent.sock"
_LONGEST_QUESTION = 4096
_SECONDS_TO_ASK = 5.0
_CREDENTIALS = struct.Struct("3i")

Answers = Callable[[dict[str, Any]], Iterable[object]]


class LocalServer(Serving):
    """`answers` gives the lines of an answer, on the asker's own thread; `users`
    are those who get one."""

    def __init__(self, state_dir: str, answers: Answers, users: Collection[int] = frozenset({0})) -> None:
        self._path = Path(state_dir) / SOCKET
        try:
            self._path.unlink(missing_ok=True)  # whoever left it does not hold the agent's lock any more
            before = os.umask(0o177)
            try:
                server = _Server(str(self._path), answers, users)
            finally:
                os.umask(before)
        except OSError as error:
            raise HostRefused(f"{self._path}: {error.strerror}") from None
        super().__init__(server, "local socket")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._path.unlink(missing_ok=True)


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: str, answers: Answers, users: Collection[int]) -> None:
        self.answers = answers
        self.users = users
        super().__init__(path, _Handler)


class _Handler(StreamRequestHandler):
    server: _Server
    timeout = _SECONDS_TO_ASK

    def handle(self) -> None:
        """An asker who leaves early, or says nothing, is no event."""
        with suppress(OSError):
            if _user_of(self.connection) not in self.server.users:
                # To say nothing would look like an answer without lines.
                self.wfile.write(b'{"error": "only root is answered"}\n')
                return
            if asked := self.rfile.readline(_LONGEST_QUESTION):
                for answer in self._answers(asked):
                    self.wfile.write(msgspec.json.encode(answer, enc_hook=str) + b"\n")

    def _answers(self, asked: bytes) -> Iterable[object]:
        try:
            question = msgspec.json.decode(asked, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return [{"error": f"not a question: {error}"}]
        return self.server.answers(question)


def _user_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user


def ask(state_dir: str, question: dict[str, Any], timeout: float | None = _SECONDS_TO_ASK) -> Iterator[dict[str, Any]]:
    """The agent's answers to `question`, as they come. HostRefused where no agent answers, or it refuses."""
    path = Path(state_dir) / SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(question) + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer: dict[str, Any] = msgspec.json.decode(line) or {}
                    if "error" in answer:
                        raise HostRefused(f"the agent refuses: {answer['error']}")
                    yield answer
    except (FileNotFoundError, ConnectionRefusedError):
        raise HostRefused(f"no agent answers at {path}: is one running on this node?") from None
    except OSError as error:
        raise HostRefused(f"{path}: {error.strerror or error}") from None


def alive(state_dir: str) -> bool:
    """Whether an agent listens. HostRefused where one may not be asked."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(Path(state_dir) / SOCKET))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise HostRefused(f"{Path(state_dir) / SOCKET}: {error.strerror} (run it as root)") from None
    return True
