"""What becomes of an object that this program trips over: something closed stands in for it, and all the rest goes on.

    a policy     isolates whom it selects in both directions and grants nothing; else its whole namespace
    a local pod  is known by its addresses, and nothing passes to or from them; else it is not known, which closes it
    another pod  is not known, so it is nobody's peer

An object that is not what it was when it was kept is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from compiler.changes import Deleted, Event
from policy.model import DIRECTIONS, NetworkPolicy, Pod
from policy.selector import EVERYTHING

# Kind, namespace and name.
Key = tuple[str, str, str]
Suspect = Pod | NetworkPolicy
# More than that is a defect of which no object is the cause.
_MOST = 16


class Kept(Struct, frozen=True):
    """`suspect` is what was heard, `stand_in` what is taken for it."""

    suspect: Suspect
    stand_in: Event


class Quarantine:
    """`kept` by key."""

    def __init__(self, kept: Iterable[Kept] = ()) -> None:
        self.kept = {key_of(each.suspect): each for each in kept}

    def admit(self, event: Event) -> Event:
        """What is to be taken for `event`; what is news of its object ends the quarantine."""
        kept = self.kept.get(key_of(event)) if self.kept else None
        if kept is None:
            return event
        if event == kept.suspect:
            return kept.stand_in
        del self.kept[key_of(event)]
        return event

    @property
    def pods(self) -> set[str]:
        """The keys of the pods that are known by their addresses only."""
        return {each.stand_in.key for each in self.kept.values() if isinstance(each.stand_in, Pod)}


def key_of(event: Event) -> Key:
    if isinstance(event, Deleted):
        return event.kind, event.namespace, event.name
    return type(event).__name__, getattr(event, "namespace", ""), event.name


def closed(suspect: Suspect, node: str) -> Kept:
    """With a stand-in that closes no more than it has to."""
    if isinstance(suspect, NetworkPolicy):
        return Kept(suspect, replace(suspect, isolates=DIRECTIONS, ingress=(), egress=()))
    if suspect.node == node and suspect.selectable:
        return Kept(suspect, replace(suspect, labels={}, ports=()))
    return shut(suspect, node)


def shut(suspect: Suspect, _node: str) -> Kept:
    """With a stand-in of which next to nothing is read."""
    if isinstance(suspect, NetworkPolicy):
        return Kept(suspect, NetworkPolicy(suspect.namespace, suspect.name, EVERYTHING, DIRECTIONS))
    return Kept(suspect, Deleted("Pod", suspect.namespace, suspect.name))


class Search:
    """Finds the objects that are to be kept for the rest to go on. `goes_on` tries that, without touching anything;
    `given_up` is asked before each try."""

    def __init__(self, node: str, goes_on: Callable[[Quarantine], bool], given_up: Callable[[], bool]) -> None:
        self._node = node
        self._goes_on = goes_on
        self._given_up = given_up

    def among(self, *suspects: Sequence[Suspect], known: Iterable[Kept] = ()) -> list[Kept]:
        """Looks among the first suspects, then among the next; those already `known` stay. None are found where no
        object is the cause."""
        before = list(known)
        if self._passes(before):
            return []
        for close in (closed, shut):
            for group in suspects:
                kept = [close(each, self._node) for each in group]
                if self._passes([*before, *kept]):
                    found = self._narrowed(kept, before)
                    return found if len(found) <= _MOST else []
        return []

    def _narrowed(self, suspects: list[Kept], held: list[Kept]) -> list[Kept]:
        """Those of `suspects` that are needed, where all of them with `held` are enough."""
        if self._passes(held):
            return []
        if len(suspects) <= 1 or self._given_up():
            return suspects
        middle = len(suspects) // 2
        first = self._narrowed(suspects[:middle], [*held, *suspects[middle:]])
        return [*first, *self._narrowed(suspects[middle:], [*held, *first])]

    def _passes(self, kept: Iterable[Kept]) -> bool:
        return not self._given_up() and self._goes_on(Quarantine(kept))
