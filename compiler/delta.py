"""The difference that a batch made to members: what addresses were members of, against what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from compiler.changes import MemberChange
from compiler.classes import Membership
from compiler.peers import Member, PeerSet, Source
from policy.cidr import Address

NO_MEMBERS: frozenset[Member] = frozenset()
# Plain members that made the same move, under the sources that they were in and those that they are in.
_Moves = dict[tuple[frozenset[PeerSet], frozenset[PeerSet]], list[Member]]


def member_changes(
    before: dict[Address, Membership], now: Callable[[Address], Membership], released: frozenset[Source]
) -> dict[Source, MemberChange]:
    """Who joined and who left which source, those `released` left out."""
    moves: _Moves = {}
    named: list[tuple[Membership, Membership]] = []
    for address, was in before.items():
        is_now = now(address)
        if was.plain is not is_now.plain:
            moves.setdefault((was.plain, is_now.plain), []).append((address, None, 0))
        if was.named or is_now.named:
            named.append((was, is_now))
    if len(moves) > 1 or named:
        return _summed(moves, named, released)
    changed: dict[Source, MemberChange] = {}
    for (was_in, is_in), moved in moves.items():
        # One pod, mostly, which may join and leave thousands: they share what they are told.
        members = frozenset(moved)
        if came := is_in - was_in:
            changed.update(dict.fromkeys(came, MemberChange(members, NO_MEMBERS)))
        if went := was_in - is_in - released:
            changed.update(dict.fromkeys(went, MemberChange(NO_MEMBERS, members)))
    return changed


def _summed(
    moves: _Moves, named: Iterable[tuple[Membership, Membership]], released: frozenset[Source]
) -> dict[Source, MemberChange]:
    joined: dict[Source, list[Member]] = {}
    left: dict[Source, list[Member]] = {}
    for (was_in, is_in), moved in moves.items():
        for peers in is_in - was_in:
            joined.setdefault(peers, []).extend(moved)
        for peers in was_in - is_in:
            left.setdefault(peers, []).extend(moved)
    for was, now in named:
        for source, member in now.named - was.named:
            joined.setdefault(source, []).append(member)
        for source, member in was.named - now.named:
            left.setdefault(source, []).append(member)
    return {
        source: MemberChange(frozenset(joined.get(source, ())), frozenset(left.get(source, ())))
        for source in {**joined, **left}
        if source not in released
    }
