"""Existing flows of a running node: what changes forbid is ended, beside the thread that owns index and rules.

    loop     hand_over(owners) ─► rules in force ─► tell(concern, moment) ─┐
                  ▲ keep these addresses closed                            ▼ merged with what waits
    ender         └──────────── purged ◄── former owners' flows ◄── one run at a time ─► marks

An address that goes to another pod stays closed until the flows of its former owner are gone: after that every flow
of the address is its new owner's, and none of them is touched. Those flows are forgotten and not marked: each packet
of theirs is then judged as that of a new flow, by the rules of the new owner.

A node's first sync ends nothing. What was forbidden by then is spared until it ends by itself, or a change concerns
one of its ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from compiler.compile import State
from enforcer.connections.concern import NOTHING, Concern, Owners, former, gained, settled
from enforcer.connections.gate import Gate
from enforcer.connections.remembered import Memory, Remembered
from enforcer.connections.revocation import Edges, Judge
from enforcer.kernel import conntrack
from enforcer.kernel.conntrack_wire import Identity, packed
from enforcer.rules.layout import NodeView
from enforcer.steady import steady
from policy.cidr import Address
from policy.errors import HostRefused
from policy.model import Pod

Stage = Literal["purged", "ended", "restored"]
_EVERYTHING = Concern(everything=True, restores=True)
_RETRY = 1.0


class Moment(Struct, frozen=True):
    """The node as its rules have it now. `local` are its pods (see `layout.local_pods`), `own` its addresses;
    `enforced`: whether the policies of a pod end its flows, which they don't where they are only audited."""

    node: NodeView
    local: tuple[Pod, ...]
    own: frozenset[Address]
    enforced: Callable[[Pod], bool] = lambda _: True


class Counts(Struct, frozen=True):
    """Since the start: flows `ended` and `restored`, those of former owners that were `forgotten`, bits that somebody
    else had cleared (`lost`, among the ended), and runs that failed and were tried again. `spared` is how many the
    first sync spared, that no change concerned since; `last` is when the last run ended, None before the first."""

    runs: int = 0
    ended: int = 0
    restored: int = 0
    forgotten: int = 0
    lost: int = 0
    failures: int = 0
    spared: int = 0
    last: float | None = None


class Ender:
    """Every change that was told of is judged once more after it was told; what waits is one concern, however much was
    told meanwhile. `state` is changed by another thread, inside `gate.changing()`.

    `period`: how often all flows are looked at for bits that somebody else changed, in seconds, 0 for never. `observe`
    learns when each stage of a run was done, in seconds since the run began. `purged` is called when addresses need not
    be closed any more, `complain` gets one line where a run failed. `end=False` leaves flows be, but lets those that
    had ended go on."""

    def __init__(
        self,
        state: State,
        gate: Gate,
        memory: Memory,
        table: conntrack.Table = conntrack,
        end: bool = True,
        period: float = 60.0,
        observe: Callable[[Stage, float], None] = lambda *_: None,
        purged: Callable[[], None] = lambda: None,
        complain: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._gate = gate
        self._memory = memory
        self._table = table
        self._end = end
        self._period = period
        self._observe = observe
        self._purged = purged
        self._complain = complain
        self._clock = clock
        self._edges = Edges()
        self._changed = threading.Condition()
        self._known = memory.load()
        self._owners: Owners = {}
        self._gained = frozenset[Address]()
        self._first = self._known is None
        self._spared = frozenset[Identity]() if self._first else memory.load_spared()
        self._waiting = NOTHING
        self._moment: Moment | None = None
        self._old_marks: frozenset[int] = frozenset()
        self._look_again = 0.0
        self._not_before = 0.0
        self._counts = Counts(spared=len(self._spared))
        self._stopping = False

    @property
    def counts(self) -> Counts:
        return self._counts

    def hand_over(self, owners: Owners) -> frozenset[Address]:
        """To be called before rules are changed to those for `owners`: which addresses these must keep closed, since
        flows of another owner may still be there."""
        with self._changed:
            # Where nothing is known, nobody knows whose flows there are.
            known = self._known or Remembered({})
            now = settled(known.owners, owners)
            unpurged = known.unpurged | former(known.owners, now) if self._end else known.unpurged
            if self._known is None or unpurged != known.unpurged or now != known.owners:
                self._keep(Remembered(now, unpurged))
            self._gained |= gained(self._owners, owners)
            self._owners = owners
            return unpurged

    def begin(self, moment: Moment, old_marks: Iterable[int] = ()) -> None:
        """The rules of the first batch are in force. `old_marks`: bits that an earlier podfence used for this."""
        self._old_marks = frozenset(old_marks) - {moment.node.mark}
        # That an agent starts is no change that concerns a pod.
        self._gained = frozenset()
        self.tell(_EVERYTHING, moment)

    def tell(self, change: Concern, moment: Moment) -> None:
        """The rules of a batch are in force. Returns at once."""
        with self._changed:
            self._moment = moment
            unpurged = self._known.unpurged if self._known else frozenset[Address]()
            more = Concern(self._gained, restores=bool(self._gained), former=unpurged)
            self._waiting = self._waiting.joined(change).joined(more)
            self._gained = frozenset()
            self._changed.notify()

    def start(self) -> threading.Thread:
        """A thread that works until `stop`; it uses the network namespace of the one that calls."""
        thread = steady(self._run, "flows", self._complain)
        thread.start()
        return thread

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def work(self) -> bool:
        """One run, if there is something to do now; whether there was."""
        with self._changed:
            waiting, moment = self._waiting, self._moment
            looks = moment is not None and not waiting and self._period > 0 and self._look_again <= self._clock()
            if moment is None or not (waiting or looks) or self._clock() < self._not_before:
                return False
            self._waiting = NOTHING
        began = self._clock()
        try:
            self._settle(_EVERYTHING if looks else waiting, moment, looks, began)
        except Exception as error:
            # Whatever it was, flows are to end all the same, and the thread that sees to it must not.
            with self._changed:
                self._waiting = waiting.joined(self._waiting)
                self._not_before = self._clock() + _RETRY
            self._count(failures=1)
            what = str(error) if isinstance(error, HostRefused) else f"{type(error).__name__}: {error}"
            self._complain(f"existing flows: {what}; tried again in {_RETRY:g} s")
            return True
        now = self._clock()
        if looks or waiting.everything:
            self._look_again = now + self._period
        self._counts = replace(self._counts, runs=self._counts.runs + 1, last=now)
        return True

    def _run(self) -> None:
        while True:
            if not self.work():
                with self._changed:
                    if self._stopping:
                        return
                    self._changed.wait(self._idle())
            if self._stopping:
                return

    def _idle(self) -> float | None:
        """Seconds until there may be work without being told."""
        now = self._clock()
        if self._waiting and self._moment:
            return max(0.0, self._not_before - now)
        if self._moment is None or not self._period:
            return None
        return max(0.0, self._look_again - now, self._not_before - now)

    def _settle(self, change: Concern, moment: Moment, looks: bool, began: float) -> None:
        mark = moment.node.mark
        for old in self._old_marks:
            self._table.forget(old)
        self._old_marks = frozenset()
        if change.former and self._end:
            self._purge(change.former, moment)
            self._observe("purged", self._clock() - began)
        judge = Judge(
            self._state,
            moment.node,
            moment.local,
            moment.own,
            enforced=moment.enforced,
            gate=self._gate,
            edges=self._edges,
        )
        if self._first:
            self._spare(self._table.forbidden(judge, mark) if self._end else ())
        elif self._end and (change.everything or change.ends):
            ended = self._end_some(judge, mark, change.ends) if change.ends else 0
            ended += self._end_all(judge, mark) if change.everything else 0
            self._count(ended=ended, lost=ended if looks else 0)
            self._observe("ended", self._clock() - began)
        if change.restores:
            self._count(restored=self._table.write(mark, False, self._table.pardoned(judge, mark)))
            self._observe("restored", self._clock() - began)

    def _purge(self, addresses: frozenset[Address], moment: Moment) -> None:
        """Forgets the flows of former owners, those that the node made excepted."""
        own = frozenset(map(packed, moment.own))
        self._count(forgotten=self._table.delete(self._table.with_ends(lambda flow: flow.src not in own, addresses)))
        with self._changed:
            assert self._known is not None
            self._keep(replace(self._known, unpurged=self._known.unpurged - addresses))
        self._purged()

    def _keep(self, known: Remembered) -> None:
        self._known = known
        if not self._first:
            self._save(known)

    def _spare(self, found: Sequence[Identity]) -> None:
        """The first sync is over once the owners are kept."""
        self._keep_spared(frozenset(found))
        with self._changed:
            self._first = False
            self._save(self._known or Remembered({}))

    def _end_all(self, judge: Judge, mark: int) -> int:
        """A look at everything spares what the first sync did."""
        found = self._table.forbidden(judge, mark)
        return self._table.write(mark, True, [flow for flow in found if flow not in self._spared])

    def _end_some(self, judge: Judge, mark: int, ends: frozenset[Address]) -> int:
        """A change that concerns a flow's end does not spare it, nor is it spared from then on."""
        found = self._table.forbidden(judge, mark, ends)
        if not self._spared.isdisjoint(found):
            self._keep_spared(self._spared.difference(found))
        return self._table.write(mark, True, found)

    def _keep_spared(self, spared: frozenset[Identity]) -> None:
        self._spared = spared
        self._counts = replace(self._counts, spared=len(spared))
        try:
            self._memory.save_spared(spared)
        except HostRefused as error:
            self._complain(f"existing flows: {error}; the next start may end some that were spared")

    def _save(self, known: Remembered) -> None:
        """Only the next start will miss it."""
        try:
            self._memory.save(known)
        except HostRefused as error:
            self._complain(f"existing flows: {error}; the next start will not know of former owners")

    def _count(self, **more: int) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + n for name, n in more.items()})
