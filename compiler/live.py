"""The sources in use, and which of them each address is a member of."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.classes import NO_MEMBER, Carried, Membership, PodClass, Scope, Space
from compiler.matching import SelectorIndex
from compiler.members import addresses_in, named_members, numbers, selected
from compiler.peers import Member, NamedSource, PeerSet, PodTerm, Source
from compiler.population import Population
from compiler.ports import NamedPort
from policy.cidr import Address
from policy.model import Labels
from policy.selector import Selector


class LiveSources:
    """Tries only the selectors that could match: by namespace, then by an anchor label of the pod. What is found for a
    class is kept with it until a source that is about it comes or goes, or its namespace's labels change."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._sources: set[Source] = set()
        self._scopes: dict[Selector, Scope] = {}
        self._by_namespace = SelectorIndex[Scope]()
        self._by_block: dict[NamedPort, set[NamedSource]] = {}
        self._named = 0

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __contains__(self, source: Source) -> bool:
        return source in self._sources

    def namespace_changes(self, space: Space) -> None:
        """The labels of `space` are about to be others that sources tell apart."""
        space.scopes = None
        for known in space.classes.values():
            known.carried = None

    def tell_apart(self, labels: Labels, others: Labels) -> bool:
        """Whether some source would not find the same pods in a namespace of these labels and of those."""
        return self._scopes_of(labels) != self._scopes_of(others)

    def add(self, source: Source) -> frozenset[Member]:
        """Takes up a source, and gives its members of now."""
        about = self._forget(source)
        self._sources.add(source)
        for term in _terms(source):
            scope = self._scopes.get(term.namespaces)
            if scope is None:
                scope = self._scopes[term.namespaces] = Scope()
                self._by_namespace.add(term.namespaces, scope)
                self._forget_scopes(term.namespaces)
            if isinstance(source, PeerSet):
                scope.plain.add(term.pods, source)
            else:
                scope.named.add(term.pods, source)
        if not isinstance(source, PeerSet):
            self._named += 1
            if source[1].addresses:
                self._by_block.setdefault(source[0], set()).add(source)
            return named_members(self._population, *source)
        return addresses_in(self._population, about)

    def discard(self, source: Source) -> None:
        self._forget(source)
        self._sources.discard(source)
        for term in _terms(source):
            scope = self._scopes[term.namespaces]
            if isinstance(source, PeerSet):
                scope.plain.discard(term.pods, source)
            else:
                scope.named.discard(term.pods, source)
            if not scope:
                del self._scopes[term.namespaces]
                self._by_namespace.discard(term.namespaces, scope)
                self._forget_scopes(term.namespaces)
        if not isinstance(source, PeerSet):
            self._named -= 1
            if source[1].addresses:
                self._by_block[source[0]].discard(source)
                if not self._by_block[source[0]]:
                    del self._by_block[source[0]]

    def membership(self, address: Address) -> Membership:
        """Of the pod whose address it is."""
        owner = self._population.owner(address)
        return self._of(self._population.class_of[owner], address) if owner else NO_MEMBER

    def _of(self, asked: PodClass, address: Address) -> Membership:
        carried = asked.carried
        if carried is None:
            carried = asked.carried = self._look_at(asked)
        if not (carried.by_term or carried.by_block):
            return carried.always
        named = [*carried.by_term, *(each for each in carried.by_block if each[0][1].addresses.contains(address))]
        pairs = ((source, (address, source[0].protocol, number)) for source, known in named for number in known)
        return Membership(carried.always.plain, frozenset(pairs))

    def _look_at(self, asked: PodClass) -> Carried:
        labels, scopes = asked.labels, asked.space.scopes
        if scopes is None:
            scopes = asked.space.scopes = tuple(self._scopes_of(asked.space.labels))
        found: list[set[PeerSet]] = []
        for scope in scopes:
            found += scope.plain.matching(labels)
        always = Membership(frozenset().union(*found)) if found else NO_MEMBER
        if not self._named:
            return Carried(always)
        by_term = {source for scope in scopes for sources in scope.named.matching(labels) for source in sources}
        names = {NamedPort(port.protocol, port.name) for port in asked.ports}
        by_block = {source for name in names for source in self._by_block.get(name, ())}
        return Carried(always, _with_numbers(by_term, asked), _with_numbers(by_block, asked))

    def _forget_scopes(self, namespaces: Selector) -> None:
        for space in self._population.spaces_of(namespaces):
            space.scopes = None

    def _forget(self, source: Source) -> set[PodClass]:
        """Of each class that `source` is about, what was found for it; the classes."""
        about = selected(self._population, _terms(source))
        if not isinstance(source, PeerSet) and source[1].addresses:
            about.update(known for known in self._population.classes() if numbers(known.ports, source[0]))
        for known in about:
            known.carried = None
        return about

    def _scopes_of(self, namespace_labels: Labels) -> set[Scope]:
        return set[Scope]().union(*self._by_namespace.matching(namespace_labels))


def _terms(source: Source) -> tuple[PodTerm, ...]:
    return source.pods if isinstance(source, PeerSet) else source[1].pods


def _with_numbers(sources: Iterable[NamedSource], asked: PodClass) -> tuple[tuple[NamedSource, tuple[int, ...]], ...]:
    found = ((source, numbers(asked.ports, source[0])) for source in sources)
    return tuple((source, known) for source, known in found if known)
