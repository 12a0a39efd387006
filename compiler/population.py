"""Who is there: namespaces, pods and their addresses, with pods that no policy can tell apart in one class."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.by_label import ByLabel
from compiler.classes import PodClass, Space, traits_of
from compiler.matching import pass_all, tests_of
from compiler.peers import PodTerm
from policy.cidr import Address
from policy.model import Labels, Namespace, Pod
from policy.selector import NAMESPACE_NAME_LABEL, Selector

# So many classes are tried one by one sooner than a key is indexed for them.
_WORTH_AN_INDEX = 100
_MOST_CHOSEN = 4096


def name_label(namespace: str) -> Labels:
    return {NAMESPACE_NAME_LABEL: namespace}


class NamespaceLabels(dict[str, Labels]):
    """Those of the namespaces that are declared; any other has only its name label (semantics, row 37)."""

    def __missing__(self, name: str) -> Labels:
        return name_label(name)


class Population:
    """`pods` are all of them by key, `class_of` those that are selectable. A function of the objects alone, whatever
    came before: nothing empty is kept."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.namespaces = NamespaceLabels()
        self.spaces: dict[str, Space] = {}
        self.class_of: dict[str, PodClass] = {}
        # By the key of the one selectable pod that has it; of several, where an address was given away before its pod
        # is known to be gone.
        self._holders: dict[Address, str | tuple[str, ...]] = {}
        # How many addresses have several.
        self.contested = 0
        self.by_label = ByLabel(self.classes)
        self._last: PodClass | None = None
        self._chosen: dict[PodTerm, tuple[PodClass, ...]] = {}

    def declare(self, name: str, namespace: Namespace | None) -> None:
        """Sets a namespace's labels; None takes its declaration back."""
        self._chosen.clear()
        if namespace:
            self.namespaces[name] = namespace.labels
        else:
            self.namespaces.pop(name, None)
        space = self.spaces.get(name)
        if space:
            space.labels = self.namespaces[name]
            self._forget_empty(space)
        elif namespace:
            self.spaces[name] = Space(name, namespace.labels)

    def put(self, key: str, pod: Pod) -> None:
        """Adds `pod`, or puts it in the place of the one with its key."""
        old = self.pods.get(key)
        old_class = self.class_of.get(key)
        self.pods[key] = pod
        if not pod.selectable:
            new_class = None
        elif old_class and old and old.labels == pod.labels and old.ports == pod.ports:
            new_class = old_class
        else:
            new_class = self.class_for(pod)
        if new_class:
            new_class.pods[key] = pod
        if new_class is not old_class:
            if new_class:
                self.class_of[key] = self._last = new_class
                self.spaces[pod.namespace] = new_class.space
                if new_class.traits not in new_class.space.classes:
                    self._chosen.clear()
                    new_class.space.classes[new_class.traits] = new_class
                    self.by_label.add(new_class)
            if old_class:
                self._leave(key, old_class, stays=new_class is not None)
        held = old.addresses if old and old_class else ()
        self._hold(key, held, pod.addresses if new_class else ())

    def remove(self, key: str) -> None:
        pod = self.pods.pop(key, None)
        if pod and (old_class := self.class_of.get(key)):
            self._leave(key, old_class, stays=False)
            self._hold(key, pod.addresses, ())

    def class_for(self, pod: Pod) -> PodClass:
        """The class of selectable pods like `pod`; a new one, which nobody else knows, where there is none."""
        last = self._last
        # In a list a workload's pods follow each other, and share what was decoded once.
        alike = last and last.labels is pod.labels and last.ports is pod.ports and last.space.name == pod.namespace
        if last and alike and last.pods:
            return last
        space = self.spaces.get(pod.namespace) or Space(pod.namespace, self.namespaces[pod.namespace])
        traits = traits_of(pod)
        return space.classes.get(traits) or PodClass(space, traits, pod)

    def holders(self, address: Address) -> tuple[str, ...]:
        """The keys of the selectable pods that have `address`."""
        found = self._holders.get(address, ())
        return (found,) if isinstance(found, str) else found

    def owner(self, address: Address) -> str | None:
        """The one whose address it is. Of several, the one that is not being deleted; while that leaves several, or
        none, nobody can say whose packets they are, so it is nobody's."""
        found = self._holders.get(address)
        if not isinstance(found, tuple):
            return found
        staying = [key for key in found if not self.pods[key].deleting]
        return staying[0] if len(staying) == 1 else None

    def spaces_of(self, selector: Selector) -> list[Space]:
        """The namespaces that a namespaceSelector selects: by name where it asks for one, as most do."""
        if selector.is_everything:
            return [*self.spaces.values()]
        for test in selector.tests:
            if test.key == NAMESPACE_NAME_LABEL and not test.absent and not test.inverted:
                named = (self.spaces.get(name) for name in test.values)
                return [space for space in named if space and selector.matches(space.labels)]
        tests = tests_of(selector)
        return [space for space in self.spaces.values() if pass_all(tests, space.labels)]

    def classes_of(self, term: PodTerm) -> tuple[PodClass, ...]:
        """The classes that `term` selects, each once. Many peer-sets have the same terms: what was found is kept until
        some class comes or goes, or a namespace has other labels."""
        found = self._chosen.get(term)
        if found is None:
            if len(self._chosen) >= _MOST_CHOSEN:
                self._chosen.clear()
            found = self._chosen[term] = tuple(self._choose(term))
        return found

    def _choose(self, term: PodTerm) -> Iterator[PodClass]:
        tests = tests_of(term.pods)
        spaces = self.spaces_of(term.namespaces)
        few = sum(len(space.classes) for space in spaces)
        candidates = self.by_label.candidates(term.pods, few) if few > _WORTH_AN_INDEX else None
        if candidates is None:
            for space in spaces:
                for known in space.classes.values():
                    if pass_all(tests, known.labels):
                        yield known
        else:
            inside = set(spaces)
            for known in candidates:
                if known.space in inside and pass_all(tests, known.labels):
                    yield known

    def classes(self) -> Iterator[PodClass]:
        for space in self.spaces.values():
            yield from space.classes.values()

    def _leave(self, key: str, old_class: PodClass, stays: bool) -> None:
        if not stays:
            del self.class_of[key]
        del old_class.pods[key]
        if not old_class.pods:
            self._chosen.clear()
            del old_class.space.classes[old_class.traits]
            self.by_label.discard(old_class)
            self._forget_empty(old_class.space)

    def _forget_empty(self, space: Space) -> None:
        if space.name not in self.namespaces and not space.classes:
            self.spaces.pop(space.name, None)

    def _hold(self, key: str, before: tuple[Address, ...], now: tuple[Address, ...]) -> None:
        if before == now:
            return
        for address in before:
            others = tuple(holder for holder in self.holders(address) if holder != key)
            if others:
                self._holders[address] = others[0] if len(others) == 1 else others
                self.contested -= len(others) == 1
            else:
                self._holders.pop(address, None)
        for address in now:
            known = self.holders(address)
            self._holders[address] = (*known, key) if known else key
            self.contested += len(known) == 1
