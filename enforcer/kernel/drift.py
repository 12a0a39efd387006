"""Noticing that somebody changed what we installed, cheaply enough to ask five times a second.

- nft: the ruleset's generation, which every transaction of anybody raises (NFT_MSG_GETGEN). Nothing is missed; others'
  changes are noticed too.
- legacy: the kernel counts no generations. Number, size and hook offsets of the entries (IPT_SO_GET_INFO) tell at once
  of what comes and goes; what leaves them as they were, such as two rules swapped, takes a look at the entries. Where
  INPUT and FORWARD lead first is looked at sooner, and no change of our own is in the way of that.
- sets: the kernel tells nobody of a change. Heads tell of members that come or go; a member exchanged for another takes
  a look at the members. The kernel counts a set's members each time that it is asked for its head.

So each look has a pace: no sooner than its period, and no more often than costs a two-hundredth of a processor's time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from struct import Struct as Layout
from types import TracebackType
from typing import Self

from msgspec import Struct

from enforcer.kernel.backend import Backend
from enforcer.kernel.ipset_answer import NLMSG_DONE, NLMSG_ERROR, Answer, answers, attributes
from enforcer.kernel.ipset_wire import (
    A_DATA,
    A_SETNAME,
    D_FLAGS,
    FLAG_COUNTERS,
    NETWORK_ORDER,
    NLM_DUMP,
    NLM_REQUEST,
    OUR_PROTOCOLS,
    Command,
    attribute,
    request,
)
from enforcer.kernel.legacy_tables import LegacyTables, entries_in
from enforcer.rules.names import SET_PREFIX
from policy.cidr import Family
from policy.errors import HostRefused

SLOW = 1.0  # seconds
SHARE = 0.005
_RECEIVE = 1 << 17
_NETLINK_NETFILTER = 12
_GENERATION_ASKED = (10 << 8) | 16
_GENERATION_ID = 1
_MESSAGE = Layout("=IHHIIBBH")
_A_FLAGS, _HEADS_ONLY = 6, 1 << 2


class Wrote(Struct, frozen=True):
    """What a change of our own does to the filter tables: so many transactions, and so many more entries of each
    family, as legacy tables count them (a rule is one, a chain two). `entries` is empty where that is not known."""

    transactions: int = 0
    entries: Mapping[Family, int] = {}


class _Look:
    """Something that is looked at, and what was seen; None where the next look only begins anew."""

    def __init__(
        self,
        read: Callable[[], list[bytes]],
        period: float,
        costly: bool,
        clock: Callable[[], float],
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """`spent` is the time that this thread had a processor: to have waited for one costs nobody anything."""
        self._read = read
        self._period = period
        self._clock = clock
        self._spent = spent
        self.seen: list[bytes] | None = None
        self.costly = costly
        self.take()

    def take(self) -> list[bytes]:
        began, spent = self._clock(), self._spent()
        found = self.seen = self._read()
        self._due = max(began + self._period, self._clock() + (self._spent() - spent) / SHARE)
        return found

    def forget(self) -> None:
        self.seen = None

    def changed(self) -> bool:
        """False, too, where it is too early to look."""
        if self._clock() < self._due:
            return False
        before = self.seen
        return self.take() != before and before is not None


class Watch:
    """Watches the filter tables of one backend, and our sets, in the network namespace that it is made in.

    What there is when it is made, at `look`, and when `changed` says so, is what later calls compare with. HostRefused
    where the kernel can't be asked."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._tables = LegacyTables(backend.families)
        self._families = backend.families
        if backend.mode == "nft":
            looks = [(self._generation, 0.0, False)]
        else:
            looks = [(self._tables.sizes, 0.0, False), (self._tables.entries, SLOW, True)]
        looks += [(self._heads, 0.0, True), (self._members, SLOW, True)]
        self._counts_transactions = backend.mode == "nft"
        self._others = False
        self._looks = [_Look(read, period, costly, clock) for read, period, costly in looks]
        # What changes of our own leave as it is.
        self._steady = [_Look(self._tables.first_jumps, 0.0, True, clock)] if backend.mode == "legacy" else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._netlink.close()
        self._tables.close()

    def look(self) -> None:
        """Takes what there is now as seen, as after a change of our own."""
        for look in (*self._looks, *self._steady):
            look.take()

    def ours(self, wrote: Wrote | None = None) -> None:
        """As `look`, at a cost that does not grow with what there is: what takes long is looked at when it is due next,
        and what somebody else does to it until then is not told from our own change. To the tables something else was
        done, too, where they are not what they were and what we `wrote`: then they have `changed`."""
        for look in self._looks:
            if look.costly:
                look.forget()
                continue
            before, now = look.seen, look.take()
            self._others |= wrote is not None and before is not None and not self._adds_up(before, now, wrote)

    def _adds_up(self, before: list[bytes], now: list[bytes], wrote: Wrote) -> bool:
        if self._counts_transactions:
            count = int.from_bytes(now[0], "big") - int.from_bytes(before[0], "big")
            return count % (1 << 32) == wrote.transactions
        return all(
            entries_in(its_now) - entries_in(its_before) == wrote.entries.get(family, 0)
            for family, its_before, its_now in zip(self._families, before, now, strict=True)
        )

    def changed(self) -> bool:
        """Whether somebody changed anything, as far as it is time to look."""
        others, self._others = self._others, False
        if not (others or any(look.changed() for look in (*self._looks, *self._steady))):
            return False
        self.look()
        return True

    def _heads(self) -> list[bytes]:
        return [self._sets(attribute(_A_FLAGS | NETWORK_ORDER, _HEADS_ONLY.to_bytes(4, "big")))]

    def _members(self) -> list[bytes]:
        return [self._sets(b"")]

    def _generation(self) -> list[bytes]:
        asked = _MESSAGE.pack(_MESSAGE.size, _GENERATION_ASKED, NLM_REQUEST, 1, 0, 0, 0, 0)
        for answer in self._ask(asked, dump=False):
            return [answer.attributes[_GENERATION_ID]]
        raise HostRefused("nf_tables did not say its generation")

    def _sets(self, body: bytes) -> bytes:
        """A digest of our sets, of heads only where `body` says so. Members that count are left out: they decide
        nothing, and change with every packet."""
        state = blake2b(digest_size=16)
        counting = b""
        for answer in self._ask(request(Command.LIST, 1, min(OUR_PROTOCOLS), NLM_DUMP, body), dump=True):
            found = answer.attributes
            name = found.get(A_SETNAME, b"")
            if not name.startswith(SET_PREFIX.encode()):
                continue
            if A_DATA in found and _counts(found[A_DATA]):
                counting = name
            if name != counting or body:
                state.update(answer.data[answer.start : answer.end])
        return state.digest()

    def _ask(self, asked: bytes, dump: bool) -> Iterator[Answer]:
        try:
            self._netlink.send(asked)
            while True:
                for answer in answers(self._netlink.recv(_RECEIVE)):
                    if answer.kind == NLMSG_ERROR and answer.error:
                        raise HostRefused(f"netfilter netlink: {os.strerror(answer.error)}")
                    if answer.kind in (NLMSG_ERROR, NLMSG_DONE):
                        return
                    yield answer
                if not dump:
                    return
        except OSError as error:
            raise HostRefused(f"netfilter netlink: {error.strerror}") from None


def _counts(head: bytes) -> bool:
    for kind, start, end in attributes(head, 0, len(head)):
        if kind == D_FLAGS:
            return bool(int.from_bytes(head[start:end], "big") & FLAG_COUNTERS)
    return False
