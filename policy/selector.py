"""Label selectors in canonical form: selectors that select the same are equal, and one object.

Per label key a selector allows a set of states: absence, and a finite or a co-finite set of values. `In`, `NotIn`,
`Exists` and `DoesNotExist` are all of that shape and closed under AND, so the form is complete:

    In(a, b)       present, one of {a, b}
    NotIn(a, b)    absent, or anything but {a, b}      (API text: true for a missing key)
    Exists         present, anything but {}
    DoesNotExist   absent, one of {}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from weakref import WeakValueDictionary

from msgspec import Struct

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


class KeyTest(Struct, frozen=True, order=True):
    """The states of one label that a selector allows. `inverted`: `values` are those that are *not* allowed."""

    key: str
    absent: bool
    inverted: bool
    values: tuple[str, ...]

    def admits(self, value: str | None) -> bool:
        if value is None:
            return self.absent
        return (value in self.values) is not self.inverted

    @property
    def impossible(self) -> bool:
        return not (self.absent or self.inverted or self.values)

    def __str__(self) -> str:
        """In the words of kubectl's selector syntax, as near as they come."""
        if self.absent:
            return f"{self.key} notin ({','.join(self.values)})" if self.inverted else f"!{self.key}"
        if self.inverted:
            return f"{self.key},{self.key} notin ({','.join(self.values)})" if self.values else self.key
        return f"{self.key}={self.values[0]}" if len(self.values) == 1 else f"{self.key} in ({','.join(self.values)})"


class Selector(Struct, frozen=True, order=True, cache_hash=True, weakref=True):
    """A conjunction of tests, at most one a key, sorted by key; equal selectors are equal tuples.

    Made only by `selector()`, which interns: while one is alive, an equal one is the same object. What selects nothing
    has one form, `NOTHING`."""

    tests: tuple[KeyTest, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(test.admits(labels.get(test.key)) for test in self.tests)

    @property
    def is_everything(self) -> bool:
        return not self.tests

    @property
    def is_nothing(self) -> bool:
        return bool(self.tests) and self.tests[0].impossible

    def __str__(self) -> str:
        return ",".join(map(str, self.tests)) or "*"


# Those in use and no others: a process that follows a cluster sees new ones for as long as it lives.
_interned: WeakValueDictionary[tuple[KeyTest, ...], Selector] = WeakValueDictionary()


def selector(tests: Iterable[KeyTest]) -> Selector:
    """The canonical selector that is true where all of `tests` are."""
    by_key: dict[str, list[KeyTest]] = {}
    for test in tests:
        by_key.setdefault(test.key, []).append(test)
    canonical = tuple(_joined(key, by_key[key]) for key in sorted(by_key))
    if any(test.impossible for test in canonical):
        canonical = (KeyTest("", False, False, ()),)
    return _interned.get(canonical) or _interned.setdefault(canonical, Selector(canonical))


def _joined(key: str, tests: list[KeyTest]) -> KeyTest:
    """The one test of `key` that is true where all of `tests` are."""
    if len(tests) == 1:
        return tests[0]
    wanted = [frozenset(test.values) for test in tests if not test.inverted]
    banned = frozenset[str]().union(*(test.values for test in tests if test.inverted))
    values = frozenset.intersection(*wanted) - banned if wanted else banned
    return KeyTest(key, all(test.absent for test in tests), not wanted, tuple(sorted(values)))


def in_(key: str, *values: str) -> KeyTest:
    return KeyTest(key, False, False, tuple(sorted(set(values))))


def not_in(key: str, *values: str) -> KeyTest:
    return KeyTest(key, True, True, tuple(sorted(set(values))))


def exists(key: str) -> KeyTest:
    return KeyTest(key, False, True, ())


def does_not_exist(key: str) -> KeyTest:
    return KeyTest(key, True, False, ())


EVERYTHING = selector(())
NOTHING = selector([KeyTest("", False, False, ())])


@lru_cache(maxsize=1 << 12)
def namespace_named(name: str) -> Selector:
    """The namespaceSelector that selects just `name`: its name label is always present (semantics, row 36)."""
    return selector([in_(NAMESPACE_NAME_LABEL, name)])
