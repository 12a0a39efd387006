"""The API server within the process, and its bad days by chance: no socket, no thread, and a clock of its own.

Made for long histories; what the same faults do to sockets is `server`'s business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from enforcer.cluster.api import Query
from policy.errors import ApiRefused, ApiUnreachable
from tests.api.history import History, Past, bookmarks
from tests.api.server import status_body


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Pieces:
    def __init__(self, made: Iterator[bytes]) -> None:
        self._made = made

    def __iter__(self) -> Iterator[bytes]:
        return self._made

    def shut(self) -> None:
        pass


class Chaos:
    """`bad` is how probable a fault is; `happens` is called now and then while a request is answered."""

    def __init__(self, history: History, draw: Random, clock: Clock, happens: Callable[[], None]) -> None:
        self.history = history
        self.bad = 0.5
        self.asked: list[tuple[float, str, dict[str, str]]] = []
        self._draw = draw
        self._clock = clock
        self._happens = happens

    def get(self, what: str, path: str, query: Query = (), verb: str = "get") -> bytes:
        asked = dict(query)
        self._begin(verb, what, asked)
        name = asked.get("fieldSelector", "").removeprefix("metadata.name=")
        page = self.history.page(path, int(asked.get("limit", 0)), asked.get("continue", ""), name)
        if page is None:
            raise ApiRefused(verb, what, 410, "Expired")
        if self._fails():
            return self._draw.choice([page[:-9], b"<html>", b"", b'{"items":[]}'])
        return page

    @contextmanager
    def stream(self, what: str, path: str, query: Query, silence: float) -> Iterator[Pieces]:
        asked = dict(query)
        self._begin("watch", what, asked)
        number = self.history.number_of(asked["resourceVersion"])
        if number is None or number < self.history.oldest:
            raise ApiRefused("watch", what, 410, "Expired")
        name = asked.get("fieldSelector", "").removeprefix("metadata.name=")
        yield Pieces(self._told(what, path, number, name, silence))

    def _told(self, what: str, path: str, number: int, name: str, silence: float) -> Iterator[bytes]:
        if number > self.history.number:
            self._clock.now += silence
            raise ApiUnreachable("watch", what, "nothing heard", silent=True)
        for _ in range(self._draw.randrange(1, 4)):
            self._happens()
            found = self.history.since(path, number, name)
            lines = [each.line for each in found]
            if found:
                number = found[-1].number
            if self._draw.random() < 0.4:
                lines.append(next(bookmarks(self.history, path)))
            if not self._fails():
                yield from self._cut(b"".join(lines))
                continue
            match self._draw.randrange(6):
                case 0:
                    yield from self._cut(b"".join(lines)[: self._draw.randrange(1, 2000)])
                    raise ApiUnreachable("watch", what, "the connection broke")
                case 1:
                    yield from self._cut(b"".join(lines[: len(lines) // 2]))
                    yield b'{"type":"ERROR","object":%s}\n' % status_body(
                        self._draw.choice([410, 500, 504, 403]), "R", "m"
                    )
                case 2:
                    at = self._draw.randrange(len(lines) + 1)
                    yield from self._cut(b"".join([*lines[:at], b"<garbage>\n", *lines[at + 1 :]]))
                case 3:
                    yield from self._cut(b"".join([*lines, *lines]))
                case 4:
                    yield from self._cut(b"".join(reordered(found)))
                case 5:
                    yield from self._cut(b"".join(lines))
                    self._clock.now += silence
                    raise ApiUnreachable("watch", what, "nothing heard", silent=True)
        self._clock.now += self._draw.choice([0, 400])

    def _begin(self, verb: str, what: str, asked: dict[str, str]) -> None:
        self.asked.append((self._clock.now, f"{verb} {what}", asked))
        self._clock.now += 0.01
        self._happens()
        if self._fails():
            code = self._draw.choice([0, 0, 403, 410, 429, 500, 503])
            if not code:
                raise ApiUnreachable(verb, what, "no connection")
            raise ApiRefused(verb, what, code, "R", retry_after=self._draw.choice([0, 0, 5]))

    def _fails(self) -> bool:
        return self._draw.random() < self.bad / 3

    def _cut(self, data: bytes) -> Iterator[bytes]:
        while data:
            size = self._draw.choice([1, 10, 100, 1000, 5000])
            yield data[:size]
            data = data[size:]


def reordered(found: list[Past]) -> list[bytes]:
    """What happened to each object stays in its order, as the API server has it; but all that happened to one comes
    before what happened to another, and the end of an object after the beginning of the next of that name."""
    by_key: dict[tuple[str, str], list[Past]] = {}
    for each in found:
        by_key.setdefault(each.key, []).append(each)
    told: list[bytes] = []
    for ones in reversed(by_key.values()):
        at = next(
            (n for n in range(len(ones) - 1) if ones[n].type == "DELETED" and ones[n].path.endswith("pods")), None
        )
        if at is not None:
            ones[at], ones[at + 1] = ones[at + 1], ones[at]
        told += [each.line for each in ones]
    return told
