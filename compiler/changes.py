"""What happens to objects, and what it changes: events in, changes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from compiler.allowset import AllowSet
from compiler.peers import Member, Source
from policy.model import Direction, Namespace, NetworkPolicy, Pod

Kind = Literal["Namespace", "Pod", "NetworkPolicy"]


class Deleted(Struct, frozen=True, gc=False):
    """An object is gone. `namespace` is "" for a Namespace."""

    kind: Kind
    namespace: str
    name: str


# An object stands for itself: it is there now, and looks like this.
Event = Namespace | Pod | NetworkPolicy | Deleted
Subject = tuple[str, Direction]


class SubjectChange(Struct, frozen=True, gc=False):
    """A pod's allow-set in one direction. None: it was, or is, no subject: not there, finished, or without address."""

    old: AllowSet | None
    new: AllowSet | None


class MemberChange(Struct, frozen=True, gc=False):
    """Members that came to one source, and those that left it; never the same one in both."""

    joined: frozenset[Member]
    left: frozenset[Member]


class Changes(Struct, frozen=True, gc=False):
    """The difference between two states, whatever lay between them; nothing that is the same in both is in it.

    `subjects` by pod key and direction. `members` by source: a source that came into use is there with all of its
    members, be they none. `released` are the sources that nobody uses any more, whose members are not listed."""

    subjects: Mapping[Subject, SubjectChange]
    members: Mapping[Source, MemberChange]
    released: frozenset[Source]


def pod_key(event: Event) -> str:
    """Of the pod that it is about; "" where it is about none."""
    if isinstance(event, Pod):
        return event.key
    return f"{event.namespace}/{event.name}" if isinstance(event, Deleted) and event.kind == "Pod" else ""
