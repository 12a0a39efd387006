"""Classes by the labels that selectors ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from compiler.classes import PodClass
from policy.selector import Selector

_Bucket = dict[PodClass, None]


class ByLabel:
    """A key is indexed when it is first asked for, from `everyone`; most labels never are."""

    def __init__(self, everyone: Callable[[], Iterable[PodClass]]) -> None:
        self._everyone = everyone
        self._by_key: dict[str, dict[str, _Bucket]] = {}

    def add(self, known: PodClass) -> None:
        for key, buckets in self._by_key.items():
            if (value := known.labels.get(key)) is not None:
                buckets.setdefault(value, {})[known] = None

    def discard(self, known: PodClass) -> None:
        for key, buckets in self._by_key.items():
            if (value := known.labels.get(key)) is not None:
                del buckets[value][known]
                if not buckets[value]:
                    del buckets[value]

    def candidates(self, selector: Selector, fewer_than: int) -> list[PodClass] | None:
        """Those that one label leaves to try, the one that leaves the fewest; None where that are too many."""
        found: list[_Bucket] | None = None
        for test in selector.tests:
            if not (test.absent or test.inverted):
                buckets = self._indexed(test.key)
                chosen = [buckets[value] for value in test.values if value in buckets]
                if (many := sum(map(len, chosen))) < fewer_than:
                    found, fewer_than = chosen, many
        return None if found is None else [known for bucket in found for known in bucket]

    def _indexed(self, key: str) -> dict[str, _Bucket]:
        buckets = self._by_key.get(key)
        if buckets is None:
            buckets = self._by_key[key] = {}
            for known in self._everyone():
                if (value := known.labels.get(key)) is not None:
                    buckets.setdefault(value, {})[known] = None
        return buckets
