"""Selectors found by labels: only those that could match are tried.

A selector is filed under one anchor, a label that it asks for or else a key that must be there. Of several it takes
the one with the fewest selectors filed under it, so that no label becomes hot while a rarer one would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from policy.selector import KeyTest, Selector

Value = TypeVar("Value")
# For each test its key, whether absence will do, and the values that will do, or that will not where inverted.
Tests = tuple[tuple[str, bool, bool, frozenset[str]], ...]


def tests_of(selector: Selector) -> Tests:
    return _prepared(selector.tests)


def _prepared(tests: Iterable[KeyTest]) -> Tests:
    return tuple((test.key, test.absent, test.inverted, frozenset(test.values)) for test in tests)


def pass_all(tests: Tests, labels: Mapping[str, str]) -> bool:
    """As `Selector.matches`, for one selector and many labels."""
    for key, absent, inverted, values in tests:
        value = labels.get(key)
        if not absent if value is None else (value in values) is inverted:
            return False
    return True


class _Entry(Generic[Value]):
    """`values` stand under one selector; `rest` are the tests that its anchor does not answer."""

    __slots__ = ("anchors", "rest", "values")

    def __init__(self, anchors: tuple[tuple[str, str | None], ...], rest: Tests) -> None:
        self.anchors = anchors
        self.rest = rest
        self.values: set[Value] = set()


class SelectorIndex(Generic[Value]):
    """Values under selectors. Each selector that has values is in each of its buckets, and in no other."""

    def __init__(self) -> None:
        self._entries: dict[Selector, _Entry[Value]] = {}
        # By key, then by value; under None what asks for the key alone.
        self._anchored: dict[str, dict[str | None, dict[_Entry[Value], None]]] = {}
        self._anywhere: dict[_Entry[Value], None] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, selector: Selector, value: Value) -> None:
        entry = self._entries.get(selector)
        if entry is None:
            entry = self._entries[selector] = self._filed(selector)
        entry.values.add(value)

    def discard(self, selector: Selector, value: Value) -> None:
        entry = self._entries.get(selector)
        if entry is None:
            return
        entry.values.discard(value)
        if entry.values:
            return
        del self._entries[selector]
        self._anywhere.pop(entry, None)
        for key, wanted in entry.anchors:
            buckets = self._anchored[key]
            del buckets[wanted][entry]
            if not buckets[wanted]:
                del buckets[wanted]
            if not buckets:
                del self._anchored[key]

    def matching(self, labels: Mapping[str, str]) -> list[set[Value]]:
        """The values of each selector that is true of `labels`."""
        found: list[set[Value]] = []
        buckets = [self._anywhere] if self._anywhere else []
        # Few keys are asked for, mostly; where they are many, the pod's are fewer.
        keys: Iterable[str] = self._anchored if len(self._anchored) < len(labels) else labels
        for key in keys:
            anchored = self._anchored.get(key)
            value = labels.get(key)
            if anchored and value is not None:
                if value in anchored:
                    buckets.append(anchored[value])
                if None in anchored:
                    buckets.append(anchored[None])
        for bucket in buckets:
            for entry in bucket:
                # `pass_all`, written out: a hot label has thousands of entries.
                for key, absent, inverted, values in entry.rest:
                    have = labels.get(key)
                    if not absent if have is None else (have in values) is inverted:
                        break
                else:
                    found.append(entry.values)
        return found

    def _filed(self, selector: Selector) -> _Entry[Value]:
        anchor = min((test for test in selector.tests if not test.absent), key=self._crowd, default=None)
        if anchor is None:
            entry = _Entry[Value]((), tests_of(selector))
            self._anywhere[entry] = None
            return entry
        wanted: tuple[str | None, ...] = (None,) if anchor.inverted else anchor.values
        answered = not (anchor.inverted and anchor.values)
        rest = _prepared(test for test in selector.tests if not (answered and test is anchor))
        entry = _Entry[Value](tuple((anchor.key, value) for value in wanted), rest)
        buckets = self._anchored.setdefault(anchor.key, {}) if wanted else {}
        for value in wanted:
            buckets.setdefault(value, {})[entry] = None
        return entry

    def _crowd(self, test: KeyTest) -> tuple[bool, int]:
        """How many would be tried with a selector that is filed under this; a key alone comes after any label."""
        buckets = self._anchored.get(test.key, {})
        wanted: tuple[str | None, ...] = (None,) if test.inverted else test.values
        return test.inverted, sum(len(buckets.get(value, ())) for value in wanted)
