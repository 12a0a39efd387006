"""What other threads tell the loop, in the order in which they said it, each with the moment at which it was heard."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

# So many messages at most are taken at once: then the rules follow, however many more are waiting.
MOST_AT_ONCE = 20_000
Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """Any thread may `put`; one thread takes out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue: SimpleQueue[tuple[float, Message]] = SimpleQueue()
        self._clock = clock

    def put(self, message: Message) -> None:
        self._queue.put((self._clock(), message))

    def drain(self, wait: float) -> list[tuple[float, Message]]:
        """All that is there, for the first of which it waits so many seconds; each with when it was heard."""
        found = []
        try:
            found.append(self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait())
            while len(found) < MOST_AT_ONCE:
                found.append(self._queue.get_nowait())
        except Empty:
            pass
        return found
