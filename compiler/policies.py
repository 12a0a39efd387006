"""The policies of each namespace, whom they select, and the allow-sets that come of it."""

from __future__ import annotations

from itertools import chain, count

from compiler.allowset import OPEN, AllowSet, PolicyRef, allow_set
from compiler.classes import PodClass, PolicyEntry
from compiler.matching import SelectorIndex
from policy.model import ContainerPort, Direction, NetworkPolicy

# So many allow-sets of a namespace are made before those are forgotten that nobody asked for meanwhile: pods with other
# ports and labels may come for as long as its policies stay.
_MANY = 1024
_Key = tuple[Direction, tuple[PolicyEntry, ...], tuple[ContainerPort, ...]]


class _Book:
    """The policies of one namespace. Selectors are not filed before a pod is asked about; allow-sets that nobody asked
    for between two changes, or while many others were made, are forgotten."""

    __slots__ = ("allow_sets", "by_name", "older", "subjects", "version")

    def __init__(self) -> None:
        self.by_name: dict[str, PolicyEntry] = {}
        self.subjects: SelectorIndex[PolicyEntry] | None = None
        self.allow_sets: dict[_Key, AllowSet] = {}
        self.older: dict[_Key, AllowSet] = {}
        self.version = 0

    def turn_over(self) -> None:
        self.older, self.allow_sets = self.allow_sets, {}


class Policies:
    """Every policy, by namespace. Pods of one class, and classes that the same policies select, share allow-sets."""

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._versions = count(1)

    def get(self, namespace: str, name: str) -> NetworkPolicy | None:
        book = self._books.get(namespace)
        entry = book.by_name.get(name) if book else None
        return entry.policy if entry else None

    def set(self, namespace: str, name: str, policy: NetworkPolicy | None) -> None:
        """Puts `policy` in the place of the one of that name; None takes it away."""
        book = self._books.setdefault(namespace, _Book())
        book.version = next(self._versions)
        book.turn_over()
        old = book.by_name.pop(name, None)
        if old and book.subjects:
            book.subjects.discard(old.policy.subjects, old)
        if policy:
            entry = book.by_name[name] = PolicyEntry(policy)
            if book.subjects is not None:
                book.subjects.add(policy.subjects, entry)
        elif not book.by_name:
            del self._books[namespace]

    def selecting(self, subjects: PodClass) -> tuple[PolicyEntry, ...]:
        """The policies that select the pods of a class, by name."""
        book = self._books.get(subjects.space.name)
        if book is None:
            return ()
        if subjects.policies_version != book.version:
            if book.subjects is None:
                book.subjects = SelectorIndex()
                for entry in book.by_name.values():
                    book.subjects.add(entry.policy.subjects, entry)
            found = chain.from_iterable(book.subjects.matching(subjects.labels))
            subjects.policies = tuple(sorted(found, key=lambda entry: entry.policy.name))
            subjects.policies_version = book.version
            subjects.allows = {}
        return subjects.policies

    def allow(self, subjects: PodClass, direction: Direction) -> AllowSet:
        """OPEN where no policy of that direction selects the class (semantics, row 1)."""
        selecting = self.selecting(subjects)
        if not selecting:
            return OPEN
        found = subjects.allows.get(direction)
        if found is None:
            found = subjects.allows[direction] = self._allow(subjects, selecting, direction)
        return found

    def _allow(self, subjects: PodClass, selecting: tuple[PolicyEntry, ...], direction: Direction) -> AllowSet:
        entries = tuple(entry for entry in selecting if direction in entry.policy.isolates)
        if not entries:
            return OPEN
        looking = direction == "ingress" and any(entry.looks_at_ports for entry in entries)
        ports = subjects.ports if looking else ()
        book, key = self._books[subjects.space.name], (direction, entries, ports)
        found = book.allow_sets.get(key) or book.older.get(key)
        if found is None:
            refs = [PolicyRef(entry.policy.key, entry.policy.source) for entry in entries]
            found = allow_set(refs, [rule for entry in entries for rule in entry.bound(direction, ports)])
        if len(book.allow_sets) >= _MANY:
            book.turn_over()
        book.allow_sets[key] = found
        return found
