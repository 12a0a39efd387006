"""The connection to the API server: requests in, raw bytes out.

The `kubernetes` package finds the server, proves who we are and makes the pool of connections (`api_config`), proxies
and TLS included; its models, informers and watches are not used. A token is asked for anew with every request, since
those of service accounts rotate; an answer of 401 has everything read again, once.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError, SSLError

from enforcer.cluster.watch_wire import read_status
from policy.errors import ApiError, ApiRefused, ApiUnreachable
from policy.labels import bare, cut

Query = Sequence[tuple[str, str]]
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_AT_ONCE = 1 << 18
_LONGEST_MESSAGE = 500


class Api:
    """Shared by threads. `load` gives a configuration of the `kubernetes` package, with everything read from files and
    plugins as it is now, and `pool` its connections. Timeouts are seconds: to connect, for the server to say something,
    for a whole answer. `compress` asks for long answers gzipped, as Kubernetes' own clients do."""

    def __init__(
        self,
        load: Callable[[], Any],
        pool: Callable[[Any], urllib3.PoolManager],
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        answer_timeout: float = 120.0,
        compress: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._make_pool = pool
        self._timeouts = (connect_timeout, read_timeout, answer_timeout)
        self._compress = compress
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded = 0
        self._configuration = load()
        self._pool = pool(self._configuration)
        self.received = 0  # bytes of answers, unpacked

    @property
    def server(self) -> str:
        return str(self._configuration.host)

    def get(
        self, what: str, path: str, query: Query = (), verb: str = "get", accept: str = "application/json"
    ) -> bytes:
        """The body of an answer, in the form that `accept` asks for; ApiError where there is none."""
        headers = {"accept": accept, **({"accept-encoding": "gzip"} if self._compress else {})}
        return self._whole(verb, what, "GET", path, query, headers, None)

    def send(
        self,
        verb: str,
        what: str,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        query: Query = (),
    ) -> bytes:
        """A change by POST, PUT, PATCH or DELETE, and its answer. Sent again only where it was refused with 401."""
        headers = {"content-type": content_type} if body is not None else {}
        return self._whole(verb, what, method, path, query, headers, body)

    def stream(self, what: str, path: str, query: Query, silence: float, verb: str = "watch") -> Stream:
        """An answer as it comes. ApiUnreachable where nothing comes for `silence` seconds."""
        answer = self._answer(verb, what, "GET", path, query, {}, None, silence)
        return Stream(self, answer, verb, what, silence)

    def close(self) -> None:
        self._pool.clear()

    def _whole(
        self, verb: str, what: str, method: str, path: str, query: Query, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        _, read_timeout, answer_timeout = self._timeouts
        until = self._clock() + answer_timeout
        answer = self._answer(verb, what, method, path, query, headers, body, read_timeout)
        pieces = []
        with Stream(self, answer, verb, what, read_timeout) as stream:
            for piece in stream:
                pieces.append(piece)
                if self._clock() > until:
                    raise ApiUnreachable(verb, what, f"no whole answer within {answer_timeout:g} s")
        return b"".join(pieces)

    def _answer(
        self,
        verb: str,
        what: str,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        body: bytes | None,
        read_timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        """An answer of 200 or its like, not yet read."""
        target = f"{path}?{urlencode(query)}" if query else path
        for again in (True, False):
            try:
                url, sent, pool, loaded = self._prepared(target, headers)
            except Exception as error:  # a plugin's or a token file's, of whatever kind
                raise ApiUnreachable(verb, what, f"no credentials: {_line(error)}") from error
            try:
                answer = pool.request(
                    method,
                    url,
                    body=body,
                    headers=sent,
                    timeout=urllib3.Timeout(connect=self._timeouts[0], read=read_timeout),
                    retries=False,
                    preload_content=False,
                )
            except SSLError as error:
                if again:
                    self._reload(loaded)  # the certificate of either end may have been renewed
                    continue
                raise ApiUnreachable(verb, what, reason_of(error, read_timeout)) from error
            except (HTTPError, OSError, ValueError) as error:
                raise ApiUnreachable(verb, what, reason_of(error, read_timeout)) from error
            if answer.status == 401 and again:
                answer.close()
                self._reload(loaded)
                continue
            if not 200 <= answer.status < 300:
                raise _refusal(verb, what, answer)
            return answer
        raise AssertionError("unreachable")

    def _prepared(
        self, target: str, headers: Mapping[str, str]
    ) -> tuple[str, dict[str, str], urllib3.PoolManager, int]:
        with self._lock:
            sent = {"accept": "application/json", "user-agent": "podfence", **headers}
            for setting in self._configuration.auth_settings().values():
                if setting["in"] == "header" and setting["value"]:
                    sent[setting["key"]] = setting["value"].strip()
            return f"{self._configuration.host}{target}", sent, self._pool, self._loaded

    def _reload(self, loaded: int) -> None:
        """Reads the configuration again, but where another thread has since `loaded`. What can't be read stays."""
        with self._lock:
            if self._loaded == loaded:
                self._loaded += 1
                with suppress(ApiError):
                    self._configuration = self._load()
                    self._pool = self._make_pool(self._configuration)


class Stream:
    """The bytes of one answer, piece by piece, as they arrive. `shut` may be called from another thread."""

    def __init__(self, api: Api, answer: urllib3.BaseHTTPResponse, verb: str, what: str, silence: float) -> None:
        self._api = api
        self._answer = answer
        self._verb = verb
        self._what = what
        self._silence = silence

    def __iter__(self) -> Iterator[bytes]:
        """ApiUnreachable where the answer breaks off or falls silent."""
        try:
            while piece := self._answer.read1(_AT_ONCE, decode_content=True):
                self._api.received += len(piece)
                yield piece
        except (HTTPError, OSError, ValueError) as error:
            silent = isinstance(error, ReadTimeoutError)
            raise ApiUnreachable(self._verb, self._what, reason_of(error, self._silence), silent) from error

    def shut(self) -> None:
        """Wakes up whoever waits for the next piece."""
        with suppress(Exception):
            self._answer.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A connection whose answer was not read to its end can't be used again; one that was is back in the pool.
        self._answer.close()


def keepalive_options() -> list[tuple[int, int, int]]:
    """A peer that is gone without a word is found out within a minute, also while nothing is to be sent."""
    tcp = socket.IPPROTO_TCP
    return [
        (tcp, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (tcp, socket.TCP_KEEPIDLE, 20),
        (tcp, socket.TCP_KEEPINTVL, 10),
        (tcp, socket.TCP_KEEPCNT, 3),
        (tcp, socket.TCP_USER_TIMEOUT, 50_000),
    ]


def reason_of(error: Exception, silence: float) -> str:
    """What went wrong, in few words of one line."""
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return f"nothing heard for {silence:g} s"
    if isinstance(error, NewConnectionError | OSError):
        deepest: BaseException = error
        while deepest.__cause__ or deepest.__context__:
            deepest = deepest.__cause__ or deepest.__context__ or deepest
        return f"no connection: {getattr(deepest, 'strerror', None) or _line(deepest)}"
    if isinstance(error, SSLError):
        return f"TLS: {_line(error)}"
    return _line(error)


def _line(error: BaseException) -> str:
    return bare(cut(" ".join(str(error).split()) or type(error).__name__, _LONGEST_MESSAGE))


def _refusal(verb: str, what: str, answer: urllib3.BaseHTTPResponse) -> ApiRefused:
    """Its message as far as it can be read, which is never waited for long."""
    body = b""
    with suppress(HTTPError, OSError, ValueError):
        body = answer.read(_AT_ONCE) or b""
    answer.close()
    status = read_status(body)
    message = bare(cut(" ".join((status.message or "").split()), _LONGEST_MESSAGE))
    try:
        after = float(answer.headers.get("Retry-After", ""))
    except ValueError:
        after = 0
    reason = answer.reason or status.reason or ""
    return ApiRefused(verb, what, answer.status, reason, message, max(after, status.retry_after, 0), status.cause)
