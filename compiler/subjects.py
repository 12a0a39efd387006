"""The allow-sets that the pods of interest have, and the sources that these use, counted by reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from compiler.allowset import AllowSet
from compiler.changes import Subject, SubjectChange
from compiler.peers import Source
from policy.model import DIRECTIONS

# In each direction; None twice where the pod is no subject.
Allowed = tuple[AllowSet, AllowSet] | tuple[None, None]
NO_SUBJECT: Allowed = (None, None)


class _Held:
    """An allow-set that `count` subjects have."""

    __slots__ = ("allow", "count", "sources")

    def __init__(self, allow: AllowSet, sources: frozenset[Source]) -> None:
        self.allow = allow
        self.sources = sources
        self.count = 0


class Subjects:
    """Every subject has its two allow-sets here, each of these is held as often as subjects have it, and each source is
    counted as often as allow-sets that are held use it."""

    def __init__(self, uses: Callable[[AllowSet], Iterable[Source]]) -> None:
        self._uses = uses
        self._allowed: dict[str, Allowed] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._held: dict[int, _Held] = {}
        self._counts: dict[Source, int] = {}

    def inside(self, namespace: str) -> Set[str]:
        """The keys of the subjects of one namespace."""
        return self._by_namespace.get(namespace, frozenset())

    def uses(self, source: Source) -> bool:
        return source in self._counts

    def put(self, key: str, new: Allowed, changes: dict[Subject, SubjectChange], sources: set[Source]) -> None:
        """Gives the pod of that key its allow-sets of now. `changes` learns what is not the same as before, `sources`
        those of which something let go or that something took up."""
        old = self._allowed.pop(key, NO_SUBJECT)
        if new is not NO_SUBJECT:
            self._allowed[key] = new
        if (old is NO_SUBJECT) is not (new is NO_SUBJECT):
            self._enlist(key, new is not NO_SUBJECT)
        for direction, was, now in zip(DIRECTIONS, old, new, strict=True):
            if was is now:
                continue
            if was != now:
                changes[key, direction] = SubjectChange(was, now)
            if now is not None:
                self._hold(now, sources)
            if was is not None:
                self._let_go(was, sources)

    def _enlist(self, key: str, is_subject: bool) -> None:
        namespace = key.partition("/")[0]
        keys = self._by_namespace.setdefault(namespace, set())
        if is_subject:
            keys.add(key)
        else:
            keys.discard(key)
            if not keys:
                del self._by_namespace[namespace]

    def _hold(self, allow: AllowSet, sources: set[Source]) -> None:
        held = self._held.get(id(allow))
        if held is None:
            held = self._held[id(allow)] = _Held(allow, frozenset(self._uses(allow)))
            for source in held.sources:
                self._counts[source] = self._counts.get(source, 0) + 1
            sources |= held.sources
        held.count += 1

    def _let_go(self, allow: AllowSet, sources: set[Source]) -> None:
        held = self._held[id(allow)]
        held.count -= 1
        if held.count:
            return
        del self._held[id(allow)]
        for source in held.sources:
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]
        sources |= held.sources
