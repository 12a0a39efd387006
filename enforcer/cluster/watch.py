"""One kind of the API server's objects, followed by a thread: lists and watches in, messages out.

    list in pages ──► Listed ──► watch from the list's version ──► Changed … ──► ends ──► watch from the last version
         ▲                                                                          │
         └── the version is too old, unknown, or refused; silence; garbage twice ───┘

Every end leads to the next request, and every end that came too soon to a wait before it, longer each time. Versions
are opaque: kept and sent back, never compared. What was heard twice does no harm.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from enforcer.cluster.api import Query
from enforcer.cluster.news import Changed, Finding, Listed, News, Object, Recovered, Trouble
from enforcer.cluster.pace import USUAL, Pace
from enforcer.cluster.resources import Resource
from enforcer.cluster.watch_wire import Lines, NotJson, Page, read_event, read_page, read_status, version_of
from policy.errors import ApiError, ApiRefused, ApiUnreachable, Problem

# No answer to a watch of these says that its version is at fault.
_NOT_THE_VERSION = (401, 403, 404, 408, 429)
_BUSY = (429, 503, 504)
_TOO_LARGE = "ResourceVersionTooLarge"


class Counts(Struct):
    """What one thread did so far, for metrics; only it writes."""

    lists: int = 0
    pages: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    failures: int = 0
    unreadable: int = 0


class Pieces(Protocol):
    """An answer as it comes."""

    def __iter__(self) -> Iterator[bytes]: ...
    def shut(self) -> None: ...


class Server(Protocol):
    """What of `Api` a watch needs."""

    def get(self, what: str, path: str, query: Query = (), verb: str = "get") -> bytes: ...
    def stream(self, what: str, path: str, query: Query, silence: float) -> AbstractContextManager[Pieces]: ...


class Watcher:
    """Puts what it hears of one kind; never ends but by `stop`, and touches nothing else.

    `put` takes messages from this thread; `wait` sleeps for so many seconds, `chance` is a number from 0 to 1."""

    def __init__(
        self,
        resource: Resource,
        server: Server,
        put: Callable[[News], None],
        pace: Pace = USUAL,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.resource = resource
        self.counts = Counts()
        self._server = server
        self._put = put
        self._pace = pace
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._chance = chance
        self._version: str | None = None  # None: a list is due
        self._last: bytes | None = None  # the last event's object, whose version is read only when it is needed
        self._stream: Pieces | None = None
        self._failures = 0  # in a row
        self._expired = 0  # lists in a row that took longer than the server keeps their pages
        self._garbled = False
        self._progress = False
        self._heard_at = clock()
        self._trouble = ""
        self._listing_failed = False

    def run(self) -> None:
        """The thread."""
        while not self._stopped.is_set():
            self.turn()

    def stop(self) -> None:
        """From any thread: `run` returns soon."""
        self._stopped.set()
        if stream := self._stream:
            stream.shut()

    def turn(self) -> None:
        """One list or one watch, and the wait that is due after it."""
        began, listing, self._progress = self._clock(), self._version is None, False
        after = 0.0
        try:
            if listing:
                self._list()
                return
            self._watch(began)
            failed = self._clock() - began < self._pace.settled
        except ApiError as error:
            failed, after = True, self._refused(error, listing)
        except NotJson as error:
            failed = True
            self._garbage(error)
        except Exception as error:  # a defect of ours in one object must not end the thread: others go on
            failed, self._version = True, None
            self._say(f"list or watch {self.resource.plural}: {type(error).__name__}: {error}", 0)
        if self._stopped.is_set():
            return
        if self._version is not None and self._clock() - began >= self._pace.settled:
            self._failures = 0
        elif self._version is not None and self._progress:
            self._failures = min(self._failures, self._pace.forgiven)
        if failed:
            self.counts.failures += 1
            self._wait(self._pace.delay(self._failures, after, self._chance))
            self._failures += 1

    def _list(self) -> None:
        resource, paged = self.resource, self._expired < 2
        objects: list[Object] = []
        findings: list[Finding] = []
        version = token = ""
        self.counts.lists += 1
        while True:
            query = [*resource.query]
            if paged:
                query.append(("limit", str(self._pace.page)))
            if token:
                query.append(("continue", token))
            page = self._page(query, 1 if not token else self._pace.page_attempts)
            objects += page.objects
            findings += page.findings
            if page.version != (version or page.version):
                raise ApiUnreachable("list", resource.plural, "its pages are of different versions")
            version = page.version
            if not version:
                raise ApiUnreachable("list", resource.plural, "it has no resourceVersion")
            if not page.token:
                break
            if page.token == token:
                raise ApiUnreachable("list", resource.plural, "the same page was offered twice")
            token = page.token
            if self._stopped.is_set():
                return
        self._version, self._last, self._expired, self._garbled = version, None, 0, False
        self._heard_at = self._clock()
        self.counts.unreadable += len(findings)
        self._put(Listed(resource.kind, tuple(objects), tuple(findings)))
        if self._listing_failed:
            self._recovered()

    def _page(self, query: Query, attempts: int) -> Page:
        """A page; of a list that is under way it is tried more than once before all of it is given up."""
        resource = self.resource
        for attempt in range(attempts):
            try:
                data = self._server.get(resource.plural, resource.path, query, verb="list")
                self.counts.pages += 1
                return read_page(resource, data)
            except NotJson as error:
                failure: ApiError = ApiUnreachable("list", resource.plural, f"not a list: {error}")
            except ApiRefused as error:
                self._expired += error.status == 410
                if error.status < 500 and error.status != 429:
                    raise
                failure = error
            except ApiUnreachable as error:
                failure = error
            if attempt + 1 < attempts and not self._stopped.is_set():
                self.counts.failures += 1
                asked = failure.retry_after if isinstance(failure, ApiRefused) else 0
                self._wait(self._pace.delay(attempt, asked, self._chance))
        raise failure

    def _watch(self, began: float) -> None:
        resource, pace = self.resource, self._pace
        lasts = pace.lasting(self._chance)
        query = [
            *resource.query,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version or ""),
            ("timeoutSeconds", str(int(lasts))),
        ]
        self.counts.watches += 1
        lines = Lines()
        try:
            with self._server.stream(resource.plural, resource.path, query, pace.silence) as stream:
                self._stream = stream
                self._recovered()
                if self._stopped.is_set():
                    return
                for piece in stream:
                    for line in lines.feed(piece):
                        self._hear(line)
                    if self._clock() - began > lasts + pace.grace:
                        raise ApiUnreachable("watch", resource.plural, "it goes on beyond its time")
        finally:
            self._stream = None
            if self._last is not None:
                self._version = version_of(self._last) or self._version
                self._last = None

    def _hear(self, line: bytes) -> None:
        event = read_event(self.resource, line)
        if event.type == "ERROR":
            status = read_status(event.body)
            raise ApiRefused(
                "watch",
                self.resource.plural,
                status.code or 500,
                status.reason or "unknown",
                status.message or "",
                status.retry_after,
                status.cause,
            )
        if event.type == "BOOKMARK":
            self.counts.bookmarks += 1
            self._version, self._last = version_of(event.body) or self._version, None
        elif event.news is None:
            raise NotJson(f"an event of the unknown type {event.type[:40]!r}")
        else:
            self.counts.events += 1
            self.counts.unreadable += event.news.finding is not None
            self._put(event.news)
            self._last = bytes(event.body)
        self._progress, self._garbled = True, False
        self._heard_at = self._clock()

    def _refused(self, error: ApiError, listing: bool) -> float:
        """Says so, and whether it takes a list. The seconds that the server asks to wait."""
        status = error.status if isinstance(error, ApiRefused) else 0
        if isinstance(error, ApiRefused) and not listing:
            bad_version = 400 <= status < 500 and status not in _NOT_THE_VERSION
            if bad_version or error.cause == _TOO_LARGE or "too large resource version" in str(error).lower():
                self._version = None
            elif status not in (*_NOT_THE_VERSION, *_BUSY) and self._failures % 6 == 5:
                self._version = None  # nothing says so, but with another version it may do
        if isinstance(error, ApiUnreachable) and error.silent and not listing and not self._progress:
            # Not one bookmark: a server that has gone back behind our version keeps what happens to itself.
            self._version = None
        self._listing_failed = listing
        if not self._stopped.is_set():
            self._say(" ".join(str(error).split()), status)
        return error.retry_after if isinstance(error, ApiRefused) else 0

    def _garbage(self, error: NotJson) -> None:
        """What it replaced is unknown: heard again from the last version, or from a list where that gives the same."""
        if self._garbled:
            self._version = None
        self._garbled = True
        self.counts.unreadable += 1
        problem = Problem("", 0, self.resource.kind, "(unnamed)", "", f"in a watch, not JSON: {error}")
        self._put(Changed(self.resource.kind, None, Finding(None, (problem,), kept=True)))

    def _say(self, reason: str, status: int) -> None:
        if self._trouble != reason:
            self._trouble = reason
            self._put(Trouble(self.resource.kind, reason, self._heard_at, status))

    def _recovered(self) -> None:
        self._listing_failed = False
        if self._trouble:
            self._trouble = ""
            self._put(Recovered(self.resource.kind))
