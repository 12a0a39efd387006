"""What was found lately, kept for as long as all of it together is little: an object may hold as much as a thousand
others, so that to count them says nothing of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeVar

_Asked = TypeVar("_Asked", bound=Sequence[object])
_About = TypeVar("_About")
_Found = TypeVar("_Found", bound=Sequence[object])


def kept(most: int) -> Callable[[Callable[[_Asked, _About], _Found]], Callable[[_Asked, _About], _Found]]:
    """Of a pure function the answers that were asked for lately, with what was asked: `most` parts of both together.
    What alone is more than half of that is found anew each time. Where several threads ask, an answer may be found
    twice."""

    def remembering(find: Callable[[_Asked, _About], _Found]) -> Callable[[_Asked, _About], _Found]:
        # What nobody asks for while `young` fills up goes with `old`.
        young: dict[tuple[_Asked, _About], _Found] = {}
        old: dict[tuple[_Asked, _About], _Found] = {}
        parts = 0  # in `young`

        @wraps(find)
        def asked_again(asked: _Asked, about: _About) -> _Found:
            nonlocal young, old, parts
            key = (asked, about)
            found = young.get(key)
            if found is not None:
                return found
            found = old.get(key)
            if found is None:
                found = find(asked, about)
            size = len(asked) + len(found)
            if 2 * size <= most:
                if 2 * (parts + size) > most:
                    young, old, parts = {}, young, 0
                young[key] = found
                parts += size
            return found

        return asked_again

    return remembering
