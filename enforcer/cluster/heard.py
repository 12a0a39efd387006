"""What was heard of the cluster, and how it differs from what was heard before: messages in, changes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from compiler.changes import Deleted, Event
from enforcer.cluster.news import Changed, Finding, Gone, Key, Kind, Listed, News, Object, OwnNode, Recovered, Trouble
from policy.model import Namespace

KINDS: tuple[Kind, ...] = ("Namespace", "NetworkPolicy", "Pod", "Node")
# By namespace, then by name: both are the objects' own texts, so that a hundred thousand keys cost no text more.
_Known = dict[str, dict[str, Object]]


class Heard:
    """Everything known of `kinds`, and nothing else: whoever was given all events of `take`, in their order, knows the
    same. There are none before every kind has been listed; a list is a difference, never a gap.

    An object that could not be read stays as it was. `findings` are those of present objects, by kind and key."""

    def __init__(self, kinds: Iterable[Kind] = KINDS) -> None:
        self._known: dict[Kind, _Known] = {kind: {} for kind in kinds}
        self._unlisted = set(self._known)
        self.findings: dict[Kind, dict[Key | None, Finding]] = {kind: {} for kind in self._known}
        self.troubles: dict[Kind, Trouble] = {}

    @property
    def synced(self) -> bool:
        return not self._unlisted

    @property
    def waits_for(self) -> tuple[Kind, ...]:
        """The kinds that have not been listed yet."""
        return tuple(kind for kind in self._known if kind in self._unlisted)

    @property
    def node(self) -> OwnNode | None:
        return next((found for found in self.objects("Node") if isinstance(found, OwnNode)), None)

    def knows(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether there is such an object; any thread may ask."""
        return name in self._known.get(kind, {}).get(namespace, {})

    def objects(self, kind: Kind) -> Iterator[Object]:
        for named in self._known.get(kind, {}).values():
            yield from named.values()

    def take(self, message: News) -> list[Event]:
        """What `message` changes. With the one that completes the first sync, all that is known."""
        events: list[Event] = []
        if isinstance(message, Changed):  # nearly always
            self._changed(message, events)
            return [] if self._unlisted else events
        was_synced = self.synced
        match message:
            case Listed():
                self._unlisted.discard(message.kind)
                self._listed(message, events)
            case Trouble():
                self.troubles[message.kind] = message
            case Recovered():
                self.troubles.pop(message.kind, None)
        if was_synced:
            return events
        return list(self.everything()) if self.synced else []

    def everything(self) -> Iterator[Event]:
        """All that is known, as events: Namespaces first, as an index likes them."""
        kinds: tuple[Kind, ...] = ("Namespace", "NetworkPolicy", "Pod")
        for kind in kinds:
            yield from cast("Iterator[Event]", self.objects(kind))

    def _listed(self, message: Listed, events: list[Event]) -> None:
        kind, known = message.kind, self._known[message.kind]
        present: dict[str, set[str]] = {}
        for found in message.objects:
            space = _space(kind, found)
            present.setdefault(space, set()).add(found.name)
            self._put(kind, space, found, events)
        kept = {finding.key for finding in message.findings if finding.kept}
        if None not in kept:  # else nobody knows which one that is
            for space, named in [*known.items()]:
                there = present.get(space, set())
                for name in [name for name in named if name not in there]:
                    if not kept or Key(space, name) not in kept:
                        self._drop(kind, space, name, events)
        self.findings[kind] = {finding.key: finding for finding in message.findings}

    def _changed(self, message: Changed, events: list[Event]) -> None:
        kind, event, findings = message.kind, message.event, self.findings[message.kind]
        if isinstance(event, Gone):
            space, name = event.key.namespace, event.key.name
            known = self._known[kind].get(space, {}).get(name)
            held = getattr(known, "uid", "")
            # The end of an earlier object of that name, heard late; but one that could not be read may be newer.
            if held and event.uid and held != event.uid and event.key not in findings:
                return
            findings.pop(event.key, None)
            self._drop(kind, space, name, events)
        elif event is not None:
            space = _space(kind, event)
            if findings:
                findings.pop(Key(space, event.name), None)
            self._put(kind, space, event, events)
        # What has no name is news, but nothing of now: the watch hears again what it may have missed.
        if message.finding and message.finding.key:
            findings[message.finding.key] = message.finding

    def _put(self, kind: Kind, space: str, found: Object, events: list[Event]) -> None:
        named = self._known[kind].setdefault(space, {})
        if named.get(found.name) != found:
            # Taken out first, so that the key is the new object's text and the old one can go.
            named.pop(found.name, None)
            named[found.name] = found
            if kind != "Node" and not isinstance(found, OwnNode):
                events.append(found)

    def _drop(self, kind: Kind, space: str, name: str, events: list[Event]) -> None:
        named = self._known[kind].get(space, {})
        if named.pop(name, None) is None:
            return
        if not named:
            del self._known[kind][space]
        if kind != "Node":
            # Said of a Namespace, it takes back what was declared of it; its objects have ends of their own.
            events.append(Deleted(kind, space, name))


def _space(kind: Kind, found: Object) -> str:
    return "" if kind == "Namespace" or isinstance(found, Namespace) else found.namespace
