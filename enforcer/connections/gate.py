"""The gate between the thread that changes what objects mean and those that only ask about it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Lock

from policy.cidr import Address

# Long enough for a waiting thread to wake up; Python would let it wait for five milliseconds else.
_GIVE_WAY = 0.0002
_REMEMBERED = 256


class Gate:
    """While it is closed nobody changes what stands behind it, and `version` counts the changes. Whoever asks closes it
    for one question, some tens of microseconds, and gives way to the thread that changes; so that never waits for long.

    Behind it stands the index, which may be a batch ahead of the rules: of a flow that a batch decides otherwise the
    new verdict may hold a little before its rules do. Every flow has its old or its new verdict then too."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted = False
        self._touched: deque[frozenset[Address] | None] = deque(maxlen=_REMEMBERED)
        self.version = 0

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._wanted:
            time.sleep(_GIVE_WAY)

    @contextmanager
    def changing(self, touched: Collection[Address] | None = None) -> Iterator[None]:
        """Around each change; one thread only. `touched`: the addresses of the pods that change, those that they had
        and those that they have; None where that is not known."""
        self._wanted = True
        with self._lock:
            self._wanted = False
            self.version += 1
            self._touched.append(None if touched is None else frozenset(touched))
            yield

    def touched_since(self, version: int) -> frozenset[Address] | None:
        """The addresses of pods that changed since `version`; None where that is not known any more."""
        missed = self.version - version
        if missed > len(self._touched):
            return None
        found: frozenset[Address] = frozenset()
        for touched in islice(reversed(self._touched), missed):
            if touched is None:
                return None
            found |= touched
        return found
