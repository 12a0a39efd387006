"""How long to wait before the next try: twice as long each time up to a ceiling, and by chance less, so that many who
failed together do not come back together."""

from __future__ import annotations

from collections.abc import Callable
from random import random


class Backoff:
    """Between half and all of `first`, then of twice that, and so on up to `ceiling`; in seconds."""

    def __init__(self, first: float, ceiling: float, chance: Callable[[], float] = random) -> None:
        self._first = first
        self._ceiling = ceiling
        self._chance = chance
        self._next = first

    def next(self) -> float:
        whole, self._next = self._next, min(self._next * 2, self._ceiling)
        return whole * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        self._next = self._first
