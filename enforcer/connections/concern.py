"""Which existing flows a batch of changes may decide otherwise than before. Pure.

A flow's verdict can change only where one of its ends is a pod with another allow-set, or came to or left a source
that some allow-set uses. What joins can only allow more, and what leaves only less: an allow-set grants, and never
takes away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from compiler.changes import Changes, Deleted, Event, MemberChange
from compiler.compile import State
from compiler.peers import EVERY_POD, Source
from enforcer.rules.view import NodeView
from policy.cidr import Address
from policy.model import Pod

# Which pod has an address: its UID, or its key where it has none; "" where several claim it.
Owners = Mapping[Address, str]
# So many addresses are as good as all of them.
_MANY = 1 << 16


class Concern(Struct, frozen=True):
    """Flows with one of `ends`, or with `everything` all flows, may be forbidden now; with `restores` some that had
    ended may go on. Flows of the `former` addresses belong to an owner that is gone."""

    ends: frozenset[Address] = frozenset()
    everything: bool = False
    restores: bool = False
    former: frozenset[Address] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.ends or self.everything or self.restores or self.former)

    def joined(self, other: Concern) -> Concern:
        """Both at once: what waits is as large as the cluster at most, however much happened."""
        ends = self.ends | other.ends
        return Concern(
            ends if len(ends) <= _MANY else frozenset(),
            self.everything or other.everything or len(ends) > _MANY,
            self.restores or other.restores,
            self.former | other.former,
        )


NOTHING = Concern()


def concern(changes: Changes, local: Mapping[str, Pod], also: Iterable[str] = ()) -> Concern:
    """What follows from `changes` of the index, with the node's pods of now by key; `also` are the keys of pods that
    are treated in another way now: they got an interface, or another mode."""
    keys = {key for key, _ in changes.subjects} | set(also)
    members = deciding(changes).values()
    left = {address for change in members for address, _, _ in change.left}
    joined = any(change.joined for change in members)
    ends = {address for key in keys if key in local for address in local[key].addresses}
    return Concern(frozenset(ends | left), restores=bool(keys) or joined)


def deciding(changes: Changes) -> dict[Source, MemberChange]:
    """The changes of members that may change a verdict."""
    return {source: change for source, change in changes.members.items() if source != EVERY_POD}


def treated_otherwise(before: NodeView | None, now: NodeView, local: Mapping[str, Pod]) -> set[str]:
    """The pods that another interface leads to than before, or all of them where the node's mode is another."""
    if before is None or before.mode != now.mode:
        return set(local)
    return {key for key in local if before.veths.get(key) != now.veths.get(key)}


def went_abroad(before: NodeView | None, now: NodeView) -> Concern:
    """The flows of addresses of the node's blocks that other nodes' pods have got, or have no more."""
    moved = before.abroad ^ now.abroad if before else frozenset()
    return Concern(moved, restores=bool(moved))


def touched(state: State, events: Iterable[Event]) -> frozenset[Address]:
    """The addresses of the pods that `events` are about: those that they have in `state`, which is still the one before
    the events, and those that they get."""
    found: set[Address] = set()
    for event in events:
        if isinstance(event, Pod):
            found.update(event.addresses)
        elif not (isinstance(event, Deleted) and event.kind == "Pod"):
            continue
        old = state.pods.get(f"{event.namespace}/{event.name}")
        if old:
            found.update(old.addresses)
    return frozenset(found)


def owners_of(local: Collection[Pod], state: State) -> dict[Address, str]:
    """Of all addresses of the node's pods; one that a pod elsewhere has is none of theirs."""
    keys = {pod.key for pod in local}
    holders = {address: state.pod_at(address) for pod in local for address in pod.addresses}
    return {
        address: (holder.uid or holder.key) if holder and holder.key in keys else ""
        for address, holder in holders.items()
    }


def settled(before: Owners, now: Owners) -> dict[Address, str]:
    """`now`; while several claim an address, the owner that was known last is still the last that is known."""
    return {address: owner or before.get(address, "") for address, owner in now.items()}


def former(before: Owners, now: Owners) -> frozenset[Address]:
    """The addresses that had another owner before, where it is known who that was, or that nobody has any more."""
    return frozenset(a for a, owner in before.items() if (owner and owner != now.get(a)) or a not in now)


def gained(before: Owners, now: Owners) -> frozenset[Address]:
    """The addresses that got an owner, another one, or several."""
    return frozenset(address for address, owner in now.items() if owner != before.get(address))
