"""Which of many stretches of a large text hold one of a few words: each byte is looked at once a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf

# What finds the next place from an offset on, or says -1.
Find = Callable[[int], int]
_ESCAPED = re.compile(rb"\\u")


class Needles:
    """Asked for stretches in order, each behind the one before. Words are looked for ahead, and not again until the
    stretches have come that far."""

    def __init__(self, data: bytes, words: Iterable[bytes]) -> None:
        self._finds = [_find(data, word) for word in words]
        self._next = [-1.0] * len(self._finds)

    def any_between(self, start: int, end: int) -> bool:
        """Whether a word begins there."""
        for number, find in enumerate(self._finds):
            at = self._next[number]
            if at < start:
                found = find(start)
                at = self._next[number] = inf if found < 0 else found
            if at < end:
                return True
        return False


def _find(data: bytes, word: bytes) -> Find:
    if word != rb"\u":
        return lambda start: data.find(word, start)
    # Of words this short `find` is slow.
    return lambda start: found.start() if (found := _ESCAPED.search(data, start)) else -1
